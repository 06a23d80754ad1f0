"""Images: bytes and row in step.

The order is the promise (design §5): staged and hashed → decoded to the end → bytes durable → row
committed → answer. No transaction is open while bytes move or pixels decode.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi import imaging, metrics
from imageapi.catalog import library, now_ms, originals, renditions
from imageapi.errors import AlbumFull, Conflict, NotFound, StorageError
from imageapi.extensions import Row, read, transaction
from imageapi.geometry import Edit
from imageapi.models import IMAGES, Album, Image, StoredObject
from imageapi.storage.backend import Infos, Picture, Staged
from imageapi.storage.storages import Storage
from imageapi.telemetry import log

Position = tuple[float, float]
Confirm = Callable[[orm.Session, str], None]
"""Asked inside a write, with the id of what it makes; may raise to refuse it."""

MAX_FILE_NAME = 255
"""The most characters that are kept of a file's name."""
_NOT_KEPT = {"Cc", "Cs"}

_OF_ALBUM = (
    IMAGES.where(Image.album_id == sa.bindparam("album_id"))
    .order_by(Image.created_ms.desc(), Image.id.desc())
    .limit(sa.bindparam("limit"))
)
_SAME_BYTES = (
    sa.select(Image.id)
    .join(StoredObject, StoredObject.id == Image.object_id)
    .where(
        StoredObject.album_id == sa.bindparam("album_id"),
        StoredObject.sha256 == sa.bindparam("sha256"),
    )
    .order_by(Image.created_ms, Image.id)
    .limit(1)
)
_ONE = IMAGES.where(Image.id == sa.bindparam("image_id"))
_NEW_OBJECT = sa.insert(StoredObject).returning(StoredObject.id)
_NEW_IMAGE = sa.insert(Image)
_COUNTED = (
    sa.update(Album)
    .where(Album.id == sa.bindparam("of_album"), Album.deleted_ms.is_(None))
    .values(
        images_count=Album.images_count + sa.bindparam("images"),
        bytes=Album.bytes + sa.bindparam("size"),
    )
    .returning(Album.images_count, Album.bytes)
)
_HELD = sa.select(Album.images_count, Album.bytes).where(
    Album.id == sa.bindparam("album_id"), Album.deleted_ms.is_(None)
)


def agreed(_session: orm.Session, _made: str) -> None:
    """Refuse nothing, record nothing more."""


@dataclass(frozen=True)
class Upload:
    """What comes with the bytes of an image.

    Attributes:
        uploader: the user id, or None.
        file_name: as the client named the file; kept for downloads, without control characters and
            up to `MAX_FILE_NAME`; never part of a path.
        location: the browser's `{accuracy, latitude, longitude}`, as it goes into `infos`.
        address: the client's internet address, for `gps_ip`.
    """

    uploader: str | None = None
    file_name: str = ""
    location: dict[str, float | int] | None = None
    address: str | None = None


def get(image_id: str) -> Row:
    """The image, a row of `models.IMAGES`.

    Raises:
        NotFound: it is not there.
    """
    rows = read(_ONE, image_id=image_id)
    if not rows:
        raise NotFound
    return rows[0]


def newest(album_id: int, limit: int) -> list[Row]:
    """The newest images of an album, rows of `models.IMAGES`."""
    return list(read(_OF_ALBUM, album_id=album_id, limit=limit))


def find(album_id: int, sha256: str) -> str | None:
    """The id of the album's image that has these bytes."""
    rows = read(_SAME_BYTES, album_id=album_id, sha256=sha256)
    return rows[0].id if rows else None


def add(
    album: Row,
    staged: Staged,
    upload: Upload,
    confirm: Confirm = agreed,
    adopted: str | None = None,
) -> tuple[str, bool]:
    """Make an image of staged bytes.

    Args:
        album: a row of `models.ALBUMS`.
        staged: the bytes, in the staging place of the album's storage.
        upload: what came with them.
        confirm: asked again inside the write; may raise to refuse, or record more.
        adopted: the name of the direct upload that was staged; the storage makes it the original.
    Returns: the image's id, and whether it is new: the same bytes again answer the image they are.
    Raises:
        UnsupportedFormat, UndecodablePicture: the bytes are no picture that is accepted.
        AlbumFull: the album would hold more than it may; nothing is left behind.
        NotFound: the album was deleted meanwhile.
        Conflict: the image of the same bytes was deleted meanwhile; nothing is left behind.
        StorageError: nothing is left behind.
    """
    made, new = _add(album, staged, upload, confirm, adopted)
    metrics.upload(staged.length, new=new)
    return made, new


