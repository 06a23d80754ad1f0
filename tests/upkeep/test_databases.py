"""Upkeep on both databases: a walk through all of it, and all of it at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import flask_migrate
import pytest
import sqlalchemy as sa

from imageapi import models
from imageapi.catalog import albums, collecting, edits, images, library, moving, upkeep, work
from imageapi.extensions import read
from tests.conftest import jpeg
from tests.upkeep.crowd import OPERATIONS, STORAGES, application, member, read_back, upload
from tests.upkeep.helpers import aged, noted_long_ago, objects, originals, stray

NUMBER = 10_000 if os.environ.get("FAULTS") == "full" else 400
PROCESSES = 4


@pytest.fixture
def app(tmp_path, database_url):
    with application(tmp_path, database_url) as made:
        flask_migrate.upgrade()
        albums.create("holidays", "anna")
        yield made


def test_a_walk_through_all_of_it(app, flask):
    ids = [upload(jpeg(seed=number)) for number in range(12)]
    edits.edit(images.get(ids[0]), {"rotation": 90})
    ids.append(edits.duplicate(images.get(ids[1])))
    assert flask("fsck", "--json").stdout == "[]\n"

    done = flask("storages", "migrate", "--album", "holidays", "--to", "attic")
    assert done.stdout.startswith("moved 12, failed 0, left 0; ")
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


def test_all_of_it_at_once(app, database_url):
    """Four processes upload, duplicate, edit, delete and collect while a fifth moves: no row loses bytes."""
    instance = app.extensions["library"].settings.instance
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        share = NUMBER // PROCESSES
        clients = [
            pool.submit(member, instance, database_url, seed + n, share) for n in range(PROCESSES)
        ]
        while not all(client.done() for client in clients):
            move_there_and_back()
        done = sum((client.result() for client in clients), Counter())
    assert done.keys() == OPERATIONS.keys()

    while work.run_due():
        pass
    # A run may leave to the next what another one has noted at the same moment.
    for _ in range(2):
        collecting.collect(collecting.Rule(older_than=3600, force=True))
    findings = list(upkeep.fsck(upkeep.Scope(orphans=3600)))
    assert [f for f in findings if f.fault is not upkeep.Fault.RENDITIONS] == []
    [album] = read(sa.select(models.Album.images_count, models.Album.bytes))
    assert album.images_count == read(sa.select(sa.func.count()).select_from(models.Image))[0][0]
    assert album.bytes == sum(row.bytes for row in objects())


def move_there_and_back():
    album = albums.find("holidays")
    for to in reversed(STORAGES):
        moving.begin(album, to)
        for outcome in moving.move(album, to, 0):
            # The bytes of a deleted image go after its row, before or while they are copied.
            assert outcome.verdict is not moving.Verdict.FAILED or gone(outcome.key), outcome


def gone(key):
    return not read(sa.select(models.StoredObject.id).where(models.StoredObject.key == key))
