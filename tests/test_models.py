"""Rows: the migrated schema is the models', migrations lose nothing, connections behave as promised."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from imageapi import create_app, models
from imageapi.auth import guard
from imageapi.extensions import Prepared, db, migrate, read, transaction
from imageapi.settings import Settings
from tests.conftest import SECRET
from tests.databases import assert_migrated
from tests.servers.postgres import by_psycopg


@contextlib.contextmanager
def application(instance, url="", **settings):
    """An application on a database that it migrates, and its context."""
    app = create_app(
        Settings(secret_keys=(SECRET,), instance=instance, database_url=url, **settings)
    )
    with app.app_context():
        flask_migrate.upgrade()
        yield app
        app.extensions["reader"].close()
        db.engine.dispose()


@pytest.fixture
def sqlite(tmp_path):
    with application(tmp_path) as app:
        yield app


@pytest.fixture
def postgresql(postgresql_server, tmp_path):
    with postgresql_server.database() as url, application(tmp_path, by_psycopg(url)) as app:
        yield app


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request):
    """On each of the two databases."""
    return request.getfixturevalue(request.param)


# migrations ---------------------------------------------------------------------------------


def test_the_migrated_schema_is_the_models(app):
    assert_migrated()


def test_the_migrated_indexes_are_the_models_to_their_conditions(sqlite, tmp_path):
    query = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    made = sa.create_engine(f"sqlite:///{tmp_path / 'made.sqlite3'}")
    db.metadata.create_all(made)
    with db.engine.connect() as migrated, made.connect() as connection:
        expected = dict(connection.execute(query).all())
        assert dict(migrated.execute(query).all()) == expected
    made.dispose()
    assert any("WHERE sha256 IS NOT NULL" in sql for sql in expected.values())


def fill():
    """Insert a row into every table; answers what stands in each."""
    with db.engine.begin() as connection:
        for table in db.metadata.sorted_tables:
            connection.execute(sa.insert(table), [row(table)])
    return contents()


def row(table):
    return {column.name: value(column) for column in table.columns}


def value(column):
    for key in column.foreign_keys:
        return value(key.column)
    kind = column.type.python_type
    if kind is bool:
        return True
    return {int: 7, float: 0.1, str: "é"[: column.type.length or 1] if kind is str else ""}[kind]


def contents():
    """Table to its rows, as the database has them now, whatever the models say."""
    inspector = sa.inspect(db.engine)
    with db.engine.connect() as connection:
        return {
            name: [
                dict(found._mapping)
                for found in connection.execute(sa.select(sa.text("*")).select_from(sa.table(name)))
            ]
            for name in inspector.get_table_names()
            if name != "alembic_version"
        }


def test_one_step_down_and_up_keeps_what_stays(app):
    before = fill()
    assert all(before.values())

    flask_migrate.downgrade()
    between = contents()
    flask_migrate.upgrade()
    after = contents()

    # A step takes a table or a column away, and nothing of what stays.
    assert between != before
    assert between.keys() <= before.keys()
    assert {"album", "stored_object", "image"} <= between.keys()
    for name, rows in between.items():
        for old, new, again in zip(before[name], rows, after[name], strict=True):
            assert new.items() <= old.items(), name
            assert {column: again[column] for column in new} == new, name
    assert after.keys() == before.keys()


def test_down_to_nothing_and_up_again(app):
    fill()
    flask_migrate.downgrade(revision="base")
    assert contents() == {}
    flask_migrate.upgrade()
    assert set(contents()) == set(db.metadata.tables)


def test_the_migrations_are_one_line(app):
    script = ScriptDirectory(str(migrate.directory))
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1


@pytest.fixture
def more(tmp_path):
    """`more(upgrade)` adds a migration whose `upgrade` has this body, and runs what is pending."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.directory, folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = ScriptDirectory(str(migrate.directory)).get_current_head()

    def add(*bodies):
        before = head
        for number, body in enumerate(bodies):
            (folder / "versions" / f"9{number}.py").write_text(
                "import sqlalchemy as sa\nfrom alembic import op\n"
                f"revision = '9{number}'\ndown_revision = {before!r}\n"
                f"def upgrade():\n    {body}\n"
            )
            before = f"9{number}"
        flask_migrate.upgrade(directory=str(folder))

    return add


REMAKE = (
    "with op.batch_alter_table('album', recreate='always') as batch:"
    " batch.add_column(sa.Column('colour', sa.String(9), server_default='red'))"
)


def test_a_batch_migration_loses_no_child(sqlite, more):
    before = fill()

    more(REMAKE)

    after = contents()
    assert [album.pop("colour") for album in after["album"]] == ["red"]
    assert after == before
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_a_migration_that_would_leave_orphans_changes_nothing(sqlite, more, caplog):
    before = fill()

    with pytest.raises(SystemExit):  # Flask-Migrate says the sentence and ends
        more("op.execute('DELETE FROM album')")

    assert contents() == before
    assert "whose parent is gone" in caplog.text
    assert version() != "90"
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_all_pending_migrations_or_none(app, more):
    before, at = fill(), version()

    with pytest.raises(sa.exc.DBAPIError):
        more("op.add_column('album', sa.Column('colour', sa.String(9)))", "op.execute('no SQL')")

    assert contents() == before
    assert version() == at
    if db.engine.dialect.name == "sqlite":
        with db.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def version():
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def test_migrating_again_does_nothing(app):
    before, at = fill(), version()
    flask_migrate.upgrade()
    assert (contents(), version()) == (before, at)


