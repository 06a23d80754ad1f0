"""What the tests of tokens share: tokens made by hand, an image, and how a refusal looks."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import uuid

import pytest

from imageapi import models
from imageapi.auth.revocation import changed
from imageapi.extensions import transaction
from tests.auth.reference import encode
from tests.conftest import SECRET

HEADER = b'{"typ":"JWT","alg":"HS256"}'
NOW = 1_800_000_000
"""The second at which these tests stop the clock."""


def many(sample: int, full: int) -> int:
    """How often: a sample, or with FAULTS=full the whole figure."""
    return full if os.environ.get("FAULTS") == "full" else sample


def dump(value) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def mint(claims, header=HEADER, secret=SECRET, digest=hashlib.sha256) -> str:
    """A token of any claims and header, as values or as raw bytes, honestly signed."""
    parts = [part if isinstance(part, bytes) else dump(part) for part in (header, claims)]
    return seal(".".join(map(encode, parts)), secret, digest)


def seal(text: str, secret=SECRET, digest=hashlib.sha256) -> str:
    """Two segments, whatever they are, with their signature."""
    return f"{text}.{encode(hmac.digest(secret.encode(), text.encode(), digest))}"


def insert_image(session, album_id: int, **of_bytes) -> str:
    """An image without renditions, nor bytes unless the columns of a stored object say where."""
    image_id = str(uuid.uuid4())
    nowhere = {"key": f"{image_id[:2]}/{image_id}", "md5": "0" * 32, "bytes": 1}
    stored = models.StoredObject(
        **{**nowhere, **of_bytes},
        album_id=album_id,
        storage="local",
        format="jpg",
        width=64,
        height=48,
        created_ms=1,
    )
    session.add(stored)
    session.flush()
    session.add(
        models.Image(
            id=image_id,
            album_id=album_id,
            object_id=stored.id,
            created_ms=1,
            width=64,
            height=48,
            infos="{}",
            exifs="{}",
        )
    )
    return image_id


def insert_integrator(session, issuer: str, secret: str) -> None:
    """An integrator with a secret that the test knows."""
    session.add(models.IntegratorKey(issuer=issuer, secret=secret, created_ms=1))
    changed(session)


@pytest.fixture
def image(app, album) -> str:
    """The id of an image in the album `holidays` of anna."""
    album_id = album()
    with app.app_context(), transaction() as session:
        return insert_image(session, album_id)


@pytest.fixture
def ask(client, image):
    """`ask(authorization)`: ask for the image with this Authorization header."""

    def get(authorization=None, **options):
        headers = {} if authorization is None else {"Authorization": authorization}
        return client.get(f"/api/v1/images/{image}", headers=headers, **options)

    return get


def assert_refused(response) -> None:
    """A 401 as the design has it: a problem that says no more than that."""
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"] == 'Token realm="Application"'
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in response.headers["Cache-Control"]
    assert "X-token" not in response.headers
    assert "X-Runtime" not in response.headers
    problem = response.get_json()
    assert problem.pop("instance") == f"urn:uuid:{response.headers['X-Request-Id']}"
    assert problem == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "A valid token is required.",
        "code": "unauthorized",
    }
