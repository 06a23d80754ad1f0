"""Databases of both kinds, for any test: the fixtures, and what a migrated one looks like."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from imageapi.extensions import db
from tests.servers.postgres import by_psycopg, postgres


@pytest.fixture(scope="module")
def postgresql_server():
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    """Of an empty database of each kind; "" is SQLite, in the application's own folder."""
    if request.param == "sqlite":
        yield ""
        return
    with request.getfixturevalue("postgresql_server").database() as made:
        yield by_psycopg(made)


def assert_migrated():
    """The current application's database has the models' schema."""
    with db.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, db.metadata) == []
