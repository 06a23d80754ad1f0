"""Upgrades of the schema meet an older version that serves, another host, long reads, and kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import flask_migrate
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from imageapi import create_app
from imageapi.extensions import db, migrate
from imageapi.settings import Settings
from tests.conftest import SECRET, close
from tests.databases import assert_migrated
from tests.servers.gunicorn import ROOT
from tests.servers.postgres import by_psycopg

FULL = os.environ.get("FAULTS") == "full"
STEP = 1 if FULL else 12
"""Killed before each of so many statements."""
REVISIONS = [
    script.revision for script in ScriptDirectory(str(migrate.directory)).walk_revisions()
][::-1]
SECONDS = 60
KILLED = """
import os, signal, sys
import flask_migrate, sqlalchemy as sa
from imageapi import create_app
left = int(sys.argv[1])
def count(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
with create_app().app_context():
    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    flask_migrate.upgrade()
"""
"""Upgrades, and dies before the statement of that number."""


@contextlib.contextmanager
def application(instance, url):
    app = create_app(Settings(secret_keys=(SECRET,), instance=instance, database_url=url))
    with app.app_context():
        yield app
    close(app)


@pytest.fixture
def on_postgresql(postgresql_server, tmp_path):
    with postgresql_server.database() as made, application(tmp_path, by_psycopg(made)) as app:
        yield app


def tables():
    """Table to its columns: name, type, whether a row may do without it."""
    inspector = sa.inspect(db.engine)
    return {
        name: {
            column["name"]: (
                str(column["type"]),
                column["nullable"] or column["default"] is not None,
            )
            for column in inspector.get_columns(name)
        }
        for name in inspector.get_table_names()
    }


def test_what_the_older_version_reads_and_writes_stays(tmp_path, database_url):
    """It serves until all hosts have the new one: nothing is taken away, nothing new is demanded."""
    with application(tmp_path, database_url):
        before = {}
        for revision in REVISIONS:
            flask_migrate.upgrade(revision=revision)
            after = tables()
            assert before.keys() <= after.keys(), revision
            for table, columns in before.items():
                assert columns.items() <= after[table].items(), (revision, table)
                fresh = after[table].keys() - columns.keys()
                assert all(after[table][name][1] for name in fresh), (revision, table)
            before = after


def upgrading(instance, url, *command):
    env = {
        **os.environ,
        "IMAGEAPI_SECRET_KEYS": SECRET,
        "IMAGEAPI_INSTANCE": str(instance),
        "IMAGEAPI_DATABASE_URL": url,
        "FLASK_APP": "imageapi",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, *(command or ("-m", "flask", "db", "upgrade"))],
        cwd=instance,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    _, said = process.communicate(timeout=SECONDS)
    return process.returncode, said


def test_two_hosts_at_once(tmp_path, database_url):
    both = [upgrading(tmp_path, database_url) for _ in range(2)]
    for process in both:
        code, said = ended(process)
        assert code == 0, said
    with application(tmp_path, database_url):
        assert_migrated()


def test_killed_at_each_statement(tmp_path, database_url):
    deaths, number = 0, 0
    while (end := ended(upgrading(tmp_path, database_url, "-c", KILLED, str(number))))[0]:
        assert end[0] == -signal.SIGKILL, end[1]
        deaths, number = deaths + 1, number + STEP
        if number % (STEP * 4) == 0:
            # All of it is one transaction: nothing is there before its end.
            with application(tmp_path, database_url):
                assert tables().keys() <= {"alembic_version"}
    assert deaths >= 4
    with application(tmp_path, database_url):
        assert_migrated()


def test_a_long_read_holds_the_upgrade_up_and_no_request(on_postgresql):
    """As a dump does, which reads every table in one transaction."""
    flask_migrate.upgrade(revision=REVISIONS[-2])
    done = threading.Event()

    def upgrade():
        with on_postgresql.app_context():
            flask_migrate.upgrade()
        done.set()

    with db.engine.connect() as dump:
        dump.exec_driver_sql("SELECT count(*) FROM work")
        host = threading.Thread(target=upgrade)
        host.start()
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            with db.engine.begin() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO work (kind, payload, due_ms) VALUES ('', '', 0)"
                )
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.2)
        assert not done.is_set()
        assert slowest > 0.1, "the upgrade was never in the way"
    host.join(SECONDS)
    assert done.is_set()
    assert_migrated()
