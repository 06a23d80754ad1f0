"""collect: what goes, when, and what never does."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest
import requests
import sqlalchemy as sa

from imageapi.catalog import collecting, images, library, now_ms, renditions
from imageapi.extensions import read, transaction
from imageapi.models import Album, IdempotencyKey, Quarantined, ReservedID, Share, StoredObject
from tests.conftest import jpeg
from tests.upkeep.helpers import (
    DAY,
    aged,
    copy_rows,
    listed,
    noted_long_ago,
    objects,
    originals,
    path,
    restore_rows,
    stray,
)


@pytest.fixture
def collect(flask):
    return lambda *arguments: flask("collect", *arguments)


@pytest.fixture
def eight(anna):
    """Enough pictures for a stray file to be few."""
    return [anna.upload(data=jpeg(8, 8, seed=number)) for number in range(8)]


def said(staged=0, orphans=0, old=0, rows=0, noted=0):
    return f"Removed: staged {staged}, orphans {orphans}, old {old}, rows {rows}; noted {noted}.\n"


def assert_said(done, **counts):
    assert (done.exit_code, done.stderr, done.stdout) == (0, "", said(**counts))


def test_bytes_without_a_row_go_in_the_second_run(app, settings, collect, eight):
    key = stray(settings)
    assert_said(collect())  # too young
    aged(settings)
    assert_said(collect(), noted=1)
    assert_said(collect())  # noted a moment ago
    with app.app_context():
        assert key in listed()
        noted_long_ago(DAY - 60)
    assert_said(collect())
    with app.app_context():
        noted_long_ago(120)
    assert_said(collect(), orphans=1)
    with app.app_context():
        assert key not in listed()
        assert len(listed()) == 8 * 4
        assert read(sa.select(Quarantined.key)) == []
    assert_said(collect())


def test_what_gets_a_row_is_let_out(app, settings, collect, eight):
    key = stray(settings)
    aged(settings)
    collect()
    with app.app_context():
        noted_long_ago()
        former = objects()[0].key
        with transaction() as session:
            session.get(StoredObject, objects()[0].id).key = key
        assert_said(collect(), noted=1)
        assert key in listed()
        assert [row.key for row in read(sa.select(Quarantined.key))] == [former]


def test_a_row_that_comes_between_the_look_and_the_removal(
    app, settings, collect, eight, monkeypatch
):
    key = stray(settings)
    aged(settings)
    collect()
    with app.app_context():
        noted_long_ago()
        noted = collecting._noted

        def late(*arguments, **options):
            with transaction() as session:
                session.get(StoredObject, objects()[0].id).key = key
            yield from noted(*arguments, **options)

        monkeypatch.setattr(collecting, "_noted", late)
        collect()
        assert key in listed()


def test_two_runs_that_note_the_same_at_once(app, settings, collect, eight, monkeypatch):
    keys = [stray(settings), stray(settings)]
    aged(settings)
    noted, clock = [], collecting.now_ms

    def another_run():
        if not noted:
            noted.append(True)
            with transaction() as session:
                values = [{"storage": "local", "key": key, "since_ms": 1} for key in keys]
                session.execute(sa.insert(Quarantined), values)
        return clock()

    monkeypatch.setattr(collecting, "now_ms", another_run)
    with app.app_context():
        collect()
        assert {row.key for row in read(sa.select(Quarantined.key))} <= set(keys)
        assert noted


def test_a_rendition_kept_anew_meanwhile_stays(app, settings, collect, anna, eight):
    block = eight[0]
    anna.put(f"/images/{block['public_id']}", json={"rotation": 90})
    with app.app_context():
        row = images.get(block["public_id"])
        mini = renditions.keys(replace(renditions.picture(row), revision=0))[-1]
    aged(settings)
    assert_said(collect(), noted=3)
    os.utime(path(settings, mini))
    with app.app_context():
        noted_long_ago()
        assert_said(collect(), old=2)
        assert mini in listed()


def test_renditions_of_former_edits_go_when_no_url_names_them(app, settings, collect, anna, eight):
    anna.put(f"/images/{eight[0]['public_id']}", json={"rotation": 90})
    aged(settings)
    assert_said(collect("--older-than", "1h", "--force"), noted=3)
    with app.app_context():
        noted_long_ago(7000)
        assert_said(collect("--older-than", "1h", "--force"))
        noted_long_ago(300)
        assert_said(collect("--older-than", "1h"), old=3)
        assert len(listed()) == 8 * 4


def test_more_than_a_twentieth_stops_it(app, settings, collect, eight):
    for _ in range(4):
        stray(settings)
    aged(settings)
    with app.app_context():
        for _round in range(2):
            done = collect()
            assert done.exit_code == 1
            assert "local: 11.1% of what it holds has no row." in done.stderr
            assert "orphans 0" in done.stdout
            noted_long_ago()
        assert len(listed()) == 8 * 4 + 4
        assert collect("--older-than", "4d").exit_code == 0
        assert_said(collect("--force"), orphans=4)
        assert len(listed()) == 8 * 4


def test_force_takes_them_at_once(app, settings, collect, eight):
    stray(settings)
    aged(settings)
    assert_said(collect("--force"), orphans=1, noted=1)


def test_a_dry_run_changes_nothing(app, settings, collect, eight):
    key = stray(settings)
    aged(settings)
    done = collect("--dry-run")
    assert done.stdout == "Would remove: orphans 0, old 0, rows 0; noted 1.\n"
    with app.app_context():
        assert read(sa.select(Quarantined.key)) == []
    collect()
    with app.app_context():
        noted_long_ago()
        assert collect("--dry-run").stdout == "Would remove: orphans 1, old 0, rows 0; noted 0.\n"
        assert key in listed()


def test_after_rows_were_restored_from_an_older_copy_nothing_is_destroyed(
    app, settings, collect, flask, anna, eight
):
    """What came after the copy has no row, what was deleted after it has no bytes."""
    copy_rows(settings)
    anna.delete(f"/images/{eight[0]['public_id']}")
    anna.put(f"/images/{eight[1]['public_id']}", json={"rotation": 90})
    later = [anna.upload(data=jpeg(8, 8, seed=number)) for number in range(100, 106)]
    with app.app_context():
        before = set(originals())
        app.extensions["reader"].close()
    (settings.instance / "copy").rename(settings.instance / "older")
    copy_rows(settings)
    (settings.instance / "copy").rename(settings.instance / "newer")

    (settings.instance / "older").rename(settings.instance / "copy")
    restore_rows(app, settings)
    aged(settings, 9 * DAY)
    with app.app_context():
        for _day in range(3):
            done = collect()
            assert done.exit_code == 1
            assert "Were rows restored from an older copy?" in done.stderr
            noted_long_ago()
            assert set(originals()) == before
    # Only the picture whose bytes were deleted since is lost to the older rows.
    done = flask("fsck", "--repair", "--json")
    harmful = [e for e in json.loads(done.stdout) if e["fault"] == "missing"]
    assert [entry["images"] for entry in harmful] == [[eight[0]["public_id"]]]
    for block in eight[1:]:
        path = f"/images/{block['public_id']}"
        assert anna.get(f"{path}/original").status_code == 200
        assert "/assets/blank.jpg" not in anna.get(path).json["thumbnails"].values()

    (settings.instance / "newer").rename(settings.instance / "copy")
    restore_rows(app, settings)
    flask("fsck", "--repair")
    assert flask("fsck", "--json", "--older-than", "99d").stdout == "[]\n"
    for block in [*eight[1:], *later]:
        assert anna.get(f"/images/{block['public_id']}/original").status_code == 200


def test_staged_files_and_uploads_never_handed_in(app, settings, collect, anna, s3, album, token):
    album("work", owner="anna", storage="s3")
    form = anna.get("/albums/work").json["upload_form"]
    files = {"file": ("a.jpg", jpeg())}
    assert requests.post(form["url"], data=form["params"], files=files, timeout=10).ok
    with app.app_context():
        for name in ("local", "s3"):
            staging = library().storages[name]._backend.staging
            (staging / "abandoned").write_bytes(b"x")
            (staging / "abandoned long ago").write_bytes(b"x")
            os.utime(staging / "abandoned long ago", (0, time.time() - 2 * DAY))
    assert_said(collect(), staged=2)
    time.sleep(1.1)
    assert_said(collect("--older-than", "1s"), staged=3)


def test_expired_rows(app, collect, anna, album):
    number = album("work")
    now = now_ms()
    with app.app_context():
        with transaction() as session:
            for name, age in (("old", 25), ("young", 23)):
                created = now - age * 3600 * 1000
                session.add(
                    IdempotencyKey(
                        scope=name, fingerprint="", status=0, resource="", created_ms=created
                    )
                )
            for name, until in (("old", now - 1000), ("young", now + 100_000)):
                session.add(ReservedID(issuer="", public_id=name, owner="a", until_ms=until))
            ends = {"old": now - 2 * DAY * 1000, "ended": now - 1000, "young": now + 100_000}
            for name, end in ends.items():
                session.add(share(name, number, end // 1000))
            session.add(share("revoked", number, now, revoked_ms=now - 2 * DAY * 1000))
        assert collect("--dry-run").stdout == "Would remove: orphans 0, old 0, rows 4; noted 0.\n"
        assert_said(collect(), rows=4)
        assert {row.id for row in read(sa.select(Share.id))} == {"ended", "young"}
        assert [row.scope for row in read(sa.select(IdempotencyKey.scope))] == ["young"]
        assert [row.public_id for row in read(sa.select(ReservedID.public_id))] == ["young"]


def share(name, album_id, expires_at, **values):
    return Share(
        id=name, album_id=album_id, created_ms=1, expires_at=expires_at, abilities="[]", **values
    )


def test_a_storage_that_fails_leaves_the_others_be(app, settings, collect, eight):
    stray(settings)
    aged(settings)
    with app.app_context():
        collect()
        noted_long_ago()
        with transaction() as session:
            session.get(Album, 1).storage = "attic"
        done = collect()
        assert done.exit_code == 1
        assert "attic: There is no storage 'attic'." in done.stderr
        assert "orphans 1" in done.stdout
