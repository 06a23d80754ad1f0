"""Uploads in process, and what they leave behind."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import EnvironBuilder
from werkzeug.wrappers import Response

from imageapi import models
from imageapi.extensions import read
from tests.conftest import jpeg

BOUNDARY = "a7f2-boundary-of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
IMAGES = "/api/v1/albums/holidays/images"


def form(*parts, end=True):
    """A multipart body; a part is `(name, bytes)` or `(name, bytes, file name)`."""
    body = bytearray()
    for name, data, *file_name in parts:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        for given in file_name:
            body += b'; filename="' + (given if isinstance(given, bytes) else given.encode()) + b'"'
        body += b"\r\n\r\n" + data + b"\r\n"
    return bytes(body) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


@dataclass(frozen=True)
class Remains:
    """What the application holds: rows, bytes counted by the album, and files by folder."""

    objects: int
    images: int
    counted: tuple[int, int]
    stored: list[str]
    staged: list[str]


NOTHING = Remains(0, 0, (0, 0), [], [])


def remains(app: Flask) -> Remains:
    """What is there of the album `holidays`."""
    with app.app_context():
        rows = read(sa.select(models.Album.images_count, models.Album.bytes))
        objects = read(sa.select(models.StoredObject.key))
        images = read(sa.select(models.Image.id))
    root = app.extensions["library"].settings.instance / "storage" / "local"
    files = [path.relative_to(root) for path in root.rglob("*") if not path.is_dir()]
    return Remains(
        objects=len(objects),
        images=len(images),
        counted=(rows[0].images_count, rows[0].bytes),
        stored=sorted(str(path) for path in files if path.parts[0] != "staging"),
        staged=sorted(str(path) for path in files if path.parts[0] == "staging"),
    )


@pytest.fixture
def upload(app, client, album, token):
    """`upload(*parts, **options of the client)` posts them to the album `holidays`.

    `upload.raw(environ)` posts what a WSGI server says there is.
    """
    album()
    authorization = token("holidays", "image_upload", "image_list", user_id="anna")

    def post(*parts, data=None, headers=(), **options):
        return client.post(
            IMAGES,
            data=form(*parts) if data is None else data,
            content_type=options.pop("content_type", FORM),
            headers={**authorization, **dict(headers)},
            **options,
        )

    def raw(environ):
        builder = EnvironBuilder(app, IMAGES, method="POST", headers=authorization)
        return Response.from_app(
            app, {**builder.get_environ(), "CONTENT_TYPE": FORM, **environ}, buffered=True
        )

    post.raw = raw
    return post


@pytest.fixture
def picture():
    return jpeg()
