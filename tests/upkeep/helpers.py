"""What the tests of upkeep do to storages and rows."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
import uuid

import pytest
import sqlalchemy as sa

from imageapi.catalog import library
from imageapi.extensions import db, read, transaction
from imageapi.models import Quarantined, StoredObject

DAY = 86_400


def objects():
    return read(sa.select(StoredObject.__table__).order_by(StoredObject.id))


def listed(name="local"):
    return [stored.key for stored in library().storages[name].list()]


def originals(name="local"):
    return [key for key in listed(name) if "." not in key]


def path(settings, key):
    return settings.instance / "storage/local" / key


def aged(settings, seconds=2 * DAY):
    """Every file of the local storage, as if it were so old."""
    then = time.time() - seconds
    for file in (settings.instance / "storage/local").glob("*/*"):
        os.utime(file, (then, then))


def noted_long_ago(seconds=2 * DAY):
    """What is in quarantine, as if it were there for so long."""
    with transaction() as session:
        earlier = Quarantined.since_ms - seconds * 1000
        session.execute(sa.update(Quarantined).values(since_ms=earlier))


def stray(settings, content=b"bytes without a row"):
    """An original without a row in the local storage; its key."""
    return put_stray(settings.instance / "storage/local", content, age=0)


def put_stray(root, content=b"bytes without a row", age=2 * DAY):
    """An original without a row below a folder, as if it were so many seconds old; its key."""
    name = str(uuid.uuid4())
    key = f"{name[:2]}/{name}"
    file = root / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    then = time.time() - age
    os.utime(file, (then, then))
    return key


def copy_rows(settings):
    """A copy of the database as it is now, beside it."""
    if settings.database_url:
        pytest.skip("rows are restored as a file, which only SQLite's can be")
    with (
        contextlib.closing(sqlite3.connect(settings.instance / "imageapi.sqlite3")) as source,
        contextlib.closing(sqlite3.connect(settings.instance / "copy")) as copy,
    ):
        source.backup(copy)


def restore_rows(app, settings):
    """The database as it was copied."""
    database = settings.instance / "imageapi.sqlite3"
    with app.app_context():
        app.extensions["reader"].close()
        db.engine.dispose()
    for left in settings.instance.glob("imageapi.sqlite3-*"):
        left.unlink()
    shutil.copy(settings.instance / "copy", database)


def flip(file, place=-1):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
