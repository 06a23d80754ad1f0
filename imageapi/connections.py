"""How a connection to each database behaves: what it waits for, how long, and what it begins with.

PostgreSQL: the server ends a statement that takes too long; where the server itself hangs no answer
comes at all, so the client stops waiting a moment later and gives the connection up. From then on
nobody waits for that server: all are refused until it answers a thread that asks nothing else. Commands
(`flask …`, a Celery worker) have their time: only locks and connecting are bounded there.

Source: design §7; https://www.psycopg.org/psycopg3/docs/api/connections.html,
https://www.sqlite.org/lang_transaction.html, https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy as sa

if TYPE_CHECKING:
    import psycopg

GRACE = 0.3
"""Seconds beyond its own limit that a server has to say that a statement took too long."""

OF_LOCKS = 0.6
"""How much of its time a statement of a request may wait for locks: a transaction may do so twice."""

AGAIN = 0.1
"""Seconds between two tries of a server that does not answer."""


@dataclass(frozen=True)
class Limits:
    """Seconds: for connecting to each address, for one statement, for the locks of others."""

    connect: float
    statement: float
    lock: float


class Silence:
    """A server that does not answer in time: found out once, not by each request for itself."""

    def __init__(self) -> None:
        self._lasts = False
        self._lock = threading.Lock()

    def begin(self, hangs: Callable[[], bool]) -> None:
        """Refuse all that comes from now on, until `hangs` is False; it is asked again and again."""
        with self._lock:
            if self._lasts:
                return
            self._lasts = True
            try:
                threading.Thread(target=self._ask, args=(hangs,), daemon=True).start()
            except RuntimeError:  # no thread is to be had: each finds out for itself
                self._lasts = False

    def refuse(self) -> None:
        """Refuse at once while it lasts.

        Raises:
            sqlalchemy.exc.TimeoutError: the database does not answer.
        """
        if self._lasts:
            raise sa.exc.TimeoutError("the database does not answer")

    def _ask(self, hangs: Callable[[], bool]) -> None:
        try:
            while hangs():
                time.sleep(AGAIN)
        finally:
            self._lasts = False


class Turn:
    """Who of a process may write to SQLite, which lets one write at a time.

    Left to itself it has each ask again now and then, so that of many some never get their turn.

    Attributes:
        left: seconds that the one whose turn it is may wait for other processes.
    """

    def __init__(self, patience: float) -> None:
        self.left = self._patience = patience
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn, and have it until the block ends.

        Raises:
            sqlalchemy.exc.TimeoutError: it did not come in time.
        """
        begun = time.monotonic()
        if not self._lock.acquire(timeout=self._patience):
            raise sa.exc.TimeoutError("too many write at the moment")
        try:
            self.left = max(0.0, self._patience - (time.monotonic() - begun))
            yield
        finally:
            self.left = self._patience
            self._lock.release()


def arguments(url: str) -> dict[str, Any]:
    """The arguments of `create_engine` for a database at `url`."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        # A connection may be closed by another thread than its own when that one has ended.
        return {"connect_args": {"check_same_thread": False}, "hide_parameters": True}
    return {"hide_parameters": True}


def prepare(engine: sa.Engine, limits: Limits, silence: Silence, turn: Turn | None = None) -> None:
    """Have the connections of `engine` behave; `turn`: its transactions write, in turns on SQLite."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", functools.partial(_prepare_sqlite, limits))
        if turn:
            sa.event.listen(engine, "begin", functools.partial(_begin_sqlite, turn))
    elif engine.dialect.driver == "psycopg":
        sa.event.listen(engine, "do_connect", functools.partial(_connect, limits, silence))


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


def _begin_sqlite(turn: Turn, connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(turn.left * 1000)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connect(
    limits: Limits,
    silence: Silence,
    _dialect: object,
    _record: object,
    _args: object,
    given: dict[str, Any],
) -> psycopg.Connection[Any]:
    silence.refuse()
    statement = 0.0 if click.get_current_context(silent=True) else limits.statement
    lock = min(limits.lock, statement * OF_LOCKS) if statement else limits.lock
    options = {
        "statement_timeout": int(statement * 1000),
        "lock_timeout": int(lock * 1000),
        "jit": "off",
    }
    said = [given.get("options", ""), *(f"-c {name}={value}" for name, value in options.items())]
    parameters = {"connect_timeout": limits.connect, **given, "options": " ".join(said).strip()}
    fell_silent = functools.partial(silence.begin, functools.partial(_hangs, parameters, limits))
    begun = time.monotonic()
    try:
        made: Any = _bounded().connect(**parameters)
    except Exception:
        if time.monotonic() - begun >= limits.connect:
            fell_silent()
        raise
    made.fell_silent = fell_silent
    made.limit = statement + GRACE if statement else None
    return made  # type: ignore[no-any-return]


def _hangs(parameters: dict[str, Any], limits: Limits) -> bool:
    """Whether a server says nothing: one that is down, or refuses, says so."""
    import psycopg  # noqa: PLC0415 - an extra

    begun = time.monotonic()
    try:
        psycopg.connect(**parameters).close()
    except psycopg.Error:
        return time.monotonic() - begun >= limits.connect
    return False


@functools.cache
def _bounded() -> type[psycopg.Connection[Any]]:
    """The class of connections that give up a server which does not answer."""
    import psycopg  # noqa: PLC0415 - an extra

    class Bounded(psycopg.Connection[Any]):
        limit: float | None = None
        fell_silent: Callable[[], None]

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, self.limit if timeout is None else timeout)
            except psycopg.errors._WaitTimeout:  # noqa: SLF001 - has no public name
                self.fell_silent()
                self.pgconn.finish()
                raise psycopg.OperationalError("the server does not answer") from None

    return Bounded
