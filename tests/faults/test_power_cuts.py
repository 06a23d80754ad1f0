"""The power goes while pictures come in, are edited, moved and let go: no promise is broken.

Every way in is cut: uploads, seeding, the hand-in of direct uploads, the move to another storage. The
controls are the same application without its fsync, and Django's storage as it is by default.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.conftest import jpeg
from tests.faults import invariants
from tests.faults.powercut import Recording, record
from tests.servers.gunicorn import environment, flask, gunicorn
from tests.servers.need import need_module
from tests.servers.seaweedfs import seaweedfs
from tests.storages import BUCKET, s3_api, s3_settings

FULL = os.environ.get("FAULTS") == "full"
CUTS = {"clients": 500, "operators": 300, "hand-ins": 200}
SAMPLE = 15
FORGETFUL = """
import os
os.fsync = os.fdatasync = lambda descriptor: None
os.posix_fadvise = lambda *arguments: None
"""
"""A sitecustomize that leaves out every fsync of ours; SQLite's own stay. Without the advice too, as
ext4 in its usual mode has on the medium before a commit what it was told to begin with."""
TWO = {"IMAGEAPI_STORAGES": "local=local,second=local", "IMAGEAPI_URL_WINDOW": "1"}
"""Two local storages, and URLs that end soon, so that a move leaves its copies for seconds only."""
ROOM = 192 << 20
"""Bytes of a disk that a move finds large enough."""
DJANGO = Path(__file__).with_name("django_store.py")


class Told:
    """What was promised until a cut, by the SHA-256 of the bytes."""

    def __init__(self, acknowledged):
        words = [line.split() for line in acknowledged]
        self.stored = {sha256 for word, sha256, *_ in words if word == "stored"}
        self.going = {sha256 for word, sha256, *_ in words if word == "going"}
        self.gone = {sha256 for word, sha256, *_ in words if word == "gone"}
        self.revisions = {sha256: int(rest[0]) for word, sha256, *rest in words if word == "edited"}


def broken(directory, acknowledged, remote=()):
    """What a recovered disk is wrong about, one sentence each."""
    instance, told = directory / "instance", Told(acknowledged)
    database = instance / invariants.DATABASE
    found = invariants.violations(database, invariants.roots(instance), {}, remote=remote)
    rows = {row.sha256: row.revision for row in invariants.rows(database)}
    found += [f"{sha256} is lost" for sha256 in told.stored - told.going - rows.keys()]
    found += [f"{sha256} is back" for sha256 in told.gone & rows.keys()]
    found += [
        f"{sha256} is unedited"
        for sha256, revision in told.revisions.items()
        if sha256 in rows and rows[sha256] < revision
    ]
    return found


class Workplace:
    """The settings of one recording, and requests of its owner."""

    def __init__(self, **env):
        self.env = {"IMAGEAPI_SECRET_KEYS": secrets.token_urlsafe(48), **env}
        self.headers = {}

    def prepare(self, directory):
        self.flask(directory, "db", "upgrade")
        self.flask(directory, "albums", "create", "holidays", "--owner", "anna")
        token = self.flask(directory, "token", "create", "--user", "anna").stdout.strip()
        self.headers["Authorization"] = f'Token token="{token}"'

    def flask(self, directory, *arguments):
        return flask(environment(directory / "instance", self.env), *arguments)

    def served(self, disk):
        return gunicorn(self.env, directory=disk.directory, migrate=False)

    def ask(self, app, method, path, status, **options):
        url = f"{app.url}/api/v1/{path}"
        answer = requests.request(method, url, headers=self.headers, timeout=60, **options)
        assert answer.status_code == status, answer.text
        return answer

    def upload(self, disk, app, number):
        data = jpeg(seed=number)
        sha256 = hashlib.sha256(data).hexdigest()
        answer = self.ask(app, "POST", "albums/holidays/images", 201, files={"file": data})
        disk.acknowledge(f"stored {sha256}")
        return answer.json()["public_id"], sha256

    def delete(self, disk, app, image, sha256):
        disk.acknowledge(f"going {sha256}")
        self.ask(app, "DELETE", f"images/{image}", 204)
        disk.acknowledge(f"gone {sha256}")


def clients(**env: str) -> Recording:
    """Twelve uploads through gunicorn, every second one edited, every third deleted again."""
    place = Workplace(**env)

    def workload(disk):
        with place.served(disk) as app:
            for number in range(12):
                image, sha256 = place.upload(disk, app, number)
                if number % 2:
                    crop = {"rotation": 90, "crop_x": 3, "crop_y": 4, "crop_w": 20, "crop_h": 10}
                    place.ask(app, "PUT", f"images/{image}", 200, json=crop)
                    disk.acknowledge(f"edited {sha256} 1")
                if number % 3 == 2:
                    place.delete(disk, app, image, sha256)

    return record(workload, prepare=place.prepare)


def operators() -> Recording:
    """A folder is seeded, the album moved, the copies removed, and what nobody needs collected."""
    place = Workplace(**TWO)

    def workload(disk):
        pictures = [jpeg(seed=number) for number in range(12)]
        folder = disk.directory / "folder"
        folder.mkdir()
        for number, data in enumerate(pictures):
            (folder / f"{number}.jpg").write_bytes(data)
        place.flask(
            disk.directory, "albums", "seed", str(folder), "--album", "holidays", "--owner", "anna"
        )
        for data in pictures:
            disk.acknowledge(f"stored {hashlib.sha256(data).hexdigest()}")
        move = ["storages", "migrate", "--album", "holidays", "--to", "second", "--keep", "1s"]
        place.flask(disk.directory, *move)
        root = disk.directory / "instance/storage/local"
        stray(root)
        time.sleep(1.1)
        place.flask(disk.directory, "collect", "--older-than", "1s", "--force")
        with place.served(disk) as app:
            while any(root.glob("??/*")):
                time.sleep(0.1)
            image, sha256 = place.upload(disk, app, 100)
            place.delete(disk, app, image, sha256)

    return record(workload, prepare=place.prepare, size=ROOM)


def stray(root):
    """Bytes without a row, for `collect`."""
    name = "00c0ffee-0000-4000-8000-00000000c0de"
    (root / "00").mkdir(exist_ok=True)
    (root / "00" / name).write_bytes(b"bytes without a row")


def hand_ins(server, keys: set[str]) -> Recording:
    """Direct uploads to S3 are handed in; the last of them after the album moved to the disk."""
    place = Workplace(**s3_settings(server), IMAGEAPI_STORAGES="local=local,s3=s3")

    def prepare(directory):
        place.prepare(directory)
        place.flask(directory, "storages", "migrate", "--album", "holidays", "--to", "s3")

    def workload(disk):
        with place.served(disk) as app:
            forms = [
                place.ask(app, "GET", "albums/holidays", 200).json()["upload_form"]
                for _ in range(8)
            ]
            for number, form in enumerate(forms):
                if number == 4:
                    move = ["storages", "migrate", "--album", "holidays", "--to", "local"]
                    place.flask(disk.directory, *move)
                data = jpeg(seed=number)
                requests.post(
                    form["url"], data=form["params"], files={"file": data}, timeout=60
                ).raise_for_status()
                key = {"key": form["params"]["key"]}
                place.ask(app, "POST", "albums/holidays/images", 201, json=key)
                disk.acknowledge(f"stored {hashlib.sha256(data).hexdigest()}")

    recording = record(workload, prepare=prepare, size=ROOM)
    prefix = place.env["IMAGEAPI_STORAGE_S3_PREFIX"]
    listed = s3_api(server).list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    keys.update(entry["Key"].removeprefix(prefix) for entry in listed["Contents"])
    return recording


@pytest.mark.parametrize("workload", CUTS)
def test_what_was_answered_outlives_the_power(workload):
    keys: set[str] = set()
    with contextlib.ExitStack() as stack:
        if workload == "hand-ins":
            server = stack.enter_context(seaweedfs())
            s3_api(server).create_bucket(Bucket=BUCKET)
            recording = hand_ins(server, keys)
        else:
            recording = clients() if workload == "clients" else operators()
    count = CUTS[workload] if FULL else SAMPLE
    for number, cut in enumerate(recording.cuts(count)):
        with cut.recovered() as directory:
            assert broken(directory, cut.acknowledged, keys) == [], cut.position
            if workload != "hand-ins" and number % (count // 3) == 1:
                assert_collected(directory, TWO if workload == "operators" else {})


def assert_collected(directory, env):
    """What the cut left without a row goes, and nothing else."""
    instance = directory / "instance"
    database, storages = instance / invariants.DATABASE, invariants.roots(instance)
    time.sleep(1.1)
    flask(environment(instance, env), "collect", "--older-than", "1s", "--force")
    copies = held_copies(database)
    left = [key for key in invariants.leftovers(database, storages) if key not in copies]
    assert left == []
    assert invariants.violations(database, storages, {}) == []


def held_copies(database):
    """What a move left is removed by its own work, not by `collect`."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        select = "SELECT storage || ':' || key FROM object_copy"
        return {key for (key,) in connection.execute(select)}


