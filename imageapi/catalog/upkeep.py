"""fsck: whether every row has its bytes, and whether they are those that were stored.

Source: design §9 (exit codes); threats F17 to F19.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import sqlalchemy as sa

from imageapi.catalog import originals, renditions, repairing, survey
from imageapi.catalog.repairing import Spares
from imageapi.catalog.survey import Folder, Kind
from imageapi.errors import (
    ImageAPIError,
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.extensions import Row, read
from imageapi.models import Image, StoredObject
from imageapi.storage.backend import Stored
from imageapi.storage.storages import Storage
from imageapi.telemetry import log

_READERS = 4
_AHEAD = 64
"""How many originals are read ahead of those that are told of."""
_NO_BYTES = "There are no bytes."

_COUNT = sa.select(sa.func.count()).select_from(StoredObject)
_AGAIN = sa.select(StoredObject.__table__).where(
    StoredObject.id == sa.bindparam("object_id"),
    StoredObject.storage == sa.bindparam("storage"),
    StoredObject.key == sa.bindparam("key"),
)
_IMAGES = sa.select(Image.id).where(Image.object_id == sa.bindparam("object_id"))


class Fault(enum.StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    """An original has no bytes."""
    WRONG = "wrong"
    """An original has other bytes than were stored."""
    RENDITIONS = "renditions"
    """An image lacks renditions that its row says there are, or should be."""
    ORPHAN = "orphan"
    """Bytes that no row knows of."""
    STORAGE = "storage"
    """A storage can not be looked at."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, of which images, in words; and whether it was put right."""

    fault: Fault
    storage: str
    key: str = ""
    reason: str = ""
    images: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def harmful(self) -> bool:
        """Whether an original may be lost."""
        grave = self.fault in (Fault.MISSING, Fault.WRONG, Fault.STORAGE)
        return grave and not self.repaired


class _Seen(NamedTuple):
    fault: Fault
    reason: str


_Look: TypeAlias = "tuple[Row, Future[_Seen | None]]"


@dataclass(frozen=True)
class Scope:
    """What `fsck` looks at, and does.

    Attributes:
        deep: read every original, and compare its hash.
        repair: render missing renditions; take lost originals from a second copy, if there is one.
        orphans: tell of bytes without a row that are older than so many seconds.
        checked: is told the bytes of each original that was looked at.
    """

    deep: bool = True
    repair: bool = False
    orphans: float = 86_400
    checked: Callable[[int], object] = lambda _: None


def count() -> int:
    """How many originals there are by their rows."""
    return int(read(_COUNT)[0][0])


def fsck(scope: Scope) -> Iterator[Finding]:
    """Hold what the storages have against the rows.

    What changes meanwhile is no finding: each is looked at again, by its row as it is then.
    """
    spares = repairing.Spares() if scope.repair else None
    for name, storage in survey.storages():
        try:
            if isinstance(storage, StorageUnavailable):
                raise storage
            yield from _storage(storage, scope, spares)
        except StorageError as error:
            yield Finding(Fault.STORAGE, name, reason=str(error))


def _storage(storage: Storage, scope: Scope, spares: Spares | None) -> Iterator[Finding]:
    for folder, looks in _looked(storage, deep=scope.deep):
        for row, look in looks:
            first = look.result()
            scope.checked(row.bytes)
            if first and (found := _original(storage, row, scope)):
                repaired = spares is not None and repairing.restore(row.id, spares)
                yield replace(found, repaired=repaired)
        yield from _orphans(folder, time.time() - scope.orphans)
        if not scope.repair:
            yield from _renditions(folder, repair=False)
    if scope.repair and not storage.renders:  # what they are rendered from is back by now
        for folder in survey.folders(storage):
            yield from _renditions(folder, repair=True)


