"""Originals on their way out, and idempotent requests."""

from __future__ import annotations

import base64
import email.message
import hashlib
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from imageapi.blueprints import originals
from imageapi.errors import StorageCorrupt
from tests.blueprints.conftest import FORM, form
from tests.conftest import jpeg, part
from tests.storages import everywhere

NAMES = [
    "picture.jpg",
    "é – 😀.jpg",
    'a"b;c%41\\d.jpg',
    "../../etc/passwd",
    "evil.html",
    "",
    ".",
    "a" * 255,
    # What NFKD makes separators and dots of.
    "\uff0e\uff0e\uff0fetc\uff0fpasswd.jpg",
    "\u2100.jpg",
    "\u2025\uff3cpasswd.jpg",
    "日本.jpg",
    "日本",
]
PLAIN = re.compile(
    r"""attachment; filename="([^ .%;\\/"][^%;\\/"]*\.[a-zA-Z]+)"; filename\*=UTF-8''\S+"""
)
"""A file name for those who know ASCII alone: of one folder, and not hidden."""


@pytest.fixture
def data():
    return jpeg(200, 100)


@pytest.fixture
def path(anna, data):
    return f"/images/{anna.upload(data=data)['public_id']}/original"


@everywhere
def test_the_bytes_are_those_that_came(anna, path, data):
    response = anna.get(path)
    assert response.status_code == 200
    assert response.data == data
    assert response.headers["ETag"] == f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    assert response.headers["Content-Disposition"].startswith("attachment;")
    assert int(response.headers["Content-Length"]) == len(data)
    assert "X-token" in response.headers


@everywhere
def test_head_tells_the_same_without_bytes(anna, path, data):
    got, head = anna.get(path), anna("HEAD", path)
    assert head.data == b""
    volatile = {"X-Request-Id", "X-Runtime"}
    assert [p for p in head.headers if p[0] not in volatile] == [
        p for p in got.headers if p[0] not in volatile
    ]


@everywhere
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=10-", 10, None),
        ("bytes=-7", -7, None),
        ("bytes=0-999999", 0, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_one_range(anna, path, data, asked, first, last):
    response = anna.get(path, headers={"Range": asked})
    expected = data[first:] if last is None else data[first : last + 1]
    start = len(data) + first if first < 0 else first
    assert response.status_code == 206
    assert response.data == expected
    end = start + len(expected) - 1
    assert response.headers["Content-Range"] == f"bytes {start}-{end}/{len(data)}"
    assert int(response.headers["Content-Length"]) == len(expected)


@everywhere
@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=x", "pages=1-2", "bytes"])
def test_what_is_not_one_range_answers_the_whole(anna, path, data, asked):
    response = anna.get(path, headers={"Range": asked})
    assert (response.status_code, response.data) == (200, data)


@everywhere
def test_a_range_after_the_end_is_a_416(anna, path, data):
    response = anna.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(data)}"
    assert response.json["code"] == "range_not_satisfiable"


@everywhere
def test_conditions(anna, path, data):
    etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    unchanged = anna.get(path, headers={"If-None-Match": f'"x", {etag}'})
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert unchanged.headers["ETag"] == etag
    assert anna.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert anna.get(path, headers={"If-Match": '"x"'}).status_code == 412
    assert anna.get(path, headers={"If-Match": etag}).status_code == 200
    ranged = {"Range": "bytes=0-3"}
    assert anna.get(path, headers={**ranged, "If-Range": etag}).status_code == 206
    for other in ('"x"', f"W/{etag}", "Wed, 25 Nov 2026 00:00:00 GMT"):
        response = anna.get(path, headers={**ranged, "If-Range": other})
        assert (response.status_code, response.data) == (200, data), other


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove"])
@pytest.mark.parametrize("size", [(200, 100), (3000, 2500)])
def test_damaged_bytes_are_never_given_whole(app, anna, damage, size):
    data = noise(*size)
    # Encoded here: the test client would leave the file open that it spools a large body to.
    body = form(("file", data, "a.jpg"))
    made = anna.post("/albums/holidays/images", data=body, content_type=FORM)
    path = f"/images/{made.json['public_id']}/original"
    root = app.extensions["library"].settings.instance / "storage" / "local"
    (stored,) = [file for file in root.glob("??/*") if "." not in file.name]
    if damage == "remove":
        stored.unlink()
    else:
        place = len(data) - 50
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        stored.write_bytes(flipped if damage == "flip" else data[:-1])
    try:
        response = anna.get(path)
        assert response.data != data
    except StorageCorrupt:
        # Raised after the answer has begun: a server can only break the connection.
        assert len(data) > 1024 * 1024
    else:
        assert response.status_code == 502
        assert response.json["code"] in ("storage_corrupt", "storage_not_found")
    assert anna.get(path, headers={"Range": "bytes=0-9"}).data[:10] in (data[:10], b'{"type":"a')


