"""The document describes what the API answers: the recordings, and a tour of every route."""

from __future__ import annotations

import json
import uuid
import zoneinfo

import pytest
import sqlalchemy as sa

from imageapi import models
from imageapi.catalog import library
from imageapi.extensions import read
from tests.conftest import SHARED, jpeg, part
from tests.openapi.described import Undescribed

API = "/api/v1"
RECORDINGS = sorted(path.stem for path in (SHARED / "contract").glob("*.json")) or ["absent"]
ALL = {
    *["see", "image_list", "image_upload", "image_download", "image_delete", "image_rotate"],
    *["image_crop", "image_tag", "image_duplicate", "image_share", "rename", "stats"],
}
NOTHING = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_answer_is_described(name, shared, described):
    recording = json.loads((shared / "contract" / f"{name}.json").read_text())
    request, response = recording["request"], recording["response"]
    path = request["path"].partition("?")[0]
    answer = described.answer(request["method"], path, response["status"])
    if response["body_text"] is None:
        assert "content" not in answer
    else:
        schema = answer["content"]["application/json"]["schema"]
        described.validate(json.loads(response["body_text"]), schema)
        described.check_order(json.loads(response["body_text"]), schema)


class Tour:
    """Requests whose answers must be described."""

    def __init__(self, client, described, headers):
        self.client = client
        self.described = described
        self.headers = headers
        self.seen = set()

    def __call__(self, status, method, path, code=None, headers=None, **options):
        headers = self.headers if headers is None else {**self.headers, **headers}
        answer = self.client.open(path, method=method, headers=headers, buffered=True, **options)
        assert answer.status_code == status, answer.text
        path = path.partition("?")[0]
        self.described.check(method, path, status, answer.headers, answer.data)
        self.seen.add((self.described.operation(method, path)["operationId"], status))
        if code is not None:
            assert answer.json["code"] == code
            found = self.described.answer(method, path, status)
            assert code in found["x-codes"]
        return answer

    def upload(self, status=201, seed=0, **options):
        data = {"latitude": "48.85", "longitude": "2.35", "accuracy": "36"}
        data["file"] = part(jpeg(seed=seed))
        return self(status, "POST", f"{API}/albums/holidays/images", data=data, **options).json


@pytest.fixture
def tour(client, described, token, album):
    """Requests of the owner of `holidays`, whose token says all and names a tag."""
    album()
    claims = {"holidays": {"Access": dict.fromkeys(ALL, True), "Tags": {"Mer": {"en": "Sea"}}}}
    return Tour(client, described, token(user_id="anna", abilities=claims))


def test_every_way_to_succeed(app, tour, described):
    image = tour.upload()
    path = f"{API}/images/{image['public_id']}"
    tour.upload(200)
    tour(200, "GET", path)
    tour(200, "HEAD", path)
    tour(200, "GET", f"{path}?include=srcset,placeholder")
    assert image["infos"]["location"] == {"accuracy": 36, "latitude": 48.85, "longitude": 2.35}
    edit = {"rotation": 90, "crop_x": 1, "crop_y": 2.5, "crop_w": 9, "crop_h": 9}
    tour(200, "PUT", path, json=edit, headers={"If-Match": '"0"'})
    tour(200, "PUT", path, data={"rotation": "180"})
    copy = tour(201, "POST", f"{path}/duplicate").json
    original = tour(200, "GET", f"{path}/original")
    tour(200, "HEAD", f"{path}/original")
    tour(206, "GET", f"{path}/original", headers={"Range": "bytes=0-9"})
    tour(304, "GET", f"{path}/original", headers={"If-None-Match": original.headers["ETag"]})
    tour(304, "HEAD", f"{path}/original", headers={"If-None-Match": original.headers["ETag"]})
    _albums(tour)
    _tags(tour, image["public_id"])
    _shares(tour)
    tour(200, "GET", image["thumbnails"]["mini"].partition("?")[0], query_string=_query(image))
    with app.app_context():
        gone = library().storages.urls.url("local", f"{NOTHING[:2]}/{NOTHING}.0.mini.jpg", 1 << 20)
    tour(404, "GET", gone)
    pages = ("/assets/blank.jpg", "/cloudinary_cors.html", "/docs")
    for public in (*pages, "/healthz", "/readyz", "/metrics"):
        tour(200, "GET", public, headers={"Authorization": ""})
    readiness = tour.client.application.extensions["readiness"]
    readiness.stopping = True
    tour(503, "GET", "/readyz", headers={"Authorization": ""})
    readiness.stopping = False
    for kept in ("/openapi.json", "/docs/docs.js", "/docs/swagger-ui.css"):
        tag = tour(200, "GET", kept).headers["ETag"]
        tour(304, "GET", kept, headers={"If-None-Match": tag})
    tour(204, "DELETE", f"{API}/images/{copy['public_id']}")
    tour(204, "DELETE", f"{API}/albums/holidays")
    assert tour.seen >= {
        (operation["operationId"], int(status))
        for _method, _path, operation in described.operations()
        for status in operation["responses"]
        if int(status) < 400
    }