def _add(
    album: Row, staged: Staged, upload: Upload, confirm: Confirm, adopted: str | None
) -> tuple[str, bool]:
    if known := find(album.id, staged.sha256):
        return known, False
    _demand_room_now(album.id, staged.length)
    shelf = library()
    probe, rendered = imaging.take_in(staged.path, shelf.renditions, shelf.limits)
    staged = dataclasses.replace(staged, format=probe.format, size=probe.size)
    storage = shelf.storages[album.storage]
    tags = [album.public_id]
    if adopted is None:
        key, infos = storage.put(staged, tags)
    else:
        key, infos = storage.adopt(adopted, staged, tags)
    image_id = str(uuid.uuid4())
    shown = Picture(key, image_id, 0, probe.size, Edit(), rendered.extension)
    written = False
    try:
        if not storage.renders:
            storage.keep(shown, rendered.files)
        with transaction() as session:
            count(session, album.id, images=1, size=staged.length)
            stored = _object_values(album.id, storage.name, key, staged)
            connection = session.connection()  # without the ORM, in half its time
            object_id = connection.scalar(_NEW_OBJECT, stored)
            image = _image_values(probe, infos, upload, rendered)
            of = {"id": image_id, "album_id": album.id, "object_id": object_id}
            connection.execute(_NEW_IMAGE, {**of, **image})
            confirm(session, image_id)
            written = True
    except (sa.exc.IntegrityError, AlbumFull) as error:
        # The same bytes may have come first, and taken the last place.
        _undo(storage, shown, adopted)
        if winner := find(album.id, staged.sha256):
            return winner, False
        if isinstance(error, AlbumFull):
            raise
        raise Conflict(
            "The same picture came first, and was deleted; nothing was stored."
        ) from error
    except BaseException:
        # A commit that failed may have been kept: its answer was lost, or we were interrupted.
        if not written:
            _undo(storage, shown, adopted)
        raise
    return image_id, True


def count(session: orm.Session, album_id: int, images: int, size: int) -> None:
    """Count images and stored bytes of an album up, in the transaction that adds them.

    Raises:
        NotFound: the album was deleted meanwhile.
        AlbumFull: it would hold more than it may.
    """
    # The row is locked by the change itself: of writers that race, each sees what came before it.
    change = {"of_album": album_id, "images": images, "size": size}
    held = session.connection().execute(_COUNTED, change).one_or_none()
    if held is None:
        raise NotFound
    _demand_room(held, images=0, size=0)


def room(album: Row) -> int:
    """How many bytes one more image of an album may have, at most `IMAGEAPI_MAX_UPLOAD_BYTES`.

    Args:
        album: a row of `models.ALBUMS`.
    Returns: 0 when the album is full.
    """
    settings = library().settings
    if settings.album_max_images and album.images_count >= settings.album_max_images:
        return 0
    if not settings.album_max_bytes:
        return settings.max_upload_bytes
    left: int = settings.album_max_bytes - album.bytes
    return max(0, min(settings.max_upload_bytes, left))


def _demand_room_now(album_id: int, size: int) -> None:
    """Before the work; what counts is the write."""
    settings = library().settings
    if settings.album_max_images or settings.album_max_bytes:
        for held in read(_HELD, album_id=album_id):
            _demand_room(held, images=1, size=size)


def _demand_room(held: Any, images: int, size: int) -> None:
    settings = library().settings
    if 0 < settings.album_max_images < held.images_count + images:
        limit = f"{settings.album_max_images} images"
    elif 0 < settings.album_max_bytes < held.bytes + size:
        limit = f"{settings.album_max_bytes} bytes"
    else:
        return
    raise AlbumFull(f"The album may hold {limit}; nothing was stored.")


def _object_values(album_id: int, storage: str, key: str, staged: Staged) -> dict[str, Any]:
    return {
        "album_id": album_id,
        "storage": storage,
        "key": key,
        "sha256": staged.sha256,
        "md5": staged.md5,
        "bytes": staged.length,
        "format": staged.format,
        "width": staged.size.width,
        "height": staged.size.height,
        "created_ms": now_ms(),
    }


def _image_values(
    probe: imaging.Probe, infos: Infos, upload: Upload, rendered: imaging.Rendered
) -> dict[str, Any]:
    location = upload.location
    by_browser = (float(location["latitude"]), float(location["longitude"])) if location else None
    by_address = library().geoip.position(upload.address)
    shown = probe.gps or by_browser or by_address
    return {
        "created_ms": now_ms(),
        "width": probe.size.width,
        "height": probe.size.height,
        "rendered": rendered.extension,
        "placeholder": rendered.placeholder,
        "infos": _json({**infos, "location": location} if location else infos),
        "exifs": _json(probe.exifs),
        "gps_exifs": _position(probe.gps),
        "gps_html": _position(by_browser),
        "gps_ip": _position(by_address),
        "latitude": shown[0] if shown else None,
        "longitude": shown[1] if shown else None,
        "taken_ms": _taken_ms(probe.taken_at),
        "uploader": upload.uploader,
        "file_name": _file_name(upload.file_name),
    }


def _file_name(name: str) -> str:
    # PostgreSQL keeps no NUL and no surrogate, and not more than the column has.
    kept = (character for character in name if unicodedata.category(character) not in _NOT_KEPT)
    return "".join(kept)[:MAX_FILE_NAME]


def _undo(storage: Storage, shown: Picture, adopted: str | None) -> None:
    """Leave no bytes without a row; a direct upload can be handed in again."""
    kept = () if storage.renders else renditions.keys(shown)
    if adopted is None:
        originals.discard(storage, shown.key, *kept)
        return
    try:
        storage.release(shown.key, adopted)
    except StorageError as error:
        log.warning("an upload was left", storage=storage.name, name=adopted, why=str(error))
    originals.discard(storage, *kept)


def _position(position: Position | None) -> str | None:
    return _json(position) if position else None


def _taken_ms(taken_at: str | None) -> int | None:
    if taken_at is None:
        return None
    taken = datetime.datetime.fromisoformat(taken_at).replace(tzinfo=datetime.UTC)
    return int(taken.timestamp()) * 1000


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
