"""The outbox: work recorded in the transaction that makes it necessary, done right after it.

A row of `work` is taken up by moving its `due_ms` ahead, so one process does it, and another finds
it again when that one dies. Every kind of work may be done twice without harm. What takes long is done a
slice at a time, so that nothing else waits for it. When, and by which process, is `background.py`'s affair.

Source: design §6; celery/celery issue 5935 for why work is never only in a broker.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy import orm
from structlog.contextvars import bound_contextvars

from imageapi.catalog import now_ms
from imageapi.errors import Busy, ImageAPIError, NotFound, UndecodablePicture, UnsupportedFormat
from imageapi.extensions import read, transaction
from imageapi.models import Work
from imageapi.telemetry import log, request_id

LEASE_MS = 60_000
"""How long one process may take over a piece of work before another one tries."""
SLICE = 2.0
"""Seconds after which work that takes long lets other work go first."""
BATCH = 100

_BACKLOG = sa.select(
    Work.kind,
    sa.func.count().label("waiting"),
    sa.func.sum(sa.case((Work.due_ms <= sa.bindparam("now"), 1), else_=0)).label("due"),
    sa.func.min(Work.due_ms).label("oldest"),
    sa.func.max(Work.attempts).label("attempts"),
).group_by(Work.kind)

Payload: TypeAlias = dict[str, Any]
Handler = Callable[[Payload], Payload | None]
"""Does a piece of work; returns what is left of it, to be done after other work."""


class _Taken(NamedTuple):
    """A piece of work, and what is added to every line that is logged while it is done."""

    kind: str
    payload: Payload
    context: dict[str, str]


_HANDLERS: dict[str, Handler] = {}
_DUE = (
    sa.select(Work.id).where(Work.due_ms <= sa.bindparam("now")).order_by(Work.due_ms).limit(BATCH)
)


def kind(name: str) -> Callable[[Handler], Handler]:
    """Say which function does the work of a kind."""

    def register(handler: Handler) -> Handler:
        _HANDLERS[name] = handler
        return handler

    return register


def record(session: orm.Session, name: str, payload: Mapping[str, Any], delay_ms: int = 0) -> int:
    """Leave work to be done after the transaction of `session`; returns its number."""
    row = Work(
        kind=name,
        payload=json.dumps(payload),
        due_ms=now_ms() + delay_ms,
        request_id=request_id(),
    )
    session.add(row)
    session.flush()
    return row.id


def run(number: int) -> bool:
    """Do a piece of work now, unless another process has it; False when it failed, to be tried again."""
    taken = _take_up(number)
    if taken is None:
        return True
    with bound_contextvars(**taken.context):
        done, left = _do(taken.kind, taken.payload)
    if done:
        _settle(number, left)
    return done


def _do(name: str, payload: Payload) -> tuple[bool, Payload | None]:
    try:
        return True, _HANDLERS[name](payload)
    except (NotFound, UndecodablePicture, UnsupportedFormat) as error:
        # It will not get better: the thing is gone, or can not be decoded.
        log.info("work dropped", work=name, why=str(error), **payload)
        return True, None
    except Busy:
        return True, payload  # all decoders are taken: after other work
    except (ImageAPIError, sa.exc.SQLAlchemyError) as error:
        log.warning("work failed", work=name, why=str(error))
        return False, None


def _settle(number: int, left: Payload | None) -> None:
    with transaction() as session:
        if left is None:
            session.execute(sa.delete(Work).where(Work.id == number))
            return
        values = {"payload": json.dumps(left), "due_ms": now_ms(), "attempts": 0}
        session.execute(sa.update(Work).where(Work.id == number).values(values))


def run_due(until: float = math.inf) -> int:
    """Do what is due, a batch at most; returns how many pieces there were.

    Args:
        until: the moment (`time.monotonic`) after which no more of them is begun.
    """
    due = [row.id for row in read(_DUE, now=now_ms())]
    for number in due:
        if time.monotonic() > until:
            break
        run(number)
    return len(due)


class Backlog(NamedTuple):
    """Work of one kind.

    Attributes:
        waiting: all of it, also what is put off on purpose.
        due: what should have been taken up.
        age: seconds that the oldest of that has been due.
        attempts: how often the one that was tried most was.
    """

    waiting: int
    due: int
    age: float
    attempts: int


def backlog() -> dict[str, Backlog]:
    """What is left to be done, by kind; a kind that is known and has nothing is there too."""
    now = now_ms()
    found = dict.fromkeys(_HANDLERS, Backlog(0, 0, 0.0, 0))
    for row in read(_BACKLOG, now=now):
        age = max(0, now - row.oldest) / 1000
        found[row.kind] = Backlog(row.waiting, row.due or 0, age, row.attempts)
    return found


def _take_up(number: int) -> _Taken | None:
    now = now_ms()
    with transaction() as session:
        row = session.get(Work, number, with_for_update={"skip_locked": True})
        if row is None or row.due_ms > now:
            return None
        row.attempts += 1
        row.due_ms = now + LEASE_MS * row.attempts
        context = {"request_id": row.request_id} if row.request_id else {}
        return _Taken(row.kind, json.loads(row.payload), context)
