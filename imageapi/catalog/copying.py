"""All rows into another, empty database: from the embedded SQLite to a PostgreSQL, or back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

from imageapi.errors import Conflict
from imageapi.extensions import db
from imageapi.models import Generation

BATCH = 1000


def copy_rows(target: sa.Engine, copied: Callable[[int], object]) -> int:
    """Copy every row of this application's database, in one transaction.

    Nothing may write to either meanwhile. Times, keys and ids stay what they are.

    Args:
        target: migrated to the same version, without rows.
        copied: told after each batch how many rows it had.
    Returns: how many rows there were.
    Raises:
        Conflict: the target is of another version, or has rows.
    """
    rows = 0
    with db.engine.connect() as source, target.begin() as sink:
        if _version(source) != _version(sink):
            raise Conflict(
                "The two databases are not of one version: run `flask db upgrade` on both."
            )
        # The one row that a migration makes.
        sink.execute(sa.delete(Generation))
        for table in db.metadata.sorted_tables:
            if sink.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                raise Conflict(f"The other database has rows already, in {table.name}.")
            for batch in source.execute(sa.select(table)).mappings().partitions(BATCH):
                sink.execute(sa.insert(table), [dict(row) for row in batch])
                rows += len(batch)
                copied(len(batch))
            _go_on_counting(sink, table)
    return rows


def count() -> int:
    """How many rows there are to copy."""
    with db.engine.connect() as source:
        return sum(
            source.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in db.metadata.sorted_tables
        )


def _version(connection: sa.Connection) -> tuple[str, ...]:
    return tuple(sorted(MigrationContext.configure(connection).get_current_heads()))


def _go_on_counting(sink: sa.Connection, table: sa.Table) -> None:
    """PostgreSQL: let the next id follow the copied ones."""
    column: sa.Column[Any] | None = table.autoincrement_column
    if sink.dialect.name != "postgresql" or column is None:
        return
    sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
    highest = sa.select(sa.func.max(column)).scalar_subquery()
    sink.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(highest, 1))))
