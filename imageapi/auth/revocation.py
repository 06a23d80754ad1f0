"""Keys and revocations: what is in force, on every worker at once.

Each change counts up the one row of `generation`. The guard's own SELECT carries that number, so a
worker that is late sees it on the very request, reloads and decides anew: no further statement on
the hot path, no second in which a revoked token passes.

Source: design §3.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.auth.tokens import Key, Keyring, Revoked, Token
from imageapi.errors import Conflict, NotFound
from imageapi.extensions import Row, read
from imageapi.models import Generation, IntegratorKey, Revocation, Share

_GENERATION = sa.select(Generation.value)
_KEYS = sa.select(IntegratorKey.issuer, IntegratorKey.secret, IntegratorKey.ends_ms).order_by(
    IntegratorKey.id.desc()
)
_REVOCATIONS = sa.select(Revocation.kind, Revocation.issuer, Revocation.subject, Revocation.at)
_SHARE = sa.select(Share.__table__).where(Share.id == sa.bindparam("share_id"))

Subject = tuple[str, str, str]


@dataclass(frozen=True)
class Snapshot:
    """Keys and revocations as of one generation. `revoked`: (kind, issuer, subject) to seconds."""

    generation: int
    keyring: Keyring
    revoked: Mapping[Subject, int]

    def check(self, token: Token) -> None:
        """See that `token` is not revoked as a whole.

        Raises:
            Revoked: it is, and by what.
        """
        if self.revoked:
            self._check(token, "all", "", "")
            self._check(token, "issuer", token.issuer, "")
            if token.user_id is not None:
                self._check(token, "user", token.issuer, token.user_id)

    def check_album(self, token: Token, album_id: int) -> None:
        """See that `token` is not revoked for the album whose row is `album_id`. Raises as `check`."""
        if self.revoked:
            self._check(token, "album", token.issuer, str(album_id))

    def revoked_for_album(self, token: Token, album_id: int) -> bool:
        """Whether `check_album` would raise."""
        try:
            self.check_album(token, album_id)
        except Revoked:
            return True
        return False

    def _check(self, token: Token, kind: str, issuer: str, subject: str) -> None:
        at = self.revoked.get((kind, issuer, subject))
        if at is not None and (token.issued_at is None or token.issued_at <= at):
            raise Revoked(
                f"tokens of this {kind} were revoked"
                if kind != "all"
                else "all tokens were revoked"
            )


class Authority:
    """Holds the snapshot of one process, and replaces it when it is late."""

    def __init__(self, secret_keys: Sequence[str], max_age: int, *, require_iat: bool) -> None:
        """Keep the operator's own keys and the bounds of every token; reads nothing yet."""
        self._own = tuple(map(Key, secret_keys))
        self._max_age = max_age
        self._require_iat = require_iat
        self._snapshot: Snapshot | None = None
        self._lock = threading.Lock()

    @property
    def snapshot(self) -> Snapshot:
        """What this process holds; perhaps late."""
        return self._snapshot or self.at(_generation())

    def latest(self) -> Snapshot:
        """What is in force this moment; one statement, more when something changed."""
        return self.at(_generation())

    def at(self, generation: int) -> Snapshot:
        """The snapshot of `generation` or a later one."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.generation < generation:
            with self._lock:
                snapshot = self._snapshot = self._load()
        return snapshot

    def _load(self) -> Snapshot:
        # Read first: what changes after it is counted by a later number.
        generation = _generation()
        keys: dict[str, list[Key]] = defaultdict(list)
        for issuer, secret, ends_ms in read(_KEYS):
            keys[issuer].append(Key(secret, math.inf if ends_ms is None else ends_ms / 1000))
        keyring = Keyring({**keys, "": self._own}, self._max_age, require_iat=self._require_iat)
        revoked = {(kind, issuer, subject): at for kind, issuer, subject, at in read(_REVOCATIONS)}
        return Snapshot(generation, keyring, revoked)


def _generation() -> int:
    value: int = read(_GENERATION)[0][0]
    return value


def revoke(session: orm.Session, kind: str, issuer: str, subject: str, at: int) -> int:
    """Refuse the tokens of a subject that were not issued after `at` (seconds since 1970).

    Returns: the moment in force: a later one of before stays, so nothing that is refused comes back.
    """
    alone(session)
    before = session.get(Revocation, (kind, issuer, subject))
    last = at if before is None else max(at, before.at)
    session.merge(Revocation(kind=kind, issuer=issuer, subject=subject, at=last))
    changed(session)
    return last


def lift(session: orm.Session, kind: str, issuer: str, subject: str) -> bool:
    """Take a revocation back; False when there was none."""
    row = session.get(Revocation, (kind, issuer, subject))
    if row is None:
        return False
    session.delete(row)
    changed(session)
    return True


def share(share_id: str) -> Row | None:
    """The share, live or not: a row of `share`."""
    rows = read(_SHARE, share_id=share_id)
    return rows[0] if rows else None


def lift_share(session: orm.Session, share: Row) -> None:
    """Give a share back that was ended.

    Args:
        share: of `share`.
    Raises:
        NotFound: it has not been ended.
        Conflict: it has expired meanwhile.
    """
    if share.revoked_ms is None:
        raise NotFound(f"The share {share.id} has not been ended.")
    if share.expires_at <= time.time():
        raise Conflict(f"The share {share.id} has expired; it can not be given back.")
    session.execute(sa.update(Share).where(Share.id == share.id).values(revoked_ms=None))


def alone(session: orm.Session) -> None:
    """Have others that change keys or revocations wait until this transaction has ended."""
    session.execute(_GENERATION.with_for_update())


def changed(session: orm.Session) -> None:
    """Count a change of keys or revocations, in the transaction that makes it."""
    session.execute(sa.update(Generation).values(value=Generation.value + 1))
