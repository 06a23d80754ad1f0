"""How a connection to each database behaves: what it waits for, how long, and what it begins with.

PostgreSQL: the server ends a statement that takes too long; where the server itself hangs no answer
comes at all, so the client stops waiting half a second later and gives the connection up. Commands
(`flask …`, a Celery worker) have their time: only locks and connecting are bounded there.

Source: design §7; https://www.psycopg.org/psycopg3/docs/api/connections.html,
https://www.sqlite.org/lang_transaction.html, https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

if TYPE_CHECKING:
    import psycopg

GRACE = 0.5
"""Seconds beyond its own limit that a server has to say that a statement took too long."""

PAUSE = 0.5
"""Seconds in which nobody else waits for a database that has just failed to answer."""


@dataclass(frozen=True)
class Limits:
    """Seconds: for connecting to each address, for one statement, for the locks of others."""

    connect: float
    statement: float
    lock: float


class Pause:
    """After the database did not answer in time, others need not find that out each by itself."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self) -> None:
        """Refuse all that comes in the next moments."""
        self._until = time.monotonic() + PAUSE

    def refuse(self) -> None:
        """Refuse at once while it lasts.

        Raises:
            sqlalchemy.exc.TimeoutError: the database did not answer a moment ago.
        """
        if time.monotonic() < self._until:
            raise sa.exc.TimeoutError("the database did not answer a moment ago")


def arguments(url: str) -> dict[str, Any]:
    """The arguments of `create_engine` for a database at `url`."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        # A connection may be closed by another thread than its own when that one has ended.
        return {"connect_args": {"check_same_thread": False}, "hide_parameters": True}
    return {"hide_parameters": True}


def prepare(engine: sa.Engine, limits: Limits, pause: Pause, *, writes: bool) -> None:
    """Have the connections of `engine` behave; `writes`: its transactions write."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", functools.partial(_prepare_sqlite, limits))
        if writes:
            sa.event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.driver == "psycopg":
        sa.event.listen(engine, "do_connect", functools.partial(_connect, limits, pause))


def _prepare_sqlite(limits: Limits, connection: Any, _record: object) -> None:
    # pysqlite's own BEGIN is deferred and late; ours is told when to begin (see _begin_sqlite).
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {int(limits.lock * 1000)}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connect(
    limits: Limits,
    pause: Pause,
    _dialect: object,
    _record: object,
    _args: object,
    given: dict[str, Any],
) -> psycopg.Connection[Any]:
    pause.refuse()
    statement = 0.0 if click.get_current_context(silent=True) else limits.statement
    options = {
        "statement_timeout": int(statement * 1000),
        "lock_timeout": int(limits.lock * 1000),
        "jit": "off",
    }
    said = [given.get("options", ""), *(f"-c {name}={value}" for name, value in options.items())]
    parameters = {"connect_timeout": limits.connect, **given, "options": " ".join(said).strip()}
    begun = time.monotonic()
    try:
        made: Any = _bounded().connect(**parameters)
    except Exception:
        if time.monotonic() - begun >= limits.connect:
            pause.begin()
        raise
    made.pause = pause
    made.limit = statement + GRACE if statement else None
    return made  # type: ignore[no-any-return]


@functools.cache
def _bounded() -> type[psycopg.Connection[Any]]:
    """The class of connections that give up a server which does not answer."""
    import psycopg  # noqa: PLC0415 - an extra

    class Bounded(psycopg.Connection[Any]):
        limit: float | None = None
        pause: Pause

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, self.limit if timeout is None else timeout)
            except psycopg.errors._WaitTimeout:  # noqa: SLF001 - has no public name
                self.pause.begin()
                self.pgconn.finish()
                raise psycopg.OperationalError("the server does not answer") from None

    return Bounded
