"""PUT, DELETE and duplicate of an image."""

from __future__ import annotations

import io
import os
import threading

import pytest
import sqlalchemy as sa
from PIL import Image as Pillow

from imageapi import geometry, models
from imageapi.catalog import edits, work
from imageapi.extensions import read
from tests.conftest import jpeg
from tests.storages import everywhere

TURNS = 312 if os.environ.get("FAULTS") == "full" else 3
"""How often each of 32 threads edits: 9,984 edits, or 96."""


@pytest.fixture
def image(anna):
    return anna.upload(data=jpeg(300, 200))


def opened(fetch, url):
    response = fetch(url)
    assert response.status_code == 200
    return Pillow.open(io.BytesIO(response.data))


@everywhere
def test_a_crop_and_a_rotation_show_in_size_and_renditions(anna, fetch, image):
    path = f"/images/{image['public_id']}"
    edit = {"rotation": "90", "crop_x": "10.4", "crop_y": "20", "crop_w": "100.2", "crop_h": "50"}
    edited = anna.put(path, data=edit)
    assert edited.status_code == 200
    assert edited.headers["ETag"] == '"1"'
    body = edited.json
    assert (body["width"], body["height"], body["rotation"]) == (50, 101, 90)
    assert [body[f"crop_{side}"] for side in "xywh"] == [10.4, 20.0, 100.2, 50.0]
    assert anna.get(path).json == body
    assert body["infos"] == image["infos"]
    assert body["thumbnails"] != image["thumbnails"]
    assert opened(fetch, body["thumbnails"]["full"]).size == (50, 101)
    # The old revision serves until its URLs end.
    assert opened(fetch, image["thumbnails"]["full"]).size == (300, 200)


def test_what_is_committed_is_answered_though_its_work_can_not_be_done_now(
    anna, image, app, monkeypatch
):
    """The database goes after the commit: a 503 would have the client do it twice."""
    path, take_up = f"/images/{image['public_id']}", work._take_up

    def fail(_number):
        raise sa.exc.OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))

    monkeypatch.setattr(work, "_take_up", fail)
    assert anna.put(path, json={"rotation": 90}).status_code == 200
    assert anna.post(f"{path}/duplicate").status_code == 201
    assert anna.delete(path).status_code == 204
    monkeypatch.setattr(work, "_take_up", take_up)
    with app.app_context():
        while work.run_due():
            pass
        assert not [kind for kind, waits in work.backlog().items() if waits.due]
    (left,) = anna.get("/albums/holidays/images").json
    assert left["rotation"] == 90


def test_a_zero_has_no_sign(anna, image):
    path = f"/images/{image['public_id']}"
    edited = anna.put(path, data={"crop_x": "-0.0", "crop_y": "-1e-999", "crop_w": 9, "crop_h": 9})
    zeros = '"crop_x":0.0,"crop_y":0.0,"crop_w":9.0,"crop_h":9.0,'
    assert zeros in edited.text
    assert zeros in anna.get(path).text
    edited = anna.put(path, json={"crop_w": -0.0, "crop_h": -0.0})
    assert '"crop_w":0.0,"crop_h":0.0,' in edited.text


@everywhere
def test_fields_that_are_not_sent_keep_their_values(anna, image):
    path = f"/images/{image['public_id']}"
    anna.put(path, json={"crop_x": 1, "crop_y": 2, "crop_w": 30, "crop_h": 40})
    body = anna.put(path, json={"rotation": 180}).json
    assert [body[f"crop_{side}"] for side in "xywh"] == [1.0, 2.0, 30.0, 40.0]
    assert (body["width"], body["height"]) == (30, 40)
    body = anna.put(path, json={"crop_w": 0, "crop_h": 0}).json
    assert (body["width"], body["height"], body["rotation"]) == (300, 200, 180)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"rotation": 45}, "rotation"),
        ({"rotation": "90.0"}, "rotation"),
        ({"rotation": True}, "rotation"),
        ({"crop_w": 10}, "crop_h"),
        ({"crop_h": 10}, "crop_w"),
        ({"crop_x": -1, "crop_w": 5, "crop_h": 5}, "crop_x"),
        ({"crop_x": 299, "crop_w": 5, "crop_h": 5}, "crop_w"),
        ({"crop_y": 199, "crop_w": 5, "crop_h": 5}, "crop_h"),
        ({"crop_w": 0.2, "crop_h": 5}, "crop_w"),
        ({"crop_x": "nan", "crop_w": 5, "crop_h": 5}, "crop_x"),
        ({"crop_x": "1e999", "crop_w": 5, "crop_h": 5}, "crop_x"),
        ({"crop_x": "1_0", "crop_w": 5, "crop_h": 5}, "crop_x"),
        ({"crop_x": None}, "crop_x"),
        ({"album_id": "other"}, "album_id"),
        ({"revision": 7}, "revision"),
        ({"infos": {}}, "infos"),
    ],
)
def test_a_bad_edit_names_its_field_and_changes_nothing(anna, image, values, field):
    path = f"/images/{image['public_id']}"
    response = anna.put(path, json=values)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json["errors"]]
    assert anna.get(path).json == image
    assert anna.get(path).headers["ETag"] == '"0"'


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"rotation": NaN}', b"\xff", b"[" * 5000])
def test_a_body_that_is_no_json_object_is_a_400(anna, image, body):
    path = f"/images/{image['public_id']}"
    assert anna.put(path, data=body, content_type="application/json").status_code == 400


