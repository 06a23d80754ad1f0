"""Hostile paths, fields, bodies and URLs through the front door: nothing else than meant is touched.

Source: OWASP ASVS 5.0, 1.2 (injection), 2.2 (input), 5.3 (files), 8.2 (access); CVE-2026-33173 and
CVE-2026-33202 for what others let through.
"""

from __future__ import annotations

import json
import os
import random
import string
import time
import urllib.parse
import uuid

import pytest
import sqlalchemy as sa
import time_machine
from hypothesis import HealthCheck, given, settings, strategies

from imageapi import models
from imageapi.extensions import Base, read
from tests.api.conftest import Api
from tests.conftest import bearing, jpeg, part, sign

FULL = os.environ.get("FAULTS") == "full"
DOCUMENTED = {200, 201, 204, 206, 304, 400, 401, 403, 404, 405, 409, 411, 412, 413, 415, 416, 422}


@pytest.fixture
def anna(client, album):
    album("holidays", owner="anna")
    return Api(client, bearing(sign({"user_id": "anna"})))


def rows(app):
    """Every row of every table."""
    with app.app_context():
        return {name: read(sa.select(table)) for name, table in Base.metadata.tables.items()}


# Fields that name a column, a part of an answer, or what others' frameworks listen to.
COLUMNS = sorted(
    {column.name for table in Base.metadata.tables.values() for column in table.columns}
    | {"album_id", "public_id", "etag", "gps", "thumbnails", "is_admin", "_method", "role", "key"}
    | {"__proto__", "constructor", "issuer", "abilities", "X-token", "user_id"}
)
FREE = {"rotation", "crop_x", "crop_y", "crop_w", "crop_h"}
VALUES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(-5, 1 << 40),
    strategies.text(max_size=20),
    strategies.lists(strategies.integers(), max_size=2),
    strategies.dictionaries(strategies.sampled_from(COLUMNS), strategies.integers(), max_size=2),
)


@settings(
    max_examples=2000 if FULL else 100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    fields=strategies.dictionaries(
        strategies.sampled_from([name for name in COLUMNS if name not in FREE]),
        VALUES,
        min_size=1,
        max_size=4,
    )
)
def test_no_field_reaches_a_column_that_is_not_its_own(app, anna, fields):
    image = anna.upload()
    path = f"/images/{image['public_id']}"
    before = rows(app)
    answers = [
        anna.put(path, json=fields),
        anna.put(path, data={name: json.dumps(value) for name, value in fields.items()}),
        anna.put("/albums/holidays", json={"album": {**fields, "public_id": "holidays"}})
        if set(fields) - {"public_id"}
        else None,
        anna.post(f"{path}/duplicate", json=fields),
        anna.post("/albums/holidays/shares", json=fields),
        anna.delete("/albums/holidays", json=fields),
    ]
    for answer in filter(None, answers):
        assert answer.status_code in (400, 403, 422), (answer.request.path, answer.text)
    assert rows(app) == before


def test_unknown_fields_of_an_upload_change_nothing(app, anna):
    hostile = {"public_id": "mine", "infos": "{}", "gps_ip": "[1,2]", "album_id": "2", "bytes": "1"}
    response = anna.post("/albums/holidays/images", data={"file": part(jpeg()), **hostile})
    assert response.status_code == 422
    assert {error["field"] for error in response.json["errors"]} == {*hostile}
    with app.app_context():
        assert read(sa.select(models.Image)) == read(sa.select(models.StoredObject)) == []


INJECTIONS = [
    "' OR '1'='1",
    "'; DROP TABLE image; --",
    '" OR ""="',
    "holidays' --",
    "holidays') UNION SELECT secret FROM integrator_key --",
    "%",
    "_",
    "holiday_",
    "holid%",
    "*",
    "hol[ia]days",
    "holidays\\",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/a}",
    "1; SELECT pg_sleep(9)",
    "holidays' AND randomblob(900000000) --",
    "$.holidays",
    "holidays\u0000",
    "\ufb01",
    "\u210bolidays",
    "HOLIDAYS",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_text_is_never_more_than_a_text(app, anna, album, text):
    """Not in paths, filters, cursors, ids, names and labels; and no pattern matches more than itself."""
    album("secret", owner="bert")
    anna.upload()
    before = rows(app)
    started = time.monotonic()
    escaped = urllib.parse.quote(text, safe="")
    for path in (
        f"/albums/{escaped}",
        f"/albums/{escaped}/images",
        f"/images/{escaped}",
        f"/albums/holidays/images?tag={escaped}",
        f"/albums/holidays/images?cursor={escaped}",
        f"/albums/holidays/images?bbox={escaped}",
        f"/albums/holidays/images?format={escaped}",
        f"/albums/holidays/images?limit={escaped}",
        f"/tag_images?album_id={escaped}&tag_name={escaped}&image_id={escaped}",
        f"/albums?cursor={escaped}",
    ):
        answer = anna.get(path)
        assert answer.status_code in (200, 404, 422), (path, answer.text)
        if answer.status_code == 200:
            assert answer.json == [], path
    assert rows(app) == before
    assert time.monotonic() - started < 5  # nothing slept


