"""The worker dies exactly before each system call of an upload: nothing half-done is ever seen.

What differs from a death at random (`test_kill.py`) is that no place is left out.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import time
from contextlib import closing

import pytest

from tests.faults.front import form, front, picture
from tests.faults.injection import OPTIONS, answering, counted, injected
from tests.faults.invariants import assert_healthy, assert_kept

FULL = os.environ.get("FAULTS") == "full"
SOME = (("openat", 8), ("fsync", 3), ("renameat", 1), ("pwrite64", 2), ("fdatasync", 1))
"""The places of the sample: before the bytes, in them, between bytes and row, in the row."""
IDLE = ("futex", "poll")
"""Calls that only wait: how many there are is a matter of time."""


@pytest.fixture(scope="module")
def served():
    with front(*OPTIONS) as door:
        yield door


def test_death_before_each_call(served):
    acknowledged = dict([assert_healthy(served)])
    with served.connect() as connection:
        calls = counted(answering(served, connection, seed=-1)[1])
    places = [(name, n) for name in calls if name not in IDLE for n in range(1, calls[name] + 1)]
    assert set(SOME) <= set(places)
    deaths = 0
    for number, (name, n) in enumerate(places if FULL else SOME):
        died, answered = upload_until_death(served, name, n, number)
        deaths += died
        acknowledged |= answered
        alive_again(served)
        if number % 20 == 0:
            acknowledged.update([assert_healthy(served)])
            assert_kept(served, acknowledged)
    acknowledged.update([assert_healthy(served)])
    assert_kept(served, acknowledged)
    sys.stdout.write(f"{deaths} deaths at {len(places if FULL else SOME)} places: {dict(calls)}\n")
    # A few calls are made for the first picture of a worker or of a folder alone.
    assert deaths >= 0.85 * len(places if FULL else SOME)


def upload_until_death(served, name, n, number):
    """Whether the worker died, and the image that it acknowledged nevertheless."""
    data = picture(100_000, seed=number)
    with served.connect(timeout=10) as connection:
        thread, _ = answering(served, connection, seed=1_000_000 + number)
        (worker, *_) = served.app.workers
        try:
            with injected(thread, name, f"signal=KILL:when={n}"):
                status, body = served.post(connection, form(data))
        except (OSError, http.client.HTTPException, ValueError):
            return True, {}
    assert status == 201, body
    died = worker not in served.app.workers
    return died, {body["public_id"]: hashlib.sha256(data).hexdigest()}


def alive_again(served):
    """Wait for the worker that follows; nobody started it but its master."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", served.app.port, 5)) as connection:
                if served.get(connection, "/healthz")[0] == 200:
                    return
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
    raise AssertionError("no worker after 30 s")
