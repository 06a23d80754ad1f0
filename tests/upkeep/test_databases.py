"""Upkeep on both databases: a walk through all of it, and all of it at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading

import flask_migrate
import pytest
import sqlalchemy as sa

from imageapi import create_app, models
from imageapi.catalog import (
    albums,
    collecting,
    edits,
    images,
    library,
    moving,
    upkeep,
    work,
)
from imageapi.errors import ImageAPIError, NotFound, StorageNotFound
from imageapi.extensions import db, read, transaction
from imageapi.settings import Settings
from tests.conftest import SECRET, jpeg
from tests.servers.postgres import postgres
from tests.upkeep.helpers import aged, noted_long_ago, objects, originals, stray

OPERATIONS = 10_000 if os.environ.get("FAULTS") == "full" else int(os.environ.get("OPS", "400"))
STORAGES = {"local": "local", "attic": "local"}


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request, tmp_path):
    if request.param == "sqlite":
        yield from application(tmp_path, "")
        return
    with request.getfixturevalue("server").database() as url:
        yield from application(tmp_path, url.replace("postgresql:", "postgresql+psycopg:"))


def application(instance, url):
    settings = Settings(
        secret_keys=(SECRET,), instance=instance, database_url=url, storages=STORAGES
    )
    app = create_app(settings)
    with app.app_context():
        flask_migrate.upgrade()
        albums.create("holidays", "anna")
        yield app
        app.extensions["reader"].close()
        db.engine.dispose()


def upload(data):
    album = albums.find("holidays")
    with library().storages[album.storage].stage() as staging:
        staging.write(data)
        return images.add(album, staging.finish(), images.Upload(uploader="anna"))[0]


def read_back(image_id):
    """The bytes are those of the row, as long as it is the row."""
    statement = models.ORIGINALS.where(models.Image.id == image_id)
    while rows := read(statement):
        row = rows[0]
        try:
            data = b"".join(library().storages[row.storage].open(row.key))
        except StorageNotFound:
            assert [row.key] != [now.key for now in read(statement)], "no bytes"
        else:
            assert hashlib.sha256(data).hexdigest() == row.sha256
            return


def test_a_walk_through_all_of_it(app, flask):
    ids = [upload(jpeg(seed=number)) for number in range(12)]
    edits.edit(images.get(ids[0]), {"rotation": 90})
    ids.append(edits.duplicate(images.get(ids[1])))
    assert flask("fsck", "--json").stdout == "[]\n"

    done = flask("storages", "migrate", "--album", "holidays", "--to", "attic")
    assert done.stdout.startswith("moved 12, failed 0; ")
    for image_id in ids:
        read_back(image_id)
    assert flask("fsck", "--json").stdout == "[]\n"
    lost = objects()[0]
    library().storages["attic"].delete(lost.key)
    done = flask("fsck", "--json", "--repair")
    assert [entry["repaired"] for entry in json.loads(done.stdout)] == [True]

    stray(app.extensions["library"].settings)
    aged(app.extensions["library"].settings)
    assert flask("collect", "--force", "--older-than", "1h").exit_code == 0
    noted_long_ago()
    assert flask("collect", "--older-than", "1h").exit_code == 0
    # What the move left has its own time.
    assert len(originals("local")) == len(originals("attic")) == 12

    assert flask("renditions", "rebuild").stdout.startswith("rendered 13, skipped 0, failed 0 in ")
    for image_id in ids:
        edits.delete(images.get(image_id))
    assert objects() == originals("local") == originals("attic") == []
    assert flask("fsck", "--json").stdout == "[]\n"


def test_all_of_it_at_once(app):
    """Uploads, duplicates, edits and deletes beside moves, collections and removals: no row loses bytes."""
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    over, faults = threading.Event(), []
    left = [OPERATIONS // 4] * 4

    def beside(task):
        def run():
            with app.app_context():
                try:
                    task()
                except Exception as error:  # noqa: BLE001 - told by the test
                    faults.append(repr(error))
                    over.set()
                finally:
                    app.extensions["reader"].close()

        return threading.Thread(target=run)

    def client(number):
        choice = random.Random(seed + number)  # noqa: S311
        while left[number] and not over.is_set():
            left[number] -= 1
            one_of(choice)

    def mover():
        while not over.is_set():
            for to in ("attic", "local"):
                album = albums.find("holidays")
                moving.begin(album, to)
                for outcome in moving.move(album, to, 0):
                    # The bytes of a deleted image go after its row, before or while they are copied.
                    assert outcome.verdict is not moving.Verdict.FAILED or gone(outcome.key), (
                        outcome
                    )
                    if over.is_set():
                        return

    def collector():
        while not over.wait(0.05):
            # What was stored in the last second may not have its row yet.
            collecting.collect(collecting.Rule(older_than=1, force=True))
            with transaction() as session:
                due = sa.update(models.Work).where(models.Work.kind.in_(["remove", "remove_copy"]))
                session.execute(due.values(due_ms=0))
            work.run_due()

    clients = [beside(lambda number=number: client(number)) for number in range(4)]
    others = [beside(mover), beside(collector)]
    for thread in [*clients, *others]:
        thread.start()
    for thread in clients:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    assert not faults
    while work.run_due():
        pass
    findings = [f for f in upkeep.fsck(upkeep.Scope()) if f.fault is not upkeep.Fault.RENDITIONS]
    assert findings == []
    [album] = read(sa.select(models.Album.images_count, models.Album.bytes))
    assert album.images_count == read(sa.select(sa.func.count()).select_from(models.Image))[0][0]
    assert album.bytes == sum(row.bytes for row in objects())


def gone(key):
    return not read(sa.select(models.StoredObject.id).where(models.StoredObject.key == key))


def one_of(choice):
    """An upload, a duplicate, an edit or a delete; on one of 20 files."""
    ids = [row.id for row in read(sa.select(models.Image.id).order_by(models.Image.id).limit(60))]
    operation = choice.choice(["upload", "upload", "duplicate", "edit", "delete", "delete"])
    try:
        if operation == "upload" or not ids:
            read_back(upload(jpeg(16, 16, seed=choice.randrange(20))))
            return
        row = images.get(choice.choice(ids))
        if operation == "duplicate":
            edits.duplicate(row)
        elif operation == "edit":
            edits.edit(row, {"rotation": choice.choice([0, 90, 180, 270])})
        else:
            edits.delete(row)
    except NotFound:
        pass  # another was faster
    except ImageAPIError as error:
        raise AssertionError(f"{operation}: {error!r}") from error
