"""Originals and renditions as files of a local disk.

Under the root: `staging/` for files on their way in, and 256 folders `00` … `ff` of stored files, so
that a key is a path. A file is written in `staging`, synced, and only then renamed to its key.
Every call goes through a folder's descriptor and refuses links: nothing planted below the root makes
it read, write, list or delete elsewhere. The root itself may be, or lie behind, a link.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from marshmallow import ValidationError

from imageapi.errors import StorageCorrupt, StorageFull, StorageUnavailable
from imageapi.geometry import Rendition
from imageapi.settings import setting
from imageapi.storage.backend import (
    KEY,
    Backend,
    Context,
    Infos,
    Picture,
    Staged,
    Stored,
    check_key,
    infos,
    rendition_key,
)
from imageapi.storage.disk import disk_errors, opened, opened_staged, regular, write_all
from imageapi.storage.signing import SignedURLs

_PIECE = 256 * 1024
_LEAST_FREE = 64 * 1024 * 1024
_FOLDER = re.compile("[0-9a-f]{2}")
_STAGING = "staging"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def _x_accel_prefix(prefix: str) -> str:
    if not re.fullmatch(r"/([A-Za-z0-9_-]+/)+", prefix):
        raise ValidationError("must be a path that begins and ends with /, such as /_bytes/.")
    return prefix


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """Settings of a local storage."""

    root: Path | None = setting(
        "The folder of the stored files; made if absent.",
        kind="path",
        shown="`storage/<name>` in `IMAGEAPI_INSTANCE`",
    )
    group: bool = setting(
        "Let the group read the files (0640 instead of 0600), as a web server in front needs.",
        kind="bool",
        default=False,
    )
    x_accel_prefix: str = setting(
        "The internal location of nginx that is this folder, such as `/_bytes/`: nginx then sends the "
        "renditions itself (`X-Accel-Redirect`).",
        default="",
        shown="none: the application sends them",
        check=_x_accel_prefix,
    )


class LocalBackend(Backend):
    """Files on a local disk; their URLs are served by the application."""

    Options = LocalOptions

    def __init__(self, options: LocalOptions, context: Context) -> None:
        super().__init__(options, context)
        self._root = (options.root or context.instance / "storage" / context.name).absolute()
        self._file_mode, self._folder_mode = (0o640, 0o750) if options.group else (0o600, 0o700)
        self._urls = SignedURLs(context.secret_keys, context.public_url, context.url_window)
        self.sent_from = options.x_accel_prefix
        self._synced: set[str] = set()

    @property
    def staging(self) -> Path:
        with self._writable(_STAGING):
            return self._root / _STAGING

    def put(self, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        folder, name = _split(key)
        with self._writable(_STAGING, folder) as (source, target):
            with opened_staged(staged, source) as fd:
                os.fchmod(fd, self._file_mode)
                os.fsync(fd)
                created = os.fstat(fd).st_mtime
            os.rename(staged.path.name, name, src_dir_fd=source, dst_dir_fd=target)
            try:
                os.fsync(target)
            except OSError:
                os.unlink(name, dir_fd=target)
                raise
        return infos(staged, tags, created)

    def keep(self, key: str, data: bytes, content_type: str) -> None:  # noqa: ARG002 - the key says it
        """Synced before the rename, so never torn; a lost rename costs a rendering, no more."""
        folder, name = _split(key)
        with (
            self._writable(_STAGING, folder) as (source, target),
            _temporary(source) as (fd, temporary),
        ):
            os.fchmod(fd, self._file_mode)
            write_all(fd, data)
            os.fsync(fd)
            os.rename(temporary, name, src_dir_fd=source, dst_dir_fd=target)

    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        folder, name = _split(key)
        with (
            self._folder(folder) as directory,
            opened(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory) as fd,
        ):
            size = regular(os.fstat(fd)).st_size
            end = size if length is None else start + length
            if start > size or end > size:
                raise StorageCorrupt
            while start < end:
                piece = os.pread(fd, min(_PIECE, end - start), start)
                if not piece:
                    raise StorageCorrupt
                start += len(piece)
                yield piece

    def stat(self, key: str) -> Stored:
        folder, name = _split(key)
        with self._folder(folder) as directory:
            status = regular(os.stat(name, dir_fd=directory, follow_symlinks=False))
            return Stored(key, status.st_size, "", status.st_mtime)

    def delete(self, key: str) -> None:
        folder, name = _split(key)
        with (
            self._opened_root() as root,
            contextlib.suppress(FileNotFoundError),
            opened(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root) as directory,
        ):
            os.unlink(name, dir_fd=directory)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        for folder in self._folders():
            start = f"{folder}/"
            if folder >= after[:2] and (start.startswith(prefix) or prefix.startswith(start)):
                for stored in self._files(folder):
                    if stored.key > after and stored.key.startswith(prefix):
                        yield stored

    def rendition_url(self, picture: Picture, rendition: Rendition, window: int) -> str:
        key = rendition_key(picture.image_id, picture.revision, rendition.name, picture.extension)
        return self._urls.url(self.context.name, key, window)

    def check(self) -> None:
        with self._writable(_STAGING) as (staging,), _temporary(staging) as (fd, _):
            write_all(fd, b"check")
            os.fsync(fd)
            disk = os.fstatvfs(fd)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE:
            raise StorageFull(f"Less than {_LEAST_FREE >> 20} MiB are free on the disk.")

    def _folders(self) -> Sequence[str]:
        with contextlib.suppress(StorageUnavailable), self._opened_root() as root:
            with os.scandir(root) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            return sorted(name for name in names if _FOLDER.fullmatch(name))
        return ()

    def _files(self, folder: str) -> Sequence[Stored]:
        """The stored files of one folder, read whole: nothing stays open between two of them."""
        files = []
        with self._folder(folder) as directory, os.scandir(directory) as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}"
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    status = entry.stat(follow_symlinks=False)
                    if KEY.fullmatch(key) and stat.S_ISREG(status.st_mode):
                        files.append(Stored(key, status.st_size, "", status.st_mtime))
        return sorted(files, key=lambda stored: stored.key)

    @contextlib.contextmanager
    def _opened_root(self, *, make: bool = False) -> Iterator[int]:
        with disk_errors():
            if make and not self._root.exists():
                _make_folders(self._root, self._folder_mode)
            try:
                root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                # not StorageNotFound: a disk that is not mounted has lost nothing
                raise StorageUnavailable("The folder of the storage does not exist.") from error
            try:
                yield root
            finally:
                os.close(root)

    @contextlib.contextmanager
    def _folder(self, name: str) -> Iterator[int]:
        with (
            self._opened_root() as root,
            opened(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root) as folder,
        ):
            yield folder

    @contextlib.contextmanager
    def _writable(self, *names: str) -> Iterator[tuple[int, ...]]:
        """Folders below the root, made where they are not there."""
        with self._opened_root(make=True) as root, contextlib.ExitStack() as stack:
            yield tuple(stack.enter_context(self._made(name, root)) for name in names)

    @contextlib.contextmanager
    def _made(self, name: str, root: int) -> Iterator[int]:
        if name not in self._synced:
            self._make(name, root)
        with contextlib.ExitStack() as stack:
            flags = os.O_RDONLY | os.O_DIRECTORY
            try:
                folder = stack.enter_context(opened(name, flags, dir_fd=root))
            except FileNotFoundError:  # someone has removed it since
                self._make(name, root)
                folder = stack.enter_context(opened(name, flags, dir_fd=root))
            yield folder

    def _make(self, name: str, root: int) -> None:
        _make_folder(name, root, self._folder_mode)
        there = os.listdir(root)
        os.fsync(root)  # whoever made them: another process may have done so just now
        self._synced.update(there)


def _split(key: str) -> tuple[str, str]:
    """The only way from a key to a path: a folder of two hex digits and a file in it."""
    check_key(key)
    folder, _, name = key.partition("/")
    return folder, name


def _make_folder(name: str, parent: int, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
        with opened(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent) as folder:
            os.fchmod(folder, mode)  # whatever the umask took away


def _make_folders(path: Path, mode: int) -> None:
    if not path.parent.exists():
        _make_folders(path.parent, mode)
    with opened(path.parent.resolve(), os.O_RDONLY | os.O_DIRECTORY) as parent:
        _make_folder(path.name, parent, mode)
        os.fsync(parent)


@contextlib.contextmanager
def _temporary(folder: int) -> Iterator[tuple[int, str]]:
    name = str(uuid.uuid4())
    with opened(name, _CREATE, dir_fd=folder) as fd:
        try:
            yield fd, name
        finally:
            with contextlib.suppress(FileNotFoundError):  # renamed
                os.unlink(name, dir_fd=folder)
