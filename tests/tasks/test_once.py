"""A missing rendition is rendered once, on however many hosts it is asked for (threats F20)."""

from __future__ import annotations

import concurrent.futures
import os

import pytest
import requests

from tests.servers.celery import lines
from tests.servers.gunicorn import gunicorn
from tests.tasks.conftest import BLANK, Anna, remove, sql

CLIENTS, IMAGES = (200, 50) if os.environ.get("FAULTS") == "full" else (24, 8)


@pytest.fixture(scope="module")
def app(database):
    """Without a broker: what a request needs is rendered in it."""
    with gunicorn({"IMAGEAPI_LOG_LEVEL": "DEBUG", **database}, "--workers", "2") as served:
        served.flask("albums", "create", "holidays", "--owner", "anna")
        yield served


@pytest.fixture
def other(app, tmp_path):
    """Another host: the same database and storage, an instance folder of its own."""
    shared = {
        "IMAGEAPI_STORAGE_LOCAL_ROOT": str(app.instance / "storage/local"),
        "IMAGEAPI_DATABASE_URL": app.env.get("IMAGEAPI_DATABASE_URL")
        or f"sqlite:///{app.instance / 'imageapi.sqlite3'}",
    }
    with gunicorn({**app.env, **shared, "IMAGEAPI_INSTANCE": str(tmp_path / "instance")},
                  "--workers", "2", migrate=False) as served:  # fmt: skip
        yield served


def test_however_many_ask_on_two_hosts(app, other, anna):
    images = [anna.upload(size=(800, 600)) for _ in range(IMAGES)]
    whole = {
        path: requests.get(app.url + path, timeout=30).content
        for image in images
        for path in image["thumbnails"].values()
    }
    assert [remove(app, image) for image in images] == [3] * IMAGES

    def ask(number):
        """One client: every picture once, from one of the hosts."""
        paths = list(whole)
        host = (app, other)[number % 2].url
        with requests.Session() as session:
            turned = paths[number % len(paths) :] + paths[: number % len(paths)]
            return [(path, session.get(host + path, timeout=120)) for path in turned]

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for each in pool.map(ask, range(CLIENTS)) for answer in each]
    assert {answer.status_code for _path, answer in answers} == {200}
    assert [path for path, answer in answers if answer.content != whole[path]] == []
    told = [line["image"] for line in lines(app.log + other.log, "rendered")]
    assert [told.count(image["public_id"]) for image in images] == [1] * IMAGES


def test_what_the_row_does_not_tell_of_is_blank_and_what_it_tells_of_is_rendered(app, anna):
    """Not there yet: the blank picture in the metadata. There, and lost: rendered when asked for."""
    image = anna.upload()
    remove(app, image)
    path = image["thumbnails"]["mini"]
    assert anna.get(image)["thumbnails"]["mini"] == path
    answer = requests.get(app.url + path, timeout=30)
    assert answer.status_code == 200
    assert "immutable" in answer.headers["Cache-Control"]

    sql(app, "UPDATE image SET rendered = '' WHERE id = :id", id=image["public_id"])
    assert set(anna.get(image)["thumbnails"].values()) == {BLANK}
    assert isinstance(anna, Anna)
