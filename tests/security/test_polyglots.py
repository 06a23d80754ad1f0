"""Pictures that are something else too: what is served of them is a picture, or bytes that do nothing.

Source: threat model of uploads; OWASP ASVS 5.0, 5.3 (files).
"""

from __future__ import annotations

import io
import random
import zipfile

import pytest
from PIL import Image

from tests.api.conftest import Api
from tests.conftest import bearing, jpeg, sign
from tests.imaging.pictures import chunk, corners

SCRIPT = b"<html><script>alert(document.domain)</script></html>"
PHP = b"<?php system($_GET['c']); ?>"


@pytest.fixture
def anna(client, album):
    album("holidays", owner="anna")
    return Api(client, bearing(sign({"user_id": "anna"})))


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    corners().save(file, form, **options)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("run.php", PHP)
    return file.getvalue()


def in_chunk(payload: bytes) -> bytes:
    data = encoded("PNG")
    return data[:33] + chunk(b"tEXt", b"Comment\0" + payload) + data[33:]


def in_pixels() -> bytes:
    """The payload stands in the file as the pixels themselves."""
    file = io.BytesIO()
    payload = (SCRIPT * 10)[: 3 * 40]
    Image.frombytes("RGB", (40, 1), payload).resize((40, 40), 0).save(file, "TIFF")
    return file.getvalue()


POLYGLOTS = {
    "PNG, then HTML": encoded("PNG") + SCRIPT,
    "PNG with HTML in a comment": in_chunk(SCRIPT),
    "GIF, then script": encoded("GIF") + b"=1;" + SCRIPT,
    "GIF with script in a comment": encoded("GIF", comment=b"*/=1;alert(1)//" + SCRIPT),
    "JPEG, then an archive": jpeg() + archive(),
    "JPEG with PHP in a comment": jpeg(comment=PHP),
    "JPEG with HTML in EXIF": jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + SCRIPT),
    "JPEG with HTML in its profile": jpeg(icc_profile=SCRIPT * 10),
    "WebP with HTML in XMP": encoded("WEBP", xmp=SCRIPT),
    "AVIF with HTML in XMP": encoded("AVIF", xmp=SCRIPT),
    "TIFF of HTML": in_pixels(),
}
MARKS = (b"<script", b"alert(", b"<?php", b"PK\3\4", b"run.php")


@pytest.mark.parametrize("kind", POLYGLOTS)
def test_a_file_of_two_kinds_is_a_picture_or_an_attachment(client, anna, kind):
    data = POLYGLOTS[kind]
    assert any(mark in data for mark in MARKS)
    image = anna.upload(data=data, name="x.html")
    for url in image["thumbnails"].values():
        served = client.get(url)
        assert served.status_code == 200
        assert served.content_type in ("image/jpeg", "image/png")
        assert served.headers["X-Content-Type-Options"] == "nosniff"
        assert not [mark for mark in MARKS if mark in served.data]
    original = anna.get(f"/images/{image['public_id']}/original")
    assert original.data == data
    assert original.content_type == f"image/{image['infos']['format'].replace('jpg', 'jpeg')}"
    assert original.headers["X-Content-Type-Options"] == "nosniff"
    assert original.headers["Content-Disposition"].startswith("attachment;")
    assert original.headers["Content-Security-Policy"] == (
        "default-src 'none'; sandbox; frame-ancestors 'none'"
    )


def test_what_starts_as_something_else_is_no_picture(anna):
    chance = random.Random(21)  # noqa: S311 (to vary, not to hide)
    for start in (
        SCRIPT,
        PHP,
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        archive(),
        b"\xef\xbb\xbf",
    ):
        data = start + chance.choice([*POLYGLOTS.values()])
        response = anna.post("/albums/holidays/images", data={"file": (io.BytesIO(data), "x.png")})
        assert response.status_code == 415
