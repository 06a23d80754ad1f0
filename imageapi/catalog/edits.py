"""What is done to images that are there: edit, duplicate, delete.

Source: design §2 (geometry), §4 (who wins), §5 (the order of row and bytes).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.catalog import background, library, now_ms, renditions, work
from imageapi.catalog.images import Confirm, agreed, count
from imageapi.errors import FieldFault, InvalidFields, NotFound, PreconditionFailed
from imageapi.extensions import Row, transaction
from imageapi.geometry import Crop, CropFault, Edit, Size, effective_size
from imageapi.models import (
    ANY_ORIGINALS,
    Album,
    Image,
    ObjectCopy,
    StoredObject,
    TagImage,
    Work,
)

EDITS = ("rotation", "crop_x", "crop_y", "crop_w", "crop_h")
"""The fields of an edit."""


def edit(row: Row, values: Mapping[str, float], confirm: Confirm = agreed) -> bool:
    """Edit an image, if it still is at the revision that `row` shows.

    Args:
        row: of `models.IMAGES`.
        values: the fields of `EDITS` that were sent; the others keep theirs.
        confirm: asked inside the write; may raise to refuse.
    Returns: False when another edit came first; nothing was done then.
    Raises:
        InvalidFields: the crop is none that this picture can have.
    """
    edited = {name: values.get(name, getattr(row, name)) for name in EDITS}
    size = _effective(row, edited)
    with transaction() as session:
        storage = renditions.hold(session, row.object_id)
        if storage is None:
            return False
        kept = row.rendered if renditions.rendered_by_url(storage) else ""
        changed = (
            sa.update(Image)
            .where(Image.id == row.id, Image.revision == row.revision)
            .values(
                **values,
                revision=Image.revision + 1,
                width=size.width,
                height=size.height,
                rendered=kept,
                # What the storage renders, nobody has looked at here.
                placeholder=None if kept else Image.placeholder,
            )
        )
        if session.connection().execute(changed).rowcount == 0:
            return False
        confirm(session, row.id)
        todo = None if kept else _follow(session, row, storage)
    if todo is not None:
        background.soon(todo)
    return True


def _effective(row: Row, edited: Mapping[str, float]) -> Size:
    crop = Crop(*(edited[name] for name in EDITS[1:]))
    try:
        return effective_size(
            Size(row.original_width, row.original_height), Edit(crop, int(edited["rotation"]))
        )
    except CropFault as fault:
        raise InvalidFields(errors=[FieldFault(fault.field, fault.message)]) from fault


def _follow(session: orm.Session, old: Row, storage: str) -> int:
    """Have the new revision rendered; remove the old one's renditions once no URL names them."""
    if old.rendered:
        keys = renditions.keys(renditions.picture(old))
        delay_ms = 2000 * library().settings.url_window
        work.record(session, "remove", {"storage": storage, "keys": keys}, delay_ms)
    return work.record(session, "render", {"image": old.id})


def duplicate(row: Row, confirm: Confirm = agreed) -> str:
    """Make another image of the same stored bytes, with a copy of the edit; returns its id.

    Raises:
        NotFound: the image was deleted meanwhile.
    """
    image_id = str(uuid.uuid4())
    with transaction() as session:
        count(session, row.album_id, images=1, size=0)  # the album first, as uploads do
        source = session.get(Image, row.id)
        # Held to the end: a delete of the last image on these bytes waits, and then sees this one.
        stored = session.get(StoredObject, row.object_id, with_for_update=True)
        if source is None or stored is None:
            raise NotFound
        kept = {column.key: getattr(source, column.key) for column in Image.__table__.columns}
        rendered = source.rendered if renditions.rendered_by_url(stored.storage) else ""
        fresh = {"id": image_id, "created_ms": now_ms(), "revision": 0, "rendered": rendered}
        session.add(Image(**{**kept, **fresh}))
        session.flush()
        confirm(session, image_id)
        todo = None if rendered else work.record(session, "render", {"image": image_id})
    if todo is not None:
        background.soon(todo)
    return image_id


