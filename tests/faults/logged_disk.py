"""A disk that keeps a log: a FUSE file system with a device file, run as a process of its own.

`python -m tests.faults.logged_disk MOUNT IMAGE LOG` serves two files: `disk`, which starts as a copy
of IMAGE and stays in memory, and `acks`, whose every write is an acknowledgement. LOG receives each
write to the disk, each flush of it (fsync: what a device's cache is told before it may promise
anything), and each acknowledgement.

One thread serves all, so that the log is the order: a request is in it before it is answered.
"""

from __future__ import annotations

import errno
import stat
import sys
from pathlib import Path
from typing import Any

import mfusepy

from tests.faults import block_log


class Disk(mfusepy.Operations):
    """The file system: `disk` and `acks`.

    Args:
        image: what the disk holds at first.
        log: receives the events.
    """

    use_ns = True

    def __init__(self, image: Path, log: Path) -> None:
        self._data = bytearray(image.read_bytes())
        self._log = log.open("wb")

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path not in ("/disk", "/acks"):
            raise mfusepy.FuseOSError(errno.ENOENT)
        size = len(self._data) if path == "/disk" else 0
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

    def open(self, path: str, fi: Any) -> int:
        fi.direct_io = 1  # nothing waits in this file's own page cache
        return 0

    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        return 0

    def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
        return bytes(self._data[offset : offset + size]) if path == "/disk" else b""

    def write(self, path: str, data: bytes, offset: int, fh: Any) -> int:
        if path == "/acks":
            self._note(b"A", 0, data)
        else:
            self._note(b"W", offset, data)
            self._data[offset : offset + len(data)] = data
        return len(data)

    def fsync(self, path: str, datasync: int, fh: Any) -> int:
        if path == "/disk":
            self._note(b"F", 0, b"")
        return 0

    def destroy(self, path: str) -> None:
        self._log.close()

    def _note(self, kind: bytes, offset: int, data: bytes) -> None:
        self._log.write(block_log.packed(kind, offset, data))


def serve(mount: str, image: str, log: str) -> None:
    """Serve until unmounted."""
    disk = Disk(Path(image), Path(log))
    mfusepy.FUSE(disk, mount, foreground=True, nothreads=True, raw_fi=True, fsname="block-log")


if __name__ == "__main__":
    serve(*sys.argv[1:])