def test_a_changed_field_needs_its_ability_an_equal_one_none(api, anna, image):
    path = f"/images/{image['public_id']}"
    crop = {"crop_x": 1, "crop_y": 2, "crop_w": 30, "crop_h": 40}
    rotates, crops = api("holidays", "image_rotate"), api("holidays", "image_crop")
    assert rotates.put(path, json={"rotation": 90, "crop_x": 0}).status_code == 200
    refused = rotates.put(path, json={"rotation": 180, **crop})
    assert (refused.status_code, refused.headers["X-message"]) == (403, "Access denied")
    assert crops.put(path, json={"rotation": 180}).status_code == 403
    assert crops.put(path, json={"rotation": 90, **crop}).status_code == 200
    assert crops.put(path, json={"rotation": 90}).status_code == 200
    assert api("holidays", "see", "image_list").put(path, json={}).status_code == 403
    assert anna.get(path).json["rotation"] == 90


def test_if_match_names_the_revision(anna, image):
    path = f"/images/{image['public_id']}"
    assert anna.put(path, json={"rotation": 90}, headers={"If-Match": '"0"'}).status_code == 200
    for stale in ('"0"', 'W/"1"', '"x"', '"2", "3"'):
        response = anna.put(path, json={"rotation": 180}, headers={"If-Match": stale})
        assert (response.status_code, response.json["code"]) == (412, "precondition_failed"), stale
    for revision, fresh in enumerate(('"1"', "*", '"9", "3"'), start=2):
        response = anna.put(path, json={"rotation": 180}, headers={"If-Match": fresh})
        assert response.status_code == 200, fresh
        assert response.headers["ETag"] == f'"{revision}"'


def test_a_delete_takes_only_the_revision_that_if_match_names(anna, image):
    path = f"/images/{image['public_id']}"
    anna.put(path, json={"rotation": 90})
    for stale in ('"0"', 'W/"1"', '"99"', '"2", "3"', '"1'):
        response = anna.delete(path, headers={"If-Match": stale})
        assert (response.status_code, response.json["code"]) == (412, "precondition_failed"), stale
    assert anna.get(path).status_code == 200
    assert anna.delete(path, headers={"If-Match": '"9", "1"'}).status_code == 204
    twin = anna.upload(data=jpeg(seed=1))
    assert anna.delete(f"/images/{twin['public_id']}", headers={"If-Match": "*"}).status_code == 204
    assert anna.delete(path, headers={"If-Match": "*"}).status_code == 404


def test_an_edit_on_the_way_keeps_a_delete_from_what_it_does_not_name(anna, image, monkeypatch):
    path, delete = f"/images/{image['public_id']}", edits.delete

    def late(*arguments):
        assert anna.put(path, json={"rotation": 90}).status_code == 200
        return delete(*arguments)

    monkeypatch.setattr(edits, "delete", late)
    assert anna.delete(path, headers={"If-Match": '"0"'}).status_code == 412
    assert anna.get(path).json["rotation"] == 90
    assert anna.delete(path, headers={"If-Match": "*"}).status_code == 204


@pytest.mark.parametrize("said", ['"0', ",", "x"])
def test_an_if_match_that_names_nothing_is_not_met(anna, image, said):
    path, headers = f"/images/{image['public_id']}", {"If-Match": said}
    for response in (
        anna.put(path, json={"rotation": 90}, headers=headers),
        anna.delete(path, headers=headers),
        anna.get(f"{path}/original", headers=headers),
    ):
        assert (response.status_code, response.json["code"]) == (412, "precondition_failed")
    assert anna.get(path).headers["ETag"] == '"0"'
    assert anna.put(path, json={"rotation": 90}, headers={"If-Match": " "}).status_code == 200


