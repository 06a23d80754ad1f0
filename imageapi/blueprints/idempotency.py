"""Idempotency-Key on what creates: the same request again gets the same answer, once done."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flask import g, request
from sqlalchemy import orm

from imageapi.auth import guard
from imageapi.blueprints import reports
from imageapi.catalog.idempotency import Once
from imageapi.catalog.images import Confirm
from imageapi.errors import FieldFault, InvalidFields
from imageapi.extensions import transaction

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Request:
    """What one creating request may ask of its key; without a key, everything is new."""

    def __init__(self, once: Once | None) -> None:
        self._once = once

    @property
    def status(self) -> int:
        """The status of the first answer."""
        return self._once.status if self._once else 0

    def replayed(self, fields: Mapping[str, Any], sha256: str = "") -> str | None:
        """The id of what this request, so described, made before; None when it is new."""
        if self._once is None:
            return None
        self._once.describe(fields, sha256)
        if self._once.made is not None:
            reports.about(replayed=True)
        return self._once.made

    def confirming(self, album_id: int, status: int) -> Confirm:
        """Decides about the album again inside a write, and keeps what it makes under the key."""
        return functools.partial(self._confirm, album_id, status)

    def confirming_user(self, status: int) -> Confirm:
        """As `confirming`, for what needs no album but a user."""
        return functools.partial(self._confirm, None, status)

    def _confirm(self, album_id: int | None, status: int, session: orm.Session, made: str) -> None:
        if album_id is None:
            guard.confirm_user(session)
        else:
            guard.confirm(album_id, session)
        if self._once is not None:
            self._once.record(session, made, status)

    def record(self, made: str, status: int) -> None:
        """Keep an answer that no write went with."""
        if self._once is not None:
            with transaction() as session:
                self._once.record(session, made, status)


@contextlib.contextmanager
def key() -> Iterator[Request]:
    """Hold the request's Idempotency-Key, if it has one; given back when the request fails.

    Raises:
        InvalidFields: the header is no key.
        Conflict: a request with the same key is in flight.
        IdempotencyMismatch: the key was used for something else.
    """
    text = request.headers.get("Idempotency-Key")
    if text is None:
        yield Request(None)
        return
    if not _KEY.fullmatch(text):
        raise InvalidFields(
            errors=[FieldFault("Idempotency-Key", "must be 1 to 255 visible ASCII characters")]
        )
    once = Once(_scope(text))
    try:
        yield Request(once)
    except BaseException:
        once.give_back()
        raise


def _scope(text: str) -> str:
    who = g.token.user_id or f"token {g.token.text}"
    parts = [g.token.issuer, who, request.method, request.path, text]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
