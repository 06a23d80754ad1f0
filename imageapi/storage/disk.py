"""Local files for backends and staging: what `OSError`s mean, and folders that no link redirects."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from imageapi.errors import (
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)

_MEANING: dict[int, type[StorageError]] = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EFBIG: StorageFull,
    errno.EACCES: StorageDenied,
    errno.EPERM: StorageDenied,
    errno.EROFS: StorageDenied,
    errno.ENOENT: StorageNotFound,
    errno.ELOOP: StorageCorrupt,  # a link where a file or folder of ours should be
    errno.ENOTDIR: StorageCorrupt,
    errno.EISDIR: StorageCorrupt,
    errno.EMFILE: StorageUnavailable,
    errno.ENFILE: StorageUnavailable,
    errno.ENOMEM: StorageUnavailable,
    errno.ETIMEDOUT: StorageUnavailable,
}


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an `OSError` of the block into the `StorageError` that it means.

    An error of the device (EIO) becomes a plain StorageError, which is never retried: after a
    failed fsync the kernel may drop the pages and let the next fsync succeed.
    """
    try:
        yield
    except OSError as error:
        kind = _MEANING.get(error.errno or 0, StorageError)
        raise kind(f"{kind.detail} ({error.strerror})") from error


@contextlib.contextmanager
def opened(
    path: str | Path, flags: int, mode: int = 0o600, *, dir_fd: int | None = None
) -> Iterator[int]:
    """A file descriptor, closed at the end of the block; a link as last component is refused."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however few bytes the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
