"""What a storage holds beside what the rows say of it: the ground of `fsck` and `collect`.

Keys are looked at by their folder (`00` … `ff`), so that no more than a 256th of all is held at once.
Rows are read before the storage is listed, and once more before anything is said of a key: whoever
uploads, deletes or moves meanwhile is at no time taken for damage.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.catalog import albums, library, renditions
from imageapi.errors import StorageUnavailable
from imageapi.extensions import Row, read
from imageapi.models import Image, ObjectCopy, StoredObject
from imageapi.storage.backend import Stored
from imageapi.storage.storages import Storage

FOLDERS = tuple(f"{number:02x}" for number in range(256))
_TRIES = 3


class Kind(enum.StrEnum):
    """What a key is to the rows."""

    WANTED = "wanted"
    ORPHAN = "orphan"
    """No row knows of it."""
    OLD = "old"
    """A rendition of an image that there is, but not one that it shows by now, or shows from here."""


def _of_folder(column: orm.InstrumentedAttribute[str]) -> sa.ColumnElement[bool]:
    """Whether a column, which is unique or part of a key, begins with the folder's name.

    No range of keys: how texts are ordered is each database's own affair. But the index alone is
    gone through for it, a fraction of the table.
    """
    return column.in_(
        sa.select(column).where(sa.func.substr(column, 1, 2) == sa.bindparam("folder"))
    )


_OBJECTS = sa.select(StoredObject.__table__).where(
    StoredObject.storage == sa.bindparam("storage"), _of_folder(StoredObject.key)
)
_COPIES = sa.select(ObjectCopy.key).where(
    ObjectCopy.storage == sa.bindparam("storage"), _of_folder(ObjectCopy.key)
)
_PICTURES = sa.select(
    Image.id,
    Image.object_id,
    Image.revision,
    Image.rendered,
    Image.rotation,
    Image.crop_x,
    Image.crop_y,
    Image.crop_w,
    Image.crop_h,
    StoredObject.key,
    StoredObject.storage,
    StoredObject.width.label("original_width"),
    StoredObject.height.label("original_height"),
).join(StoredObject, StoredObject.id == Image.object_id)
_IMAGES = _PICTURES.where(_of_folder(Image.id))
_OBJECT = sa.select(StoredObject.id).where(
    StoredObject.storage == sa.bindparam("storage"), StoredObject.key == sa.bindparam("key")
)
_COPY = sa.select(ObjectCopy.key).where(
    ObjectCopy.storage == sa.bindparam("storage"), ObjectCopy.key == sa.bindparam("key")
)
_IMAGE = _PICTURES.where(Image.id == sa.bindparam("image_id"))


@dataclass(frozen=True)
class Folder:
    """The rows and the stored files of one folder of a storage.

    Attributes:
        name: the first two characters of its keys.
        objects: key to row, of the originals that should be here.
        copies: keys of copies that moves left here.
        images: id to row (enough for `renditions.picture`), of all images whose renditions this folder
            may hold, wherever their originals are.
        listed: key to what is stored, in order.
    """

    storage: Storage
    name: str
    objects: dict[str, Row]
    copies: set[str]
    images: dict[str, Row]
    listed: dict[str, Stored]

    def kind(self, key: str) -> Kind:
        """What a listed key is to the rows that were read."""
        if "." not in key:
            known = key in self.objects or key in self.copies
            return Kind.WANTED if known else Kind.ORPHAN
        return _rendition_kind(self.storage, key, self.images.get(key[3:39]))


def folders(storage: Storage) -> Iterator[Folder]:
    """The folders of a storage, one after the other, rows as they are then.

    Raises:
        StorageError: it can not be listed.
    """
    for folder in FOLDERS:
        yield _folder(storage, folder)


def _folder(storage: Storage, folder: str) -> Folder:
    here = {"storage": storage.name, "folder": folder}
    found = Folder(
        storage,
        folder,
        objects={row.key: row for row in read(_OBJECTS, **here)},
        copies={row.key for row in read(_COPIES, **here)},
        images={row.id: row for row in read(_IMAGES, folder=folder)},
        listed={},
    )
    return dataclasses.replace(found, listed=_listed(storage, f"{folder}/"))


def _listed(storage: Storage, prefix: str) -> dict[str, Stored]:
    listed: dict[str, Stored] = {}
    for attempt in range(1, _TRIES + 1):
        try:
            for stored in storage.list(prefix, max(listed, default="")):
                listed[stored.key] = stored
        except StorageUnavailable:
            if attempt == _TRIES:
                raise
        else:
            break
    return listed


def kind_now(storage: Storage, key: str) -> Kind:
    """What a key is to the rows at this moment."""
    here = {"storage": storage.name, "key": key}
    if "." not in key:
        return Kind.WANTED if read(_OBJECT, **here) or read(_COPY, **here) else Kind.ORPHAN
    return _rendition_kind(storage, key, image_now(key[3:39]))


def image_now(image_id: str) -> Row | None:
    """An image as `Folder.images` has it, at this moment."""
    rows = read(_IMAGE, image_id=image_id)
    return rows[0] if rows else None


def _rendition_kind(storage: Storage, key: str, image: Row | None) -> Kind:
    if image is None:
        return Kind.ORPHAN
    here = image.storage == storage.name and not storage.renders
    return Kind.WANTED if here and key in renditions.keys(renditions.picture(image)) else Kind.OLD


def storages() -> Iterator[tuple[str, Storage | StorageUnavailable]]:
    """The storages to look at: those in use, or why they are not there, and others that are."""
    shelf = library()
    used = albums.storages_in_use() | {shelf.settings.storage}
    for name in dict.fromkeys([*sorted(used), *shelf.storages.names()]):
        try:
            yield name, shelf.storages[name]
        except StorageUnavailable as error:
            if name in used:
                yield name, error