def noise(width, height):
    """A JPEG that does not compress: several pieces long, if it is large."""
    picture = Pillow.effect_noise((width, height), 100).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_harms_nobody(name):
    text = originals.disposition(name, "5cf8c06d", "jpg")
    text.encode("ascii")
    message = email.message.Message()
    message["Content-Disposition"] = text
    shown = message.get_filename()
    assert message.get_content_disposition() == "attachment"
    assert PLAIN.fullmatch(text), text
    assert shown.endswith((".jpg", ".jpeg"))
    assert "/" not in shown
    if name == "picture.jpg":
        assert shown == name
    if name.startswith("日本"):
        assert 'filename="5cf8c06d.jpg"' in text
    if name.startswith("é"):
        assert "filename*=UTF-8''%C3%A9%20%E2%80%93%20%F0%9F%98%80.jpg" in text


@given(st.text(max_size=300), st.sampled_from(sorted(originals.TYPES)))
def test_any_file_name_makes_one_ascii_header(name, kind):
    text = originals.disposition(name, "5cf8c06d", kind)
    text.encode("ascii")
    assert PLAIN.fullmatch(text), text
    assert text.isprintable()
    assert text.count('"') == 2


@everywhere
def test_idempotent_uploads_duplicates_and_albums(anna, data, storage):
    key = {"Idempotency-Key": "7f2c"}
    form = lambda: {"file": part(data)}  # noqa: E731
    first = anna.post("/albums/holidays/images", data=form(), headers=key)
    again = anna.post("/albums/holidays/images", data=form(), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json == first.json
    assert again.headers["Location"] == first.headers["Location"]
    other = {"file": part(jpeg(9, 9))}
    refused = anna.post("/albums/holidays/images", data=other, headers=key)
    assert (refused.status_code, refused.json["code"]) == (422, "idempotency_mismatch")

    path = f"/images/{first.json['public_id']}/duplicate"
    twins = [anna.post(path, headers=key) for _ in range(3)]
    assert {twin.status_code for twin in twins} == {201}
    assert len({twin.json["public_id"] for twin in twins}) == 1
    assert anna.post(path).json["public_id"] != twins[0].json["public_id"]

    albums = [anna.post("/albums", headers=key) for _ in range(2)]
    assert {album.status_code for album in albums} == {200}
    first, again = (album.json for album in albums)
    forms = [album.pop("upload_form") for album in (first, again)]  # each is for one upload
    assert [form is None for form in forms] == [storage == "local"] * 2
    assert first == again
    assert anna.post("/albums", json={"album": {"public_id": "b"}}, headers=key).status_code == 422
    assert anna.get("/albums/holidays").json["images_count"] == 3


def test_a_key_is_its_users_own(anna, api):
    key = {"Idempotency-Key": "7f2c"}
    mine = anna.post("/albums", headers=key).json
    theirs = api(user_id="bert").post("/albums", headers=key).json
    assert mine["public_id"] != theirs["public_id"]


def test_a_failed_request_gives_its_key_back(anna):
    key = {"Idempotency-Key": "7f2c"}
    body = {"album": {"public_id": "holidays"}}
    assert anna.post("/albums", json=body, headers=key).status_code == 409
    assert anna.post("/albums", json={"album": {"public_id": "b"}}, headers=key).status_code == 200
    assert anna.post("/albums", headers={"Idempotency-Key": "a b"}).status_code == 422


def test_a_replay_is_authorised_anew(anna, api, data):
    key = {"Idempotency-Key": "7f2c"}
    made = anna.post("/albums", json={"album": {"public_id": "b"}}, headers=key)
    assert made.status_code == 200
    assert anna.delete("/albums/b").status_code == 204
    assert anna.post("/albums", json={"album": {"public_id": "b"}}, headers=key).status_code == 404
