"""The Flask extensions, and how a connection of ours behaves.

Reads run in autocommit on connections of their own (`read`): no ORM, no transaction that a slow
client could hold open. Writes run in `transaction`; on SQLite it begins IMMEDIATE, so that a writer
waits for its turn before it looks instead of failing after.

Source: design §7.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from flask import Flask, current_app
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import orm

from imageapi import connections
from imageapi.connections import Limits, Silence, Turn

Row: TypeAlias = Any
"""A plain row: a named tuple, its columns are its attributes."""


class Base(orm.DeclarativeBase):
    """Rows; constraints are named, so that migrations can name them on every database."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate(
    db=db,
    directory=str(Path(__file__).parent / "migrations"),
    render_as_batch=True,
    compare_type=True,
    compare_server_default=True,
)


@functools.cache
def _named(columns: tuple[str, ...]) -> Callable[[Iterable[Any]], Row]:
    made: Any = namedtuple("Row", columns, rename=True)  # type: ignore[misc]  # noqa: PYI024
    make: Callable[[Iterable[Any]], Row] = made._make
    return make


def _executed(
    connection: sa.Connection, statement: sa.Executable, parameters: Mapping[str, Any]
) -> list[Row]:
    # A named tuple gives a column ten times as fast as SQLAlchemy's own row does, and numbers and
    # texts come from the driver as they are.
    result = connection.execute(statement, parameters)
    rows = list(map(_named(tuple(result.keys())), result.cursor.fetchall()))
    result.close()
    return rows


class Prepared:
    """A statement that is asked so often that on SQLite it is compiled once and the driver runs it.

    What SQLAlchemy does around each execution takes longer than SQLite does. Its events are not told of
    these. Every value must be a `sa.bindparam` with a name.
    """

    def __init__(self, statement: sa.Select[Any]) -> None:
        self.statement = statement
        self._compiled: tuple[str, Sequence[str]] | None = None
        self._row = _named(tuple(statement.selected_columns.keys()))

    def rows(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> list[Row]:
        """All rows.

        Raises:
            sqlalchemy.exc.DBAPIError: as SQLAlchemy would.
        """
        if connection.dialect.name != "sqlite":
            return _executed(connection, self.statement, parameters)
        text, names = self._compiled or self._compile(connection.dialect)
        driver: Any = connection.connection.driver_connection
        try:
            found = driver.execute(text, [parameters[name] for name in names]).fetchall()
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError.instance(
                text, parameters, error, sqlite3.Error, hide_parameters=True
            ) from error
        return list(map(self._row, found))

    def _compile(self, dialect: sa.Dialect) -> tuple[str, Sequence[str]]:
        compiled: Any = self.statement.compile(dialect=dialect)
        self._compiled = compiled.string, compiled.positiontup
        return self._compiled


Statement: TypeAlias = sa.Executable | Prepared


class Reader:
    """Runs statements that only read, in autocommit, on connections that stay open.

    SQLAlchemy's pool takes three times as long to give a connection out as a read by primary key does.

    Args:
        size: how many read at once; on SQLite it is one. Python's sqlite3 lets go of the interpreter at
            every row: of two threads that read at once, each row would have them change places.
        patience: seconds that one more waits for its turn; on SQLite as long as it takes.
    """

    def __init__(
        self, url: str, limits: Limits, silence: Silence, size: int, patience: float
    ) -> None:
        sqlite = url.startswith("sqlite")
        self._engine = sa.create_engine(
            url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", **connections.arguments(url)
        )
        connections.prepare(self._engine, limits, silence)
        self._silence = silence
        self._idle: list[sa.Connection] = []
        self._patience = None if sqlite else patience
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(1 if sqlite else size):
            self._turns.put(None)

    def __call__(self, statement: Statement, /, **parameters: Any) -> Sequence[Row]:
        """All rows of `statement`; a connection that the server dropped is replaced once.

        Raises:
            sqlalchemy.exc.TimeoutError: too many read at the moment, or the database does not answer.
        """
        self._silence.refuse()
        try:
            self._turns.get(timeout=self._patience)
        except queue.Empty:
            raise sa.exc.TimeoutError("too many read at the moment") from None
        try:
            return self._rows(statement, parameters)
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self.close()  # the others were dropped with it
            return self._rows(statement, parameters)
        finally:
            self._turns.put(None)

    def session(self) -> sa.Connection:
        """A connection of one's own, to be closed, for locks that belong to a session."""
        return self._engine.connect()

    def close(self) -> None:
        """Close the connections that nobody uses; the next statement opens another."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _rows(self, statement: Statement, parameters: dict[str, Any]) -> list[Row]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            if isinstance(statement, Prepared):
                rows = statement.rows(connection, parameters)
            else:
                rows = _executed(connection, statement, parameters)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return rows


def init_app(app: Flask, url: str, limits: Limits, pool_size: int, pool_timeout: float) -> None:
    """Bind the database at `url` and the migrations to `app`; connects to nothing yet.

    Args:
        limits: how long a connection waits, and for what.
        pool_size: the most transactions that write at once, and the most reads.
        pool_timeout: seconds that one more waits for its turn.
    """
    sqlite = url.startswith("sqlite")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        **connections.arguments(url),
        # On SQLite they take turns (`connections.Turn`).
        "pool_size": 0 if sqlite else pool_size,
        "max_overflow": 0,
        "pool_timeout": pool_timeout,
        # After a restart of the server, no write meets the connection of before.
        "pool_pre_ping": not sqlite,
    }
    db.init_app(app)
    migrate.init_app(app)
    silence = app.extensions["database_silence"] = Silence()
    app.extensions["reader"] = Reader(url, limits, silence, pool_size, pool_timeout)
    turn = Turn(limits.lock)
    app.extensions["database_turn"] = turn.take if sqlite else contextlib.nullcontext
    with app.app_context():
        connections.prepare(db.engine, limits, silence, turn)


def reader() -> Reader:
    """The current application's reader."""
    found: Reader = current_app.extensions["reader"]
    return found


def read(statement: Statement, /, **parameters: Any) -> Sequence[Row]:
    """The rows of a statement that only reads: no ORM, no transaction."""
    return reader()(statement, **parameters)


@contextlib.contextmanager
def transaction() -> Iterator[orm.Session]:
    """A write transaction: committed durably at the end, rolled back on any exception.

    Raises:
        sqlalchemy.exc.TimeoutError: too many write at the moment, or the database does not answer.
    """
    silence: Silence = current_app.extensions["database_silence"]
    silence.refuse()
    try:
        with (
            current_app.extensions["database_turn"](),
            orm.Session(db.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
    except sa.exc.OperationalError:
        if db.engine.name == "sqlite":
            # The system may have refused to give up a lock, which SQLite tells nobody: it ends with
            # the connection, and no other would get it before.
            db.engine.dispose()
        raise