# connections --------------------------------------------------------------------------------

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_every_connection_has_its_pragmas(sqlite):
    for _ in range(3):
        with db.engine.connect() as one, db.engine.connect() as other:
            for name, expected in PRAGMAS.items():
                for connection in (one, other):
                    driver = connection.connection.driver_connection
                    assert driver.execute(f"PRAGMA {name}").fetchone() == (expected,)
    for name, expected in PRAGMAS.items():
        assert read(sa.text(f"PRAGMA {name}"))[0][0] == expected


def test_a_child_needs_its_parent(app):
    with pytest.raises(sa.exc.IntegrityError), transaction() as session:
        session.execute(sa.insert(models.StoredObject), [row(models.StoredObject.__table__)])


def an_album():
    with transaction() as session:
        session.execute(sa.insert(models.Album), [row(models.Album.__table__)])


def count():
    return read(sa.select(models.Album.images_count))[0][0]


def test_a_write_begins_at_once_and_the_second_waits(sqlite):
    an_album()
    began, release = threading.Event(), threading.Event()
    order = []

    def first():
        with sqlite.app_context(), transaction() as session:
            session.execute(sa.select(models.Album.id))  # only looks: yet it holds the lock
            began.set()
            release.wait(10)
            order.append("first")

    def second():
        began.wait(10)
        with sqlite.app_context(), transaction() as session:
            session.execute(sa.select(models.Album.id))
            order.append("second")

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(first), pool.submit(second)]
        began.wait(10)
        time.sleep(0.1)
        assert count() == 7  # readers do not wait
        assert order == []
        release.set()
        for one in both:
            one.result(10)
    assert order == ["first", "second"]


def test_no_update_is_lost_that_looks_before_it_writes(sqlite):
    an_album()

    def add(_number):
        with sqlite.app_context(), transaction() as session:
            seen = session.execute(sa.select(models.Album.images_count)).scalar_one()
            session.execute(sa.update(models.Album).values(images_count=seen + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    assert count() == 207


def test_no_count_is_lost(app):
    an_album()
    statement = sa.update(models.Album).values(images_count=models.Album.images_count + 1)

    def add(_number):
        with app.app_context(), transaction() as session:
            session.execute(statement)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    assert count() == 107


def test_a_transaction_that_fails_leaves_nothing(app):
    def fail():
        with transaction() as session:
            session.execute(sa.insert(models.Album), [row(models.Album.__table__)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read(sa.select(models.Album.id)) == []


def test_a_reader_sees_what_was_committed_last(app):
    an_album()
    assert count() == 7
    with transaction() as session:
        session.execute(sa.update(models.Album).values(images_count=8))
        session.flush()
        if db.engine.dialect.name == "sqlite":
            assert count() == 7
    assert count() == 8


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("among", [models.IMAGES, models.ORIGINALS])
def test_a_prepared_statement_reads_as_sqlalchemy_does(app, among, shared):
    rows = fill()
    with transaction() as session:
        session.execute(sa.update(models.Album).values(deleted_ms=None))
        session.execute(sa.delete(models.Generation).where(models.Generation.value != 7))
    prepared = guard._image(among).choose("a share" if shared else None)
    given = {"image_id": rows["image"][0]["id"], "share": rows["share"][0]["id"]}
    (found,), (expected,) = read(prepared, **given), read(prepared.statement, **given)
    assert found._asdict() == expected._asdict()
    assert found.id == given["image_id"]
    assert read(prepared, image_id="none", share=None) == []


def test_what_a_prepared_statement_meets_is_sqlalchemys_error(app):
    missing = Prepared(sa.select(sa.column("id")).select_from(sa.table("missing")))
    for statement in (missing, missing.statement):
        with pytest.raises(sa.exc.DBAPIError) as met:
            read(statement)
        assert type(met.value) in (sa.exc.OperationalError, sa.exc.ProgrammingError)
    assert read(sa.select(models.Album.id)) == []


def test_a_reader_outlives_its_connection(postgresql):
    an_album()
    assert count() == 7
    with db.engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert count() == 7


def test_the_package_holds_its_migrations():
    assert Path(str(migrate.directory)).parent == Path(models.__file__).parent


def test_so_many_read_at_once_and_no_more(postgresql_server, tmp_path):
    """However many threads there are; who gets no turn in time is told."""
    settings = {"database_pool_size": 2, "database_pool_timeout": 0.2}
    connections = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    )
    with (
        postgresql_server.database() as url,
        application(tmp_path, by_psycopg(url), **settings) as app,
    ):

        def sleep(seconds):
            with app.app_context():
                read(sa.select(sa.func.pg_sleep(seconds)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(sleep, [0.001] * 64))
            both = [pool.submit(sleep, 1.5) for _ in range(2)]
            time.sleep(0.5)
            with pytest.raises(sa.exc.TimeoutError, match="too many read"):
                read(sa.select(1))
            assert [job.result() for job in both] == [None, None]
        assert read(connections)[0][0] <= 2
