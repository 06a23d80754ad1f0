"""collect: what nobody needs any more, by age, and never what has a row.

Bytes that no row wants are first noted (the quarantine) and only go when they were still unwanted as
long after that as the limit says. Where more than a twentieth of a storage is without rows, the rows are
more likely to be wrong than the bytes, as after a database was restored from an older copy: nothing of
it is removed then.

Source: threats G3; design §9.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from imageapi.catalog import idempotency, library, now_ms, survey
from imageapi.catalog.survey import Folder, Kind
from imageapi.errors import StorageError, StorageNotFound, StorageUnavailable
from imageapi.extensions import read, transaction
from imageapi.models import IdempotencyKey, Quarantined, ReservedID, Share
from imageapi.storage.storages import Storage

MOST = 0.05
"""The part of a storage's keys that may be without rows."""
_PAGE = 500

_KNOWN = sa.select(Quarantined.key).where(
    Quarantined.storage == sa.bindparam("storage"),
    sa.func.substr(Quarantined.key, 1, 2) == sa.bindparam("folder"),
)
_NOTED = (
    sa.select(Quarantined.key, Quarantined.since_ms)
    .where(Quarantined.storage == sa.bindparam("storage"), Quarantined.key > sa.bindparam("after"))
    .order_by(Quarantined.key)
    .limit(_PAGE)
)


@dataclass(frozen=True)
class Rule:
    """What may go.

    Attributes:
        older_than: seconds; no less than any upload takes.
        force: bytes without a row go although they are many, and without having been noted before.
        dry_run: nothing is changed.
        looked: is told each time a folder was looked at.
    """

    older_than: float
    force: bool = False
    dry_run: bool = False
    looked: Callable[[], object] = lambda: None


@dataclass
class Collected:
    """What was removed, or would be.

    Attributes:
        tally: `staged` files and uploads, `orphans`, `old` renditions, expired `rows`; `noted`: bytes
            that may go later.
        stopped: the storages that have too many bytes without a row, with the part of it that they are.
        faults: the storages that could not be looked at, and why.
    """

    tally: Counter[str] = field(default_factory=Counter)
    stopped: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def collect(rule: Rule) -> Collected:
    """Remove what nobody needs any more."""
    collected = Collected()
    for name, storage in survey.storages():
        try:
            if isinstance(storage, StorageUnavailable):
                raise storage
            _storage(storage, rule, collected)
        except StorageError as error:
            collected.faults[name] = str(error)
    collected.tally["rows"] = _expired(rule)
    return collected


def _storage(storage: Storage, rule: Rule, collected: Collected) -> None:
    if not rule.dry_run:
        collected.tally["staged"] += storage.clear_staging(rule.older_than)
    part = _note(storage, rule, collected)
    stopped = part > MOST and not rule.force
    if stopped:
        collected.stopped[storage.name] = part
    for keys in _noted(storage, rule, stopped=stopped):
        for kind in keys.values():
            collected.tally["orphans" if kind is Kind.ORPHAN else "old"] += kind is not Kind.WANTED
        if not rule.dry_run:
            for key, kind in keys.items():
                if kind is not Kind.WANTED:
                    storage.delete(key)
            _forget(storage.name, list(keys))


def _note(storage: Storage, rule: Rule, collected: Collected) -> float:
    """Note what no row wants; returns which part of all keys has no row."""
    before = time.time() - rule.older_than
    keys = orphans = 0
    for folder in survey.folders(storage):
        kinds = {key: folder.kind(key) for key in folder.listed}
        unwanted = {key for key, kind in kinds.items() if kind is not Kind.WANTED}
        aged = {key for key in unwanted if folder.listed[key].created < before}
        keys += len(kinds)
        orphans += sum(kinds[key] is Kind.ORPHAN for key in aged)
        collected.tally["noted"] += _quarantine(folder, unwanted, aged, rule)
        rule.looked()
    return orphans / keys if keys else 0.0


def _quarantine(folder: Folder, unwanted: set[str], aged: set[str], rule: Rule) -> int:
    name = folder.storage.name
    known = {row.key for row in read(_KNOWN, storage=name, folder=folder.name)}
    fresh = aged - known
    if rule.dry_run:
        return len(fresh)
    _forget(name, list(known - unwanted))
    return _noted_now(name, fresh)


def _noted_now(name: str, keys: set[str]) -> int:
    if not keys:
        return 0
    rows = [{"storage": name, "key": key, "since_ms": now_ms()} for key in keys]
    try:
        with transaction() as session:
            session.execute(sa.insert(Quarantined), rows)
    except sa.exc.IntegrityError:
        return 0  # another run is noting them; what it does not, the next one does
    return len(keys)


def _noted(storage: Storage, rule: Rule, *, stopped: bool) -> Iterator[dict[str, Kind]]:
    """The keys whose time has come, with what they are to the rows now; some at a time."""
    now, after = now_ms(), ""
    orphans = now if rule.force else now - rule.older_than * 1000
    # The URLs of a rendition that was shown until now are still about.
    old = now - 1000 * max(rule.older_than, 2 * library().settings.url_window)
    while rows := read(_NOTED, storage=storage.name, after=after):
        after = rows[-1].key
        found = {}
        for row in rows:
            kind = _kind(storage, row.key, rule)
            orphan = kind is Kind.ORPHAN
            due = row.since_ms <= (orphans if orphan else old) and not (orphan and stopped)
            if kind is not None and (due or kind is Kind.WANTED):
                found[row.key] = kind
        yield found


def _kind(storage: Storage, key: str, rule: Rule) -> Kind | None:
    """As `survey.kind_now`; None: it was put anew meanwhile, or is too young for this rule."""
    try:
        if storage.stat(key).created >= time.time() - rule.older_than:
            return None
    except StorageNotFound:
        return Kind.WANTED  # nothing of it is left to remove
    return survey.kind_now(storage, key)


def _forget(name: str, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), _PAGE):
        some = Quarantined.key.in_(keys[start : start + _PAGE])
        with transaction() as session:
            session.execute(sa.delete(Quarantined).where(Quarantined.storage == name, some))


def _expired(rule: Rule) -> int:
    """Remove rows that have lost their meaning; returns how many."""
    now = now_ms()
    before = now - int(rule.older_than * 1000)
    ended = sa.or_(Share.expires_at < before // 1000, Share.revoked_ms < before)
    conditions = (
        (IdempotencyKey, IdempotencyKey.created_ms < now - idempotency.KEPT_MS),
        (ReservedID, ReservedID.until_ms < now),
        (Share, ended),
    )
    if rule.dry_run:
        counts = (sa.select(sa.func.count()).select_from(m).where(c) for m, c in conditions)
        return sum(int(read(count)[0][0]) for count in counts)
    with transaction() as session:
        connection = session.connection()
        return sum(connection.execute(sa.delete(m).where(c)).rowcount for m, c in conditions)
