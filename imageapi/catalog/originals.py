"""Originals: their bytes, or the word that they are wrong; never wrong bytes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator

from imageapi.catalog import library
from imageapi.errors import StorageCorrupt
from imageapi.extensions import Row
from imageapi.storage.storages import Pieces
from imageapi.telemetry import log


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
