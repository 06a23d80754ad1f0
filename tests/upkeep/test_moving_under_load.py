"""An album moves local → S3 → Cloudinary → local while it is read, added to and edited; each move is killed.

Nobody may see an error: no failed read, no refused upload or edit, every original as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from urllib.parse import urljoin

import pytest
import requests

from tests.conftest import jpeg
from tests.servers.gunicorn import ROOT, gunicorn
from tests.storages import cloudinary_settings, s3_settings

IMAGES = 3000 if os.environ.get("FAULTS") == "full" else 300
LEGS = ("s3", "cloudinary", "local")
BLANK = "/assets/blank.jpg"
NOTHING = (ROOT / "imageapi/assets/blank.jpg").read_bytes()


class Album:
    """The album as its clients know it."""

    def __init__(self, app, choice):
        self.app = app
        self.choice = choice
        self.url = f"{app.url}/api/v1"
        token = app.flask("token", "create", "--user", "anna").stdout.strip()
        self.headers = {"Authorization": f'Token token="{token}"'}
        self.sha256: dict[str, str] = {}
        self.infos: dict[str, dict] = {}
        self.edited: set[str] = set()
        self.urls: list[str] = []
        self.reads = self.edits = 0
        self.over = threading.Event()
        self.faults: list[str] = []

    def upload(self, session, number):
        data = jpeg(320, 240, seed=number)
        answer = session.post(
            f"{self.url}/albums/holidays/images",
            files={"file": ("a.jpg", data)},
            headers=self.headers,
            timeout=30,
        )
        assert answer.status_code == 201, answer.text
        image_id = answer.json()["public_id"]
        self.infos[image_id] = answer.json()["infos"]
        self.sha256[image_id] = hashlib.sha256(data).hexdigest()

    def read(self, session, image_id):
        path = f"{self.url}/images/{image_id}"
        shown = session.get(path, headers=self.headers, timeout=30)
        assert shown.status_code == 200, shown.text
        body = shown.json()
        assert body["infos"] == self.infos[image_id]
        for url in body["thumbnails"].values():
            assert url != BLANK or image_id in self.edited, f"{image_id} shows nothing"
            if url != BLANK:
                self.urls.append(urljoin(self.app.url, url))
                self.fetch(session, self.urls[-1])
        original = session.get(f"{path}/original", headers=self.headers, timeout=30)
        assert original.status_code == 200, original.text
        assert hashlib.sha256(original.content).hexdigest() == self.sha256[image_id]

    def fetch(self, session, url):
        """A page may show a URL for as long as it lasts, wherever its album is by then."""
        picture = session.get(url, timeout=30)
        assert picture.status_code == 200, f"{url}: {picture.status_code}"
        shown = picture.content[:2] == b"\xff\xd8" and picture.content != NOTHING
        assert shown, f"{url} shows nothing"

    def edit(self, session, image_id, rotation):
        self.edited.add(image_id)
        path = f"{self.url}/images/{image_id}"
        fields = {"rotation": rotation}
        answer = session.put(path, json=fields, headers=self.headers, timeout=30)
        assert answer.status_code == 200, answer.text

    # --- load

    @contextlib.contextmanager
    def load(self):
        work = (self._reader, self._reader, self._uploader, self._editor)
        threads = [threading.Thread(target=self._guarded, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _guarded(self, work):
        try:
            with requests.Session() as session:
                work(session)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.faults.append(f"{work.__name__}: {error!r}"[:500])

    def _reader(self, session):
        while not self.over.wait(0.03):
            self.read(session, self.choice.choice(list(self.sha256)))
            self.fetch(session, self.choice.choice(self.urls))
            self.reads += 1

    def _uploader(self, session):
        number = 10_000
        while not self.over.wait(0.3):
            number += 1
            self.upload(session, number)

    def _editor(self, session):
        chosen = list(self.sha256)[: IMAGES // 5]
        while not self.over.wait(0.2):
            self.edit(session, self.choice.choice(chosen), self.choice.choice([0, 90, 180, 270]))
            self.edits += 1


def where(app):
    """How many originals are in which storage."""
    with contextlib.closing(sqlite3.connect(app.instance / "imageapi.sqlite3")) as rows:
        return dict(rows.execute("SELECT storage, count(*) FROM stored_object GROUP BY 1"))


def kill(app, to, choice):
    """Begin to move, and kill -9 at work when some originals have moved."""
    command = [sys.executable, "-m", "flask", "storages", "migrate", "--album", "holidays", "--to"]
    enough = where(app).get(to, 0) + choice.randrange(1, IMAGES // 2)
    process = subprocess.Popen(
        [*command, to],
        cwd=ROOT,
        env=app.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while process.poll() is None and where(app).get(to, 0) < enough:
        time.sleep(0.005)
    time.sleep(choice.uniform(0, 0.05))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    told, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, told
    assert 0 < where(app)[to] < sum(where(app).values())


@pytest.fixture
def served(s3_server, cloudinary_server):
    env = s3_settings(s3_server) | cloudinary_settings(cloudinary_server)
    with gunicorn(env, "--workers", "2", "--threads", "4") as app:
        yield app


def test_nobody_sees_it(served):
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    choice = random.Random(seed)  # noqa: S311
    served.flask("albums", "create", "holidays", "--owner", "anna")
    album = Album(served, choice)
    with requests.Session() as session:
        for number in range(IMAGES):
            album.upload(session, number)

    with album.load():
        for to in LEGS:
            kill(served, to, choice)
            move = ("storages", "migrate", "--album", "holidays", "--to", to)
            done = served.flask(*move, timeout=3600)
            sys.stdout.write(f"{to}: {done.stdout}")
            assert "failed 0, left 0;" in done.stdout
            assert not album.faults
    sys.stdout.write(f"{album.reads} reads, {len(album.sha256)} uploads, {album.edits} edits\n")

    assert not album.faults
    assert album.reads > IMAGES
    assert album.edits > IMAGES / 5
    assert where(served) == {LEGS[-1]: len(album.sha256)}
    with requests.Session() as session:
        for image_id in album.sha256:
            album.read(session, image_id)
