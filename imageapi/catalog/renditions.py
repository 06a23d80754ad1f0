"""Renditions: their URLs, which need no I/O, and their bytes, rendered once when they are missing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi import imaging
from imageapi.catalog import background, library, locks, work
from imageapi.errors import (
    Busy,
    NotFound,
    StorageCorrupt,
    StorageError,
    StorageNotFound,
    UndecodablePicture,
    UnsupportedFormat,
)
from imageapi.extensions import Row, read, transaction
from imageapi.geometry import Crop, Edit, Size, plan
from imageapi.models import ORIGINALS, Image, StoredObject
from imageapi.storage.backend import Picture, rendition_key
from imageapi.storage.storages import Storage
from imageapi.telemetry import log

T = TypeVar("T")

BLANK = "/assets/blank.jpg"
"""The answer for every rendition that can not be had."""

PATIENCE = 60.0
"""Seconds that a rendering which is in no hurry waits for a decoder."""

ASKED = 10.0
"""Seconds for which a process has workers told once of an image that lacks renditions."""

KEPT = 8192
"""How many images' texts with URLs a process keeps; then it begins anew."""

_TYPES = {"jpg": "image/jpeg", "png": "image/png"}
_ONE = ORIGINALS.where(Image.id == sa.bindparam("image_id"))


def picture(row: Row) -> Picture:
    """What a storage must know of an image, from a row of `models.IMAGES`."""
    return Picture(
        key=row.key,
        image_id=row.id,
        revision=row.revision,
        size=Size(row.original_width, row.original_height),
        edit=Edit(Crop(row.crop_x, row.crop_y, row.crop_w, row.crop_h), row.rotation),
        extension=row.rendered or "jpg",
    )


def thumbnails(rows: Sequence[Row], around: Callable[[Row, str], str]) -> list[str]:
    """Name to URL of every rendition of each image, as JSON text, from rows of `models.IMAGES`.

    `BLANK` where the storage can not give one: not rendered yet, failed, or a storage that is gone;
    never an error, never any I/O.

    Args:
        rows: of `models.IMAGES` or `models.LISTED`.
        around: what is to be made of the text; it may depend on the image's revision and its album's
            id, on nothing else.
    Returns: what `around` made, kept for the URLs' window.
    """
    shelf, now = library(), time.time()
    window = now // shelf.settings.url_window
    made = shelf.thumbnails
    return [
        made.get(kept := (row.id, row.revision, row.rendered, row.storage, row.album, window))
        or _thumbnails(row, now, kept, around)
        for row in rows
    ]


def _thumbnails(
    row: Row, now: float, kept: tuple[Any, ...], around: Callable[[Row, str], str]
) -> str:
    shelf = library()
    urls = _urls(row, now) if row.rendered else None
    if urls is None:
        return around(row, _json({rendition.name: BLANK for rendition in shelf.renditions}))
    text = around(row, _json(urls))
    if len(shelf.thumbnails) >= KEPT:
        shelf.thumbnails.clear()
    shelf.thumbnails[kept] = text
    return text


def _urls(row: Row, now: float) -> dict[str, str] | None:
    shelf, shown = library(), picture(row)
    try:
        storage = shelf.storages[row.storage]
        return {r.name: storage.rendition_url(shown, r, now) for r in shelf.renditions}
    except StorageError:
        return None


def _json(urls: dict[str, str]) -> str:
    return json.dumps(urls, ensure_ascii=False, separators=(",", ":"))


def widths(row: Row) -> dict[str, int]:
    """The width of every rendition of an image in pixels, from a row of `models.IMAGES`."""
    size = Size(row.width, row.height)
    return {r.name: plan(size, r).size.width for r in library().renditions}


def keys(shown: Picture) -> list[str]:
    """The keys of all renditions of one revision of an image."""
    return [
        rendition_key(shown.image_id, shown.revision, rendition.name, shown.extension)
        for rendition in library().renditions
    ]


@dataclass(frozen=True)
class Shown:
    """A rendition on its way out: its bytes in pieces, their number, type, and seconds to keep.

    `location` is where the web server in front finds the bytes itself; there are none here then.
    """

    pieces: Iterable[bytes]
    length: int
    content_type: str
    max_age: int
    location: str


def open_signed(storage: str, key: str, query: str, now: float) -> Shown | None:
    """The rendition that a signed URL of ours names.

    One that is missing is rendered now; by a worker, and not waited for, where there is a broker.

    Args:
        storage: the storage's name, `key` the rendition's key, `query` the raw query string.
        now: seconds since 1970.
    Returns: None when it can not be had: the blank picture stands for it.
    Raises:
        NotFound: the URL is not ours, has ended, or the image is deleted.
    """
    shelf = library()
    max_age = shelf.storages.urls.verify(storage, key, query, now)
    if not max_age:
        raise NotFound
    try:
        rows = read(_ONE, image_id=key[3:39])
        if not rows:
            raise NotFound
        store = shelf.storages[storage]
        found = _open(store, key) or _restored(store, key, rows[0])
    except (
        StorageError,
        UndecodablePicture,
        UnsupportedFormat,
        Busy,
        sa.exc.SQLAlchemyError,
    ) as error:
        log.warning("no rendition", key=key, why=str(error))
        return None
    if found is None:
        return None
    location = store.sent_from and store.sent_from + key
    return Shown(*found, _TYPES[key.rpartition(".")[2]], max_age, location)


