"""Moving an album to another storage while it is served.

New bytes go to the new storage at once, then object by object: copied under a new key, read back and
compared, the renditions of its images beside it, and only then its row switched. Whoever read a row
before finds the bytes where they were, for a grace time. All that is done stands in rows, so that a
move which was killed anywhere is taken up by running it again; bytes that no row came to know of are
left to `collect`. Moving back is the same in the other direction.

Source: design §5, §6.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.catalog import albums, library, locks, renditions, work
from imageapi.catalog.originals import OBJECTS, copy, discard, read_through
from imageapi.errors import (
    NotFound,
    StorageCorrupt,
    StorageNotFound,
    UndecodablePicture,
    UnsupportedFormat,
)
from imageapi.extensions import Row, read, transaction
from imageapi.models import ANY_ORIGINALS, Album, Image, ObjectCopy, StoredObject
from imageapi.storage.backend import Picture
from imageapi.storage.storages import Storage
from imageapi.telemetry import log

PAGE = 100
TRIES = 20
"""How often an object whose images are edited all the time is looked at anew."""

_ELSEWHERE = (StoredObject.album_id == sa.bindparam("album_id")) & (
    StoredObject.storage != sa.bindparam("to")
)
_OBJECTS = (
    OBJECTS.where(_ELSEWHERE, StoredObject.id > sa.bindparam("after"))
    .where(Album.storage == sa.bindparam("to"))
    .order_by(StoredObject.id)
    .limit(PAGE)
)
_LEFT = sa.select(
    sa.func.count().label("objects"), sa.func.coalesce(sa.func.sum(StoredObject.bytes), 0)
).where(_ELSEWHERE)
_IMAGES = ANY_ORIGINALS.where(Image.object_id == sa.bindparam("object_id"))


class Verdict(enum.StrEnum):
    """What became of one object."""

    MOVED = "moved"
    GONE = "gone"
    """Deleted, or moved by another, meanwhile."""
    FAILED = "failed"
    """Its bytes are not there or not right; it stays where it is."""


@dataclass(frozen=True)
class Outcome:
    """One object: its number, its key before, what became of it, its bytes, and why it failed."""

    object_id: int
    key: str
    verdict: Verdict
    bytes: int = 0
    reason: str = ""


@dataclass(frozen=True)
class _Ready:
    """What the new storage has for one image.

    Attributes:
        state: revision and extension of the renditions that it was made from.
        extension, placeholder: of those that are there now.
        old: the keys of those that the storage before has.
    """

    state: tuple[int, str]
    extension: str
    placeholder: str | None
    old: tuple[str, ...]


class _Gone(Exception):
    """The object is not any more what it was read as."""


def left(album: Row, to: str) -> tuple[int, int]:
    """How many objects of an album are not in the storage `to`, and their bytes."""
    objects, size = read(_LEFT, album_id=album.id, to=to)[0]
    return int(objects), int(size)


def begin(album: Row, to: str, *, leave: int | None = None) -> None:
    """Let new bytes of an album, a row of `models.ALBUMS`, go to the storage `to`.

    Args:
        leave: have the rest of the move done as work, with this for `move`'s `keep`.
    Raises:
        NotFound: the album was deleted meanwhile.
        StorageError: the storage is not usable; nothing was done.
    """
    library().storages[to].check()
    there = sa.update(Album).where(Album.id == album.id, Album.deleted_ms.is_(None))
    with transaction() as session:
        if session.connection().execute(there.values(storage=to)).rowcount == 0:
            raise NotFound
        if leave is not None:
            payload = {"album": album.id, "to": to, "keep": leave, "after": 0}
            work.record(session, "move", payload)


@work.kind("move")
def _move_on(payload: work.Payload) -> work.Payload | None:
    """Move an album on for a slice of time."""
    album, to = albums.get(payload["album"]), payload["to"]
    if album.storage != to:
        raise NotFound
    end = time.monotonic() + work.SLICE
    for outcome in move(album, to, payload["keep"], payload["after"]):
        if outcome.reason:
            log.warning("not moved", key=outcome.key, why=outcome.reason)
        if time.monotonic() > end:
            return {**payload, "after": outcome.object_id}
    log.info("album moved", album=album.public_id, to=to, left=left(album, to)[0])
    return None


def move(album: Row, to: str, keep: int, after: int = 0) -> Iterator[Outcome]:
    """Move the objects of an album to the storage `to`, after `begin`; ends when the album goes elsewhere.

    Args:
        album: a row of `models.ALBUMS`.
        keep: for how many seconds the bytes stay where they were; at least as long as URLs last.
        after: the number of the object to go on after.
    Raises:
        StorageError: a storage failed; another object would fare no better.
    """
    keep = max(keep, 2 * library().settings.url_window)
    while rows := read(_OBJECTS, album_id=album.id, to=to, after=after):
        for row in rows:
            yield _move(row, library().storages[to], keep)
        after = rows[-1].id


def _move(row: Row, target: Storage, keep: int) -> Outcome:
    source = library().storages[row.storage]
    try:
        key = copy(row, source, row.key, target)
    except (StorageCorrupt, StorageNotFound) as error:
        return Outcome(row.id, row.key, Verdict.FAILED, reason=str(error))
    try:
        with locks.moving(row.id):
            settled = _settle(row, source, target, key, keep)
        if settled:
            return Outcome(row.id, row.key, Verdict.MOVED, row.bytes)
        reason = "Its images are being edited all the time."
        outcome = Outcome(row.id, row.key, Verdict.FAILED, reason=reason)
    except _Gone:
        outcome = Outcome(row.id, row.key, Verdict.GONE)
    discard(target, key)
    return outcome


def _settle(row: Row, source: Storage, target: Storage, key: str, keep: int) -> bool:
    """Have the renditions in the new storage, and switch the row if they are still those."""
    ready: dict[str, _Ready] = {}
    for _try in range(TRIES):
        ready = {
            image.id: known
            if (known := ready.get(image.id)) and known.state == _state(image)
            else _carried(image, source, target, key)
            for image in read(_IMAGES, object_id=row.id)
        }
        if _switch(row, target, key, keep, ready):
            return True
    return False


def _state(image: Any) -> tuple[int, str]:
    return image.revision, image.rendered


def _carried(image: Row, source: Storage, target: Storage, key: str) -> _Ready:
    """Bring the renditions of an image over, or make them from the bytes that are there already."""
    shown = renditions.picture(image)
    extension, placeholder = image.rendered, image.placeholder
    if not (image.rendered and (target.renders or _copied(shown, source, target))):
        try:
            rendered = renditions.patiently(
                lambda: renditions.draw(target, dataclasses.replace(shown, key=key), image.md5)
            )
            extension, placeholder = rendered.extension, rendered.placeholder
        except (UndecodablePicture, UnsupportedFormat) as error:
            log.warning("no renditions", image=image.id, why=str(error))
            extension = ""
    old = renditions.keys(shown) if image.rendered and not source.renders else ()
    return _Ready(_state(image), extension, placeholder, tuple(old))


def _copied(shown: Picture, source: Storage, target: Storage) -> bool:
    if source.renders:
        return False
    names = [rendition.name for rendition in library().renditions]
    files = {}
    try:
        for name, key in zip(names, renditions.keys(shown), strict=True):
            files[name] = b"".join(read_through(source, key))
    except (StorageNotFound, StorageCorrupt):
        return False
    target.keep(shown, files)
    return True


def _switch(row: Row, target: Storage, key: str, keep: int, ready: Mapping[str, _Ready]) -> bool:
    with transaction() as session:
        stored = session.get(StoredObject, row.id, with_for_update=True)
        if stored is None or (stored.storage, stored.key) != (row.storage, row.key):
            raise _Gone
        found = sa.select(Image).where(Image.object_id == row.id).order_by(Image.id)
        images = session.scalars(found.with_for_update()).all()
        seen = {image.id: _state(image) for image in images}
        if seen != {image_id: known.state for image_id, known in ready.items()}:
            return False
        stored.storage, stored.key = target.name, key
        for image in images:
            image.rendered = ready[image.id].extension
            image.placeholder = ready[image.id].placeholder
        _leave(session, row, ready, keep)
    return True


def _leave(session: orm.Session, row: Row, ready: Mapping[str, _Ready], keep: int) -> None:
    """Have the bytes removed from where they were, after so many seconds."""
    payload = {
        "object": row.id,
        "storage": row.storage,
        "key": row.key,
        "renditions": [key for known in ready.values() for key in known.old],
        "keep": keep,
    }
    number = work.record(session, "remove_copy", payload, keep * 1000)
    copy = ObjectCopy(key=row.key, object_id=row.id, storage=row.storage, work_id=number)
    session.add(copy)


@work.kind("remove_copy")
def _remove_copy(payload: work.Payload) -> None:
    """Remove what a move left, but nothing of an image that moved back."""
    storage = library().storages[payload["storage"]]
    with locks.moving(payload["object"]):  # or a move back would lose what it has just brought here
        if _comes_back(payload["object"], storage.name):
            _postpone(payload)
            return
        storage.delete(payload["key"])
        keys = payload["renditions"]
        here = _images_in(storage.name, {key[3:39] for key in keys})
        for key in keys:
            if key[3:39] not in here:
                storage.delete(key)
    with transaction() as session:
        session.execute(sa.delete(ObjectCopy).where(ObjectCopy.key == payload["key"]))


def _comes_back(object_id: int, storage: str) -> bool:
    """Whether the object's album is on its way back, and the object still to follow."""
    moving = (
        sa.select(StoredObject.id)
        .join(Album, Album.id == StoredObject.album_id)
        .where(StoredObject.id == object_id)
        .where(Album.storage == storage, StoredObject.storage != storage)
    )
    return bool(read(moving))


def _postpone(payload: work.Payload) -> None:
    with transaction() as session:
        number = work.record(session, "remove_copy", payload, payload["keep"] * 1000)
        there = sa.update(ObjectCopy).where(ObjectCopy.key == payload["key"])
        session.execute(there.values(work_id=number))


def _images_in(storage: str, image_ids: set[str]) -> set[str]:
    found = (
        sa.select(Image.id)
        .join(StoredObject, StoredObject.id == Image.object_id)
        .where(Image.id.in_(image_ids), StoredObject.storage == storage)
    )
    return {row.id for row in read(found)}
