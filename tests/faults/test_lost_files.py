"""Files that vanish while pictures are shown: renditions come back, originals are told of, no 5xx."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest

from tests.conftest import jpeg
from tests.faults.front import form, front
from tests.faults.invariants import decoded
from tests.servers.gunicorn import ROOT

DELETES = 10_000 if os.environ.get("FAULTS") == "full" else 150
IMAGES = 12
READERS = 3
BLANK = (ROOT / "imageapi/assets/blank.jpg").read_bytes()


class Album:
    """A server with pictures in it: id to the paths of its thumbnails."""

    def __init__(self, door):
        self.door = door
        self.thumbnails = {}
        with door.connect() as connection:
            for seed in range(IMAGES):
                status, body = door.post(connection, form(jpeg(400, 300, seed=seed)))
                assert status == 201
                self.thumbnails[body["public_id"]] = list(map(path, body["thumbnails"].values()))

    def renditions(self):
        return list(self.door.root.glob("??/*.jpg"))

    def originals(self):
        keys = {row["id"]: row["key"] for row in self.door.rows()}
        return {image: self.door.root / key for image, key in keys.items()}


def path(url):
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


@pytest.fixture
def album():
    with front("--workers", "2") as door:
        yield Album(door)


def reading(album, over, statuses, blanks, seconds, seed):
    """Show metadata and thumbnails until it is over."""
    choice = random.Random(seed)  # noqa: S311
    with album.door.connect() as connection:
        while not over.is_set():
            image = choice.choice(list(album.thumbnails))
            status, body = album.door.get(connection, f"/api/v1/images/{image}")
            statuses["metadata", status] += 1
            assert json.loads(body)["public_id"] == image
            thumbnail = choice.choice(album.thumbnails[image])
            begun = time.monotonic()
            status, data = album.door.get(connection, thumbnail)
            seconds.append(time.monotonic() - begun)
            statuses["thumbnail", status] += 1
            blanks[image] += data == BLANK
            assert decoded(data)


class Load:
    """Readers on all sides, as a context manager; what they saw, when it has ended."""

    def __init__(self, album):
        self.statuses, self.blanks, self.seconds = Counter(), Counter(), []
        self._over, self._faults = threading.Event(), []
        self._threads = [
            threading.Thread(target=self._run, args=(album, seed)) for seed in range(READERS)
        ]

    def _run(self, album, seed):
        try:
            reading(album, self._over, self.statuses, self.blanks, self.seconds, seed)
        except Exception as fault:  # noqa: BLE001 - told by the thread that waits
            self._faults.append(fault)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self._faults == []
        assert {status for _, status in self.statuses} == {200}


def test_lost_renditions_are_rendered_again_under_load(album):
    choice, deleted = random.Random(18), 0  # noqa: S311
    with Load(album) as load:
        while deleted < DELETES:
            found = album.renditions()
            if found:
                choice.choice(found).unlink(missing_ok=True)
                deleted += 1
            time.sleep(0.01)
    load.seconds.sort()
    p99 = load.seconds[int(len(load.seconds) * 0.99)]
    sys.stdout.write(
        f"{deleted} renditions deleted, {dict(load.statuses)}, p99 {p99 * 1000:.0f} ms,"
        f" {sum(load.blanks.values())} blank\n"
    )
    # Blank only where it was deleted again between being rendered and being opened.
    assert sum(load.blanks.values()) <= len(load.seconds) // 5
    with album.door.connect() as connection:
        for thumbnails in album.thumbnails.values():
            for thumbnail in thumbnails:
                status, data = album.door.get(connection, thumbnail)
                assert (status, decoded(data), data == BLANK) == (200, True, False)
    assert len(album.renditions()) == 3 * IMAGES
    assert album.door.app.flask("fsck").returncode == 0


def test_lost_originals_leave_metadata_and_what_is_rendered(album):
    choice, lost = random.Random(19), set()  # noqa: S311
    with Load(album) as load:
        for image in choice.sample(list(album.thumbnails), IMAGES // 2):
            lost.add(image)
            album.originals()[image].unlink()
            time.sleep(0.1)
        time.sleep(0.3)
        assert not any(load.blanks.values())  # what was rendered is there
        for image in lost:
            for file in album.renditions():
                if file.name.startswith(image):
                    file.unlink()
        end = time.monotonic() + 60
        while sum(map(bool, load.blanks.values())) < len(lost) and time.monotonic() < end:
            time.sleep(0.1)
    assert {image for image, count in load.blanks.items() if count} == lost
    with album.door.connect() as connection:
        for image in lost:
            status, body = album.door.get(connection, f"/api/v1/images/{image}/original")
            assert (status, json.loads(body)["code"]) == (502, "storage_not_found")
    told = album.door.app.flask("fsck", "--json", check=False)
    assert told.returncode == 1
    missing = {
        image
        for finding in json.loads(told.stdout)
        if finding["fault"] == "missing"
        for image in finding["images"]
    }
    assert missing == lost
