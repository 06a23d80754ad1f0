"""Tags of albums, and the images that carry them.

Source: contract/tags-list.json, tag-images-*.json; design §4.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.catalog import now_ms
from imageapi.catalog.images import Confirm
from imageapi.catalog.listing import Place
from imageapi.errors import NotFound
from imageapi.extensions import Row, read, transaction
from imageapi.models import IMAGES, TAG_LENGTH, Image, Tag, TagImage

MAX_LABEL = 4096
"""The most characters of a label that a token may bring."""

_OF_ALBUM = (
    sa.select(Tag.__table__)
    .where(Tag.album_id == sa.bindparam("album_id"))
    .order_by(Tag.created_ms, Tag.id)
)
_TAGGED = (
    IMAGES.add_columns(
        TagImage.id.label("tag_image_id"),
        TagImage.created_ms.label("tagged_ms"),
        TagImage.user,
        Tag.id.label("tag_id"),
        Tag.created_ms.label("tag_created_ms"),
        Tag.name.label("tag_name"),
        Tag.label.label("tag_label"),
    )
    .join(TagImage, TagImage.image_id == Image.id)
    .join(Tag, Tag.id == TagImage.tag_id)
)
"""Images with the tag they carry: rows of `models.IMAGES` with the columns above."""


def of_album(album_id: int) -> Sequence[Row]:
    """The tags of an album, oldest first: rows of `tag`."""
    return read(_OF_ALBUM, album_id=album_id)


def ensure(album_id: int, named: Mapping[str, Any]) -> tuple[Sequence[Row], list[str]]:
    """The tags of an album, after making those in `named` that it lacks.

    Args:
        named: name to label; a label that is no text is kept as compact JSON. A name or label beyond
            its limit names no tag. An existing label is never changed.
    Returns: rows of `tag`, and the names of those that were made.
    """
    there = of_album(album_id)
    known = {tag.name for tag in there}
    missing = {
        name: text
        for name, label in named.items()
        if name not in known and _is_name(name) and len(text := _label(label)) <= MAX_LABEL
    }
    if not missing:
        return there, []
    made = [name for name, text in missing.items() if _make(album_id, name, text)]
    return of_album(album_id), made


def _make(album_id: int, name: str, label: str) -> bool:
    row = Tag(id=str(uuid.uuid4()), album_id=album_id, created_ms=now_ms(), name=name, label=label)
    try:
        with transaction() as session:
            session.add(row)
    except sa.exc.IntegrityError:
        # Another request with such a token came first, or the album was removed: both are fine.
        return False
    return True


def _is_name(name: str) -> bool:
    return 0 < len(name) <= TAG_LENGTH and "\0" not in name


def _label(label: Any) -> str:
    if isinstance(label, str):
        return label.replace("\0", "")
    return json.dumps(label, ensure_ascii=False, separators=(",", ":"))


def page(
    album_id: int, name: str | None, image_id: str | None, limit: int, after: Place | None
) -> tuple[Sequence[Row], Place | None]:
    """A page of an album's tagged images, oldest first, one row for each tag that an image carries.

    Args:
        name: only this tag.
        image_id: only this image.
        limit: the most rows.
        after: where the page before ended: `tagged_ms` and id of its last row.
    Returns: rows of `_TAGGED`, and the place where the next page begins, None at the end.
    """
    statement = _TAGGED.where(Image.album_id == album_id, Tag.album_id == album_id)
    if name is not None:
        statement = statement.where(Tag.name == name)
    if image_id is not None:
        statement = statement.where(Image.id == image_id)
    if after is not None:
        place = sa.tuple_(sa.literal(after[0], sa.BigInteger), sa.literal(after[1]))
        statement = statement.where(sa.tuple_(TagImage.created_ms, TagImage.id) > place)
    oldest_first = statement.order_by(TagImage.created_ms, TagImage.id)
    rows = read(oldest_first.limit(limit + 1))
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], (last.tagged_ms, last.tag_image_id)


def put_on(tag: Row, image_ids: Sequence[str], user: str | None, confirm: Confirm) -> list[Row]:
    """Put a tag on images of its album; one that carries it already keeps its row.

    Args:
        tag: of `tag`.
    Returns: a row of `_TAGGED` for each id, in their order.
    Raises:
        NotFound: an id is none of the album's images; nothing was done.
    """
    # Who puts the same tag on waits here: each sees what the other has put on.
    held = sa.select(Tag.id).where(Tag.id == tag.id).with_for_update(key_share=True)
    with transaction() as session:
        if session.scalar(held) is None:
            raise NotFound
        confirm(session, tag.id)
        _demand_of_album(session, tag.album_id, image_ids)
        carried = sa.select(TagImage.image_id).where(
            TagImage.tag_id == tag.id, TagImage.image_id.in_(image_ids)
        )
        done = set(session.scalars(carried))
        for image_id in dict.fromkeys(image_ids):
            if image_id not in done:
                row = {"tag_id": tag.id, "image_id": image_id, "user": user}
                session.add(TagImage(id=str(uuid.uuid4()), created_ms=now_ms(), **row))
    found = read(_TAGGED.where(Tag.id == tag.id, Image.id.in_(image_ids)))
    by_image = {row.id: row for row in found}
    return [by_image[image_id] for image_id in image_ids if image_id in by_image]


def _demand_of_album(session: orm.Session, album_id: int, image_ids: Sequence[str]) -> None:
    theirs = sa.select(Image.id).where(Image.album_id == album_id, Image.id.in_(image_ids))
    # They stay until the end, held in the order in which `edits.remove` holds them.
    held = theirs.order_by(Image.object_id, Image.id).with_for_update(read=True, key_share=True)
    if len(set(session.scalars(held))) != len(set(image_ids)):
        raise NotFound("An image is not in the tag's album; nothing was done.")


def take_off(tag_image_id: str, confirm: Confirm) -> None:
    """Take a tag off an image."""
    with transaction() as session:
        confirm(session, tag_image_id)
        session.execute(sa.delete(TagImage).where(TagImage.id == tag_image_id))
