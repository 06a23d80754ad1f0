"""A gunicorn with a broker, on both databases, and the owner of an album in it."""

from __future__ import annotations

import itertools
import os
import time
import urllib.parse

import pytest
import requests
import sqlalchemy as sa

from tests.conftest import jpeg
from tests.servers.celery import lines
from tests.servers.gunicorn import gunicorn
from tests.servers.postgres import postgres
from tests.servers.process import temporary
from tests.servers.redis import redis

BLANK = "/assets/blank.jpg"
SEEDS = itertools.count()
FULL = os.environ.get("FAULTS") == "full"


@pytest.fixture(scope="module")
def broker():
    with redis() as server:
        yield server


def database_of(request):
    """The settings of the database that the fixture `request` is for."""
    if request.param == "sqlite":
        yield {}
        return
    with postgres() as server, server.database() as url:
        yield {"IMAGEAPI_DATABASE_URL": url.replace("postgresql:", "postgresql+psycopg:")}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request):
    yield from database_of(request)


@pytest.fixture(scope="module")
def app(broker, database):
    env = {"IMAGEAPI_BROKER_URL": broker.url, "IMAGEAPI_LOG_LEVEL": "DEBUG", **database}
    storages = {"IMAGEAPI_STORAGES": "local=local,attic=local"}
    with (
        temporary("attic") as attic,
        gunicorn(
            {**env, **storages, "IMAGEAPI_STORAGE_ATTIC_ROOT": str(attic)}, "--workers", "2"
        ) as served,
    ):
        served.flask("albums", "create", "holidays", "--owner", "anna")
        yield served


@pytest.fixture(scope="module")
def anna(app):
    return Anna(app)


class Anna:
    """The owner of an album, on a connection of hers."""

    def __init__(self, app):
        self.app = app
        token = app.flask("token", "create", "--user", "anna").stdout.strip()
        self.session = requests.Session()
        self.session.headers["Authorization"] = f'Token token="{token}"'

    def call(self, method, path, **options):
        """An answer that is a success; it takes no longer than one without a broker may."""
        url = f"{self.app.url}/api/v1{path}"
        started = time.monotonic()
        answer = self.session.request(method, url, timeout=30, **options)
        assert answer.status_code in (200, 201, 204), answer.text
        answer.seconds = time.monotonic() - started
        return answer

    def upload(self, album="holidays", size=(320, 240)):
        data = jpeg(*size, seed=next(SEEDS))
        return self.call("POST", f"/albums/{album}/images", files={"file": ("a.jpg", data)}).json()

    def get(self, image):
        return self.call("GET", f"/images/{image['public_id']}").json()

    def rotate(self, image, **headers):
        path = f"/images/{image['public_id']}"
        now = self.call("GET", path).json()["rotation"]
        return self.call("PUT", path, json={"rotation": (now + 90) % 360}, headers=headers)

    def shown(self, image, seconds=40.0):
        """Wait until the renditions are there; each of them is a picture, not the blank one."""
        until(lambda: BLANK not in self.get(image)["thumbnails"].values(), seconds)
        body = self.get(image)
        for url in body["thumbnails"].values():
            picture = requests.get(urllib.parse.urljoin(self.app.url, url), timeout=30)
            assert picture.status_code == 200
            assert "immutable" in picture.headers["Cache-Control"]
        return body


def until(true, seconds=40.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def sql(app, statement, **values):
    """The rows that a statement answers, or the number that it changed."""
    url = app.env.get("IMAGEAPI_DATABASE_URL") or f"sqlite:///{app.instance / 'imageapi.sqlite3'}"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), values)
        return result.all() if result.returns_rows else result.rowcount


def backlog(app):
    """The numbers of renderings that are still to be done."""
    return [row.id for row in sql(app, "SELECT id FROM work WHERE kind = 'render'")]


def drawn(log, image):
    return [line for line in lines(log, "rendered") if line["image"] == image["public_id"]]


def remove(app, image):
    """Take the renditions of an image away; returns how many there were."""
    found = list((app.instance / "storage/local").glob(f"*/{image['public_id']}.*"))
    for file in found:
        file.unlink()
    return len(found)


def all_shown(anna, images):
    for image in images:
        anna.shown(image)
