"""The backup and the restore of docs/operations.md, as they stand there, beside a service that works."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from tests.conftest import REPOSITORY, jpeg
from tests.servers.gunicorn import flask, gunicorn
from tests.servers.postgres import _binaries, postgres

PAGE = (REPOSITORY / "docs/operations.md").read_text()


def script(name):
    """The lines of the page that stand under this mark."""
    found = re.search(rf"<!-- tested: {name} -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    return found[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request):
    return request.param


@pytest.fixture
def database(kind, tmp_path):
    """Makes empty databases: their URL for libpq, "" on SQLite; and what the scripts need of programs."""
    if kind == "sqlite":
        yield lambda: contextlib.nullcontext(""), ""
        return
    with postgres() as server:
        yield server.database, str(_binaries(tmp_path))


def run(name, env, programs, **variables):
    folder = Path(sys.executable).parent
    path = os.pathsep.join(filter(None, [programs, str(folder), env["PATH"]]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script(name)],
        env={**env, "PATH": path, "FLASK_APP": "wsgi.py", **variables},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Client:
    """Uploads and deletes of anna's."""

    def __init__(self, app):
        self.url = f"{app.url}/api/v1"
        token = app.flask("token", "create", "--user", "anna").stdout.strip()
        self.headers = {"Authorization": f'Token token="{token}"'}
        self.session = requests.Session()

    def upload(self, number):
        data = jpeg(seed=number)
        answer = self.session.post(
            f"{self.url}/albums/holidays/images",
            files={"file": ("a.jpg", data)},
            headers=self.headers,
            timeout=30,
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["public_id"], data

    def call(self, method, image_id, more=""):
        url = f"{self.url}/images/{image_id}{more}"
        return self.session.request(method, url, headers=self.headers, timeout=30)


def test_a_backup_beside_the_service_restores_all_that_was_there(kind, database, tmp_path):
    empty, programs = database
    backup, directory = tmp_path / "backup", tmp_path / "served"
    with empty() as before, empty() as after:
        env = settings(before)
        with gunicorn(env, "--workers", "1", directory=directory) as app:
            app.flask("albums", "create", "holidays", "--owner", "anna")
            client = Client(app)
            there = dict(client.upload(number) for number in range(12))
            doomed = [client.upload(number)[0] for number in range(100, 112)]
            with beside(client, doomed):
                run(f"backup {kind}", app.env, programs, BACKUP=str(backup), DATABASE=before)
            # What comes after the backup is lost with the disk.
            late, _data = client.upload(9999)
            served = dict(app.env)
        shutil.rmtree(directory)
        restored = {**served, **settings(after)}
        told = run(f"restore {kind}", restored, programs, BACKUP=str(backup), DATABASE=after)
        assert "missing 0, wrong 0" in told
        with gunicorn(restored, "--workers", "1", directory=directory, migrate=False) as app:
            client = Client(app)
            for image_id, data in there.items():
                original = client.call("GET", image_id, "/original")
                assert original.status_code == 200
                assert hashlib.sha256(original.content).digest() == hashlib.sha256(data).digest()
            assert client.call("GET", late).status_code == 404
            assert client.upload(555)
        assert flask(restored, "collect", "--force").returncode == 0
        assert flask(restored, "fsck", "--json").stdout == "[]\n"


def settings(database):
    return (
        {"IMAGEAPI_DATABASE_URL": database.replace("postgresql:", "postgresql+psycopg:")}
        if database
        else {}
    )


@contextlib.contextmanager
def beside(client, doomed):
    """Uploads and deletes go on meanwhile."""
    over, faults = threading.Event(), []

    def work():
        try:
            number = 1000
            while not over.is_set():
                client.upload(number)
                number += 1
                if doomed:
                    assert client.call("DELETE", doomed.pop()).status_code == 204
        except Exception as error:  # noqa: BLE001 - told by the test
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert faults == []