def _looked(storage: Storage, *, deep: bool) -> Iterator[tuple[Folder, list[_Look]]]:
    """The folders of a storage with a look at each original: begun, and of the next ones too."""
    waiting: deque[tuple[Folder, list[_Look]]] = deque()
    pool = ThreadPoolExecutor(_READERS)
    try:
        for folder in survey.folders(storage):
            rows = folder.objects.values()
            waiting.append((folder, [(row, pool.submit(_look, folder, row, deep)) for row in rows]))
            while sum(len(looks) for _, looks in waiting) > _AHEAD:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


def _look(folder: Folder, row: Row, deep: bool) -> _Seen | None:  # noqa: FBT001 - submitted
    return _held(folder.storage, row, lambda: folder.listed.get(row.key), deep=deep)


def _held(
    storage: Storage, row: Row, find: Callable[[], Stored | None], *, deep: bool
) -> _Seen | None:
    """What is wrong with an original, by what `find` says is stored and, deep, by its bytes."""
    try:
        stored = find()
        if stored is None:
            return _Seen(Fault.MISSING, _NO_BYTES)
        if stored.bytes != row.bytes:
            return _Seen(Fault.WRONG, f"There are {stored.bytes} bytes, not {row.bytes}.")
        if stored.etag not in ("", row.md5) or (deep and not _same(storage, row)):
            return _Seen(Fault.WRONG, StorageCorrupt.detail)
    except StorageNotFound:
        return _Seen(Fault.MISSING, _NO_BYTES)
    except (StorageUnavailable, StorageDenied):
        raise
    except StorageError as error:
        return _Seen(Fault.WRONG, str(error))
    return None


def _same(storage: Storage, row: Row) -> bool:
    if row.sha256:
        return bool(originals.digest(storage, row.key) == row.sha256)
    return bool(originals.digest(storage, row.key, "md5") == row.md5)


def _original(storage: Storage, row: Row, scope: Scope) -> Finding | None:
    """Look again at an original that seemed to be damaged: it may be deleted or moved by now."""
    if not read(_AGAIN, object_id=row.id, storage=row.storage, key=row.key):
        return None
    seen = _held(storage, row, lambda: storage.stat(row.key), deep=scope.deep)
    if seen is None or not read(_AGAIN, object_id=row.id, storage=row.storage, key=row.key):
        return None
    images = tuple(image.id for image in read(_IMAGES, object_id=row.id))
    return Finding(seen.fault, storage.name, row.key, seen.reason, images)


def _renditions(folder: Folder, *, repair: bool) -> Iterator[Finding]:
    for image in folder.images.values():
        keys = renditions.keys(renditions.picture(image))
        here = image.storage == folder.storage.name and not folder.storage.renders
        if here and not (image.rendered and folder.listed.keys() >= set(keys)):
            found = _unrendered(folder.storage, image.id)
            if found:
                yield replace(found, repaired=repair and _rendered(image.id))


def _unrendered(storage: Storage, image_id: str) -> Finding | None:
    image = survey.image_now(image_id)
    if image is None or image.storage != storage.name:
        return None
    keys = renditions.keys(renditions.picture(image))
    if not image.rendered:
        reason = "There are no renditions yet."
    elif missing := [key for key in keys if not renditions.there(storage, key)]:
        reason = f"There is no {' and no '.join(missing)}."
    else:
        return None
    return Finding(Fault.RENDITIONS, storage.name, image.key, reason, (image_id,))


def _rendered(image_id: str) -> bool:
    try:
        renditions.patiently(lambda: renditions.render(image_id))
    except ImageAPIError as error:
        log.warning("no renditions", image=image_id, why=str(error))
        return False
    return True


def _orphans(folder: Folder, before: float) -> Iterator[Finding]:
    for key, stored in folder.listed.items():
        unknown = stored.created < before and folder.kind(key) is Kind.ORPHAN
        if unknown and survey.kind_now(folder.storage, key) is Kind.ORPHAN:
            yield Finding(Fault.ORPHAN, folder.storage.name, key, "No row knows of these bytes.")
