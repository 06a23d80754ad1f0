"""What a request with an Idempotency-Key made, written in the transaction that makes it.

A key is in flight from the first look until the write. A request that fails gives it back; one whose
process died holds it for `LEASE_MS`. Done, it is kept for a day.

Source: design §4; draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.catalog import now_ms
from imageapi.errors import Conflict, IdempotencyMismatch
from imageapi.extensions import transaction
from imageapi.models import IdempotencyKey

LEASE_MS = 60_000
KEPT_MS = 24 * 3600 * 1000


class Once:
    """One request's hold on its key.

    Attributes:
        made: the id of what this very request made before, None when it is new.
        status: the HTTP status that it was answered with then.
    """

    def __init__(self, scope: str) -> None:
        """Take the key up.

        Raises:
            Conflict: another request with it is in flight.
        """
        self.made: str | None = None
        self.status = 0
        self._scope = scope
        self._fingerprint = ""
        self._since = now_ms()
        self._kept: str | None = None
        try:
            with transaction() as session:
                self._take_up(session)
        except sa.exc.IntegrityError as error:  # another request took it up at the same moment
            raise Conflict("A request with this Idempotency-Key is in flight.") from error

    def _take_up(self, session: orm.Session) -> None:
        too_old = IdempotencyKey.created_ms < self._since - KEPT_MS
        session.execute(sa.delete(IdempotencyKey).where(too_old))
        row = session.get(IdempotencyKey, self._scope, with_for_update=True)
        if row is None:
            fresh = IdempotencyKey(
                scope=self._scope, fingerprint="", status=0, resource="", created_ms=self._since
            )
            session.add(fresh)
        elif row.status:
            self._kept, self.status = row.resource, row.status
            self._fingerprint = row.fingerprint
        elif row.created_ms > self._since - LEASE_MS:
            raise Conflict("A request with this Idempotency-Key is in flight.")
        else:
            row.created_ms = self._since

    def describe(self, fields: Mapping[str, Any], sha256: str = "") -> None:
        """Say what the request asks for: its fields, and the hash of its file.

        Raises:
            IdempotencyMismatch: the key was used for something else.
        """
        text = json.dumps([fields, sha256], sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if self._kept is not None and fingerprint != self._fingerprint:
            raise IdempotencyMismatch
        self._fingerprint, self.made = fingerprint, self._kept

    def record(self, session: orm.Session, made: str, status: int) -> None:
        """Keep what was made, in the transaction that makes it.

        Raises:
            Conflict: another request has taken the key over meanwhile.
        """
        ours = (
            sa.update(IdempotencyKey)
            .where(IdempotencyKey.scope == self._scope, IdempotencyKey.created_ms == self._since)
            .values(fingerprint=self._fingerprint, status=status, resource=made)
        )
        if session.connection().execute(ours).rowcount == 0:
            raise Conflict("A request with this Idempotency-Key is in flight.")

    def give_back(self) -> None:
        """Let another request have the key, after this one failed."""
        ours = sa.delete(IdempotencyKey).where(
            IdempotencyKey.scope == self._scope,
            IdempotencyKey.created_ms == self._since,
            IdempotencyKey.status == 0,
        )
        with transaction() as session:
            session.execute(ours)
