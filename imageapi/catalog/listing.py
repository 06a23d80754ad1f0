"""Lists of images: newest first, by keyset, within the album's own index range.

Source: design §4; https://use-the-index-luke.com/no-offset for why never OFFSET.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from imageapi.extensions import Row, read
from imageapi.models import IMAGES, LISTED, Image, StoredObject, Tag, TagImage

Place = tuple[int, str]
"""Where a page ends: `created_ms` and id of its last image."""


@dataclass(frozen=True)
class Filters:
    """Which images of an album are listed; a filter that is None lets all pass.

    Attributes:
        tag: the name of a tag that they carry.
        untagged: only those that carry no tag at all.
        taken_after, taken_before, created_after, created_before: milliseconds since 1970, exclusive.
        bbox: west, south, east, north in degrees; west > east crosses the antimeridian.
        format: as in `infos`.
    """

    tag: str | None = None
    untagged: bool = False
    taken_after: int | None = None
    taken_before: int | None = None
    created_after: int | None = None
    created_before: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    format: str | None = None


_ALL = Filters()


def page(
    album: Row, limit: int, after: Place | None = None, filters: Filters = _ALL
) -> tuple[Sequence[Row], Place | None]:
    """One page of the images of an album, a row of `models.ALBUMS`.

    Returns: rows of `models.LISTED`, at most `limit`, and the place where the next page begins, None
        at the end.
    """
    place = {"created_ms": after[0], "id": after[1]} if after else {}
    statement = _statement(filters, bool(after))
    of_album = {"album_id": album.id, "album": album.public_id}
    rows = read(statement, **of_album, limit=limit + 1, **place)
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], (last.created_ms, last.id)


@functools.lru_cache(maxsize=256)
def _statement(filters: Filters, continued: bool) -> sa.Select[Any]:  # noqa: FBT001
    statement = LISTED.where(Image.album_id == sa.bindparam("album_id"), *_conditions(filters))
    if continued:
        here = sa.tuple_(sa.bindparam("created_ms", type_=sa.BigInteger), sa.bindparam("id"))
        statement = statement.where(sa.tuple_(Image.created_ms, Image.id) < here)
    return statement.order_by(Image.created_ms.desc(), Image.id.desc()).limit(sa.bindparam("limit"))


def _conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    for column, after, before in (
        (Image.created_ms, filters.created_after, filters.created_before),
        (Image.taken_ms, filters.taken_after, filters.taken_before),
    ):
        if after is not None:
            found.append(column > after)
        if before is not None:
            found.append(column < before)
    if filters.format is not None:
        found.append(StoredObject.format == filters.format)
    if filters.bbox is not None:
        found.extend(_within(*filters.bbox))
    if filters.untagged:
        found.append(~sa.exists().where(TagImage.image_id == Image.id))
    if filters.tag is not None:
        carries = sa.exists().where(TagImage.image_id == Image.id, TagImage.tag_id == Tag.id)
        found.append(carries.where(Tag.album_id == Image.album_id, Tag.name == filters.tag))
    return found


def _within(west: float, south: float, east: float, north: float) -> list[sa.ColumnElement[bool]]:
    longitude = (
        Image.longitude.between(west, east)
        if west <= east
        else sa.or_(Image.longitude >= west, Image.longitude <= east)
    )
    return [Image.latitude.between(south, north), longitude]


SHOWN = 4
"""How many of its newest images an album shows."""


def newest(album_ids: Sequence[int]) -> dict[int, list[Row]]:
    """The newest images of several albums at once, at most `SHOWN` each: rows of `models.IMAGES`."""
    shown: dict[int, list[Row]] = {album_id: [] for album_id in album_ids}
    if album_ids:
        given = {f"album_{number}": album_id for number, album_id in enumerate(album_ids)}
        for row in read(_newest(len(album_ids)), **given):
            shown[row.album_id].append(row)
    return shown


@functools.lru_cache(maxsize=256)
def _newest(albums: int) -> sa.Select[Any]:
    # Each album's end of the index is read by itself: PostgreSQL can not guess how little that is
    # where one condition is to say it for all of them.
    ends = [
        sa.select(Image.id)
        .where(Image.album_id == sa.bindparam(f"album_{number}"))
        .order_by(Image.created_ms.desc(), Image.id.desc())
        .limit(SHOWN)
        .subquery()
        .select()
        for number in range(albums)
    ]
    found = IMAGES.where(Image.id.in_(sa.union_all(*ends)))
    return found.order_by(Image.album_id, Image.created_ms.desc(), Image.id.desc())
