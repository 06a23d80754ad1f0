"""`kill -9` of the whole server in the middle of uploads: what was acknowledged is there, whole.

The page cache outlives this, so it proves no fsync (`test_order_of_syscalls.py` does): it proves
that nothing half-done is ever visible, and that no repair is needed after it.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import random
import re
import sqlite3
import struct
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from PIL import Image as Pillow

from tests.conftest import jpeg
from tests.faults.front import Front, form, front, picture

ROUNDS = 50 if os.environ.get("FAULTS") == "full" else 10
UPLOADERS = 6
LATEST = 0.3
"""Seconds from the beginning of a round's load to the kill, at most; in every other round from its
first acknowledgement, so that a slow machine has some too."""
ORIGINAL = re.compile(r"[0-9a-f]{2}/[0-9a-f-]{36}")
PHOTO = jpeg(1600, 1200)


@dataclass
class Journal:
    """What the uploaders know, over all rounds."""

    sent: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 to bytes, before they are sent."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Image id to SHA-256, once the whole answer was read."""


@pytest.fixture(scope="module")
def served():
    with front("--workers", "2") as door:
        door.app.stop()
        yield door


def test_kill_9_in_the_middle_of_uploads(served):
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    journal, choice = Journal(), random.Random(seed)  # noqa: S311
    for number in range(ROUNDS):
        known = set(journal.acknowledged)
        served.app.start()
        check_served(served, set(journal.acknowledged))
        load(served, journal, choice.uniform(0, LATEST), seed + number, late=number % 2 == 1)
        check_disk(served, journal, known)
    served.app.start()
    check_served(served, set(journal.acknowledged))
    check_listed(served)
    check_disk(served, journal, set())
    served.app.stop()

    assert journal.acknowledged, "every kill came before the first answer: nothing was shown"
    assert len(journal.sent) > len(journal.acknowledged), "no kill met an upload in flight"


def load(served: Front, journal: Journal, seconds: float, seed: int, *, late: bool) -> None:
    """Upload from all sides, then kill the server after so many seconds."""
    over = threading.Event()
    known = len(journal.acknowledged)
    start = threading.Barrier(UPLOADERS + 1)
    threads = [
        threading.Thread(target=upload, args=(served, journal, start, over, f"{seed}.{number}"))
        for number in range(UPLOADERS)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    while late and len(journal.acknowledged) == known and any(t.is_alive() for t in threads):
        time.sleep(0.001)
    time.sleep(seconds)
    served.app.kill9()
    over.set()
    for thread in threads:
        thread.join()


def upload(
    served: Front, journal: Journal, start: threading.Barrier, over: threading.Event, seed: str
) -> None:
    choice = random.Random(seed)  # noqa: S311
    with served.connect(timeout=5) as connection:
        start.wait()
        while not over.is_set():
            data = some_picture(choice)
            sha256 = hashlib.sha256(data).hexdigest()
            journal.sent[sha256] = data
            try:
                status, body = served.post(connection, form(data))
            except (OSError, http.client.HTTPException, ValueError):
                return
            assert status == 201, body
            journal.acknowledged[body["public_id"]] = sha256


def some_picture(choice: random.Random) -> bytes:
    """A large photo, or a small picture in a large file; never the same bytes twice."""
    number = choice.getrandbits(60)
    if choice.random() < 0.3:
        comment = str(number).encode()
        return PHOTO[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + PHOTO[2:]
    return picture(choice.choice([200, 5_000, 70_000, 600_000]), seed=number)


def check_served(served: Front, acknowledged: set[str]) -> None:
    """Every acknowledged image is answered, with renditions that show a picture."""
    with served.connect() as connection:
        for image_id in acknowledged:
            status, body = served.get(connection, f"/api/v1/images/{image_id}")
            assert status == 200, image_id
            status, data = served.get(connection, json.loads(body)["thumbnails"]["mini"])
            assert status == 200
            assert decoded(data)


def check_listed(served: Front) -> None:
    with served.connect() as connection:
        status, body = served.get(connection, "/api/v1/albums/holidays/images")
    assert status == 200
    assert json.loads(body)


def check_disk(served: Front, journal: Journal, known: set[str]) -> None:
    """Rows and files as a crash left them; `known` images were looked at before."""
    rows = served.rows()
    assert all(row["id"] for row in rows), "bytes without an image"
    by_id = {row["id"]: row for row in rows}
    assert by_id.keys() >= journal.acknowledged.keys(), "an acknowledged image is gone"
    for image_id, sha256 in journal.acknowledged.items():
        assert by_id[image_id]["sha256"] == sha256
    for row in rows:
        if row["id"] not in known:
            data = (served.root / row["key"]).read_bytes()
            assert data == journal.sent[row["sha256"]]
            assert decoded(data)
    for name in filter(ORIGINAL.fullmatch, served.files()):
        assert served.stored(name) in journal.sent, "a key with other bytes than were sent"
    check_database(served, rows)


def check_database(served: Front, rows: list[sqlite3.Row]) -> None:
    with closing(sqlite3.connect(served.app.instance / "imageapi.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        counted = connection.execute("SELECT images_count, bytes FROM album").fetchone()
    assert counted == (len(rows), sum(row["bytes"] for row in rows))


def decoded(data: bytes) -> bool:
    with Pillow.open(io.BytesIO(data)) as opened:
        opened.load()
    return True
