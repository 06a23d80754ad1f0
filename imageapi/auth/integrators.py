"""Integrators: backends that mint tokens for their own users, each with a secret of its own.

Source: design §3 (tenancy).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.auth import revocation
from imageapi.auth.revocation import changed
from imageapi.auth.tokens import MAX_ID
from imageapi.errors import Conflict, FieldFault, InvalidFields, NotFound
from imageapi.models import IntegratorKey


@dataclass(frozen=True)
class Integrator:
    """An integrator: its name, which tokens say as `iss`, and its keys in use.

    `created_ms`, `rotated_ms`: when its first and its newest key were made, milliseconds since 1970.
    """

    name: str
    created_ms: int
    rotated_ms: int
    keys: int


def add(session: orm.Session, name: str, now_ms: int) -> str:
    """Register an integrator; returns its secret, which is shown this once.

    Raises:
        InvalidFields: the name is no issuer.
        Conflict: the name is taken.
    """
    if not 0 < len(name) <= MAX_ID or not name.isprintable():
        raise InvalidFields(
            errors=[FieldFault("name", f"must be 1 to {MAX_ID} characters that can be printed.")]
        )
    revocation.alone(session)
    if _keys(session, name):
        raise Conflict(f"The integrator {name!r} is registered already.")
    return _new_key(session, name, now_ms)


def rotate(session: orm.Session, name: str, now_ms: int, grace_ms: int) -> str:
    """Give an integrator a new secret, and return it; the older ones verify for `grace_ms` more.

    Raises:
        NotFound: no such integrator.
    """
    revocation.alone(session)
    for key in _demanded(session, name):
        key.ends_ms = min(key.ends_ms or now_ms + grace_ms, now_ms + grace_ms)
    return _new_key(session, name, now_ms)


def remove(session: orm.Session, name: str) -> None:
    """Remove an integrator: all its tokens are refused at once; its albums stay.

    Raises:
        NotFound: no such integrator.
    """
    revocation.alone(session)
    for key in _demanded(session, name):
        session.delete(key)
    changed(session)


def all_of_them(session: orm.Session, now_ms: int) -> list[Integrator]:
    """Every integrator, by name."""
    in_use = sa.or_(IntegratorKey.ends_ms.is_(None), IntegratorKey.ends_ms > now_ms)
    rows = session.execute(
        sa.select(
            IntegratorKey.issuer,
            sa.func.min(IntegratorKey.created_ms),
            sa.func.max(IntegratorKey.created_ms),
            sa.func.count().filter(in_use),
        )
        .group_by(IntegratorKey.issuer)
        .order_by(IntegratorKey.issuer)
    )
    return [Integrator(*row) for row in rows]


def demand(session: orm.Session, issuer: str) -> None:
    """See that `issuer` is registered; "", the operator, always is.

    Raises:
        NotFound: no such integrator.
    """
    if issuer:
        _demanded(session, issuer)


def _demanded(session: orm.Session, name: str) -> list[IntegratorKey]:
    keys = _keys(session, name) if name.isprintable() else []
    if not keys:
        raise NotFound(f"There is no integrator {name!r}.")
    return keys


def _keys(session: orm.Session, name: str) -> list[IntegratorKey]:
    found = sa.select(IntegratorKey).where(IntegratorKey.issuer == name)
    return list(session.scalars(found))


def _new_key(session: orm.Session, name: str, now_ms: int) -> str:
    secret = secrets.token_urlsafe(48)
    session.add(IntegratorKey(issuer=name, secret=secret, created_ms=now_ms))
    changed(session)
    return secret