@pytest.mark.parametrize("text", [text for text in INJECTIONS if "\0" not in text])
def test_a_hostile_name_is_kept_as_it_is(anna, client, text):
    """What may be a name at all comes back as it was sent, and means nothing but itself."""
    made = anna.post("/albums", json={"album": {"public_id": text}})
    assert made.status_code in (200, 422)
    if made.status_code == 422:
        return
    assert made.json["public_id"] == text
    labelled = Api(
        client,
        bearing(
            sign(
                {
                    "user_id": "anna",
                    "abilities": {text: {"Access": {"see": True}, "Tags": {text: text}}},
                }
            )
        ),
    )
    tags = labelled.get(f"/albums/{urllib.parse.quote(text, safe='')}/tags").json
    assert [(tag["name"], tag["label"]) for tag in tags] == [(text, text)]
    assert anna.get("/albums/holidays").status_code == 200


def traversals(canary):
    """Paths that elsewhere led out of a folder."""
    up = [
        "..",
        "%2e%2e",
        "%252e%252e",
        "..;",
        ".%2e",
        "%c0%ae%c0%ae",
        "\u2024\u2024",
        "\uff0e\uff0e",
        "..%00",
        "..\\",
    ]
    name = str(canary).lstrip("/")
    for dots in up:
        for slash in ("/", "%2f", "%252f", "\\", "%5c", "//"):
            yield (dots + slash) * 8 + name
            yield "blank.jpg" + slash + (dots + slash) * 8 + name
    yield from (
        f"/{name}",
        f"//{name}",
        f"%2f{name}",
        f"file://{canary}",
        f"{name}%00.jpg",
        "C:\\x",
    )


def test_no_path_leads_to_another_file(client, anna, tmp_path):
    canary = tmp_path / "canary.txt"
    canary.write_text("canary-4f9c2d71")
    image = anna.upload()
    signed = urllib.parse.urlsplit(image["thumbnails"]["mini"])
    folder = signed.path.rpartition("/")[0]
    for hostile in traversals(canary):
        for before in ("/assets/", "/docs/", "/docs/assets/", "/files/local/", f"{folder}/", "/"):
            for query in ("", f"?{signed.query}"):
                answer = client.get(before + hostile + query)
                assert b"canary-4f9c2d71" not in answer.data
                assert answer.status_code in (308, 401, 404), (before + hostile, answer.status_code)
        for path in (f"/api/v1/images/{hostile}", f"/api/v1/images/{hostile}/original"):
            answer = client.get(path, headers=anna.headers)
            assert b"canary-4f9c2d71" not in answer.data
            assert answer.status_code in (308, 404)


def test_an_albums_name_is_no_pattern_when_it_is_deleted(app, anna):
    """Bytes go by the keys of rows, never by a prefix or a pattern."""
    for name in ("holiday*", "holidays[1]", "{a-z}"):
        assert anna.post("/albums", json={"album": {"public_id": name}}).status_code == 200
        anna.upload(urllib.parse.quote(name, safe=""), jpeg(seed=len(name)))
    kept = anna.upload()
    for name in ("holiday*", "holidays[1]", "{a-z}"):
        assert anna.delete(f"/albums/{urllib.parse.quote(name, safe='')}").status_code == 204
    end = time.monotonic() + 20
    with app.app_context():
        while len(read(sa.select(models.StoredObject))) > 1:  # a thread is at it too
            assert time.monotonic() < end
            app.extensions["background"].once()
            time.sleep(0.05)
        assert len(read(sa.select(models.StoredObject))) == 1
    assert anna.get(f"/images/{kept['public_id']}/original").data == jpeg()