def _query(image):
    return image["thumbnails"]["mini"].partition("?")[2]


def _albums(tour):
    made = tour(200, "POST", f"{API}/albums", json={"album": {"public_id": "other é"}})
    assert made.json["public_id"] == "other é"
    tour(200, "POST", f"{API}/albums")
    tour(200, "PUT", f"{API}/albums/other é", data={"album[public_id]": "another"})
    assert len(tour(200, "GET", f"{API}/albums").json) == 3
    assert "Link" in tour(200, "GET", f"{API}/albums?limit=1").headers
    assert len(tour(200, "GET", f"{API}/albums/holidays").json["thumbnails"]) == 2
    tour(200, "GET", f"{API}/albums/holidays/stats")
    tour.upload(seed=1)
    for asked in (
        "",
        "?limit=1",
        "?include=placeholder",
        "?format=jpg&bbox=2,48,3,49&taken_before=2026-01-12",
    ):
        assert tour(200, "GET", f"{API}/albums/holidays/images{asked}").json or "taken" in asked
    assert tour(200, "GET", f"{API}/albums/holidays/images/untag").json
    assert tour(200, "GET", f"{API}/albums/none/images").json == []


def _tags(tour, image):
    (tag,) = tour(200, "GET", f"{API}/albums/holidays/tags").json
    tags = f"{API}/tags/{tag['id']}/tag_images"
    (tagged,) = tour(200, "POST", tags, data={"image_ids[]": [image]}).json
    tour(200, "POST", tags, json={"image_ids": [image]})
    asked = {"album_id": "holidays", "tag_name": "Mer", "image_id": image}
    assert tour(200, "GET", f"{API}/tag_images", query_string=asked).json == [tagged]
    tour(204, "DELETE", f"{API}/tag_images/{tagged['id']}")


def _shares(tour):
    shares = f"{API}/albums/holidays/shares"
    share = {"abilities": ["see", "image_list"], "expires_in": 60, "label": "é"}
    made = tour(201, "POST", shares, json=share).json
    tour(201, "POST", shares, data={"abilities[]": ["see"], "expires_in": "60"})
    assert len(tour(200, "GET", shares).json) == 2
    tour(204, "DELETE", f"{API}/shares/{made['id']}")


def test_what_a_client_can_be_refused(tour, token):
    image = f"{API}/images/{tour.upload()['public_id']}"
    images = f"{API}/albums/holidays/images"
    nobody = {"Authorization": ""}
    narrow = token("holidays", user_id="eve")
    nothing = f"{API}/images/{NOTHING}"
    for refused in [
        (401, "GET", image, "unauthorized", nobody),
        (401, "HEAD", image, None, nobody),
        (403, "GET", image, "access_denied", narrow),
        (403, "POST", f"{API}/albums", "access_denied", token()),
        (404, "GET", nothing, "not_found"),
        (404, "DELETE", f"{API}/shares/{NOTHING}", "not_found"),
        (404, "GET", "/docs/nothing.js", "not_found"),
        (412, "PUT", image, "precondition_failed", {"If-Match": '"7"'}),
        (412, "DELETE", image, "precondition_failed", {"If-Match": '"7"'}),
        (412, "GET", f"{image}/original", "precondition_failed", {"If-Match": '"7"'}),
        (416, "GET", f"{image}/original", "range_not_satisfiable", {"Range": "bytes=999999-"}),
        (422, "GET", f"{images}?limit=0&nothing=1", "invalid_fields"),
        (422, "GET", f"{API}/tag_images", "invalid_fields"),
        (422, "POST", f"{API}/albums", "invalid_fields", {"Idempotency-Key": "a b"}),
    ]:
        status, method, path, code, *headers = refused
        tour(status, method, path, code, *headers)
    _refused_bodies(tour, image, images)


