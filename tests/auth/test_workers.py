"""Four workers of gunicorn: what one of them, or a command, changes holds on all of them at once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from imageapi import create_app, models
from imageapi.auth import integrators, revocation
from imageapi.extensions import transaction
from imageapi.settings import Settings
from tests.auth.conftest import insert_image, mint
from tests.servers.gunicorn import Application, gunicorn
from tests.servers.ports import HOST
from tests.servers.process import state

WORKERS = 4


@dataclass(frozen=True)
class Service:
    """A gunicorn with an album of anna's and an image, and a process beside it that writes rows."""

    server: Application
    beside: Flask
    album: str
    row: int
    image: str
    issuer: str

    @property
    def secret(self) -> str:
        return self.server.env["IMAGEAPI_SECRET_KEYS"]

    def token(self, secret=None, **claims: Any) -> str:
        issuer = {"iss": self.issuer} if self.issuer else {}
        said = {"exp": int(time.time()) + 3600, "user_id": "anna", **issuer, **claims}
        return mint({k: v for k, v in said.items() if v is not None}, secret=secret or self.secret)

    def ask(self, token: str, path: str | None = None, method="GET", body: Any = None):
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.server.port, timeout=20)
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body)
        connection.request(method, path or f"/api/v1/images/{self.image}", data, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, text

    @contextlib.contextmanager
    def alone(self, worker: int):
        """Have this worker answer everything: the others stand still."""
        others = [pid for pid in self.server.workers if pid != worker]
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            while not all(state(pid) in "Tt" for pid in others):
                time.sleep(0.001)
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def each(self, token: str, path: str | None = None) -> list[int]:
        """What every worker answers, asked by this token alone."""
        statuses = []
        for worker in self.server.workers:
            with self.alone(worker):
                statuses.append(self.ask(token, path)[0])
        return statuses

    @contextlib.contextmanager
    def writing(self):
        with self.beside.app_context(), transaction() as session:
            yield session


@pytest.fixture(scope="module")
def server():
    with gunicorn(None, "--workers", str(WORKERS)) as server:
        while len(server.workers) < WORKERS:
            time.sleep(0.01)
        yield server


@pytest.fixture
def beside(server):
    secret = server.env["IMAGEAPI_SECRET_KEYS"]
    app = create_app(Settings(secret_keys=(secret,), instance=server.instance))
    yield app
    app.extensions["reader"].close()


@pytest.fixture
def service(server, beside):
    """An album of its own for each test; every worker has answered for it once."""
    return make(server, beside, "")


def make(server, beside, issuer):
    album = f"album-{uuid.uuid4()}"
    with beside.app_context(), transaction() as session:
        row = models.Album(
            issuer=issuer, public_id=album, owner="anna", storage="local", created_ms=1
        )
        session.add(row)
        session.flush()
        image = insert_image(session, row.id)
    return Service(server, beside, album, row.id, image, issuer)


def all_workers(status):
    return [status] * WORKERS


@pytest.mark.parametrize("kind", ["user", "album", "issuer", "all"])
def test_a_revocation_and_its_end(kind, service):
    subject = {"user": "anna", "album": str(service.row)}.get(kind, "")
    now = int(time.time())
    plain, old, new = service.token(), service.token(iat=now - 60), service.token(iat=now)
    for token in (plain, old, new):
        assert service.each(token) == all_workers(200)

    with service.writing() as session:
        revocation.revoke(session, kind, "", subject, now - 30)

    assert service.each(plain) == all_workers(401)
    assert service.each(old) == all_workers(401)
    assert service.each(new) == all_workers(200)

    with service.writing() as session:
        assert revocation.lift(session, kind, "", subject)

    for token in (plain, old, new):
        assert service.each(token) == all_workers(200)


def test_a_share_that_one_worker_ends_is_ended_on_all(service):
    may = dict.fromkeys(["image_list", "image_share"], True)
    maker = service.token(abilities={service.album: {"Access": may}})
    shares = f"/api/v1/albums/{service.album}/shares"
    body = {"abilities": ["image_list"], "expires_in": 600}
    status, text = service.ask(maker, shares, "POST", body)
    assert status == 201
    made = json.loads(text)
    assert service.each(made["token"]) == all_workers(200)
    assert service.each(made["token"], shares) == all_workers(403)

    with service.alone(service.server.workers[0]):
        assert service.ask(maker, f"/api/v1/shares/{made['id']}", "DELETE")[0] == 204

    assert service.each(made["token"]) == all_workers(401)
    assert service.each(made["token"], "/api/v1/nothing") == all_workers(401)
    assert service.each(maker, shares) == all_workers(200)
    assert service.ask(maker, shares)[1] == b"[]"


def test_an_integrator_comes_rotates_and_goes(server, beside):
    issuer = f"acme-{uuid.uuid4()}"
    service = make(server, beside, issuer)
    now_ms = time.time_ns() // 1_000_000
    assert service.each(service.token("a-secret-that-nobody-gave-out-0f1e2d3c")) == all_workers(401)

    with service.writing() as session:
        first = integrators.add(session, issuer, now_ms)
    assert service.each(service.token(first)) == all_workers(200)

    with service.writing() as session:
        second = integrators.rotate(session, issuer, now_ms, 3_600_000)
    assert service.each(service.token(second)) == all_workers(200)
    assert service.each(service.token(first)) == all_workers(200)

    with service.writing() as session:
        third = integrators.rotate(session, issuer, time.time_ns() // 1_000_000, 0)
    for gone in (first, second):
        assert service.each(service.token(gone)) == all_workers(401)
    assert service.each(service.token(third)) == all_workers(200)

    with service.writing() as session:
        integrators.remove(session, issuer)
    for path in (None, "/api/v1/nothing", f"/api/v1/albums/{service.album}/images"):
        assert service.each(service.token(third), path) == all_workers(401)

    with service.writing() as session:
        again = integrators.add(session, issuer, time.time_ns() // 1_000_000)
    assert service.each(service.token(again)) == all_workers(200)
    assert service.each(service.token(third)) == all_workers(401)
