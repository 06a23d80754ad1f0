"""One picture's whole life, alike on every storage: sent through us, or straight to the storage."""

from __future__ import annotations

import base64
import hashlib
import io
import time

import pytest
from PIL import Image as Pillow

from tests.conftest import jpeg, part
from tests.storages import everywhere, post_directly

IMAGES = "/albums/holidays/images"
TAGS = {"holidays": {"Access": {"image_tag": True, "see": True}, "Tags": {"beach": "Beach"}}}


@pytest.fixture
def opened(fetch):
    """`opened(url)`: the picture behind a thumbnail's URL."""

    def look(url):
        answer = fetch(url)
        assert answer.status_code == 200, url
        picture = Pillow.open(io.BytesIO(answer.data))
        picture.load()
        return picture

    return look


def quarters():
    """A JPEG of 400 × 300 whose left half is red, the right upper quarter green, the lower blue."""
    picture = Pillow.new("RGB", (400, 300), "red")
    picture.paste("#0f0", (200, 0, 400, 150))
    picture.paste("blue", (200, 150, 400, 300))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def colour(picture, x, y):
    """`r`, `g` or `b`: the strongest at a place in thousandths of the sides."""
    place = (picture.width * x // 1000, picture.height * y // 1000)
    values = picture.convert("RGB").getpixel(place)
    return "rgb"[values.index(max(values))]


def assert_infos(body, data, storage):
    infos = body["infos"]
    assert list(infos) == [
        "bytes", "created_at", "etag", "format", "height", "resource_type", "tags", "type", "width"
    ]  # fmt: skip
    time.strptime(infos.pop("created_at"), "%Y-%m-%dT%H:%M:%SZ")
    assert infos.pop("type") in ("private", "upload" if storage == "local" else "private")
    assert infos == {
        "bytes": len(data),
        "etag": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "format": "jpg",
        "height": 300,
        "resource_type": "image",
        "tags": ["holidays"],
        "width": 400,
    }


def assert_original(anna, path, data):
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    original = anna.get(f"{path}/original")
    assert original.data == data
    assert original.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    etag = original.headers["ETag"]
    asked = {"Range": "bytes=100-199", "If-Range": etag}
    assert anna.get(f"{path}/original", headers=asked).data == data[100:200]
    whole = anna.get(f"{path}/original", headers={**asked, "If-Range": '"other"'})
    assert (whole.status_code, whole.data) == (200, data)
    head = anna("HEAD", f"{path}/original")
    assert (head.data, int(head.headers["Content-Length"])) == (b"", len(data))


def gone(stored):
    """Wait as long as the bytes of what was deleted may be there."""
    deadline = time.monotonic() + 10
    while stored():
        assert time.monotonic() < deadline, "bytes were left"
        time.sleep(0.05)


@everywhere
def test_from_upload_to_deletion(anna, api, opened, fetch, stored, storage):
    data = quarters()
    made = anna.post(IMAGES, data={"file": part(data)})
    assert made.status_code == 201
    body = made.json
    path = f"/images/{body['public_id']}"
    assert made.headers["Location"] == f"/api/v1{path}"
    assert_infos(dict(body, infos=dict(body["infos"])), data, storage)
    assert anna.get(path).json == body
    assert anna.get(IMAGES).json == [body]
    assert anna.get("/albums/holidays").json["thumbnails"] == [body]

    sizes = {name: opened(url).size for name, url in body["thumbnails"].items()}
    assert sizes == {"full": (400, 300), "large": (200, 200), "mini": (100, 100)}
    assert colour(opened(body["thumbnails"]["full"]), 100, 500) == "r"

    # The right half, turned clockwise: blue, which was below, comes to the left.
    crop = {"crop_x": 200, "crop_y": 0, "crop_w": 200, "crop_h": 300, "rotation": 90}
    edited = anna.put(path, json=crop).json
    assert (edited["width"], edited["height"]) == (300, 200)
    shown = opened(edited["thumbnails"]["full"])
    assert shown.size == (300, 200)
    assert [colour(shown, 100, 500), colour(shown, 900, 500)] == ["b", "g"]
    assert opened(edited["thumbnails"]["mini"]).size == (100, 100)
    assert opened(body["thumbnails"]["full"]).size == (400, 300)  # until its URL ends

    assert_original(anna, path, data)
    twin = anna.post(f"{path}/duplicate").json
    assert (twin["rotation"], twin["infos"]) == (90, body["infos"])
    assert opened(twin["thumbnails"]["full"]).size == (300, 200)
    again = anna.post(IMAGES, data={"file": part(data)})
    assert (again.status_code, again.headers["X-duplicate"]) == (200, "true")
    assert again.json["public_id"] == body["public_id"]

    tagger = api(user_id="anna", abilities=TAGS)
    (tag,) = tagger.get("/albums/holidays/tags").json
    ids = [body["public_id"], twin["public_id"]]
    assert tagger.post(f"/tags/{tag['id']}/tag_images", json={"image_ids": ids}).status_code == 200
    assert anna.get(f"{IMAGES}/untag").json == []
    assert len(anna.get(f"{IMAGES}?tag=beach").json) == 2
    stats = anna.get("/albums/holidays/stats").json
    assert (stats["images"], stats["bytes"], stats["formats"]) == (2, len(data), {"jpg": 2})

    assert anna.delete(path).status_code == 204
    assert anna.get(path).status_code == 404
    assert anna.get(f"/images/{twin['public_id']}/original").data == data
    assert anna.delete("/albums/holidays").status_code == 204
    assert anna.get(f"/images/{twin['public_id']}").status_code == 404
    gone(stored)
    assert fetch(twin["thumbnails"]["full"]).status_code == 404


@pytest.mark.parametrize("storage", ["s3", "cloudinary"], indirect=True)
def test_sent_straight_to_the_storage(anna, opened, stored, storage):
    data = quarters()
    answer = post_directly(anna.get("/albums/holidays").json["upload_form"], data)
    assert anna.get(IMAGES).json == []
    made = anna.post(IMAGES, json={**answer, "latitude": 48.86, "longitude": 2.35})
    assert made.status_code == 201, made.text
    body = made.json
    assert body["infos"].pop("location") == {"latitude": 48.86, "longitude": 2.35}
    assert_infos(dict(body, infos=dict(body["infos"])), data, storage)
    assert (body["gps"], body["gps_html"]) == ([48.86, 2.35], [48.86, 2.35])
    assert opened(body["thumbnails"]["large"]).size == (200, 200)
    path = f"/images/{body['public_id']}"
    assert anna.get(f"{path}/original").data == data
    assert anna.get("/albums/holidays").json["images_count"] == 1

    assert anna.post(IMAGES, json=answer).status_code == 404  # it counts once
    same = post_directly(anna.get("/albums/holidays").json["upload_form"], data)
    again = anna.post(IMAGES, json=same)
    assert (again.status_code, again.headers["X-duplicate"]) == (200, "true")
    assert again.json["public_id"] == body["public_id"]
    assert anna.get("/albums/holidays").json["images_count"] == 1

    assert anna.delete(path).status_code == 204
    assert anna.get(path).status_code == 404
    gone(stored)


@everywhere
def test_reading_asks_no_storage(app, anna, storage):
    images = [anna.upload(data=jpeg(seed=number)) for number in range(3)]
    library = app.extensions["library"]
    asked = []
    library.storages[storage]._observe = lambda *call: asked.append(call)
    for image in images:
        assert anna.get(f"/images/{image['public_id']}").json == image
    assert anna.get(IMAGES).json == images[::-1]
    assert anna.get("/albums/holidays").json["thumbnails"] == images[::-1]
    if storage == "local":
        anna.get(f"/images/{images[0]['public_id']}/original")
        assert asked  # the observer sees calls
    else:
        assert asked == []