def test_the_revision_counts_the_edits_of_32_threads(app, token, anna, image):
    path = f"/api/v1/images/{image['public_id']}"
    headers = token(user_id="anna")
    statuses = []

    def edit(number):
        client = app.test_client()
        for turn in range(TURNS):
            values = {"crop_x": number, "crop_y": turn % 150, "crop_w": 50, "crop_h": 50}
            statuses.append(client.put(path, json=values, headers=headers).status_code)
        app.extensions["reader"].close()

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 409}
    assert len(statuses) == 32 * TURNS
    assert anna.get(f"/images/{image['public_id']}").headers["ETag"] == f'"{statuses.count(200)}"'
    # SQLite has those who write wait in line; PostgreSQL lets more of them collide.
    on_sqlite = app.config["SQLALCHEMY_DATABASE_URI"].startswith("sqlite")
    assert statuses.count(200) >= (32 if on_sqlite else 16)


@everywhere
def test_a_duplicate_shares_bytes_and_copies_the_edit(app, anna, fetch, image):
    path = f"/images/{image['public_id']}"
    anna.put(path, json={"rotation": 90})
    made = anna.post(f"{path}/duplicate")
    assert made.status_code == 201
    twin = made.json
    assert made.headers["Location"] == f"/api/v1/images/{twin['public_id']}"
    assert twin["public_id"] != image["public_id"]
    assert (twin["infos"], twin["rotation"], twin["width"]) == (image["infos"], 90, 200)
    assert opened(fetch, twin["thumbnails"]["full"]).size == (200, 300)
    anna.put(f"/images/{twin['public_id']}", json={"rotation": 0})
    assert anna.get(path).json["rotation"] == 90
    with app.app_context():
        assert len(read(sa.select(models.StoredObject.id))) == 1
    assert anna.get("/albums/holidays").json["images_count"] == 2


@everywhere
def test_bytes_go_with_the_last_image_on_them(anna, fetch, stored, image, storage):
    twin = anna.post(f"/images/{image['public_id']}/duplicate").json
    renditions = 0 if storage == "cloudinary" else 3
    assert len(stored()) == 1 + 2 * renditions
    deleted = anna.delete(f"/images/{image['public_id']}")
    assert deleted.status_code == 204
    assert {"Content-Type", "Vary", "Content-Length"}.isdisjoint(dict(deleted.headers))
    assert len(stored()) == 1 + renditions
    assert anna.get(f"/images/{image['public_id']}").status_code == 404
    if renditions:
        assert fetch(image["thumbnails"]["full"]).status_code == 404
    assert fetch(twin["thumbnails"]["full"]).status_code == 200
    assert anna.get(f"/images/{twin['public_id']}/original").status_code == 200
    assert anna.delete(f"/images/{twin['public_id']}").status_code == 204
    assert stored() == []
    assert fetch(image["thumbnails"]["full"]).status_code == 404
    assert fetch(twin["thumbnails"]["full"]).status_code == 404
    assert anna.delete(f"/images/{twin['public_id']}").status_code == 404
    album = anna.get("/albums/holidays").json
    assert (album["images_count"], album["thumbnails"]) == (0, [])
    assert anna.get("/albums/holidays/stats").json["bytes"] == 0


def test_a_rendition_that_is_lost_is_rendered_again(app, anna, client, image):
    root = app.extensions["library"].settings.instance / "storage" / "local"
    before = client.get(image["thumbnails"]["large"]).data
    for path in root.glob("??/*.jpg"):
        path.unlink()
    assert client.get(image["thumbnails"]["large"]).data == before


def test_without_its_original_a_rendition_is_the_blank_picture(app, anna, client, image):
    root = app.extensions["library"].settings.instance / "storage" / "local"
    for path in root.glob("??/*"):
        path.unlink()
    lost = client.get(image["thumbnails"]["large"])
    assert lost.data == client.get("/assets/blank.jpg").data
    assert lost.headers["Cache-Control"] == "no-store"
    assert anna.get(f"/images/{image['public_id']}").status_code == 200


@everywhere
def test_the_geometry_speaks_of_the_upright_picture(anna, fetch):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    image = anna.upload(data=jpeg(60, 40, exif=exif))
    assert (image["width"], image["height"]) == (40, 60)
    body = anna.put(
        f"/images/{image['public_id']}",
        json={"crop_x": 0, "crop_y": 0, "crop_w": 40, "crop_h": 10, "rotation": 270},
    ).json
    assert (body["width"], body["height"]) == (10, 40)
    assert opened(fetch, body["thumbnails"]["full"]).size == geometry.Size(10, 40)
