"""fsck: what it finds, what it puts right, what it says, and that it says nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
import uuid

import pytest
import sqlalchemy as sa

from imageapi.catalog import edits, images, library, moving, renditions, survey, upkeep, work
from imageapi.catalog.upkeep import Scope
from imageapi.errors import StorageUnavailable
from imageapi.extensions import read, transaction
from imageapi.models import Image, Quarantined, StoredObject, Work
from imageapi.storage.backend import original_key
from tests.conftest import jpeg
from tests.upkeep.helpers import (
    aged,
    copy_rows,
    flip,
    listed,
    objects,
    originals,
    path,
    restore_rows,
    stray,
)

OBJECTS, DAMAGES = (10_000, 1_000) if os.environ.get("FAULTS") == "full" else (1_000, 100)
SHARE = DAMAGES // 8 + 1
"""Damages of one kind, of eight."""


def found(done):
    return {(entry["fault"], entry["key"]): entry for entry in json.loads(done.stdout)}


def test_nothing_is_wrong(flask, anna):
    for number in range(3):
        anna.upload(data=jpeg(seed=number))
    done = flask("fsck")
    assert (done.exit_code, done.stderr) == (0, "")
    size = sum(len(jpeg(seed=number)) for number in range(3))
    assert done.stdout.startswith(f"3 originals, {size} bytes in ")
    assert done.stdout.endswith("; missing 0, wrong 0, renditions 0, orphan 0, storage 0\n")
    done = flask("fsck", "--json")
    assert (done.exit_code, done.stdout) == (0, "[]\n")


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_originals(app, settings, flask, anna, quick):
    blocks = [anna.upload(data=jpeg(seed=number)) for number in range(4)]
    anna.post(f"/images/{blocks[0]['public_id']}/duplicate")
    with app.app_context():
        missing, flipped, shorter, _whole = (row.key for row in objects())
    path(settings, missing).unlink()
    flip(path(settings, flipped))
    path(settings, shorter).write_bytes(b"")
    done = flask("fsck", "--json", *quick)
    assert done.exit_code == 1
    entries = found(done)
    expected = {("missing", missing), ("wrong", shorter)} | (
        set() if quick else {("wrong", flipped)}
    )
    assert entries.keys() == expected
    assert len(entries["missing", missing]["images"]) == 2
    assert entries["wrong", shorter]["images"] == [blocks[2]["public_id"]]
    assert entries["wrong", shorter]["reason"].startswith("There are 0 bytes, not ")

    told = flask("fsck", *quick).stdout.splitlines()
    assert len(told) == len(expected) + 1
    assert f"missing: local {missing}: There are no bytes. (image " in "\n".join(told)


def test_renditions_are_rendered(app, settings, flask, anna):
    block, other = anna.upload(), anna.upload(data=jpeg(seed=1))
    with app.app_context():
        row = images.get(block["public_id"])
        _full, large, mini = renditions.keys(renditions.picture(row))
        with transaction() as session:
            session.get(Image, other["public_id"]).rendered = ""
    before = path(settings, mini).read_bytes()
    path(settings, mini).unlink()
    path(settings, large).unlink()

    done = flask("fsck", "--json")
    assert done.exit_code == 0
    reasons = {entry["images"][0]: entry["reason"] for entry in json.loads(done.stdout)}
    assert reasons == {
        block["public_id"]: f"There is no {large} and no {mini}.",
        other["public_id"]: "There are no renditions yet.",
    }
    done = flask("fsck", "--repair", "--json")
    assert [entry["repaired"] for entry in json.loads(done.stdout)] == [True, True]
    assert path(settings, mini).read_bytes() == before
    assert flask("fsck", "--json").stdout == "[]\n"


def test_renditions_of_a_lost_original_can_not_be(app, settings, flask, anna):
    block = anna.upload()
    with app.app_context():
        row = images.get(block["public_id"])
        path(settings, renditions.keys(renditions.picture(row))[0]).unlink()
        path(settings, row.key).unlink()
    done = flask("fsck", "--repair", "--json")
    assert done.exit_code == 1
    assert {(e["fault"], e["repaired"]) for e in json.loads(done.stdout)} == {
        ("missing", False),
        ("renditions", False),
    }


def test_orphans_are_told_when_they_are_old(app, settings, flask, anna):
    anna.upload()
    key = stray(settings)
    rendition = f"{key}.0.mini.jpg"
    path(settings, rendition).write_bytes(b"x")
    assert flask("fsck", "--json").stdout == "[]\n"
    aged(settings)
    done = flask("fsck", "--json", "--repair")
    assert done.exit_code == 0
    assert found(done).keys() == {("orphan", key), ("orphan", rendition)}
    assert path(settings, key).exists()
    assert flask("fsck", "--json", "--older-than", "3d").stdout == "[]\n"


def test_renditions_of_former_edits_are_no_orphans(settings, flask, anna):
    block = anna.upload()
    anna.put(f"/images/{block['public_id']}", json={"rotation": 90})
    aged(settings)
    assert flask("fsck", "--json").stdout == "[]\n"


def test_a_storage_that_is_gone(app, flask, anna):
    anna.upload()
    with app.app_context(), transaction() as session:
        session.execute(sa.update(StoredObject).values(storage="attic"))
    done = flask("fsck")
    assert done.exit_code == 1
    assert "storage: attic: There is no storage 'attic'." in done.stdout


def test_a_storage_that_does_not_answer(app, flask, anna, monkeypatch):
    anna.upload()
    with app.app_context():
        backend = library().storages["local"]._backend

    def fails(*_):
        raise StorageUnavailable

    monkeypatch.setattr(backend, "open", fails)
    done = flask("fsck", "--json")
    assert done.exit_code == 1
    assert found(done).keys() == {("storage", "")}


def test_a_disk_that_can_not_read_a_file(settings, app, flask, anna):
    anna.upload()
    anna.upload(data=jpeg(seed=1))
    with app.app_context():
        key = objects()[0].key
    path(settings, key).unlink()
    path(settings, key).symlink_to("/etc/passwd")
    done = flask("fsck", "--json")
    assert (done.exit_code, found(done).keys()) == (1, {("wrong", key)})


def test_what_changes_meanwhile_is_no_damage(app, anna, monkeypatch):
    """Deleted, edited or uploaded between the look at the rows and the look at the bytes."""
    blocks = [anna.upload(data=jpeg(seed=number)) for number in range(2)]
    with app.app_context():
        deleted, edited = (images.get(block["public_id"]) for block in blocks)
    changes = {
        f"{deleted.key[:2]}/": lambda: edits.delete(deleted),
        f"{edited.id[:2]}/": lambda: edits.edit(edited, {"rotation": 90}),
        "ff/": lambda: anna.upload(data=jpeg(seed=9)),
    }
    listing = survey._listed

    def meanwhile(storage, prefix):
        changes.pop(prefix, lambda: None)()
        return listing(storage, prefix)

    monkeypatch.setattr(survey, "_listed", meanwhile)
    with app.app_context():
        assert list(upkeep.fsck(Scope(orphans=-60))) == []
    assert not changes


def test_a_lost_original_comes_back_from_the_copy_that_a_move_left(app, settings, flask, anna, s3):
    blocks = [anna.upload(data=jpeg(seed=number)) for number in range(3)]
    assert flask("storages", "migrate", "--album", "holidays", "--to", "s3").exit_code == 0
    with app.app_context():
        store = library().storages["s3"]
        first, second, third = (row.key for row in objects())
        copies = {row.object_id: row.key for row in read(sa.select(moving.ObjectCopy.__table__))}
        store.delete(first)
        store.delete(second)
        api, bucket = store._backend._client.api, store._backend.options.bucket
        other = {"Bucket": bucket, "Key": store._backend.options.prefix + third}
        api.put_object(**other, Body=b"x" * len(jpeg(seed=2)))
        flip(path(settings, copies[objects()[1].id]))
    done = flask("fsck", "--json", "--repair")
    assert done.exit_code == 1
    entries = found(done)
    assert {key: entry["repaired"] for key, entry in entries.items()} == {
        ("missing", first): True,
        ("missing", second): False,
        ("wrong", third): True,
    }
    for number in (0, 2):
        original = anna.get(f"/images/{blocks[number]['public_id']}/original")
        assert original.data == jpeg(seed=number)
    assert found(flask("fsck", "--json")).keys() == {("missing", second)}


def test_rows_from_before_a_move_find_their_bytes(app, settings, flask, anna, s3):
    """The album moved since the rows were copied, and nothing is left where it was."""
    blocks = [anna.upload(data=jpeg(seed=number)) for number in range(3)]
    copy_rows(settings)
    assert flask("storages", "migrate", "--album", "holidays", "--to", "s3").exit_code == 0
    with app.app_context():
        with transaction() as session:
            session.execute(sa.update(Work).values(due_ms=0))
        work.run_due()
        assert listed("local") == []
    restore_rows(app, settings)

    done = flask("fsck", "--json")
    assert (
        done.exit_code,
        [entry["fault"] for entry in json.loads(done.stdout)].count("missing"),
    ) == (1, 3)
    done = flask("fsck", "--json", "--repair")
    assert (done.exit_code, {entry["repaired"] for entry in json.loads(done.stdout)}) == (0, {True})
    assert flask("fsck", "--json").stdout == "[]\n"
    for number, block in enumerate(blocks):
        path = f"/images/{block['public_id']}"
        assert anna.get(f"{path}/original").data == jpeg(seed=number)
        assert (
            anna.client.get(anna.get(path).json["thumbnails"]["mini"]).content_type == "image/jpeg"
        )


def test_where_a_storage_is_cut_off_the_rest_is_read(app, flask, anna, monkeypatch):
    anna.upload(data=jpeg(seed=1))
    with app.app_context():
        backend = library().storages["local"]._backend
    opened, starts = backend.open, []

    def cut_off(key, start=0, length=None):
        starts.append(start)
        for place, byte in enumerate(b"".join(opened(key, start, length))):
            if place == 100:
                raise StorageUnavailable
            yield bytes([byte])

    monkeypatch.setattr(backend, "open", cut_off)
    done = flask("fsck", "--json")
    assert (done.exit_code, done.stdout) == (0, "[]\n")
    assert starts == list(range(0, len(jpeg(seed=1)), 100))


# many ---------------------------------------------------------------------------------------


@pytest.fixture
def many(app, settings, anna):
    """Very many originals, small ones; every image's renditions are links to three files."""
    block = anna.upload(data=jpeg(8, 8))
    with app.app_context():
        template = images.get(block["public_id"])
        shown = [path(settings, key) for key in renditions.keys(renditions.picture(template))]
        for folder in survey.FOLDERS:
            path(settings, folder).mkdir(exist_ok=True)
        with transaction() as session:
            image = session.get(Image, block["public_id"])
            kept = {c.key: getattr(image, c.key) for c in Image.__table__.columns}
            stored = session.get(StoredObject, image.object_id)
            whole = {c.key: getattr(stored, c.key) for c in StoredObject.__table__.columns}
        rows, pictures = [], []
        for number in range(1, OBJECTS):
            data = random.Random(number).randbytes(200 + number % 50)  # noqa: S311
            key, image_id = original_key(), str(uuid.uuid4())
            path(settings, key).write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            fresh = {"key": key, "sha256": sha256, "bytes": len(data), "id": whole["id"] + number}
            rows.append({**whole, **fresh})
            pictures.append({**kept, "id": image_id, "object_id": whole["id"] + number})
            for file, name in zip(shown, ("full", "large", "mini"), strict=True):
                target = f"{image_id[:2]}/{image_id}.0.{name}.jpg"
                os.link(file, path(settings, target))
        with transaction() as session:
            session.execute(sa.insert(StoredObject), rows)
            session.execute(sa.insert(Image), pictures)


