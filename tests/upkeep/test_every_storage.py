"""fsck, collect and rebuild on every storage of the tree: what is found, put right and removed."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
import sqlalchemy as sa

from imageapi.catalog import images, library, renditions
from imageapi.extensions import read
from imageapi.geometry import Size
from imageapi.models import Quarantined
from tests.conftest import jpeg
from tests.upkeep.helpers import objects, originals

SERVERS = {"local": (), "s3": ("s3",), "cloudinary": ("on_cloudinary",)}


@pytest.fixture(params=SERVERS)
def name(request):
    for fixture in SERVERS[request.param]:
        request.getfixturevalue(fixture)
    return request.param


@pytest.fixture
def blocks(name, anna, album):
    """Pictures of an album in the storage."""
    album("there", owner="anna", storage=name)
    return [anna.upload("there", jpeg(seed=number)) for number in range(5)]


def put(name, data, key=None):
    """Store bytes that no row knows of; their key."""
    with library().storages[name].stage() as staging:
        staging.write(data)
        staged = dataclasses.replace(staging.finish(), format="jpg", size=Size(64, 48))
        return library().storages[name].put(staged, ["there"], key)[0]


def replace(name, key, data):
    library().storages[name].delete(key)
    put(name, data, key)


def found(done):
    return {(entry["fault"], entry["key"]): entry["repaired"] for entry in json.loads(done.stdout)}


def test_fsck(app, name, flask, anna, blocks):
    assert (flask("fsck", "--json").exit_code, flask("fsck", "--json").stdout) == (0, "[]\n")
    with app.app_context():
        missing, other, longer, moved, _whole = (row.key for row in objects())
        library().storages[name].delete(missing)
        replace(name, other, jpeg(seed=97))
        replace(name, longer, jpeg(seed=98) + b"more")
        library().storages[name].delete(moved)
        orphan, elsewhere = put(name, jpeg(seed=99)), put(name, jpeg(seed=3))
    time.sleep(1.1)
    damages = {("missing", missing), ("wrong", other), ("wrong", longer), ("missing", moved)}
    orphans = {("orphan", orphan), ("orphan", elsewhere)}

    done = flask("fsck", "--json", "--older-than", "1s")
    assert (done.exit_code, found(done).keys()) == (1, damages | orphans)
    done = flask("fsck", "--json", "--repair")
    assert (done.exit_code, found(done)) == (
        1,
        dict.fromkeys(damages, False) | {("missing", moved): True},
    )
    assert anna.get(f"/images/{blocks[3]['public_id']}/original").data == jpeg(seed=3)

    with app.app_context():
        for number, key in enumerate((missing, other, longer)):
            replace(name, key, jpeg(seed=number))
    done = flask("fsck", "--json")
    assert (done.exit_code, done.stdout) == (0, "[]\n")


def test_collect(app, name, flask, anna, blocks):
    with app.app_context():
        kept = set(originals(name))
        orphans = {put(name, jpeg(seed=number)) for number in (98, 99)}
    time.sleep(1.1)
    collect = ("collect", "--older-than", "1s")
    done = flask(*collect)
    assert (done.exit_code, "Were rows restored" in done.stderr) == (1, True)
    with app.app_context():
        assert set(originals(name)) == kept | orphans
        assert {row.key for row in read(sa.select(Quarantined.key))} == orphans
    done = flask(*collect, "--force")
    assert (done.exit_code, "orphans 2," in done.stdout) == (0, True)
    with app.app_context():
        assert set(originals(name)) == kept
    for number, block in enumerate(blocks):
        assert anna.get(f"/images/{block['public_id']}/original").data == jpeg(seed=number)


def test_rebuild(app, name, flask, blocks):
    with app.app_context():
        store = library().storages[name]
        shown = [renditions.picture(images.get(block["public_id"])) for block in blocks]
        keys = [] if store.renders else [key for each in shown for key in renditions.keys(each)]
        for key in keys:
            store.delete(key)
    done = flask("renditions", "rebuild")
    word = "skipped" if store.renders else "rendered"
    assert (done.exit_code, f"{word} 5" in done.stdout) == (0, True)
    with app.app_context():
        assert all(store.stat(key).bytes for key in keys)
