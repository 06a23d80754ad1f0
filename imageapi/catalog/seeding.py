"""Seeding: the pictures of a folder into an album, to be stopped and run again at any time.

Each picture is a whole of its own (staged, decoded, durable, committed), and what the album has
already, by SHA-256, costs no more than reading it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imageapi.catalog import images, library, renditions
from imageapi.errors import (
    AlbumFull,
    ImageAPIError,
    PayloadTooLarge,
    UndecodablePicture,
    UnsupportedFormat,
)
from imageapi.extensions import Row
from imageapi.storage.disk import opened

MAX_DEPTH = 100
"""How many levels of folders below the first are read; far fewer than a stack has frames."""

_PIECE = 256 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK  # a pipe must not make us wait
_REFUSALS = (AlbumFull, PayloadTooLarge, UndecodablePicture, UnsupportedFormat)


class Verdict(enum.StrEnum):
    """What became of one entry of the folder."""

    ADDED = "added"
    SKIPPED = "skipped"
    """The album has these bytes already."""
    REFUSED = "refused"
    """Not readable, not a picture that is accepted, or more than the album may hold."""
    IGNORED = "ignored"
    """No file at all: a symbolic link, a pipe, a device."""


@dataclass(frozen=True)
class Outcome:
    """One entry: its path below the folder, its bytes if they were added, else why not."""

    path: str
    verdict: Verdict
    bytes: int = 0
    reason: str = ""


@dataclass(frozen=True)
class _Entry:
    """One entry: the descriptor of the folder that is seeded, its path below that, why it can not be read."""

    root: int
    path: PurePosixPath
    reason: str = ""


def count(folder: Path) -> int:
    """How many outcomes `seed` will have."""
    return sum(1 for _ in _entries(folder))


def seed(album: Row, folder: Path, uploader: str) -> Iterator[Outcome]:
    """Add the pictures below `folder`, in order of their names; hidden ones are left out.

    No link below `folder` is followed, whatever happens there meanwhile. Close the iterator to stop:
    nothing is then begun.

    Args:
        album: a row of `models.ALBUMS`.
        folder: it may itself be a link.
        uploader: the user id that the images are said to come from.
    Raises:
        Busy: others had all decoders for a long time.
        NotFound: the album was deleted meanwhile.
        StorageError: the storage failed; another file would fare no better.
    """
    for entry in _entries(folder):
        if entry.reason:
            yield Outcome(str(entry.path), Verdict.REFUSED, reason=entry.reason)
        else:
            yield _take_in(album, entry, uploader)


def _entries(folder: Path) -> Iterator[_Entry]:
    try:
        root = os.open(folder, _FOLDER)
    except OSError as error:
        yield _Entry(-1, PurePosixPath(), _words(error))
        return
    try:
        yield from _below(root, PurePosixPath())
    finally:
        os.close(root)


def _below(root: int, folder: PurePosixPath) -> Iterator[_Entry]:
    if len(folder.parts) > MAX_DEPTH:
        reason = f"can not be read: it is more than {MAX_DEPTH} levels deep"
        yield _Entry(root, folder, reason)
        return
    try:
        with _reached(root, folder) as fd, os.scandir(fd) as listing:
            found = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in listing
                if not entry.name.startswith(".")
            )
    except OSError as error:
        yield _Entry(root, folder, _words(error))
        return
    for name, is_folder in found:
        if is_folder:
            yield from _below(root, folder / name)
        else:
            yield _Entry(root, folder / name)


@contextlib.contextmanager
def _reached(root: int, folder: PurePosixPath) -> Iterator[int]:
    """A folder below `root`, found anew: to keep all above it open takes a descriptor for each."""
    fd = os.open(".", _FOLDER, dir_fd=root)
    try:
        for name in folder.parts:
            outer, fd = fd, os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            os.close(outer)
        yield fd
    finally:
        os.close(fd)


def _take_in(album: Row, entry: _Entry, uploader: str) -> Outcome:
    path, name = str(entry.path), entry.path.name
    try:
        with _reached(entry.root, entry.path.parent) as folder:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a file"
                return Outcome(path, Verdict.IGNORED, reason=kind)
            with opened(name, _FILE, dir_fd=folder) as fd:
                length = _add(album, fd, images.Upload(uploader, _text(name)))
    except (*_REFUSALS, OSError) as error:
        return Outcome(path, Verdict.REFUSED, reason=_words(error))
    return Outcome(path, Verdict.ADDED if length else Verdict.SKIPPED, length)


def _add(album: Row, fd: int, upload: images.Upload) -> int:
    """The bytes added, 0 when the album has them already."""
    shelf = library()
    with shelf.storages[album.storage].stage(shelf.settings.max_upload_bytes) as staging:
        while piece := os.read(fd, _PIECE):
            staging.write(piece)
        staged = staging.finish()
        _, new = renditions.patiently(lambda: images.add(album, staged, upload))
    return staged.length if new else 0


def _text(name: str) -> str:
    """A file's name as text, also where it is not UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _words(error: Exception) -> str:
    if isinstance(error, ImageAPIError):
        return f"{error.status} {error.code}: {error}"
    return f"can not be read: {error.strerror if isinstance(error, OSError) else error}"
