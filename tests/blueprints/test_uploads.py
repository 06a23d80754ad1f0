"""Uploads through the front door: what is taken in, what is refused, and that a refusal leaves nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import time

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from imageapi import models
from imageapi.extensions import read
from tests.blueprints.conftest import BOUNDARY, FORM, IMAGES, NOTHING, form, remains
from tests.conftest import jpeg

FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP"}


def saved(kind, size=(40, 30), **options):
    file = io.BytesIO()
    Pillow.linear_gradient("L").resize(size).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def rotated(orientation):
    exif = Pillow.Exif()
    exif[0x112] = orientation
    return saved("JPEG", exif=exif)


# taken in -----------------------------------------------------------------------------------


def test_a_picture_is_created_at_its_location_with_its_body(app, client, upload, picture, token):
    response = upload(("file", picture, "sea.jpg"))

    assert response.status_code == 201
    body = response.get_json()
    assert response.headers["Location"] == f"/api/v1/images/{body['public_id']}"
    assert "X-duplicate" not in response.headers
    shown = client.get(response.headers["Location"], headers=token("holidays", "see"))
    assert shown.text == response.text
    assert remains(app).counted == (1, len(picture))


@pytest.mark.parametrize("kind", FORMATS)
def test_infos_are_the_files_own(upload, kind):
    data = saved(FORMATS[kind])
    before = int(time.time())

    infos = upload(("file", data, "any.name")).get_json()["infos"]

    created = infos.pop("created_at")
    assert before <= time.mktime(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert infos == {
        "bytes": len(data),
        "etag": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "format": kind,
        "height": 30,
        "resource_type": "image",
        "tags": ["holidays"],
        "type": "private",
        "width": 40,
    }


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(upload, orientation):
    body = upload(("file", rotated(orientation), "a.jpg")).get_json()

    upright = (30, 40) if orientation >= 5 else (40, 30)
    assert (body["infos"]["width"], body["infos"]["height"]) == upright
    assert (body["width"], body["height"]) == upright


def test_the_thumbnails_are_there_at_once(client, upload, picture):
    thumbnails = upload(("file", picture, "a.jpg")).get_json()["thumbnails"]

    assert list(thumbnails) == ["full", "large", "mini"]
    for url in thumbnails.values():
        response = client.get(url)
        assert response.content_type == "image/jpeg"
        assert Pillow.open(io.BytesIO(response.data)).size in {(64, 48), (48, 48)}


def test_the_same_bytes_again_answer_the_image_that_is_there(app, upload, picture):
    first = upload(("file", picture, "a.jpg"))
    again = upload(("file", picture, "another.jpg"), ("latitude", b"1"), ("longitude", b"2"))

    assert again.status_code == 200
    assert again.headers["X-duplicate"] == "true"
    assert "Location" not in again.headers
    assert again.text == first.text
    assert remains(app).images == 1
    assert len(remains(app).stored) == 4  # the original and its three renditions


def test_the_same_bytes_in_another_album_are_another_image(client, album, token, upload, picture):
    album("work")
    first = upload(("file", picture, "a.jpg"))
    other = client.post(
        "/api/v1/albums/work/images",
        data=form(("file", picture, "a.jpg")),
        content_type=FORM,
        headers=token("work", "image_upload"),
    )

    assert other.status_code == 201
    assert other.get_json()["public_id"] != first.get_json()["public_id"]


def test_a_form_of_the_test_clients_own_making_is_taken_too(client, upload, picture, token):
    response = client.post(
        IMAGES,
        data={"file": (io.BytesIO(picture), "a.jpg"), "latitude": "1", "longitude": "-0.5"},
        headers=token("holidays", "image_upload"),
    )
    assert response.status_code == 201


# the browser's position ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracy", "shown"),
    [(b"36", "36"), (b"36.0", "36.0"), (b"36.5", "36.5"), (b"1e2", "100.0"), (b"0", "0")],
)
def test_the_browsers_position(upload, picture, accuracy, shown):
    fields = [
        ("longitude", b"2.348967"),
        ("accuracy", accuracy),
        ("latitude", b"48.861934399999996"),
    ]
    response = upload(*fields, ("file", picture, "a.jpg"))

    assert (
        f'"location":{{"accuracy":{shown},"latitude":48.861934399999996,"longitude":2.348967}}'
        in response.text
    )
    assert '"gps":[48.861934399999996,2.348967],"gps_ip":null,"gps_exifs":null' in response.text
    assert '"gps_html":[48.861934399999996,2.348967]' in response.text


def test_positions_are_floats_and_accuracy_may_be_missing(upload, picture):
    response = upload(("latitude", b"-90"), ("longitude", b"180"), ("file", picture, "a.jpg"))
    assert '"location":{"latitude":-90.0,"longitude":180.0}' in response.text
    assert '"gps_html":[-90.0,180.0]' in response.text


def test_without_a_position_there_is_no_location(upload, picture):
    body = upload(("file", picture, "a.jpg")).get_json()
    assert "location" not in body["infos"]
    assert body["gps"] is body["gps_html"] is None


POSITIONS = {
    "only latitude": ({"latitude": b"1"}, ["longitude"]),
    "only longitude": ({"longitude": b"1"}, ["latitude"]),
    "only accuracy": ({"accuracy": b"1"}, ["latitude", "longitude"]),
    "too far north": ({"latitude": b"90.0001", "longitude": b"0"}, ["latitude"]),
    "too far south": ({"latitude": b"-91", "longitude": b"0"}, ["latitude"]),
    "too far east": ({"latitude": b"0", "longitude": b"180.5"}, ["longitude"]),
    "negative accuracy": ({"latitude": b"0", "longitude": b"0", "accuracy": b"-1"}, ["accuracy"]),
    "no number": ({"latitude": b"north", "longitude": b"0"}, ["latitude"]),
    "nan": ({"latitude": b"nan", "longitude": b"0"}, ["latitude"]),
    "infinite": ({"latitude": b"0", "longitude": b"1e999"}, ["longitude"]),
    "infinite, in digits": ({"latitude": b"9" * 400, "longitude": b"0"}, ["latitude"]),
    "hex": ({"latitude": b"0x10", "longitude": b"0"}, ["latitude"]),
    "underscore": ({"latitude": b"1_0", "longitude": b"0"}, ["latitude"]),
    "other digits": ({"latitude": "٣".encode(), "longitude": b"0"}, ["latitude"]),
    "empty": ({"latitude": b"", "longitude": b""}, ["latitude", "longitude"]),
    "unknown": ({"album_id": b"1"}, ["album_id"]),
    "unknown, like a column": ({"gps_ip": b"[1,2]", "public_id": b"x"}, ["gps_ip", "public_id"]),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_a_refused_field_is_named(app, upload, picture, case):
    fields, named = POSITIONS[case]
    response = upload(*fields.items(), ("file", picture, "a.jpg"))

    assert response.status_code == 422
    assert sorted(error["field"] for error in response.get_json()["errors"]) == named
    assert remains(app) == NOTHING


# forms that are refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([], "file"),
        ([("latitude", b"1"), ("longitude", b"1")], "file"),
        ([("file", b"text, not a file")], "file"),
        ([("picture", jpeg(), "a.jpg")], "picture"),
        ([("file", jpeg(), "a.jpg"), ("file", jpeg(seed=1), "b.jpg")], "file"),
        ([("latitude", b"1"), ("latitude", b"2"), ("file", jpeg(), "a.jpg")], "latitude"),
        ([("latitude", b"1" * 5000), ("file", jpeg(), "a.jpg")], "latitude"),
        ([("latitude", b"\xff"), ("file", jpeg(), "a.jpg")], "latitude"),
    ],
    ids=[
        "nothing",
        "no file",
        "a file without a name",
        "another name",
        "two files",
        "twice",
        "long",
        "not UTF-8",
    ],
)
def test_a_form_that_is_not_one_file_and_fields(app, upload, parts, field):
    response = upload(*parts)

    assert response.status_code == 422
    assert field in [error["field"] for error in response.get_json()["errors"]]
    assert remains(app) == NOTHING


def test_sixteen_parts_and_no_more(app, upload, picture):
    fields = [(f"f{number}", b"") for number in range(15)]
    response = upload(*fields, ("file", picture, "a.jpg"))
    assert response.status_code == 422  # unknown fields, all of them read

    response = upload(*fields, ("f15", b""), ("file", picture, "a.jpg"))
    assert response.status_code == 413
    assert "16 parts" in response.get_json()["detail"]
    assert remains(app) == NOTHING


@pytest.mark.parametrize("content_type", ["image/jpeg", "text/plain", "multipart/form-data"])
def test_a_body_that_is_no_form(app, upload, picture, content_type):
    response = upload(data=picture, content_type=content_type)
    assert response.status_code == 415
    assert "multipart/form-data" in response.get_json()["detail"]
    assert remains(app) == NOTHING


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
)
def test_what_is_no_picture_is_told_what_would_be(app, upload, data):
    response = upload(("file", data, "a.jpg"))

    assert response.status_code == 415
    assert re.search("JPEG, PNG, GIF, WebP", response.get_json()["detail"])
    assert remains(app) == NOTHING


@pytest.mark.parametrize("kind", FORMATS)
def test_a_broken_picture(app, upload, kind):
    data = saved(FORMATS[kind], size=(400, 300))
    for length in (20, len(data) // 2, len(data) - 20):
        response = upload(("file", data[:length], "a.jpg"))
        assert response.status_code == 422, length
        assert response.get_json()["code"] == "undecodable_picture"
    assert remains(app) == NOTHING


@pytest.mark.configure(max_pixels=40 * 30 - 1)
def test_too_many_pixels_name_the_limit(app, upload):
    response = upload(("file", saved("PNG"), "a.png"))
    assert response.status_code == 422
    assert "1199" in response.get_json()["detail"]
    assert remains(app) == NOTHING


# bodies that lie about their length ---------------------------------------------------------

SMALL = pytest.mark.configure(max_upload_bytes=2000)


def undeclared(upload, data, *, terminated=True):
    """Posts a body without Content-Length; `terminated`: the server knows its end (chunked)."""
    return sent(upload, io.BytesIO(data), "", terminated=terminated)


def sent(upload, stream, length, *, terminated=True):
    """Posts a body as a server hands it on; its Content-Length may lie."""
    return upload.raw(
        {
            "wsgi.input": stream,
            "wsgi.input_terminated": terminated,
            "CONTENT_LENGTH": str(length),
        }
    )


@SMALL
def test_a_body_that_declares_too_much(app, upload):
    response = sent(upload, io.BytesIO(), 2000 + 65536 + 1)
    assert response.status_code == 413
    assert "2000 bytes" in response.get_json()["detail"]
    assert remains(app) == NOTHING


@SMALL
@pytest.mark.parametrize("post", [lambda upload, data: upload(data=data), undeclared])
def test_a_file_over_the_limit(app, upload, post):
    data = form(("file", saved("PNG") + bytes(2000), "a.png"))
    response = post(upload, data)
    assert response.status_code == 413
    assert "2000 bytes" in response.get_json()["detail"]
    assert remains(app) == NOTHING


def test_a_file_exactly_as_large_as_the_limit(app, upload, picture):
    library = app.extensions["library"]
    object.__setattr__(library.settings, "max_upload_bytes", len(picture))
    assert upload(("file", picture, "a.jpg")).status_code == 201
    object.__setattr__(library.settings, "max_upload_bytes", len(jpeg(seed=1)) - 1)
    assert upload(("file", jpeg(seed=1), "a.jpg")).status_code == 413


class Endless:
    """A body that goes on for ever, after its beginning; fails the test when too much is read."""

    def __init__(self, beginning, most):
        self._beginning, self._left = beginning, most

    def read(self, size=-1):
        piece, self._beginning = self._beginning[:size], self._beginning[size:]
        piece = piece or b"\r\n"[: max(0, size)] * 8
        self._left -= len(piece)
        assert self._left > 0, "it is read for ever"
        return piece


@SMALL
@pytest.mark.parametrize(
    "beginning", [b"", form(("file", saved("PNG"), "a.png"))], ids=["before", "after"]
)
def test_an_undeclared_body_around_the_form_has_its_limit_too(app, upload, beginning):
    response = sent(upload, Endless(beginning, 1_000_000), "")
    assert response.status_code == 413
    assert str(2000 + 65536) in response.get_json()["detail"]
    assert remains(app) == NOTHING


def test_a_chunked_body_is_taken(app, upload, picture):
    assert undeclared(upload, form(("file", picture, "a.jpg"))).status_code == 201


def test_a_body_without_any_end_needs_a_length(app, upload, picture):
    response = undeclared(upload, form(("file", picture, "a.jpg")), terminated=False)
    assert response.status_code == 411
    assert remains(app) == NOTHING


def test_a_form_without_its_end_boundary_stores_nothing(app, upload, picture):
    whole = form(("file", picture, "a.jpg"))
    ends = [
        form(("file", picture, "a.jpg"), end=False),
        whole[:-3],  # one dash missing
        whole[: -len(f"--{BOUNDARY}--\r\n")],
        whole[:-20],
        whole[: len(whole) // 2],
        whole[:100],
        b"--",
    ]
    for data in ends:
        for response in (upload(data=data), undeclared(upload, data)):
            assert response.status_code == 400, data[-60:]
            assert response.get_json()["code"] == "incomplete_body"
    assert remains(app) == NOTHING


@pytest.mark.parametrize("missing", [1, 2, 3, 100])
def test_a_body_shorter_than_it_said_stores_nothing(app, upload, picture, missing):
    # Even when only what follows the last boundary is missing: the length was a lie.
    whole = form(("file", picture, "a.jpg"))
    response = sent(upload, io.BytesIO(whole[:-missing]), len(whole))
    assert response.status_code == 400
    assert response.get_json()["code"] == "incomplete_body"
    assert remains(app) == NOTHING


def test_bytes_beyond_the_length_belong_to_the_next_request(app, upload, picture):
    whole = form(("file", picture, "a.jpg"))
    stream = io.BytesIO(whole + b"GET / HTTP/1.1")
    response = sent(upload, stream, len(whole))
    assert response.status_code == 201
    assert stream.tell() == len(whole)


class Cut:
    """A connection that is gone in the middle of a body."""

    def __init__(self, beginning, error):
        self._beginning, self._error = beginning, error

    def read(self, size=-1):
        piece, self._beginning = self._beginning[:size], self._beginning[size:]
        if not piece:
            raise self._error
        return piece


class NotAnOSError(Exception):
    """gunicorn raises such for a trailer that is malformed."""


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), NotAnOSError("trailer")])
def test_a_connection_that_ends_early_stores_nothing(app, upload, picture, error):
    whole = form(("file", picture, "a.jpg"))
    response = sent(upload, Cut(whole[:-10], error), len(whole))
    assert response.status_code == 400
    assert remains(app) == NOTHING


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.sampled_from(
            [
                f"--{BOUNDARY}".encode(),
                b"--",
                b"-",
                b"\r\n",
                b"\r",
                b"\n",
                b"\0",
                b'Content-Disposition: form-data; name="file"; filename="a.jpg"',
                b'Content-Disposition: form-data; name="latitude"',
                b"Content-Disposition: form-data",
                b"Content-Length: 3",
                b"Content-Length: -1",
                b"Content-Transfer-Encoding: base64",
                b"Content-Type: text/plain; charset=utf-7",
                b": ",
                b"\xff\xfe",
                b"x" * 5000,
                jpeg(8, 8),
            ]
        ),
        max_size=12,
    )
)
def test_no_body_is_a_fault_of_ours(app, upload, tokens):
    before = remains(app)
    response = upload(data=b"".join(tokens))
    assert response.status_code in {200, 201, 400, 413, 415, 422}
    after = remains(app)
    assert after.staged == []
    if response.status_code != 201:
        assert after == before


# digests ------------------------------------------------------------------------------------


def digest(algorithm, data):
    value = base64.b64encode(hashlib.new(algorithm.replace("-", ""), data).digest()).decode()
    return f"{algorithm}=:{value}:"


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
@pytest.mark.parametrize("of", ["body", "file"])
def test_a_digest_that_is_right(upload, picture, header, algorithm, of):
    body = form(("file", picture, "a.jpg"))
    value = digest(algorithm, body if of == "body" else picture)
    assert upload(data=body, headers={header: value}).status_code == 201


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_a_digest_that_is_wrong(app, upload, picture, header, algorithm):
    value = digest(algorithm, picture + b"\r")
    response = upload(("file", picture, "a.jpg"), headers={header: value})
    assert response.status_code == 422
    assert response.get_json()["code"] == "digest_mismatch"
    assert remains(app) == NOTHING


def test_one_wrong_digest_among_right_ones(app, upload, picture):
    right, wrong = digest("sha-256", picture), digest("sha-512", b"")
    response = upload(("file", picture, "a.jpg"), headers={"Repr-Digest": f"{right}, {wrong}"})
    assert response.status_code == 422
    assert remains(app) == NOTHING


def test_a_digest_of_an_algorithm_that_proves_nothing_is_ignored(upload, picture):
    value = "unixsum=:AAA=:, md5=:AAAA:"
    assert upload(("file", picture, "a.jpg"), headers={"Content-Digest": value}).status_code == 201


@pytest.mark.parametrize("value", ["sha-256", "sha-256=AAAA", "sha-256=:A:", ",", "sha-256=:é:"])
def test_a_digest_that_is_malformed(app, upload, picture, value):
    response = upload(("file", picture, "a.jpg"), headers={"Content-Digest": value})
    assert response.status_code == 400
    assert remains(app) == NOTHING


def test_the_same_bytes_again_with_a_wrong_digest_are_refused(upload, picture):
    upload(("file", picture, "a.jpg"))
    value = digest("sha-256", b"something else")
    response = upload(("file", picture, "a.jpg"), headers={"Content-Digest": value})
    assert response.status_code == 422


# file names ---------------------------------------------------------------------------------

NAMES = {
    "traversal": b"../../../etc/passwd",
    "absolute": b"/etc/cron.d/x",
    "windows": b"C:\\Windows\\win.ini",
    "staging": b"../staging/x",
    "dots": b"..",
    "empty": b"",
    "NUL": b"a\0b.jpg",
    "CRLF": b"a%0D%0AX-token: x%0D%0A.jpg",
    "right to left": "a\u202egpj.exe".encode(),
    "emoji": "👩‍👩‍👧.jpg".encode(),
    "300 characters": b"n" * 300 + b".jpg",
    "300 wide characters": "é".encode() * 300,
    "percent": b"..%2f..%2fx",
    "shell": b"$(touch canary);`id`|x.jpg",
}


@pytest.mark.parametrize("case", NAMES)
def test_a_file_name_is_text_and_never_a_path(app, tmp_path, upload, picture, case):
    before = everything(tmp_path)
    response = upload(("file", picture, NAMES[case]))

    assert response.status_code == 201
    made = everything(tmp_path) - before
    key = r"instance/storage/local/[0-9a-f]{2}/[0-9a-f-]{36}(\.\d+\.(full|large|mini)\.jpg)?"
    others = r"instance/(storage(/local(/staging|/[0-9a-f]{2})?)?|imageapi\.sqlite3-(wal|shm))"
    assert all(re.fullmatch(f"{key}|{others}", path) for path in made), made
    assert len(remains(app).stored) == 4
    with app.app_context():
        kept = read(sa.select(models.Image.file_name))[0].file_name
    assert len(kept) <= 255
    assert not any(ord(character) < 32 for character in kept)
    for name, value in response.headers:
        assert "\n" not in value, name


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_file_name_of_10_kb_is_refused_in_true_words(app, upload, picture):
    response = upload(("file", picture, b"n" * 10_000))
    assert response.status_code == 413
    assert "headers" in response.get_json()["detail"]
    assert remains(app) == NOTHING


# who may ------------------------------------------------------------------------------------


def test_who_may_not_upload_has_nothing_read(app, client, upload, picture, token):
    stream = io.BytesIO(form(("file", picture, "a.jpg")))
    for headers, status in [
        ({}, 401),
        (token("holidays", "see"), 403),
        (token("another", "image_upload"), 404),
    ]:
        response = client.post(IMAGES, input_stream=stream, content_type=FORM, headers=headers)
        assert response.status_code == status
        assert stream.tell() == 0
    assert remains(app) == NOTHING


# statements ---------------------------------------------------------------------------------


@pytest.fixture
def entities():
    """The ORM entities loaded since the last `clear()`."""
    loaded = []

    def note(_session, entity):
        loaded.append(entity)

    sa.event.listen(sa.orm.Session, "loaded_as_persistent", note)
    yield loaded
    sa.event.remove(sa.orm.Session, "loaded_as_persistent", note)


def test_an_image_is_one_statement_and_no_entity(
    client, upload, picture, token, statements, entities
):
    place = upload(("file", picture, "a.jpg")).headers["Location"]
    statements.clear()

    response = client.get(place, headers=token("holidays", "see"))

    assert response.status_code == 200
    assert len(statements) == 1, statements
    assert statements[0].startswith("SELECT")
    assert entities == []


@pytest.mark.parametrize("count", [1, 10, 100])
def test_a_list_is_two_statements_at_any_length(
    app, client, upload, token, statements, entities, count
):
    template = upload(("file", jpeg(8, 8), "a.jpg")).get_json()
    multiply(app, template["public_id"], count)
    statements.clear()

    response = client.get(IMAGES, headers=token("holidays", "image_list"))

    assert len(json.loads(response.text)) == count
    assert len(statements) <= 2, statements
    assert entities == []


def multiply(app, image_id, count):
    """Rows like that of the image, `count` in all."""
    with app.app_context():
        for number in range(1, count):
            values = dict(
                read(sa.select(*models.Image.__table__.columns).where(models.Image.id == image_id))[
                    0
                ]._asdict()
            )
            values["id"] = f"{number:08x}-0000-4000-8000-000000000000"
            values["created_ms"] += number
            with models.db.engine.begin() as connection:
                connection.execute(sa.insert(models.Image), values)