def test_without_fsync_it_would_not(tmp_path):
    """The control: the same application that forgets one thing is caught."""
    (tmp_path / "sitecustomize.py").write_text(FORGETFUL)
    found = 0
    for cut in clients(PYTHONPATH=str(tmp_path)).cuts(20):
        with cut.recovered() as directory:
            found += bool(broken(directory, cut.acknowledged))
    assert found > 10


def test_djangos_storage_does_not():
    """The other control: files saved and rows committed, as Django does it without more."""
    need_module("django", "pip install django")

    def run(directory, acks, count):
        subprocess.run([sys.executable, DJANGO, directory, acks, str(count)], check=True)

    recording = record(
        lambda disk: run(disk.directory, disk.acks, 12),
        prepare=lambda directory: run(directory, os.devnull, 0),
    )
    lost = without_bytes = 0
    count = 200 if FULL else 20
    for cut in recording.cuts(count):
        with cut.recovered() as directory:
            files = (path for path in (directory / "media").glob("*") if path.is_file())
            hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
            with contextlib.closing(sqlite3.connect(directory / "rows.sqlite3")) as database:
                rows = {row[0] for row in database.execute("SELECT sha256 FROM pictures_picture")}
        lost += bool(Told(cut.acknowledged).stored - hashes)
        without_bytes += bool(rows - hashes)
    sys.stdout.write(f"Django: of {count} cuts {lost} lose a picture, {without_bytes} leave rows\n")
    assert lost > count // 2
