"""The recorded exchanges of `../shared/contract`, replayed as their README says."""

from __future__ import annotations

import datetime
import json
import re
import zoneinfo

import pytest
import time_machine

from imageapi import models
from imageapi.extensions import transaction
from tests.conftest import bearing, sign

pytestmark = pytest.mark.configure(timezone=zoneinfo.ZoneInfo("Europe/Paris"))

REPLAYED = [
    "image-retrieve",
    "album-images-unknown-album",
    "album-images-list",
    "album-images-list-empty",
]
VOLATILE = {"X-Request-Id", "X-Runtime"}


def insert_images(app, album, bodies, owner=None):
    """The rows that image blocks imply: no rendition made yet."""
    albums = {}
    for body in bodies:
        public_id = body["album_id"]
        if public_id not in albums:
            albums[public_id] = album(public_id, owner=owner)
        with app.app_context(), transaction() as session:
            session.add_all(_rows(session, albums[public_id], body))
    return albums


def _rows(session, album_id, body):
    infos = body["infos"]
    stored = models.StoredObject(
        album_id=album_id,
        storage="local",
        key=f"{body['public_id'][:2]}/{body['public_id']}",
        md5=infos["etag"],
        bytes=infos["bytes"],
        format=infos["format"],
        width=infos["width"],
        height=infos["height"],
        created_ms=0,
    )
    session.add(stored)
    session.flush()
    yield models.Image(
        id=body["public_id"],
        album_id=album_id,
        object_id=stored.id,
        created_ms=milliseconds(body["created_at"]),
        width=body["width"],
        height=body["height"],
        infos=dump(infos),
        exifs=dump(body["exifs"]),
        gps_html=dump(body["gps_html"]),
    )


def milliseconds(text):
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("name", REPLAYED)
def test_a_recorded_exchange(name, shared, app, client, album):
    recording = json.loads((shared / "contract" / f"{name}.json").read_text())
    request, recorded = recording["request"], recording["response"]
    body = json.loads(recorded["body_text"])
    insert_images(app, album, body if isinstance(body, list) else [body])

    with time_machine.travel(recorded["x_token_claims"]["exp"] - 14400, tick=False):
        response = client.open(
            request["path"],
            method=request["method"],
            headers=bearing(sign(request["token_claims"])),
            data=request["body"],
        )

    assert response.status_code == recorded["status"]
    assert response.text == recorded["body_text"]
    order = [name for name, _value in response.headers if name in recorded["header_order"]]
    assert order == recorded["header_order"]
    expected = dict(recorded["headers"]) | {"X-token": sign(recorded["x_token_claims"])}
    for header in expected.keys() - VOLATILE:
        assert response.headers[header] == expected[header], header
    assert re.fullmatch(r"[0-9a-f-]{36}", response.headers["X-Request-Id"])
    assert re.fullmatch(r"\d\.\d{6}", response.headers["X-Runtime"])