def changed(url, choice):
    """The URL with one thing changed that its signature covers."""
    parts = urllib.parse.urlsplit(url)
    query = dict(urllib.parse.parse_qsl(parts.query))
    kind = choice.randrange(6)
    path, text = parts.path, parts.query
    if kind == 0:
        place = choice.randrange(len(path) - 40, len(path))
        path = path[:place] + choice.choice(string.hexdigits) + path[place + 1 :]
    elif kind == 1:
        query["expires"] = str(int(query["expires"]) + choice.choice([-3600, -1, 1, 3600, 10**9]))
        text = urllib.parse.urlencode(query)
    elif kind == 2:
        place = choice.randrange(len(query["signature"]))
        letters = string.ascii_letters + string.digits + "-_"
        signature = query["signature"]
        query["signature"] = signature[:place] + choice.choice(letters) + signature[place + 1 :]
        text = urllib.parse.urlencode(query)
    elif kind == 3:
        text = choice.choice([f"{text}&{text}", f"signature={query['signature']}", f"{text}&a=b"])
    elif kind == 4:
        text = "&".join(reversed(text.split("&")))
    else:
        query["signature"] = query["signature"][: choice.randrange(43)]
        text = urllib.parse.urlencode(query)
    return urllib.parse.urlunsplit(("", "", path, text, ""))


def test_a_tampered_url_serves_nothing(client, anna):
    images = [anna.upload(data=jpeg(seed=number)) for number in range(2)]
    urls = [url for image in images for url in image["thumbnails"].values()]
    choice = random.Random(20)  # noqa: S311 - the same cases each time
    for _ in range(50_000 if FULL else 2_000):
        url = choice.choice(urls)
        tampered = changed(url, choice)
        if tampered not in urls:
            assert client.get(tampered).status_code == 404, tampered
    for url in urls:
        assert client.get(url).status_code == 200


def test_signatures_are_not_exchanged_between_pictures(client, anna):
    images = [anna.upload(data=jpeg(seed=number)) for number in range(2)]
    urls = [urllib.parse.urlsplit(url) for image in images for url in image["thumbnails"].values()]
    for one in urls:
        for other in urls:
            if one != other:
                assert client.get(f"{one.path}?{other.query}").status_code == 404


def test_a_url_ends_with_its_picture_and_its_time(client, anna):
    image = anna.upload(data=jpeg(200, 150))
    path = f"/images/{image['public_id']}"
    old = image["thumbnails"]["mini"]
    edited = anna.put(path, json={"rotation": 90}).json
    new = edited["thumbnails"]["mini"]
    assert client.get(old).data != client.get(new).data
    expires = int(urllib.parse.parse_qs(urllib.parse.urlsplit(new).query)["expires"][0])
    with time_machine.travel(expires - 1, tick=False):
        assert client.get(new).status_code == 200
    with time_machine.travel(expires + 1, tick=False):
        assert client.get(new).status_code == 404
    assert anna.delete(path).status_code == 204
    assert client.get(old).status_code == client.get(new).status_code == 404


@pytest.mark.parametrize("field", ["file", "url", "remote_url", "source"])
def test_a_url_is_never_fetched(anna, monkeypatch, field):
    """There is no upload by URL: nothing is looked up, nothing connected to."""

    def refuse(*_args, **_options):
        raise AssertionError("a name was looked up")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    for url in ("http://127.0.0.1:1/x.jpg", "http://169.254.169.254/", "file:///etc/passwd"):
        answers = [
            anna.post("/albums/holidays/images", data={field: url, "a": part(b"")}),
            anna.post("/albums/holidays/images", data={field: url}),
            anna.post("/albums/holidays/images", json={field: url}),
        ]
        assert {answer.status_code for answer in answers} <= {400, 415, 422}


def test_every_answer_is_documented_whatever_the_method(client, anna):
    """No method and no odd path is a 5xx."""
    anna.upload()
    paths = ["/", "/api", "/api/v1", "/api/v1/", "/api/v1/images", "//", "/api//v1/images", "/%00"]
    paths += [f"/api/v1/images/{uuid.uuid4()}{end}" for end in ("/", "/original/x", "%0d%0aX: y")]
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        for path in paths:
            for headers in ({}, anna.headers):
                answer = client.open(path, method=method, headers=headers)
                assert answer.status_code in DOCUMENTED | {308}, (method, path)
                assert "X" not in answer.headers
