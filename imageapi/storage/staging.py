"""Files on their way in: written once, hashed as they come, gone unless a storage took them."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import queue
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from imageapi.errors import PayloadTooLarge, StorageCorrupt
from imageapi.storage.backend import Staged
from imageapi.storage.disk import disk_errors, opened, write_all

_LIBC = ctypes.CDLL(None)


class Staging:
    """Takes in one file, as a context manager; at the end of the block it is removed if left.

    Args:
        folder: the backend's staging folder.
        limit: how many bytes it may have at most; None: any number.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._limit = limit
        self._length = 0
        self._md5 = _MD5()
        self._sha256 = hashlib.sha256()
        self._path = folder / str(uuid.uuid4())
        self._stack = contextlib.ExitStack()
        with disk_errors(), contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(opened(folder, os.O_RDONLY | os.O_DIRECTORY))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._fd = stack.enter_context(opened(self._path.name, flags, dir_fd=self._folder))
            stack.callback(self._md5.close)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Gone when a storage took it; what can not be removed now, `collect` removes later.
        with self._stack, contextlib.suppress(OSError):
            os.unlink(self._path.name, dir_fd=self._folder)

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes; 256 KiB at a time is a good size.

        Raises:
            PayloadTooLarge: more than the limit.
            StorageFull: no space.
        """
        self._length += len(chunk)
        if self._limit is not None and self._length > self._limit:
            raise PayloadTooLarge(f"The file is larger than the limit of {self._limit} bytes.")
        self._md5.update(chunk)
        with disk_errors():
            write_all(self._fd, chunk)
        with contextlib.suppress(OSError):  # advice: what matters is told by the sync
            # The disk begins with these bytes now, so that the sync has little left to wait for.
            place = self._length - len(chunk)
            os.posix_fadvise(self._fd, place, len(chunk), os.POSIX_FADV_DONTNEED)
        self._sha256.update(chunk)

    def finish(self) -> Staged:
        """No more bytes: what was taken in, with format and size still unknown.

        Raises:
            StorageCorrupt: the file on disk has another length.
        """
        with disk_errors():
            status = os.fstat(self._fd)
        if status.st_size != self._length:
            raise StorageCorrupt
        return Staged(
            path=self._path,
            length=self._length,
            md5=self._md5.hexdigest(),
            sha256=self._sha256.hexdigest(),
            changed=status.st_ctime_ns,
        )


class _MD5:
    """An MD5 that a thread computes beside the writing: it takes as long as all else together.

    One chunk alone needs no thread: most files that are small have no other. The thread keeps off the
    core of the one that writes: Linux wakes a thread where the one runs that it waited for, and on
    two busy cores they would share that core while the other one idles.
    """

    _AHEAD = 2
    """Chunks that wait at most, so that a slow thread costs no memory."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self._chunks: queue.Queue[bytes] = queue.Queue(self._AHEAD)
        self._first = b""
        self._thread: threading.Thread | None = None

    def update(self, chunk: bytes) -> None:
        if not chunk:  # which is the end
            return
        if not self._first:
            self._first = chunk
            return
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=[_LIBC.sched_getcpu()], name="md5", daemon=True
            )
            self._thread.start()
        self._chunks.put(chunk)

    def hexdigest(self) -> str:
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread, when it has taken all chunks."""
        if self._thread is not None:
            self._chunks.put(b"")
            self._thread.join()
            self._thread = None
        elif self._first:
            self._hash.update(self._first)
        self._first = b""

    def _run(self, taken: int) -> None:
        if others := os.sched_getaffinity(0) - {taken}:
            with contextlib.suppress(OSError):  # a matter of speed alone
                os.sched_setaffinity(0, others)
        self._hash.update(self._first)
        while chunk := self._chunks.get():
            self._hash.update(chunk)
