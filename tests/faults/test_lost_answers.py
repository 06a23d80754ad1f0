"""The answer is lost on its way and the client asks again: made once, however often.

And the same file from many sides at once: one row, one file, and everybody is told of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sqlite3
import struct
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.front import FORM, PATH, form, front, picture
from tests.faults.invariants import DATABASE, assert_kept, rows
from tests.servers.ports import HOST

FULL = os.environ.get("FAULTS") == "full"
EACH = 3
"""How often one request loses its answer before it may have it."""
REQUESTS = {
    "upload": 1400 if FULL else 12,
    "duplicate": 150 if FULL else 3,
    "album": 150 if FULL else 3,
}
"""Times `EACH` is how many answers are lost: 5,100 or 54."""
AT_ONCE = 8
FILES = 100 if FULL else 5
RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER with which closing a socket resets its connection."""
COUNTS = {
    "upload": "SELECT count(*) FROM stored_object",
    "duplicate": "SELECT count(*) FROM image",
    "album": "SELECT count(*) FROM album",
}


@pytest.fixture(scope="module")
def served():
    with front("--workers", "2") as door:
        yield door


def lose(door, path, headers, body, after, sent=None):
    """Send a request, the first `sent` bytes of its body or all, and reset the connection later."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((HOST, door.app.port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body[:sent])
        time.sleep(after)


def settled(connection, path, headers, body):
    """Status and id at last: while a lost request is still at work, its key is in flight (409)."""
    end = time.monotonic() + 75
    while True:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        told = json.loads(response.read())
        if response.status != 409 or time.monotonic() > end:
            assert response.status in (200, 201), told
            return response.status, told["public_id"]
        time.sleep(0.02)


def counted(door, what):
    with contextlib.closing(sqlite3.connect(door.app.instance / DATABASE)) as connection:
        return connection.execute(COUNTS[what]).fetchone()[0]


@pytest.mark.parametrize("what", REQUESTS)
def test_asking_again_makes_nothing_twice(served, what):
    choice, made = random.Random(22), set()  # noqa: S311
    with served.connect() as connection:
        first = served.post(connection, form(picture(5000, seed=-1)))[1]["public_id"]
        before = counted(served, what)
        for number in range(REQUESTS[what]):
            path, body, kind = {
                "upload": (PATH, form(picture(2000, seed=number)), FORM),
                "duplicate": (f"/api/v1/images/{first}/duplicate", b"{}", "application/json"),
                "album": ("/api/v1/albums", b"{}", "application/json"),
            }[what]
            headers = {**served.headers, "Content-Type": kind, "Idempotency-Key": str(uuid.uuid4())}
            for _ in range(EACH):
                lose(served, path, headers, body, choice.choice([0, 0.005, 0.02, 0.1]))
            answer = settled(connection, path, headers, body)
            assert settled(connection, path, headers, body) == answer
            made.add(answer[1])
    sys.stdout.write(f"{what}: {EACH * REQUESTS[what]} answers lost, {len(made)} made\n")
    assert len(made) == REQUESTS[what] == counted(served, what) - before
    assert_kept(served, {})


def test_the_same_file_from_all_sides_is_one_picture(served):
    before, ids, statuses = len(rows(served.app.instance / DATABASE)), set(), Counter()

    def upload(data):
        with served.connect() as connection:
            return served.post(connection, form(data))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(FILES):
            data = picture(40_000, seed=1_000_000 + number)
            answers = list(pool.map(upload, [data] * AT_ONCE))
            statuses.update(status for status, _ in answers)
            told = {body.get("public_id") for _, body in answers}
            assert len(told) == 1, answers
            ids |= told
    assert statuses == {201: FILES, 200: FILES * (AT_ONCE - 1)}
    assert len(ids) == FILES == len(rows(served.app.instance / DATABASE)) - before
    # Those that lost the race have removed their bytes themselves.
    assert_kept(served, {})


def test_a_reset_in_the_middle_stores_nothing(served):
    before = len(rows(served.app.instance / DATABASE))
    body = form(picture(300_000, seed=-2))
    headers = {**served.headers, "Content-Type": FORM}
    for sent in (1, 1000, 100_000, len(body) - 1):
        lose(served, PATH, headers, body, 0.02, sent)
    time.sleep(1)
    assert len(rows(served.app.instance / DATABASE)) == before
    assert_kept(served, {})
