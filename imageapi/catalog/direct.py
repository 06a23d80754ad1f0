"""Direct uploads: the form that a client posts to the storage, and the hand-in of what came of it.

Nothing that a client says of an upload counts but its name, which only the storage and we can make
up: its bytes are read, hashed, decoded and rendered as those of any upload before a row is.

Source: design §5 (direct upload), §9 (hand-in).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from imageapi.catalog import images, library
from imageapi.catalog.images import Confirm, Upload, agreed
from imageapi.errors import (
    AlbumFull,
    InvalidFields,
    NotFound,
    PayloadTooLarge,
    StorageError,
    StorageNotFound,
    StorageUnavailable,
    UndecodablePicture,
    UnsupportedFormat,
)
from imageapi.extensions import Row, read
from imageapi.models import ObjectCopy, StoredObject
from imageapi.storage.backend import UploadForm
from imageapi.storage.storages import Pieces, Storage
from imageapi.telemetry import log

_STORAGES = sa.union(
    sa.select(StoredObject.storage).where(StoredObject.album_id == sa.bindparam("album_id")),
    sa.select(ObjectCopy.storage)
    .join(StoredObject, StoredObject.id == ObjectCopy.object_id)
    .where(StoredObject.album_id == sa.bindparam("album_id")),
)
"""Where an album's originals are, and where moves have left copies of them."""


def form(album: Row) -> UploadForm | None:
    """The signed form of a direct upload to the storage of an album, a row of `models.ALBUMS`.

    Returns: None where the storage has none, or is gone, or the album is full.
    """
    limit = images.room(album)
    if not limit:
        return None
    try:
        storage = library().storages[album.storage]
        return storage.upload_form(_target(album, storage), limit, time.time())
    except StorageError:
        return None


def hand_in(
    album: Row, answer: Mapping[str, str], upload: Upload, confirm: Confirm = agreed
) -> tuple[str, bool]:
    """Make an image of a direct upload, once.

    Args:
        album: a row of `models.ALBUMS`.
        answer: what the storage answered the client, as the client tells it.
        upload: what came with it.
        confirm: as in `images.add`.
    Returns: as `images.add`.
    Raises:
        InvalidFields: not of a form of this album, altered or ended.
        NotFound: handed in before, or never uploaded; or the album was deleted meanwhile.
        PayloadTooLarge, UnsupportedFormat, UndecodablePicture: no picture that is accepted; the
            upload is removed.
        AlbumFull: as `images.add`; the upload is removed.
        StorageError: StorageCorrupt also where the bytes were changed while they were read.
    """
    shelf = library()
    try:
        with contextlib.ExitStack() as stack:
            source, name, pieces = _claimed(album, answer)
            stack.enter_context(contextlib.closing(pieces))
            target = shelf.storages[album.storage]
            staging = stack.enter_context(target.stage(shelf.settings.max_upload_bytes))
            try:
                for piece in pieces:
                    staging.write(piece)
                adopted = name if source is target else None
                made, new = images.add(album, staging.finish(), upload, confirm, adopted)
            except (AlbumFull, PayloadTooLarge, UnsupportedFormat, UndecodablePicture):
                _discard(source, name)
                raise
            _discard(source, name)
            return made, new
    except StorageNotFound as error:
        raise NotFound(
            "There is no such upload: it was handed in before, or never made."
        ) from error


def _claimed(album: Row, answer: Mapping[str, str]) -> tuple[Storage, str, Pieces]:
    """The storage that the upload is in, its name there, and its bytes.

    An album that moved to another storage may still be handed what was uploaded to the one before.
    """
    faults: list[InvalidFields | StorageError] = []
    for storage in _storages(album):
        try:
            name = storage.claim(_target(album, storage), answer, time.time())
            return storage, name, storage.incoming(name)
        except (InvalidFields, StorageError) as fault:
            faults.append(fault)
    raise next((f for f in faults if isinstance(f, StorageNotFound)), faults[0])


def _storages(album: Row) -> Iterator[Storage]:
    shelf = library()
    yield shelf.storages[album.storage]
    for row in read(_STORAGES, album_id=album.id):
        with contextlib.suppress(StorageUnavailable):
            if row.storage != album.storage:
                yield shelf.storages[row.storage]


def _target(album: Row, storage: Storage) -> str:
    """What a form is for; no two albums have the same.

    A storage that renders is a service whose uploads are tagged with the album's id, as recorded.
    For any other it is the row, which a rename leaves alone; its id alone SQLite may give again.
    """
    if not storage.renders:
        return f"{album.id}.{album.created_ms}"
    if not album.issuer:
        return str(album.public_id)
    # No id of an album has a slash, and no tag may have a comma, as an issuer might.
    return f"{hashlib.sha256(album.issuer.encode()).hexdigest()[:16]}/{album.public_id}"


def _discard(storage: Storage, name: str) -> None:
    try:
        storage.discard(name)
    except StorageError as error:
        log.warning("an upload was left", storage=storage.name, name=name, why=str(error))