def _refused_bodies(tour, image, images):
    json_type = {"content_type": "application/json"}
    tour(400, "PUT", image, "bad_request", data="{", **json_type)
    tour(413, "PUT", image, "payload_too_large", data=" " * (1 << 20) + " ", **json_type)
    tour(415, "PUT", image, "unsupported_format", data="a", content_type="text/plain")
    tour(422, "PUT", image, "invalid_fields", json={"rotation": 45, "colour": 1})
    tour(409, "POST", f"{API}/albums", "conflict", json={"album": {"public_id": "holidays"}})
    key = {"Idempotency-Key": uuid.uuid4().hex}
    tour(200, "POST", f"{API}/albums", headers=key)
    other = {"album": {"public_id": "another"}}
    tour(422, "POST", f"{API}/albums", "idempotency_mismatch", headers=key, json=other)
    tour(415, "POST", images, "unsupported_format", data={"file": part(b"text")})
    tour(422, "POST", images, "invalid_fields", data={"nothing": part(jpeg())})
    tour(422, "POST", images, "undecodable_picture", data={"file": part(jpeg()[:400])})
    digest = {"Repr-Digest": f"sha-256=:{'A' * 43}=:"}
    tour(422, "POST", images, "digest_mismatch", headers=digest, data={"file": part(jpeg(seed=9))})
    form = "multipart/form-data; boundary=b"
    tour(400, "POST", images, "incomplete_body", data=b"--b\r\n", content_type=form)


@pytest.mark.configure(rate_limit="1/minute")
def test_a_limited_rate(tour):
    tour(200, "GET", f"{API}/albums")
    tour(429, "GET", f"{API}/albums", "too_many_requests")


@pytest.mark.configure(timezone=zoneinfo.ZoneInfo("Europe/Paris"), storage="cloudinary")
def test_an_album_with_an_upload_form(monkeypatch, tour):
    for name in ("cloud_name", "api_key", "api_secret"):
        monkeypatch.setenv(f"IMAGEAPI_STORAGE_CLOUDINARY_{name.upper()}", "12345")
    made = tour(200, "POST", f"{API}/albums", json={"album": {"public_id": "there"}})
    assert made.json["upload_form"]["url"].startswith("https://")
    tour(200, "GET", f"{API}/albums/there")


def test_bytes_that_are_gone(app, tour):
    image = tour.upload()
    with app.app_context():
        library().storages["local"].delete(read(sa.select(models.StoredObject.key))[0].key)
    path = f"{API}/images/{image['public_id']}/original"
    tour(502, "GET", path, "storage_not_found")


def test_what_is_not_described_is_seen(described):
    path, headers = f"{API}/images/{NOTHING}", {"Content-Type": "application/json"}
    kept = dict.fromkeys(("ETag", "X-token", "X-Request-Id", "X-Runtime"), "true")
    told = {"X-access-crop": "true", "X-access-rotate": "false"}
    image = described.document["components"]["schemas"]["Image"]["examples"][0]
    body = json.dumps(image).encode()
    described.check("GET", path, 200, {**headers, **kept, **told}, body)
    for status, headers_, body_, why in [
        (418, {**headers, **kept, **told}, body, "418 is none of"),
        (200, {**headers, **kept}, body, "X-access-crop is missing"),
        (200, {**headers, **kept, **told, "X-access-crop": "yes"}, body, "'yes' is not one of"),
        (200, {**kept, **told, "Content-Type": "text/html"}, body, "is text/html"),
        (200, {**headers, **kept, **told}, b"{}", "is a required property"),
        (200, {**headers, **kept, **told}, reordered(image), "the keys are"),
        (200, {**headers, **kept, **told}, retyped(image), "is not of type 'integer'"),
    ]:
        with pytest.raises(Undescribed, match=why):
            described.check("GET", path, status, headers_, body_)


def reordered(image):
    return json.dumps(dict(reversed(image.items()))).encode()


def retyped(image):
    return json.dumps({**image, "width": "48"}).encode()
