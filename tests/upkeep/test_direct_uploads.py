"""Direct uploads end to end: the form of an album, posted as a browser would, and handed in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time

import pytest
import requests
import sqlalchemy as sa
import time_machine
from PIL import Image as Pillow

from imageapi.catalog import albums, direct, images, library
from imageapi.errors import InvalidFields, StorageUnavailable
from imageapi.extensions import read, transaction
from imageapi.models import Album, StoredObject
from imageapi.storage.storages import Storage
from tests.conftest import bearing, jpeg, sign
from tests.servers.cloudinary import API_KEY, API_SECRET, CLOUD

S3, CLOUDINARY = "s3", "cloudinary"
POSITION = {"latitude": "48.861934399999996", "longitude": "2.3489", "accuracy": "36"}
SEEN = ("key", "public_id", "version", "signature", "resource_type", "original_filename")


class Client:
    """A browser, with the token that one page gave it."""

    def __init__(self, client, headers, storage, album="holidays"):
        self.client, self.headers, self.storage, self.album = client, headers, storage, album

    def form(self):
        return self.client.get(f"/api/v1/albums/{self.album}", headers=self.headers).json[
            "upload_form"
        ]

    def upload(self, data, form=None):
        """What the storage answered, as a page would read it."""
        form = form or self.form()
        answer = requests.post(
            form["url"], data=form["params"], files={"file": ("a b.jpg", data)}, timeout=10
        )
        assert answer.status_code in (200, 201), answer.text
        if self.storage == S3:
            return {"key": re.search("<Key>(.*)</Key>", answer.text)[1]}
        return answer.json()

    def hand_in(self, answer, *, as_json=True, headers=None, **more):
        headers = {**self.headers, **(headers or {})}
        body = {"json": {**answer, **more}}
        if not as_json:
            body = {"data": {name: answer[name] for name in SEEN if name in answer} | more}
        path = f"/api/v1/albums/{self.album}/images"
        return self.client.post(path, headers=headers, **body)

    def original(self, image_id):
        path = f"/api/v1/images/{image_id}/original"
        return self.client.get(path, headers=self.headers)


def server(request, storage):
    request.getfixturevalue("s3" if storage == S3 else "on_cloudinary")


@pytest.fixture(params=[S3, CLOUDINARY])
def browser(request, client, token, album):
    server(request, request.param)
    album("holidays", storage=request.param)
    return Client(client, token(user_id="anna"), request.param)


@pytest.fixture
def on_s3(s3, client, token, album):
    album("holidays", storage=S3)
    return Client(client, token(user_id="anna"), S3)


@pytest.fixture
def on_cloud(on_cloudinary, client, token, album):
    album("holidays", storage=CLOUDINARY)
    return Client(client, token(user_id="anna"), CLOUDINARY)


@pytest.fixture
def left(app):
    """What is in the storage beside the originals that have rows, and the number of those."""

    def look(storage):
        with app.app_context():
            store = library().storages[storage]
            if storage == S3:
                api = store._backend._client.api
                listed = api.list_objects_v2(
                    Bucket=store._backend.options.bucket, Prefix=store._backend.options.prefix
                )
                found = {
                    entry["Key"].removeprefix(store._backend.options.prefix)
                    for entry in listed.get("Contents", ())
                }
            else:
                found = {
                    asset["public_id"]
                    for kind in ("image", "raw")
                    for asset in requests.get(
                        f"{store._backend.options.upload_prefix}/v1_1/{CLOUD}"
                        f"/resources/{kind}/private?max_results=100",
                        auth=(API_KEY, API_SECRET),
                        timeout=10,
                    ).json()["resources"]
                }
            rows = read(sa.select(StoredObject.key).where(StoredObject.storage == storage))
            keys = {row.key for row in rows}
            assert keys <= found
            renditions = {key for key in found if key.count(".") == 3 and "incoming" not in key}
            return sorted(found - keys - renditions), len(keys)

    return look


@pytest.mark.parametrize("as_json", [True, False])
def test_end_to_end(browser, left, as_json):
    data = jpeg(400, 300)
    answer = browser.upload(data)
    response = browser.hand_in(answer, as_json=as_json, **POSITION)

    assert response.status_code == 201
    body = response.json
    assert response.headers["Location"] == f"/api/v1/images/{body['public_id']}"
    infos = body["infos"]
    assert infos["etag"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert infos["tags"] == ["holidays"]
    assert (infos["bytes"], infos["width"], infos["height"]) == (len(data), 400, 300)
    assert infos["location"] == {
        "accuracy": 36,
        "latitude": 48.861934399999996,
        "longitude": 2.3489,
    }
    assert browser.original(body["public_id"]).data == data
    for name, size in (("full", (400, 300)), ("large", (200, 200)), ("mini", (100, 100))):
        shown = requests.get(body["thumbnails"][name], timeout=10)
        assert Pillow.open(io.BytesIO(shown.content)).size == size
    assert left(browser.storage) == ([], 1)


def test_once(browser, left):
    answer = browser.upload(jpeg())
    assert browser.hand_in(answer).status_code == 201
    again = browser.hand_in(answer)
    assert (again.status_code, again.json["code"]) == (404, "not_found")
    assert left(browser.storage) == ([], 1)


def test_what_could_not_be_written_can_be_handed_in_again(browser, left, monkeypatch):
    """A 503 asks for that: the upload must still be there."""

    def gone(*_arguments, **_options):
        raise sa.exc.OperationalError("UPDATE album", {}, Exception("database is locked"))

    answer = browser.upload(data := jpeg())
    with monkeypatch.context() as broken:
        broken.setattr(images, "count", gone)
        assert browser.hand_in(answer).status_code == 503
        assert len(left(browser.storage)[0]) == 1
    response = browser.hand_in(answer)
    assert response.status_code == 201
    assert browser.original(response.json["public_id"]).data == data
    assert left(browser.storage) == ([], 1)


def test_what_has_no_renditions_can_be_handed_in_again(on_s3, left, monkeypatch):
    def slow_down(*_arguments):
        raise StorageUnavailable

    answer = on_s3.upload(jpeg())
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "keep", slow_down)
        assert on_s3.hand_in(answer).status_code == 503
    assert on_s3.hand_in(answer).status_code == 201
    assert left(S3) == ([], 1)


def test_what_the_album_has_already(browser, left):
    first = browser.hand_in(browser.upload(jpeg())).json
    again = browser.hand_in(browser.upload(jpeg()))
    assert (again.status_code, again.headers["X-duplicate"]) == (200, "true")
    assert again.json["public_id"] == first["public_id"]
    assert left(browser.storage) == ([], 1)


def test_an_idempotency_key_answers_what_was_handed_in_already(browser):
    answer = browser.upload(jpeg())
    headers = {"Idempotency-Key": "one"}
    first = browser.hand_in(answer, headers=headers)
    again = browser.hand_in(answer, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json["public_id"] == first.json["public_id"]

    other = browser.hand_in(answer, headers=headers, latitude=1, longitude=2)
    assert (other.status_code, other.json["code"]) == (422, "idempotency_mismatch")


def test_another_album_refuses_it(browser, album, app, left):
    album("work", storage=browser.storage)
    album("holidays", storage=browser.storage, issuer="acme")
    answer = browser.upload(jpeg())

    work = Client(browser.client, browser.headers, browser.storage, "work")
    refused = work.hand_in(answer)
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_fields")
    with app.app_context():
        foreign = albums.find("holidays", "acme")
        with pytest.raises(InvalidFields):
            direct.hand_in(foreign, texts(answer), images.Upload())
    assert browser.hand_in(answer).status_code == 201
    assert left(browser.storage) == ([], 1)


def texts(answer):
    return {name: str(value) for name, value in answer.items()}


def test_an_integrators_own_album_takes_it(browser, album, app):
    album("acme holidays", storage=browser.storage, issuer="ac,me")
    with app.app_context():
        row = albums.find("acme holidays", "ac,me")
        answer = browser.upload(jpeg(), direct.form(row))
        made, new = direct.hand_in(row, texts(answer), images.Upload())
        assert new
        assert json.loads(images.get(made).infos)["tags"] == ["acme holidays"]


def test_a_renamed_album_takes_what_its_form_brought(on_s3):
    answer = on_s3.upload(jpeg())
    renamed = on_s3.client.put(
        "/api/v1/albums/holidays",
        headers=on_s3.headers,
        json={"album": {"public_id": "winter"}},
    )
    assert renamed.status_code == 200
    on_s3.album = "winter"
    assert on_s3.hand_in(answer).status_code == 201


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"no picture", 415), (jpeg()[:-40], 422), (b"<svg/>", 415)],
)
def test_what_is_no_picture_is_refused_and_removed(on_s3, left, data, status):
    refused = on_s3.hand_in(on_s3.upload(data))
    assert refused.status_code == status
    assert left(S3) == ([], 0)


def test_cloudinary_has_no_place_for_what_is_no_image(on_cloud, left):
    refused = on_cloud.hand_in(on_cloud.upload(b"no picture"))
    assert refused.status_code == 422
    assert left(CLOUDINARY) == ([], 0)


@pytest.mark.configure(max_upload_bytes=4000)
def test_what_is_too_large_is_refused_and_removed(on_cloud, left):
    refused = on_cloud.hand_in(on_cloud.upload(jpeg() + os.urandom(4000)))
    assert (refused.status_code, refused.json["code"]) == (413, "payload_too_large")
    assert left(CLOUDINARY) == ([], 0)


@pytest.mark.configure(max_upload_bytes=4000)
def test_s3_itself_refuses_what_is_too_large(on_s3, left):
    form = on_s3.form()
    files = {"file": ("a.jpg", jpeg() + os.urandom(4000))}
    answer = requests.post(form["url"], data=form["params"], files=files, timeout=10)
    assert answer.status_code == 400
    assert left(S3) == ([], 0)


def test_after_its_end_it_is_refused(browser):
    answer, later = browser.upload(jpeg()), int(time.time()) + 7300
    browser.headers = bearing(sign({"user_id": "anna", "exp": later + 60}))
    with time_machine.travel(later):
        refused = browser.hand_in(answer)
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_fields")


@pytest.mark.parametrize("field", ["public_id", "version", "signature"])
def test_an_altered_answer_of_cloudinary(on_cloud, left, field):
    answer, other = on_cloud.upload(jpeg()), on_cloud.upload(jpeg(seed=1))
    refused = on_cloud.hand_in({**answer, field: f"{other[field]}0"[-20:]})
    assert (refused.status_code, refused.json["errors"][0]["field"] in answer) == (422, True)
    assert left(CLOUDINARY)[1] == 0


def test_an_altered_key(on_s3, left):
    key = on_s3.upload(jpeg())["key"]
    for other in (key[:-1] + ("A" if key[-1] != "A" else "B"), "", key + "x", "ab/cd", "x\0", 5):
        refused = on_s3.hand_in({"key": other})
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "key")
    assert on_s3.hand_in({"key": [key]}).status_code == 422
    assert left(S3)[1] == 0


def test_bytes_that_change_while_they_are_handed_in(on_s3, left, monkeypatch):
    """Whoever has the form can post again until it ends: the original is what was looked at."""
    form = on_s3.form()
    answer = on_s3.upload(jpeg(), form)
    add = images.add

    def swapped_before(*arguments):
        on_s3.upload(jpeg(seed=7), form)
        return add(*arguments)

    monkeypatch.setattr(images, "add", swapped_before)
    refused = on_s3.hand_in(answer)
    assert (refused.status_code, refused.json["code"]) == (502, "storage_corrupt")
    assert left(S3)[1] == 0


def test_a_storage_without_direct_uploads(client, token, album):
    album("holidays")
    here = Client(client, token(user_id="anna"), "local")
    assert here.form() is None
    assert here.hand_in({"key": "x"}).status_code == 422


def test_the_ability_is_that_of_uploads(on_s3, token):
    answer = on_s3.upload(jpeg())
    on_s3.headers = token("holidays", "see", "image_list")
    assert on_s3.form() is None
    assert on_s3.hand_in(answer).status_code == 403


def test_a_form_of_the_storage_that_an_album_left(on_s3, app, left):
    on_s3.hand_in(on_s3.upload(jpeg(seed=1)))
    answer = on_s3.upload(jpeg())
    with app.app_context(), transaction() as session:
        session.get(Album, 1).storage = "local"
    made = on_s3.hand_in(answer)
    assert made.status_code == 201
    assert on_s3.original(made.json["public_id"]).data == jpeg()
    with app.app_context():
        assert images.get(made.json["public_id"]).storage == "local"
    assert left(S3)[0] == []


def test_a_form_of_the_storage_that_an_album_has_left_whole(on_s3, app, left):
    on_s3.hand_in(on_s3.upload(jpeg(seed=1)))
    answer = on_s3.upload(jpeg())
    move = ["storages", "migrate", "--album", "holidays", "--to", "local"]
    assert app.test_cli_runner().invoke(args=move).exit_code == 0
    made = on_s3.hand_in(answer)
    assert made.status_code == 201
    assert on_s3.original(made.json["public_id"]).data == jpeg()


def test_a_storage_that_is_gone_takes_the_form_alone(on_s3, app, monkeypatch):
    with app.app_context():
        library().storages._loaded.clear()
    monkeypatch.delenv("IMAGEAPI_STORAGE_S3_BUCKET")
    assert on_s3.form() is None
    assert on_s3.hand_in({"key": "x"}).status_code == 503
