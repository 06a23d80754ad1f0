"""Originals: their bytes, or the word that they are wrong; never wrong bytes.

Source: design §5 (bytes durable before the row); threats F17, F19.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator

import sqlalchemy as sa

from imageapi.catalog import library
from imageapi.errors import StorageCorrupt, StorageError, StorageUnavailable
from imageapi.extensions import Row
from imageapi.geometry import Size
from imageapi.models import Album, StoredObject
from imageapi.storage.backend import original_key
from imageapi.storage.storages import Pieces, Storage
from imageapi.telemetry import log

OBJECTS = sa.select(StoredObject.__table__, Album.public_id.label("album")).join(
    Album, Album.id == StoredObject.album_id
)
"""Objects with the public id of their album, as `copy` needs them: plain rows."""


def stream(row: Row, start: int, length: int) -> Iterator[bytes]:
    """The bytes of an original from `start`, `length` of them.

    A whole original is hashed on its way: its last piece is only given when all of it was right, so
    whoever reads damaged bytes reads too few of them.

    Args:
        row: of `models.ORIGINALS`.
    Raises:
        StorageError: at once where it is known by then; StorageCorrupt also while it is read.
    """
    pieces = library().storages[row.storage].open(row.key, start, length)
    whole = length == row.bytes
    checked = _checked(pieces, row.key, row.md5 if whole else None)
    # What is wrong with the first piece, or with an only one, is known before the answer begins.
    return itertools.chain([next(checked)], checked)


def _checked(pieces: Pieces, key: str, md5: str | None) -> Iterator[bytes]:
    digest = hashlib.md5(usedforsecurity=False)
    held = b""
    with contextlib.closing(pieces):
        for piece in pieces:
            if md5 is not None:
                digest.update(piece)
            if held:
                yield held
            held = piece
    if md5 is not None and digest.hexdigest() != md5:
        log.error("damaged original", key=key)
        raise StorageCorrupt
    yield held


def read_through(storage: Storage, key: str) -> Iterator[bytes]:
    """All bytes under a key; where an answer is cut off, the rest of it is asked for.

    Raises:
        StorageError: as `Storage.open`; StorageUnavailable when not one more byte came.
    """
    place = 0
    while True:
        before = place
        try:
            with contextlib.closing(storage.open(key, place)) as pieces:
                for piece in pieces:
                    place += len(piece)
                    yield piece
        except StorageUnavailable:
            if place == before:
                raise
        else:
            return


def digest(storage: Storage, key: str, name: str = "sha256") -> str:
    """The SHA-256, or another hash, of the bytes under a key, in hex. Raises as `read_through`."""
    hashed = hashlib.new(name, usedforsecurity=False)
    for piece in read_through(storage, key):
        hashed.update(piece)
    return hashed.hexdigest()


def copy(row: Row, source: Storage, key: str, target: Storage) -> str:
    """Copy the bytes of an object under a new key, and read them back.

    Args:
        row: of `OBJECTS`.
        source: where the bytes are, under `key`.
    Returns: the new key.
    Raises:
        StorageNotFound, StorageCorrupt: they are not there, or not those that were stored.
        StorageError: as `Storage`.
    """
    with target.stage() as staging:
        for piece in read_through(source, key):
            staging.write(piece)
        staged = staging.finish()
        if (staged.md5, staged.sha256) != (row.md5, row.sha256 or staged.sha256):
            raise StorageCorrupt
        staged = dataclasses.replace(staged, format=row.format, size=Size(row.width, row.height))
        made = original_key()
        target.put(staged, [row.album], made)
    try:
        if digest(target, made) != staged.sha256:
            raise StorageCorrupt("The new storage gave other bytes back than it was sent.")
    except StorageError:
        discard(target, made)
        raise
    return made


def discard(storage: Storage, *keys: str) -> None:
    """Remove bytes that no row knows of, if that can be done now; else `collect` does it later."""
    for key in keys:
        try:
            storage.delete(key)
        except StorageError as error:
            why = str(error)
            log.warning("bytes without a row were left", storage=storage.name, key=key, why=why)
            if isinstance(error, StorageUnavailable):
                return  # the next key would be waited for as long
