"""Alembic's environment: the models' metadata against the application's database.

Source: https://alembic.sqlalchemy.org/en/latest/batch.html for SQLite;
https://www.postgresql.org/docs/current/explicit-locking.html for who waits for whom.
"""

import time

import sqlalchemy as sa
from alembic import context
from flask import current_app

from imageapi import models  # noqa: F401
from imageapi.extensions import db

ONE_HOST = 4_918_273_645_102
"""The number of the advisory lock of who migrates; any, if nothing else has it."""
LOCK_SECONDS = 1
"""How long a change waits for a table. Meanwhile every request waits behind it."""
TRIES = 120
"""How often it is tried, every two seconds: a dump, which holds every table, has time to end."""
LOCK_NOT_AVAILABLE = "55P03"

target = current_app.extensions["migrate"].db


def migrate() -> None:
    """Run the migrations asked for in one transaction: all of them, or none."""
    with db.engine.connect() as connection:
        # What is set here is for nobody who may be given this connection after.
        connection.detach()
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # A batch migration makes a table anew; with foreign keys on, dropping the old one would
            # take its children along. Inside a transaction the pragma would do nothing.
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        else:
            take_turns(connection)
        context.configure(
            connection=connection,
            target_metadata=target.metadata,
            transactional_ddl=True,  # SQLite's is, though alembic does not take it for granted
            **current_app.extensions["migrate"].configure_args,
        )
        for left in reversed(range(TRIES)):
            if migrated(connection, last=not left):
                break
            time.sleep(LOCK_SECONDS)


def take_turns(connection: sa.Connection) -> None:
    """Wait for another host that migrates, however long; then for tables, briefly."""
    connection.exec_driver_sql("SET lock_timeout = 0")
    connection.execute(sa.select(sa.func.pg_advisory_lock(ONE_HOST)))
    connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.commit()


def migrated(connection: sa.Connection, *, last: bool) -> bool:
    """Whether all is done; False when a table was in use, unless this was the last try."""
    try:
        with context.begin_transaction():
            context.run_migrations()
            if connection.dialect.name == "sqlite" and orphans(connection):
                raise RuntimeError("the migration would leave rows whose parent is gone")
    except sa.exc.OperationalError as error:
        if last or getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        return False
    return True


def orphans(connection: sa.Connection) -> bool:
    """Whether a row's parent is gone."""
    return connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None


migrate()