class Damage:
    """Damages of all kinds, about as many of each; what `fsck` should say of them."""

    def __init__(self, settings, choice, app):
        self.settings, self.choice = settings, choice
        self.expected: set[tuple[str, str]] = set()
        rows = read(sa.select(StoredObject.key, Image.id).join(Image))
        self.chosen = iter(choice.sample(rows, DAMAGES))
        self.share = SHARE
        with app.app_context():
            for damage in (self.missing, self.flipped, self.shortened, self.unrendered):
                for _ in range(self.share):
                    damage(next(self.chosen))
            for _ in range(self.share):
                self.swapped(next(self.chosen), next(self.chosen))
            for _ in range(self.share // 2):
                self.orphan(settings)

    def missing(self, row):
        path(self.settings, row.key).unlink()
        self.expected.add(("missing", row.key))

    def flipped(self, row):
        file = path(self.settings, row.key)
        flip(file, self.choice.randrange(file.stat().st_size))
        self.expected.add(("wrong", row.key))

    def shortened(self, row):
        file = path(self.settings, row.key)
        os.truncate(file, self.choice.randrange(file.stat().st_size))
        self.expected.add(("wrong", row.key))

    def swapped(self, one, other):
        aside = self.settings.instance / "aside"
        shutil.move(path(self.settings, one.key), aside)
        shutil.move(path(self.settings, other.key), path(self.settings, one.key))
        shutil.move(aside, path(self.settings, other.key))
        self.expected |= {("wrong", one.key), ("wrong", other.key)}

    def unrendered(self, row):
        name = self.choice.choice(["full", "large", "mini"])
        path(self.settings, f"{row.id[:2]}/{row.id}.0.{name}.jpg").unlink()
        self.expected.add(("renditions", row.key))

    def orphan(self, settings):
        key = stray(settings)
        rendition = f"{key}.0.mini.jpg"
        path(settings, rendition).write_bytes(b"x")
        self.expected |= {("orphan", key), ("orphan", rendition)}


def test_every_damage_is_found_and_no_other(app, settings, flask, many):
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    choice = random.Random(seed)  # noqa: S311
    assert flask("fsck", "--json").stdout == "[]\n"
    with app.app_context():
        noted = {stray(settings) for _ in range(SHARE)}
        aged(settings)
        flask("collect")
        assert {row.key for row in read(sa.select(Quarantined.key))} == noted
        damage = Damage(settings, choice, app)
        aged(settings)
    expected = damage.expected | {("orphan", key) for key in noted}
    assert len(expected) >= DAMAGES

    started = time.monotonic()
    done = flask("fsck", "--json")
    sys.stdout.write(f"{len(expected)} of {OBJECTS} in {time.monotonic() - started:.1f} s\n")
    entries = json.loads(done.stdout)
    assert done.exit_code == 1
    assert len(entries) == len(expected)
    assert {(entry["fault"], entry["key"]) for entry in entries} == expected
    assert all(entry["images"] for entry in entries if entry["fault"] != "orphan")


def test_what_is_held_at_once_is_a_part(app, many):
    with app.app_context():
        most = max(
            len(folder.listed) + len(folder.objects)
            for folder in survey.folders(library().storages["local"])
        )
        assert most < len(listed()) / 10
        assert len(originals()) == OBJECTS
