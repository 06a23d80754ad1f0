"""The recorded exchanges of `../shared/contract`, replayed as their README says.

The rows that a body implies are put into the database, no rendition made yet; the clock stands at
the second of the answer. Volatile: `X-Request-Id`, `X-Runtime`, what the exchange itself makes up,
and in `upload_form` what was blanked: cloud name, api key and signature.
"""

from __future__ import annotations

import datetime
import json
import re
import zoneinfo

import pytest
import time_machine

from imageapi import models
from imageapi.extensions import transaction
from tests.conftest import SHARED, bearing, sign

pytestmark = pytest.mark.configure(timezone=zoneinfo.ZoneInfo("Europe/Paris"), storage="cloudinary")

RECORDINGS = sorted(path.stem for path in (SHARED / "contract").glob("*.json")) or ["absent"]
VOLATILE = {"X-Request-Id", "X-Runtime"}
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+01:00"
# What an exchange makes up itself, as it may differ; everything else must be as recorded.
MADE_UP = {
    "album-create": [rf'^{{"public_id":"{UUID}"', rf'"tags":"{UUID}"'],
    "tag-images-create": [rf'{{"id":"{UUID}","created_at":"{MOMENT}","user"'],
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_exchange(name, shared, cloudinary, app, client, album):
    recording = json.loads((shared / "contract" / f"{name}.json").read_text())
    request, recorded = recording["request"], recording["response"]
    Rows(app, album, cloudinary).imply(name, recording)

    with time_machine.travel(recorded["x_token_claims"]["exp"] - 14400, tick=False):
        response = client.open(
            request["path"],
            method=request["method"],
            headers=bearing(sign(request["token_claims"])),
            data=request["body"],
            content_type=request["headers"].get("Content-Type"),
        )

    assert response.status_code == recorded["status"]
    assert comparable(name, response.text) == comparable(name, recorded["body_text"] or "")
    order = [header for header, _value in response.headers if header in recorded["header_order"]]
    assert order == recorded["header_order"]
    expected = dict(recorded["headers"]) | {"X-token": sign(recorded["x_token_claims"])}
    if '"signature"' in (recorded["body_text"] or ""):
        expected["Content-Length"] = str(len(response.data))
    for header in expected.keys() - VOLATILE:
        assert response.headers[header] == expected[header], header
    added = {header for header, _value in response.headers} - {*expected, "ETag", "Link"}
    assert not added
    assert re.fullmatch(UUID, response.headers["X-Request-Id"])
    assert re.fullmatch(r"\d\.\d{6}", response.headers["X-Runtime"])


def comparable(name, text):
    for pattern in MADE_UP.get(name, []):
        text = re.sub(pattern, "made up", text)
    text = re.sub(r'"signature":"[0-9a-f]{40}","api_key":"\d+"', "blanked", text)
    return re.sub(r"/v1_1/[a-z]+/", "/v1_1/blanked/", text)


@pytest.fixture
def cloudinary(monkeypatch):
    """The name of a Cloudinary storage: its form is signed, nothing is called."""
    monkeypatch.setenv("IMAGEAPI_STORAGE_CLOUDINARY_CLOUD_NAME", "demo")
    monkeypatch.setenv("IMAGEAPI_STORAGE_CLOUDINARY_API_KEY", "123456789012345")
    monkeypatch.setenv("IMAGEAPI_STORAGE_CLOUDINARY_API_SECRET", "a-secret-of-the-tests")
    return "cloudinary"


class Rows:
    """Puts the rows that a recording implies into the database."""

    def __init__(self, app, album, storage):
        self._app = app
        self._album = album
        self._storage = storage
        self._albums = {}

    def imply(self, name, recording):
        request, body = recording["request"], json.loads(recording["response"]["body_text"] or "[]")
        claims = request["token_claims"]
        if name.startswith("image-"):
            self._imply_image(name, request, body, claims)
        elif name.startswith("album-images"):
            self._imply_images(body)
        elif name in ("album-list", "album-retrieve"):
            for album in body if name == "album-list" else [body]:
                self.album(album["public_id"], owner=claims["user_id"], created_ms=created(album))
                self._imply_images(album["thumbnails"])
        elif name == "album-rename":
            self.album(request["path"].rpartition("/")[2])
        elif name == "tags-list":
            for tag in body:
                self.tag("00324000004ijWS", tag)
        elif name.startswith("tag-image"):
            self._imply_tag_images(name, request, body, claims)

    def _imply_images(self, images):
        for image in images:
            self.image(image)

    def _imply_image(self, name, request, body, claims):
        if name == "image-delete":
            (album_id,) = claims["abilities"]
            body = {**IMAGE, "public_id": request["path"].rpartition("/")[2], "album_id": album_id}
        unedited = {"rotation": 0, "crop_x": 0, "crop_y": 0, "crop_w": 0, "crop_h": 0}
        self.image({**body, **unedited, "width": 48, "height": 48})

    def _imply_tag_images(self, name, request, body, claims):
        (album_id,) = claims["abilities"]
        if name == "tag-image-delete":
            tagged = {
                "id": request["path"].rpartition("/")[2],
                "created_at": "2016-01-12T15:05:17.000+01:00",
                "user": claims["user_id"],
                "image": {**IMAGE, "public_id": "1" * 8 + "-1111-4111-8111-" + "1" * 12},
                "tag": {"id": "t", "created_at": IMAGE["created_at"], "name": "MyTag", "label": ""},
            }
            body = [{**tagged, "image": {**tagged["image"], "album_id": album_id}}]
        self.tag(album_id, body[0]["tag"])
        for tagged in body:
            self.image(tagged["image"])
            if name != "tag-images-create":
                self.add(
                    models.TagImage(
                        id=tagged["id"],
                        tag_id=tagged["tag"]["id"],
                        image_id=tagged["image"]["public_id"],
                        created_ms=milliseconds(tagged["created_at"]),
                        user=tagged["user"],
                    )
                )

    def album(self, public_id, **values):
        if public_id not in self._albums:
            values = {"owner": None, "storage": self._storage, **values}
            self._albums[public_id] = self._album(public_id, **values)
        return self._albums[public_id]

    def tag(self, album_id, tag):
        row = {**tag, "created_ms": milliseconds(tag["created_at"])}
        del row["created_at"]
        self.add(models.Tag(album_id=self.album(album_id), **row))

    def image(self, image):
        album_id, infos = self.album(image["album_id"]), image["infos"]
        stored = models.StoredObject(
            album_id=album_id,
            storage=self._storage,
            key=f"{image['public_id'][:2]}/{image['public_id']}",
            md5=infos["etag"],
            bytes=infos["bytes"],
            format=infos["format"],
            width=infos["width"],
            height=infos["height"],
            created_ms=0,
        )
        self.add(stored)
        self.add(
            models.Image(
                id=image["public_id"],
                album_id=album_id,
                object_id=stored.id,
                created_ms=milliseconds(image["created_at"]),
                width=image["width"],
                height=image["height"],
                infos=dump(infos),
                exifs=dump(image["exifs"]),
                gps_html=dump(image["gps_html"]),
            )
        )
        with self._app.app_context(), transaction() as session:
            session.get(models.Album, album_id).images_count += 1

    def add(self, row):
        with self._app.app_context(), transaction() as session:
            session.add(row)


IMAGE = {
    "created_at": "2016-01-12T15:05:15.000+01:00",
    "infos": {
        "bytes": 3604,
        "created_at": "2015-09-25T13:32:55Z",
        "etag": "5a98d4d3e5d39024abf237be55e99b15",
        "format": "png",
        "height": 48,
        "resource_type": "image",
        "tags": [],
        "type": "private",
        "width": 48,
    },
    "exifs": {},
    "gps_html": None,
    "width": 48,
    "height": 48,
}


def created(album):
    """When an album was made: a moment before its image."""
    return milliseconds(album["thumbnails"][0]["created_at"]) - 1


def milliseconds(text):
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