def delete(row: Row, confirm: Confirm = agreed, revision: int | None = None) -> None:
    """Delete an image: the row first, then its bytes, if no other image is on them.

    Raises:
        NotFound: it is gone.
        PreconditionFailed: it is at another revision than `revision`.
    """
    with transaction() as session:
        confirm(session, row.id)
        if revision is not None:
            _demand_revision(session, row.id, revision)
        todo = remove(session, [row.id])
    background.soon(*todo)


def _demand_revision(session: orm.Session, image_id: str, revision: int) -> None:
    # Held as `remove` holds them, in its order: no edit comes between this look and the end.
    _hold_album(session, [image_id])
    theirs = sa.select(StoredObject.id, Image.revision)
    held = theirs.join(Image, Image.object_id == StoredObject.id).where(Image.id == image_id)
    found = session.execute(held.with_for_update()).one_or_none()
    if found is not None and found.revision != revision:
        raise PreconditionFailed


def remove(session: orm.Session, image_ids: Sequence[str]) -> list[int]:
    """Remove the rows of images of one album; their bytes are left as work, whose numbers it returns.

    Raises:
        NotFound: none of them is there any more.
    """
    _hold_album(session, image_ids)
    theirs = sa.select(StoredObject.id, Image.id).join(Image, Image.object_id == StoredObject.id)
    held = theirs.where(Image.id.in_(image_ids)).order_by(StoredObject.id, Image.id)
    session.execute(held.with_for_update())
    rows = session.execute(ANY_ORIGINALS.where(Image.id.in_(image_ids))).all()
    if not rows:
        raise NotFound
    objects = {row.object_id: row for row in rows}
    session.execute(sa.delete(TagImage).where(TagImage.image_id.in_(image_ids)))
    session.execute(sa.delete(Image).where(Image.id.in_(image_ids)))
    in_use = sa.select(Image.object_id).where(Image.object_id.in_(objects)).distinct()
    freed = objects.keys() - set(session.scalars(in_use))
    copies = _copies(session, freed)
    session.execute(sa.delete(StoredObject).where(StoredObject.id.in_(freed)))
    size = sum(objects[number].bytes for number in freed)
    fewer = {"images_count": Album.images_count - len(rows), "bytes": Album.bytes - size}
    session.execute(sa.update(Album).where(Album.id == rows[0].album_id).values(**fewer))
    return [*(_remove_bytes(session, row, freed) for row in rows), *copies]


def _hold_album(session: orm.Session, image_ids: Sequence[str]) -> None:
    # Before the objects, as uploads do: they would wait for each other else.
    album = sa.select(Image.album_id).where(Image.id.in_(image_ids))
    session.execute(sa.select(Album.id).where(Album.id.in_(album)).with_for_update())


def _copies(session: orm.Session, objects: set[int]) -> list[int]:
    """The work that removes the copies which moves left of objects, due now."""
    left = sa.select(ObjectCopy.work_id).where(ObjectCopy.object_id.in_(objects))
    numbers = list(session.scalars(left))
    session.execute(sa.update(Work).where(Work.id.in_(numbers)).values(due_ms=now_ms()))
    return numbers


def _remove_bytes(session: orm.Session, row: Any, freed: set[int]) -> int:
    by_us = not renditions.rendered_by_url(row.storage)
    keys = renditions.keys(renditions.picture(row)) if by_us and row.rendered else []
    if row.object_id in freed:
        freed.discard(row.object_id)
        keys.append(row.key)
    edited = row.id if by_us and row.revision else None
    payload = {"storage": row.storage, "keys": keys, "edited": edited}
    return work.record(session, "remove", payload)


@work.kind("remove")
def _remove(payload: dict[str, Any]) -> None:
    storage, keys = library().storages[payload["storage"]], payload["keys"]
    if edited := payload.get("edited"):
        # A URL of S3 shows what is there: renditions of earlier revisions must not outlive the image.
        keys = [*keys, *(found.key for found in storage.list(f"{edited[:2]}/{edited}."))]
    for key in keys:
        storage.delete(key)
