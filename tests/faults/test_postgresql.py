"""PostgreSQL restarts, crashes, hangs, is away: 503 while it is, nothing acknowledged is lost.

Source: threats F8, F9.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time

import psycopg
import pytest
import requests

from tests.conftest import bearing, jpeg, sign
from tests.servers.gunicorn import gunicorn
from tests.servers.postgres import by_psycopg, postgres

FULL = os.environ.get("FAULTS") == "full"
ROUNDS = 20 if FULL else 1
RESTARTS = 30 if FULL else 1
CLIENTS = 32 if FULL else 8
MOST = 3.5
"""Seconds that an answer may take, whatever the database does."""
HEALED = 1.0
"""Seconds after which all is well again."""
SLACK = 4.0
"""For a busy machine."""

UPLOADS = "/api/v1/albums/holidays/images"


class Service:
    """The application, its database, and what it acknowledged."""

    def __init__(self, server, app, url):
        self.server, self.app, self.url = server, app, url
        self.headers = bearing(sign({"user_id": "anna"}, app.env["IMAGEAPI_SECRET_KEYS"]))
        self.numbers = itertools.count()
        self.kept, self.slowest, self.refused = [], 0.0, 0
        self.lock = threading.Lock()

    def ask(self, method, path, **options):
        """One request; it answers in time, with what was asked for or with a 503."""
        begun = time.monotonic()
        response = requests.request(
            method, self.app.url + path, headers=self.headers, timeout=30, **options
        )
        took = time.monotonic() - begun
        with self.lock:
            self.slowest = max(self.slowest, took)
            if response.status_code == 503:
                self.refused += 1
                assert response.json()["code"] == "database_unavailable"
                assert int(response.headers["Retry-After"]) > 0
            else:
                assert response.status_code in (200, 201), response.text
        return response

    def upload(self):
        with self.lock:
            number = next(self.numbers)
        response = self.ask("POST", UPLOADS, files={"file": jpeg(40, 30, seed=number)})
        if response.status_code == 201:
            with self.lock:
                self.kept.append(response.json()["public_id"])
        return response

    @contextlib.contextmanager
    def load(self, threads=4):
        """Uploads and lists all the time."""
        over, faults = threading.Event(), []

        def run():
            try:
                while not over.wait(0.02):
                    self.upload()
                    self.ask("GET", UPLOADS)
            except Exception as error:  # noqa: BLE001 - told below
                faults.append(repr(error))

        running = [threading.Thread(target=run) for _ in range(threads)]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in running:
                thread.join()
        assert faults == []

    def healed(self):
        """Seconds until both a read and a write are answered."""
        begun = time.monotonic()
        while self.ask("GET", UPLOADS).status_code != 200 or self.upload().status_code != 201:
            assert time.monotonic() - begun < 30
            time.sleep(0.05)
        took = time.monotonic() - begun
        print(f"healed in {took:.2f} s")  # noqa: T201 - the figures
        return took

    def check(self):
        """All that was acknowledged is there; nobody waited too long; no worker was given up."""
        print(f"slowest {self.slowest:.2f} s, {self.refused} refused, {len(self.kept)} kept")  # noqa: T201 - the figures
        time.sleep(HEALED)  # so much have those workers too that were not asked yet
        for image in self.kept:
            assert self.ask("GET", f"/api/v1/images/{image}").status_code == 200
        assert self.refused
        assert self.slowest <= MOST + SLACK
        assert "WORKER TIMEOUT" not in self.app.log


@pytest.fixture
def options():
    """Settings of the application."""
    return {}


@pytest.fixture
def settings():
    """Settings of the server."""
    return {}


@pytest.fixture
def service(options, settings):
    with postgres(durable=True, **settings) as server, server.database() as url:
        env = {"IMAGEAPI_DATABASE_URL": by_psycopg(url), **options}
        with gunicorn(env, "--workers", "2") as app:
            app.flask("albums", "create", "holidays", "--owner", "anna")
            yield Service(server, app, url)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_and_a_crash(service, end):
    for _ in range(RESTARTS):
        with service.load():
            time.sleep(0.5)
            getattr(service.server, end)()
            time.sleep(0.5)
            service.server.start()
            assert service.healed() <= HEALED + SLACK
    assert service.kept
    service.check()


def test_a_server_that_hangs(service):
    for _ in range(ROUNDS):
        with service.load(threads=CLIENTS):
            time.sleep(0.5)
            service.server.pause()
            time.sleep(6)
            service.server.resume()
            assert service.healed() <= HEALED + SLACK
    service.check()


@contextlib.contextmanager
def locked(service):
    """Nobody else comes to the images, as during a change of the schema that was not thought through."""
    with psycopg.connect(service.url) as other:
        other.execute("LOCK TABLE image IN ACCESS EXCLUSIVE MODE")
        yield


def test_a_table_that_is_locked(service):
    for _ in range(ROUNDS):
        with service.load(threads=8):
            time.sleep(0.5)
            with locked(service):
                time.sleep(6)
            assert service.healed() <= HEALED + SLACK
    service.check()


@pytest.mark.parametrize("options", [{"IMAGEAPI_DATABASE_POOL_SIZE": "1"}])
def test_a_pool_that_is_full(service):
    """Nobody waits for a turn and then as long again: an upload waits, all others are refused."""
    test_a_table_that_is_locked(service)


def another(url):
    """One more connection, or None when the server takes no more."""
    try:
        return psycopg.connect(url)
    except psycopg.OperationalError:
        return None


@pytest.mark.parametrize("settings", [{"max_connections": 12, "superuser_reserved_connections": 0}])
def test_a_server_that_takes_no_more_connections(service):
    with contextlib.ExitStack() as taken:
        while connection := another(service.url):
            taken.enter_context(connection)
        answers = {service.upload().status_code for _ in range(8)}
        assert answers <= {201, 503}
        with service.load(threads=8):
            time.sleep(3)
    assert service.healed() <= HEALED + SLACK
    service.check()


def test_a_start_while_the_database_is_away(service):
    thumbnail = service.upload().json()["thumbnails"]["mini"]
    service.server.stop()
    service.app.restart()
    assert service.ask("GET", UPLOADS).status_code == 503
    shown = requests.get(service.app.url + thumbnail, timeout=30)  # for a page that shows it
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "no-store")
    assert shown.headers["Content-Type"] == "image/jpeg"
    service.server.start()
    assert service.healed() <= HEALED + SLACK
    service.check()
