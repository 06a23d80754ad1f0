"""What all tests share: an application of their own, tokens for it, rows in it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import flask_migrate
import hypothesis
import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image as Pillow

from bench import counting
from imageapi import create_app, models
from imageapi.auth import tokens
from imageapi.extensions import db, transaction
from imageapi.settings import Settings
from tests.databases import database_url, postgresql_server  # noqa: F401 - fixtures
from tests.servers.postgres import Postgres, by_psycopg, postgres
from tests.storages import cloudinary_server, on_cloudinary, s3, s3_server, storage  # noqa: F401 - fixtures

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="where the rows of the tests are; with postgresql only tests that have rows run",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"database: {config.getoption('database')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("database") == "sqlite":
        return
    chosen = [item for item in items if "new_database" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


NewDatabase = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewDatabase]:
    """`with new_database(instance) as url`: a migrated database of its own, of the kind asked for.

    The URL is "" for SQLite: the database is where the application looks for it in `instance`.
    """
    if request.config.getoption("database") == "sqlite":
        yield _sqlite(tmp_path_factory.mktemp("migrated"))
    else:
        with postgres() as server:
            yield functools.partial(_postgresql, server)


def _sqlite(folder: Path) -> NewDatabase:
    migrate("", folder)

    @contextlib.contextmanager
    def make(instance: Path) -> Iterator[str]:
        instance.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "imageapi.sqlite3", instance)
        yield ""

    return make


@contextlib.contextmanager
def _postgresql(server: Postgres, _instance: Path) -> Iterator[str]:
    with server.database(_migrate_postgresql) as url:
        yield by_psycopg(url)


def _migrate_postgresql(url: str) -> None:
    migrate(by_psycopg(url))


def migrate(url: str, instance: Path | None = None) -> None:
    """Bring an empty database up to the models."""
    app = create_app(_settings(instance or Path("/nowhere"), url))
    with app.app_context():
        flask_migrate.upgrade()
    close(app)


def _settings(instance: Path, url: str) -> Settings:
    return Settings(secret_keys=(SECRET,), instance=instance, database_url=url)


def close(app: Flask) -> None:
    """End what an application has going: its background thread, the connections of this one."""
    app.extensions["background"].stop()
    app.extensions["reader"].close()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def settings(tmp_path: Path, new_database: NewDatabase) -> Iterator[Settings]:
    """Settings of one test; override with `dataclasses.replace` or a `configure` mark."""
    instance = tmp_path / "instance"
    with new_database(instance) as url:
        yield _settings(instance, url)


@pytest.fixture
def app(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Flask]:
    """An application on its own database; `@pytest.mark.configure(name=value)` changes settings."""
    for mark in request.node.iter_markers("configure"):
        settings = dataclasses.replace(settings, **mark.kwargs)
    app = create_app(settings)
    yield app
    close(app)


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """The SQL statements run since the last `clear()`: as SQLite sees them, or as they go to PostgreSQL."""
    with counting.statements() as seen, app.app_context():
        app.extensions["reader"].close()  # what is opened from now on is counted
        db.engine.dispose()
        engines = [db.engine, app.extensions["reader"]._engine]
        for engine in engines if db.engine.name == "postgresql" else ():
            sa.event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
        yield seen


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
