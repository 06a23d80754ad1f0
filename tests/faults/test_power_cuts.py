"""The power goes while the application takes pictures in and lets them go: no promise is broken."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3

import requests

from tests.conftest import jpeg
from tests.faults.powercut import Recording, record
from tests.servers.gunicorn import environment, flask, gunicorn

CUTS = 1000 if os.environ.get("FAULTS") == "full" else 60
WORDS = ("stored", "going", "gone")
FORGETFUL = "import os; os.fsync = os.fdatasync = lambda descriptor: None"
"""A sitecustomize that leaves out every fsync of ours; SQLite's own stay."""


def recorded(**env: str) -> Recording:
    """Twelve uploads through gunicorn, every third deleted again, each promise noted."""
    env["IMAGEAPI_SECRET_KEYS"] = secrets.token_urlsafe(48)
    header = {}

    def prepare(directory):
        whole = environment(directory / "instance", env)
        flask(whole, "db", "upgrade")
        flask(whole, "albums", "create", "holidays", "--owner", "anna")
        token = flask(whole, "token", "create", "--user", "anna").stdout.strip()
        header["Authorization"] = f'Token token="{token}"'

    def workload(disk):
        with gunicorn(env, directory=disk.directory, migrate=False) as app:
            for number in range(12):
                data = jpeg(seed=number)
                digest = hashlib.sha256(data).hexdigest()
                album = f"{app.url}/api/v1/albums/holidays/images"
                answer = requests.post(album, files={"file": data}, headers=header, timeout=60)
                assert answer.status_code == 201, answer.text
                disk.acknowledge(f"stored {digest}")
                if number % 3 == 2:
                    disk.acknowledge(f"going {digest}")
                    image = f"{app.url}/api/v1/images/{answer.json()['public_id']}"
                    answer = requests.delete(image, headers=header, timeout=60)
                    assert answer.status_code == 204, answer.text
                    disk.acknowledge(f"gone {digest}")

    return record(workload, prepare=prepare)


def broken(directory, acknowledged):
    """The digests that a recovered disk is wrong about: lost, without bytes, or back again."""
    files = (path for path in (directory / "instance").rglob("*") if path.is_file())
    bytes_of = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    with contextlib.closing(sqlite3.connect(directory / "instance/imageapi.sqlite3")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        select = "select sha256 from stored_object join image on object_id = stored_object.id"
        rows = {digest for (digest,) in database.execute(select)}
    told = {
        word: {ack.split()[1] for ack in acknowledged if ack.startswith(word)} for word in WORDS
    }
    lost = told["stored"] - told["going"] - rows
    return lost | (rows - bytes_of) | (told["gone"] & rows)


def test_what_was_answered_outlives_the_power():
    for cut in recorded().cuts(CUTS):
        with cut.recovered() as directory:
            assert broken(directory, cut.acknowledged) == set(), cut.position


def test_without_fsync_it_would_not(tmp_path):
    """The control: the same application that forgets one thing is caught."""
    (tmp_path / "sitecustomize.py").write_text(FORGETFUL)
    found = 0
    for cut in recorded(PYTHONPATH=str(tmp_path)).cuts(20):
        with cut.recovered() as directory:
            found += bool(broken(directory, cut.acknowledged))
    assert found > 10
