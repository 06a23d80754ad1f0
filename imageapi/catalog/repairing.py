"""Lost originals put back from second copies: those that moves left, and bytes that no row knows of.

The latter hold what is missed after rows were restored from an older copy of the database: of an album
that moved since, the rows name keys that are gone, and the bytes are in another storage.

Source: threats G3, F17, F19.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from imageapi.catalog import library, survey
from imageapi.catalog.originals import OBJECTS, copy
from imageapi.catalog.survey import Kind
from imageapi.errors import StorageError, StorageUnavailable
from imageapi.extensions import Row, read, transaction
from imageapi.models import ObjectCopy, StoredObject
from imageapi.storage.backend import Stored
from imageapi.storage.storages import Storage
from imageapi.telemetry import log

_OBJECT = OBJECTS.where(StoredObject.id == sa.bindparam("object_id"))
_COPIES = sa.select(ObjectCopy.key, ObjectCopy.storage).where(
    ObjectCopy.object_id == sa.bindparam("object_id")
)


class Spares:
    """Where second copies of originals may be; all is listed once, when it comes to that."""

    def of(self, row: Row) -> Iterator[tuple[str, str]]:
        """The storages and keys under which an object's bytes may be, likely ones first."""
        for left in read(_COPIES, object_id=row.id):
            yield left.storage, left.key
        yield from self._orphans.get(row.bytes, ())

    @functools.cached_property
    def _orphans(self) -> Mapping[int, Sequence[tuple[str, str]]]:
        """Storage and key of all originals without a row, by their length."""
        found = collections.defaultdict(list)
        for name, storage in survey.storages():
            try:
                for stored in _orphans(storage):
                    found[stored.bytes].append((name, stored.key))
            except StorageError as error:
                log.warning("no copies", storage=name, why=str(error))
        return found


def restore(object_id: int, spares: Spares) -> bool:
    """Give an object whose bytes are lost or damaged those of a second copy, if there is one.

    They come under a new key. The bytes that are there now stay, under a key that no row knows.
    """
    row = read(_OBJECT, object_id=object_id)[0]
    for storage, key in spares.of(row):
        try:
            made = copy(row, library().storages[storage], key, library().storages[row.storage])
        except StorageError as error:
            log.info("no copy", storage=storage, key=key, why=str(error))
        else:
            return _point(row, made)
    return False


def _point(row: Row, key: str) -> bool:
    unchanged = sa.update(StoredObject).where(
        StoredObject.id == row.id,
        StoredObject.storage == row.storage,
        StoredObject.key == row.key,
    )
    with transaction() as session:
        return session.connection().execute(unchanged.values(key=key)).rowcount == 1


def _orphans(storage: Storage | StorageUnavailable) -> Iterator[Stored]:
    if isinstance(storage, StorageUnavailable):
        raise storage
    for folder in survey.folders(storage):
        for key, stored in folder.listed.items():
            if "." not in key and folder.kind(key) is Kind.ORPHAN:
                yield stored
