"""`kill -9` of the whole server in the middle of uploads and edits: what was acknowledged is there.

The page cache outlives this, so it proves no fsync (`test_order_of_syscalls.py` does): it proves
that nothing half-done is ever visible, and that no repair is needed after it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import struct
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest

from tests.conftest import jpeg
from tests.faults.front import Front, form, front, picture
from tests.faults.invariants import (
    DATABASE,
    assert_healthy,
    assert_kept,
    decoded,
    roots,
    rows,
    violations,
)

ROUNDS = 300 if os.environ.get("FAULTS") == "full" else 10
UPLOADERS = 6
LATEST = 0.3
"""Seconds from the beginning of a round's load to the kill, at most; in every other round from its
first acknowledged edit, so that a slow machine has some too."""
ORIGINAL = re.compile(r"[0-9a-f]{2}/[0-9a-f-]{36}")
PHOTO = jpeg(1600, 1200)


@dataclass
class Journal:
    """What the uploaders know, over all rounds."""

    sent: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 to bytes, before they are sent."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Image id to SHA-256, once the whole answer was read."""
    edited: dict[str, int] = field(default_factory=dict)
    """Image id to the revision that was answered."""


@pytest.fixture(scope="module")
def served():
    with front("--workers", "2") as door:
        door.app.stop()
        yield door


def test_kill_9_in_the_middle_of_uploads(served):
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    journal, choice, restarts = Journal(), random.Random(seed), []  # noqa: S311
    for number in range(ROUNDS):
        known = set(journal.acknowledged)
        restarts.append(started(served))
        check_served(served, {*choice.sample(sorted(known), min(len(known), 20)), *last(journal)})
        load(served, journal, choice.uniform(0, LATEST), seed + number, late=number % 2 == 1)
        check_disk(served, journal, known)
    restarts.append(started(served))
    check_served(served, set(journal.acknowledged))
    check_listed(served)
    journal.acknowledged.update([assert_healthy(served)])
    served.app.stop()
    check_disk(served, journal, set())
    assert_kept(served, journal.acknowledged)

    restarts.sort()
    sys.stdout.write(
        f"{ROUNDS} kills, {len(journal.sent)} uploads begun, {len(journal.acknowledged)} and "
        f"{len(journal.edited)} edits acknowledged, none lost; up again after {restarts[ROUNDS // 2]:.2f}"
        f" s (median), {restarts[-1]:.2f} s at most\n"
    )
    assert journal.edited, "no edit was answered before its kill"
    assert journal.acknowledged, "every kill came before the first answer: nothing was shown"
    assert len(journal.sent) > len(journal.acknowledged), "no kill met an upload in flight"


def started(served: Front) -> float:
    """Seconds from the start to the first good answer."""
    begun = time.monotonic()
    served.app.start()
    return time.monotonic() - begun


def last(journal: Journal) -> list[str]:
    """The images that were acknowledged last."""
    return list(journal.acknowledged)[-20:]


def load(served: Front, journal: Journal, seconds: float, seed: int, *, late: bool) -> None:
    """Upload from all sides, then kill the server after so many seconds."""
    over = threading.Event()
    known = len(journal.edited)
    start = threading.Barrier(UPLOADERS + 1)
    threads = [
        threading.Thread(target=upload, args=(served, journal, start, over, f"{seed}.{number}"))
        for number in range(UPLOADERS)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    while late and len(journal.edited) == known and any(t.is_alive() for t in threads):
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
            if choice.random() < 0.5 and not edit(served, journal, connection, body["public_id"]):
                return


def edit(
    served: Front, journal: Journal, connection: http.client.HTTPConnection, image_id: str
) -> bool:
    """Turn a picture; False when the server is gone."""
    headers = {**served.headers, "Content-Type": "application/json"}
    try:
        connection.request("PUT", f"/api/v1/images/{image_id}", b'{"rotation":90}', headers)
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    assert response.status == 200, body
    journal.edited[image_id] = 1
    return True


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
    database = served.app.instance / DATABASE
    storages = roots(served.app.instance)
    assert violations(database, storages, journal.acknowledged, known) == []
    kept = rows(database)
    revisions = {row.id: row.revision for row in kept}
    assert all(revisions[image] >= revision for image, revision in journal.edited.items())
    for row in kept:
        if row.id not in known:
            assert row.sha256 in journal.sent or row.id in journal.acknowledged
            assert decoded((served.root / row.key).read_bytes())
    named = {row.key for row in kept}
    for name in filter(ORIGINAL.fullmatch, served.files()):
        known_key = name in named
        assert known_key or served.stored(name) in journal.sent, "other bytes than were sent"
