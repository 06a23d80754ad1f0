"""What all tests share: an application of their own, tokens for it, rows in it."""

from __future__ import annotations

import dataclasses
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask_migrate
import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image as Pillow

from imageapi import create_app, models
from imageapi.auth import tokens
from imageapi.extensions import db, transaction
from imageapi.settings import Settings

pytest.register_assert_rewrite("imageapi.storage.conformance")

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

SECRET = "a-key-of-the-tests-0f1e2d3c4b5a69788796"
REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The recordings and the corpus; they are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("the recordings and the corpus (../shared) are not here")
    return SHARED


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to be copied."""
    instance = tmp_path_factory.mktemp("migrated")
    app = create_app(Settings(secret_keys=(SECRET,), instance=instance))
    with app.app_context():
        flask_migrate.upgrade()
        db.engine.dispose()
    return instance / "imageapi.sqlite3"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of one test; override with `dataclasses.replace` or a `configure` mark."""
    return Settings(secret_keys=(SECRET,), instance=tmp_path / "instance")


@pytest.fixture
def app(request: pytest.FixtureRequest, settings: Settings, migrated: Path) -> Iterator[Flask]:
    """An application on its own database; `@pytest.mark.configure(name=value)` changes settings."""
    for mark in request.node.iter_markers("configure"):
        settings = dataclasses.replace(settings, **mark.kwargs)
    settings.instance.mkdir(parents=True, exist_ok=True)
    shutil.copy(migrated, settings.instance / "imageapi.sqlite3")
    app = create_app(settings)
    yield app
    app.extensions["background"].stop()
    app.extensions["reader"].close()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def sign(claims: dict[str, Any], secret: str = SECRET) -> str:
    """A token with `claims`, `exp` in an hour unless they say otherwise."""
    return tokens.sign({"exp": int(time.time()) + 3600, **claims}, secret)


def bearing(token: str) -> dict[str, str]:
    """The header that carries `token`."""
    return {"Authorization": f'Token token="{token}"'}


@pytest.fixture
def token() -> Callable[..., dict[str, str]]:
    """`token(album, *abilities, **claims)`: the header of a token with one entry, or none."""

    def make(album: str | None = None, *abilities: str, **claims: Any) -> dict[str, str]:
        if album is not None:
            claims["abilities"] = {album: {"Access": dict.fromkeys(abilities, True)}}
        return bearing(sign(claims))

    return make


@pytest.fixture
def album(app: Flask) -> Callable[..., int]:
    """`album(public_id, owner=…, issuer=…)`: a row; answers its primary key."""

    def make(public_id: str = "holidays", **values: Any) -> int:
        fields = {"issuer": "", "owner": "anna", "storage": "local", "created_ms": 1, **values}
        with app.app_context(), transaction() as session:
            row = models.Album(public_id=public_id, **fields)
            session.add(row)
            session.flush()
            return row.id

    return make


def jpeg(width: int = 64, height: int = 48, seed: int = 0, **options: Any) -> bytes:
    """A small JPEG; another `seed`, other bytes."""
    picture = Pillow.linear_gradient("L").resize((width, height)).convert("RGB")
    picture.putpixel((seed % width, seed // width % height), (255, seed % 256, 0))
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def part(data: bytes, name: str = "picture.jpg") -> tuple[io.BytesIO, str]:
    """A file for the test client's multipart form."""
    return io.BytesIO(data), name
