"""Alembic's environment: the models' metadata against the application's database.

Source: https://alembic.sqlalchemy.org/en/latest/batch.html for SQLite.
"""

from alembic import context
from flask import current_app

from imageapi import models  # noqa: F401
from imageapi.extensions import db

target = current_app.extensions["migrate"].db


def migrate() -> None:
    """Run the migrations asked for in one transaction: all of them, or none."""
    with db.engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # A batch migration makes a table anew; with foreign keys on, dropping the old one would
            # take its children along. Inside a transaction the pragma would do nothing, and nobody
            # else may be given this connection after.
            connection.detach()
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        context.configure(
            connection=connection,
            target_metadata=target.metadata,
            transactional_ddl=True,  # SQLite's is, though alembic does not take it for granted
            **current_app.extensions["migrate"].configure_args,
        )
        with context.begin_transaction():
            context.run_migrations()
            if sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise RuntimeError("the migration would leave rows whose parent is gone")


migrate()
