"""How much one album may hold, whichever way it comes in, and however many come at once."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import flask_migrate
import pytest

from imageapi import create_app, models
from imageapi.catalog import albums, seeding
from imageapi.catalog import images as catalog_images
from imageapi.errors import AlbumFull
from imageapi.extensions import db, transaction
from imageapi.settings import Settings
from tests.blueprints.conftest import FORM, IMAGES, form, remains
from tests.conftest import SECRET, bearing, jpeg, sign
from tests.servers.postgres import postgres

RACERS = 32


def refused(answer, limit):
    assert answer.status_code == 409
    assert answer.json["code"] == "album_full"
    assert limit in answer.json["detail"]


@pytest.mark.configure(album_max_images=2)
def test_an_album_holds_so_many_images(app, client, upload, token):
    first = upload(("file", jpeg(seed=1), "a.jpg"))
    assert first.status_code == 201
    assert upload(("file", jpeg(seed=2), "b.jpg")).status_code == 201
    before = remains(app)

    refused(upload(("file", jpeg(seed=3), "c.jpg")), "2 images")
    again = upload(("file", jpeg(seed=1), "a.jpg"))
    headers = token("holidays", "image_list", "image_duplicate", "image_delete", "see")
    refused(client.post(f"{first.headers['Location']}/duplicate", headers=headers), "2 images")

    assert again.status_code == 200, "the same bytes again take no place"
    assert remains(app) == before, "nothing of what was refused is left"
    assert client.delete(first.headers["Location"], headers=headers).status_code == 204
    assert upload(("file", jpeg(seed=3), "c.jpg")).status_code == 201


@pytest.mark.configure(album_max_bytes=2500)
def test_an_album_holds_so_many_bytes(app, client, upload, token):
    size = len(jpeg(seed=1))
    assert 2 * size < 2500 < 3 * size
    assert upload(("file", jpeg(seed=1), "a.jpg")).status_code == 201
    second = upload(("file", jpeg(seed=2), "b.jpg"))
    assert second.status_code == 201
    refused(upload(("file", jpeg(seed=3), "c.jpg")), "2500 bytes")
    headers = token("holidays", "image_list", "image_duplicate")
    shared = client.post(f"{second.headers['Location']}/duplicate", headers=headers)
    assert shared.status_code == 201, "a duplicate adds no bytes"
    assert remains(app).counted[1] == len(jpeg(seed=1)) + len(jpeg(seed=2))


@pytest.mark.configure(album_max_bytes=2500, album_max_images=9)
def test_seeding_counts_too(app, album, tmp_path):
    album()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(jpeg(seed=number))
    with app.app_context():
        outcomes = list(seeding.seed(albums.find("holidays"), folder, "anna"))
    assert [outcome.verdict for outcome in outcomes] == ["added", "added", "refused", "refused"]
    assert "409 album_full" in outcomes[3].reason


@pytest.mark.parametrize(
    ("limits", "held", "room"),
    [
        ({}, (9, 900), 1000),
        ({"album_max_bytes": 5000}, (9, 900), 1000),
        ({"album_max_bytes": 1000}, (9, 900), 100),
        ({"album_max_bytes": 800}, (9, 900), 0),
        ({"album_max_images": 10}, (9, 900), 1000),
        ({"album_max_images": 9}, (9, 900), 0),
        ({"album_max_images": 10, "album_max_bytes": 901}, (9, 900), 1),
    ],
)
def test_a_form_takes_no_more_than_is_left(settings, album, limits, held, room):
    app = create_app(dataclasses.replace(settings, max_upload_bytes=1000, **limits))
    row = models.Album(images_count=held[0], bytes=held[1])
    with app.app_context():
        assert catalog_images.room(row) == room


@pytest.fixture(params=["sqlite", "postgresql"])
def limited(request, tmp_path):
    """An application whose album may hold five images; its database is one or the other."""
    if request.param == "sqlite":
        yield from application(tmp_path, "")
        return
    with postgres() as server, server.database() as url:
        yield from application(tmp_path, url.replace("postgresql:", "postgresql+psycopg:"))


def application(instance, url):
    keys = (SECRET,)
    app = create_app(
        Settings(secret_keys=keys, instance=instance, database_url=url, album_max_images=5)
    )
    with app.app_context():
        flask_migrate.upgrade()
        with transaction() as session:
            row = {"issuer": "", "owner": "anna", "storage": "local", "created_ms": 1}
            session.add(models.Album(public_id="holidays", **row))
    yield app
    with app.app_context():
        app.extensions["reader"].close()
        db.engine.dispose()


def test_racing_uploads_never_overshoot(limited, monkeypatch):
    start = threading.Barrier(RACERS)
    known, unhurried = catalog_images.read, threading.local()

    def late(statement, **parameters):
        # All have looked before the first one writes: only the write can decide.
        rows = known(statement, **parameters)
        if statement is catalog_images._HELD and not getattr(unhurried, "waited", False):
            unhurried.waited = True
            start.wait(60)
        return rows

    monkeypatch.setattr(catalog_images, "read", late)
    headers = bearing(
        sign({"abilities": {"holidays": {"Access": {"image_upload": True}}}, "user_id": "anna"})
    )

    def post(number):
        body = form(("file", jpeg(seed=number), "a.jpg"))
        client = limited.test_client()
        try:
            return client.post(IMAGES, data=body, content_type=FORM, headers=headers)
        finally:
            limited.extensions["reader"].close()

    with ThreadPoolExecutor(RACERS) as pool:
        answers = list(pool.map(post, range(RACERS)))

    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * (RACERS - 5)
    assert {answer.json["code"] for answer in answers if answer.status_code == 409} == {
        "album_full"
    }
    left = remains(limited)
    assert (left.images, left.objects, left.counted[0]) == (5, 5, 5)
    assert len(left.stored) == 5 * 4, "the original and three renditions of each, no more"
    assert left.staged == []


@pytest.mark.configure(album_max_images=1)
def test_the_loser_of_a_race_for_the_last_place_may_be_a_duplicate(app, upload, monkeypatch):
    find, calls = catalog_images.find, []

    def blind(album_id, sha256):
        calls.append(sha256)
        return None if len(calls) == 1 else find(album_id, sha256)

    assert upload(("file", jpeg(), "a.jpg")).status_code == 201
    calls.clear()
    monkeypatch.setattr(catalog_images, "find", blind)
    monkeypatch.setattr(catalog_images, "_HELD", catalog_images._HELD.where(models.Album.id < 0))
    assert upload(("file", jpeg(), "a.jpg")).status_code == 200


def test_the_error_names_its_limit_by_itself():
    assert str(AlbumFull()).endswith("nothing was stored.")
