"""The specification's own exchange, byte for byte (contract/retrieve-an-image.md)."""

from __future__ import annotations

import datetime
import json
import re
import zoneinfo

import pytest
import time_machine

from imageapi import models
from imageapi.extensions import transaction
from tests.conftest import SECRET, bearing, sign

IMAGE = "5cf8c06d-83fa-4ede-b995-5efd3133b6e5"
ALBUM = "6bfb864c-8927-48d4-a286-97ba8583f7ae"
CLAIMS = {
    "exp": 1452621915,
    "abilities": {ALBUM: {"Access": {"image_list": True}}},
    "user_id": "90cfb538-0284-4e99-888e-a3cdb4778101",
}
# The header and payload segments of the specification's token; its secret is unknown.
SIGNED = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."
    "eyJleHAiOjE0NTI2MjE5MTUsImFiaWxpdGllcyI6eyI2YmZiODY0Yy04OTI3LTQ4ZDQtYTI4Ni05N2JhODU4M2Y3YWUi"
    "OnsiQWNjZXNzIjp7ImltYWdlX2xpc3QiOnRydWV9fX0sInVzZXJfaWQiOiI5MGNmYjUzOC0wMjg0LTRlOTktODg4ZS1h"
    "M2NkYjQ3NzgxMDEifQ"
)
HEADERS = [
    ("Cache-Control", "no-cache, no-store, must-revalidate, private, max-age=0"),
    ("Pragma", "no-cache"),
    ("Expires", "Fri, 01 Jan 1990 00:00:00 GMT"),
    ("X-Frame-Options", "DENY"),
    ("X-XSS-Protection", "1; mode=block"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Download-Options", "noopen"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
    ("X-access-crop", "false"),
    ("X-access-rotate", "false"),
    ("X-token", sign(CLAIMS)),
    ("Content-Type", "application/json; charset=utf-8"),
    ("Vary", "Accept-Encoding"),
    ("P3P", 'CP="NOI ADM DEV PSAi COM NAV OUR OTRo STP IND DEM"'),
    ("X-Request-Id", "0157b7b3-564c-4dce-916c-bbb5c05b77ce"),
    ("X-Runtime", "0.039901"),
    ("Content-Length", "757"),
]
BODY = (
    '{"public_id":"5cf8c06d-83fa-4ede-b995-5efd3133b6e5","infos":{"bytes":3604,'
    '"created_at":"2015-09-25T13:32:55Z","etag":"5a98d4d3e5d39024abf237be55e99b15","format":"png",'
    '"height":48,"resource_type":"image","tags":["6bfb864c-8927-48d4-a286-97ba8583f7ae"],'
    '"type":"private","width":48,"location":{"accuracy":36,"latitude":48.861934399999996,'
    '"longitude":2.348967}},"exifs":{},"gps":[48.861934399999996,2.348967],"gps_ip":null,'
    '"gps_exifs":null,"gps_html":[48.861934399999996,2.348967],'
    '"created_at":"2016-01-12T15:05:15.692+01:00","width":48,"height":48,"rotation":0,'
    '"crop_x":0.0,"crop_y":0.0,"crop_w":0.0,"crop_h":0.0,'
    '"album_id":"6bfb864c-8927-48d4-a286-97ba8583f7ae","thumbnails":{"full":"/assets/blank.jpg",'
    '"large":"/assets/blank.jpg","mini":"/assets/blank.jpg"}}'
)
INFOS = re.search('"infos":(.*?),"exifs"', BODY)[1]

pytestmark = pytest.mark.configure(timezone=zoneinfo.ZoneInfo("Europe/Paris"))


@pytest.fixture
def clock():
    """The second at which the specification's answer was given."""
    with time_machine.travel(CLAIMS["exp"] - 14400, tick=False):
        yield


def put_image(session, album_id):
    """Have the specification's image in an album, without its bytes."""
    created = datetime.datetime.fromisoformat("2016-01-12T15:05:15.692+01:00")
    stored = models.StoredObject(
        album_id=album_id,
        storage="local",
        key="5c/5cf8c06d-83fa-4ede-b995-5efd3133b6e5",
        md5="5a98d4d3e5d39024abf237be55e99b15",
        bytes=3604,
        format="png",
        width=48,
        height=48,
        created_ms=0,
    )
    session.add(stored)
    session.flush()
    session.add(
        models.Image(
            id=IMAGE,
            album_id=album_id,
            object_id=stored.id,
            created_ms=round(created.timestamp() * 1000),
            width=48,
            height=48,
            infos=INFOS,
            exifs="{}",
            gps_html="[48.861934399999996,2.348967]",
        )
    )


@pytest.fixture
def image(app, album):
    album_id = album(ALBUM, owner=None)
    with app.app_context(), transaction() as session:
        put_image(session, album_id)


def test_the_token_is_the_specifications():
    assert sign(CLAIMS).rpartition(".")[0] == SIGNED


@pytest.mark.usefixtures("clock", "image")
def test_the_specifications_exchange(client):
    asked = {**bearing(sign(CLAIMS)), "X-Request-Id": "0157b7b3-564c-4dce-916c-bbb5c05b77ce"}

    response = client.get(f"/api/v1/images/{IMAGE}", headers=asked)

    assert response.status == "200 OK"
    assert response.data == BODY.encode()
    names = {name for name, _value in HEADERS}
    recorded = [(name, value) for name, value in response.headers if name in names]
    assert _without_runtime(recorded) == _without_runtime(HEADERS)
    assert re.fullmatch(r"\d+\.\d{6}", response.headers["X-Runtime"])


@pytest.mark.usefixtures("clock", "image")
def test_head_is_get_without_a_body(client):
    path, asked = f"/api/v1/images/{IMAGE}", bearing(sign(CLAIMS))
    got, head = client.get(path, headers=asked), client.head(path, headers=asked)

    assert head.data == b""
    volatile = {"X-Request-Id", "X-Runtime"}
    assert [pair for pair in head.headers if pair[0] not in volatile] == [
        pair for pair in got.headers if pair[0] not in volatile
    ]


@pytest.mark.usefixtures("clock", "image")
def test_the_request_id_is_made_when_none_came(client):
    ids = {
        client.get(f"/api/v1/images/{IMAGE}", headers={**bearing(sign(CLAIMS)), **given}).headers[
            "X-Request-Id"
        ]
        for given in ({}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 65})
    }
    assert len(ids) == 3
    for request_id in ids:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)


@pytest.mark.usefixtures("image")
def test_the_x_token_runs_from_the_second_of_the_answer(client):
    with time_machine.travel(CLAIMS["exp"] - 14400 + 7, tick=False):
        response = client.get(f"/api/v1/images/{IMAGE}", headers=bearing(sign(CLAIMS)))
    assert response.headers["X-token"] == sign({**CLAIMS, "exp": CLAIMS["exp"] + 7}, SECRET)


def _without_runtime(headers):
    return [pair for pair in headers if pair[0] != "X-Runtime"]


def test_the_body_is_compact_json_of_757_bytes():
    assert len(BODY.encode()) == 757
    assert json.dumps(json.loads(BODY), separators=(",", ":")) == BODY
