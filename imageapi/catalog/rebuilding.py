"""Rendering all renditions anew, as when their sizes have changed; to be stopped and run again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from imageapi.catalog import albums, library, renditions, work
from imageapi.errors import (
    NotFound,
    StorageCorrupt,
    StorageNotFound,
    UndecodablePicture,
    UnsupportedFormat,
)
from imageapi.extensions import Row, read, transaction
from imageapi.models import Album, Image, Progress, StoredObject
from imageapi.telemetry import log

PAGE = 20
"""How many images are rendered between two notes of how far it has come."""

_PLACE = sa.select(Progress.place).where(Progress.task == sa.bindparam("task"))
_IMAGES = (
    sa.select(Image.id, StoredObject.storage)
    .join(StoredObject, StoredObject.id == Image.object_id)
    .join(Album, Album.id == Image.album_id)
    .where(Album.deleted_ms.is_(None))
)


@dataclass(frozen=True)
class Outcome:
    """One image; the reason if it could not be rendered, and whether its storage renders by itself."""

    image: str
    reason: str = ""
    skipped: bool = False


def left(album: Row | None, place: str) -> int:
    """How many images are still to be looked at."""
    statement = _chosen(album).where(Image.id > place)
    return int(read(sa.select(sa.func.count()).select_from(statement.subquery()))[0][0])


def place(album: Row | None, *, restart: bool = False) -> str:
    """The id of the last image that was done by a run which did not come to its end; "" for none."""
    if restart:
        _note(_task(album), None)
    rows = read(_PLACE, task=_task(album))
    return str(rows[0].place) if rows else ""


def leave(album: Row | None, after: str) -> None:
    """Have `rebuild` done as work; takes the same."""
    payload = {"album": None if album is None else album.id, "after": after}
    with transaction() as session:
        work.record(session, "rebuild", payload)


@work.kind("rebuild")
def _rebuild_on(payload: work.Payload) -> work.Payload | None:
    """Rebuild for a slice of time."""
    album = None if payload["album"] is None else albums.get(payload["album"])
    end = time.monotonic() + work.SLICE
    for outcome in rebuild(album, payload["after"]):
        if outcome.reason:
            log.warning("not rendered", image=outcome.image, why=outcome.reason)
        if time.monotonic() > end:
            return {**payload, "after": outcome.image}
    log.info("renditions rebuilt", album=None if album is None else album.public_id)
    return None


def rebuild(album: Row | None, after: str) -> Iterator[Outcome]:
    """Render the current revisions of all images, or of those of one album, a row of `models.ALBUMS`.

    Args:
        after: from `place`.
    Raises:
        StorageError: a storage failed; another image would fare no better.
    """
    task = _task(album)
    while rows := read(_chosen(album).where(Image.id > after).order_by(Image.id).limit(PAGE)):
        for row in rows:
            yield _rendered(row)
        after = rows[-1].id
        _note(task, after)
    _note(task, None)


def _rendered(row: Row) -> Outcome:
    if renditions.rendered_by_url(row.storage):
        return Outcome(row.id, skipped=True)
    try:
        renditions.patiently(lambda: renditions.render(row.id))
    except NotFound:
        return Outcome(row.id, skipped=True)  # deleted meanwhile
    except (StorageNotFound, StorageCorrupt, UndecodablePicture, UnsupportedFormat) as error:
        return Outcome(row.id, str(error))
    return Outcome(row.id)


def _chosen(album: Row | None) -> sa.Select[str, str]:
    return _IMAGES if album is None else _IMAGES.where(Image.album_id == album.id)


def _task(album: Row | None) -> str:
    """A name of the task: for other images or other sizes, another one."""
    sizes = hashlib.sha256(repr(library().renditions).encode()).hexdigest()[:16]
    of = "all" if album is None else f"{album.id} {album.created_ms}"
    return f"renditions rebuild {of} {sizes}"


def _note(task: str, done: str | None) -> None:
    with transaction() as session:
        if done is None:
            session.execute(sa.delete(Progress).where(Progress.task == task))
        else:
            session.merge(Progress(task=task, place=done))