def _open(store: Storage, key: str) -> tuple[Iterable[bytes], int] | None:
    try:
        if store.sent_from:
            store.stat(key)
            return (), 0
        return store.open(key), store.stat(key).bytes
    except StorageNotFound:
        return None


def there(store: Storage, key: str) -> bool:
    """Whether a storage has anything under this key."""
    try:
        store.stat(key)
    except StorageNotFound:
        return False
    return True


def _restored(store: Storage, key: str, row: Row) -> tuple[Iterable[bytes], int] | None:
    # Only the current edit is known; an older revision that was removed stays gone.
    if key not in keys(picture(row)):
        return None
    if library().settings.broker_url:
        _have_restored(row)
        return None
    with locks.rendering(row.id):
        found = _open(store, key)
        if found is None:
            draw(store, picture(row), row.md5)
            found = _open(store, key)
    return found


def _have_restored(row: Row) -> None:
    asked, now = library().asked, time.monotonic()
    if asked.get((row.id, row.revision), 0.0) > now:
        return
    if len(asked) >= KEPT:
        asked.clear()
    asked[row.id, row.revision] = now + ASKED
    with transaction() as session:
        number = work.record(session, "restore", {"image": row.id})
    background.soon(number)


@work.kind("restore")
def _restore(payload: work.Payload) -> None:
    """Render what an image was found to lack, unless it is there by now."""
    with locks.rendering(payload["image"]):
        rows = read(_ONE, image_id=payload["image"])
        if not rows:
            raise NotFound
        store, shown = library().storages[rows[0].storage], picture(rows[0])
        if not all(there(store, key) for key in keys(shown)):
            with _given_up_without_original(shown.image_id):
                draw(store, shown, rows[0].md5)


@contextlib.contextmanager
def _given_up_without_original(image_id: str) -> Iterator[None]:
    try:
        yield
    except (StorageNotFound, StorageCorrupt) as error:  # to try again would not bring it back
        log.warning("no renditions", image=image_id, why=str(error))


def render(image_id: str, *, again: bool = True) -> None:
    """Render and keep all renditions of an image's current revision, and say so in its row.

    Args:
        again: also when its row says that they are there.
    Raises:
        NotFound: it is not there any more.
        StorageError: the original can not be read, or the renditions not be kept.
        UndecodablePicture: the original can not be decoded.
    """
    while not _render_row(image_id, again=again):
        pass  # its bytes moved to another storage meanwhile


def _render_row(image_id: str, *, again: bool) -> bool:
    with locks.rendering(image_id):
        rows = read(_ONE, image_id=image_id)
        if not rows:
            raise NotFound
        if rows[0].rendered and not again:
            return True
        store = library().storages[rows[0].storage]
        return _kept(rows[0], draw(store, picture(rows[0]), rows[0].md5))


def _kept(row: Row, rendered: imaging.Rendered) -> bool:
    """Whether the row's renditions are in the right storage; its row tells of them then."""
    same = sa.update(Image).where(Image.id == row.id, Image.revision == row.revision)
    with transaction() as session:
        if hold(session, row.object_id) != row.storage:
            return False
        values = {"rendered": rendered.extension, "placeholder": rendered.placeholder}
        session.execute(same.values(**values))
    return True


def draw(store: Storage, shown: Picture, md5: str) -> imaging.Rendered:
    """Render all renditions of a picture from its original in `store`; keep them there.

    A storage that renders by itself keeps none.

    Args:
        md5: of the original; what has another is not rendered (F17).
    Raises: as `render`; StorageCorrupt for other bytes than were stored.
    """
    shelf = library()
    with store.stage() as staging:
        with contextlib.closing(store.open(shown.key)) as pieces:
            for piece in pieces:
                staging.write(piece)
        staged = staging.finish()
        if staged.md5 != md5:
            log.error("damaged original", key=shown.key)
            raise StorageCorrupt
        rendered = imaging.render(staged.path, shown.edit, shelf.renditions, shelf.limits)
    log.debug("rendered", image=shown.image_id, revision=shown.revision)
    if not store.renders:
        store.keep(dataclasses.replace(shown, extension=rendered.extension), rendered.files)
    return rendered


def patiently(task: Callable[[], T]) -> T:
    """Do what needs a decoder, waiting while others have them all."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return task()
        except Busy:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def hold(session: orm.Session, object_id: int) -> str | None:
    """The storage that an object is in, and stays in until the transaction ends; None: it is gone."""
    held = sa.select(StoredObject.storage).where(StoredObject.id == object_id)
    storage: str | None = session.scalar(held.with_for_update(read=True))
    return storage


def rendered_by_url(storage: str) -> bool:
    """Whether a storage renders any edit by URL, so that we need not."""
    try:
        return library().storages[storage].renders
    except StorageError:
        return False


@work.kind("render")
def _work(payload: work.Payload) -> None:
    with _given_up_without_original(payload["image"]):
        render(payload["image"], again=False)
