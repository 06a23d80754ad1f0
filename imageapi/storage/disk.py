"""Local files for backends and staging: what `OSError`s mean, and folders that no link redirects."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
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
from imageapi.storage.backend import Staged

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


@contextlib.contextmanager
def opened_staged(staged: Staged, dir_fd: int | None = None) -> Iterator[int]:
    """The staged file as a descriptor, known to hold what was staged.

    Args:
        staged: what was taken in.
        dir_fd: its folder; without it the folder's path is followed.
    Raises:
        StorageCorrupt: gone, no file, or of other bytes.
    """
    path = staged.path if dir_fd is None else staged.path.name
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(opened(path, os.O_RDONLY | os.O_NONBLOCK, dir_fd=dir_fd))
        except FileNotFoundError as error:
            raise StorageCorrupt("The staged file is gone.") from error
        status = regular(os.fstat(fd))
        unchanged = status.st_ctime_ns == staged.changed
        if status.st_size != staged.length or not (unchanged or _same_digests(fd, staged)):
            raise StorageCorrupt("The staged file is not what was staged.")
        yield fd


def _same_digests(fd: int, staged: Staged) -> bool:
    with open(fd, "rb", closefd=False) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        md5 = hashlib.file_digest(file, "md5").hexdigest()
        file.seek(0)
    return (md5, sha256) == (staged.md5, staged.sha256)


def regular(status: os.stat_result) -> os.stat_result:
    """The status, if it is a file's.

    Open with O_NONBLOCK: a pipe that someone planted must not make us wait.

    Raises:
        StorageCorrupt: it is anything else.
    """
    if not stat.S_ISREG(status.st_mode):
        raise StorageCorrupt("There is something else than a file under this key.")
    return status
