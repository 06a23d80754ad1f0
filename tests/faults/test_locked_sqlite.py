"""Another process holds SQLite's lock, as a backup may: who writes waits for it, five seconds at most.

Source: threats F7; https://www.sqlite.org/pragma.html#pragma_busy_timeout.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.front import FORM, PATH, form, front, picture
from tests.faults.invariants import assert_problem
from tests.faults.load import Load, under_load

FULL = os.environ.get("FAULTS") == "full"
EDITS = 10_000 if FULL else 400
EDITORS = 4
WRITERS = 100
WAIT = 5.0
"""Seconds that a write waits: the default."""


@pytest.fixture(scope="module")
def served():
    with front("--workers", "2", env={"IMAGEAPI_LOG_LEVEL": "ERROR"}) as door:
        yield door


@contextlib.contextmanager
def locked(door):
    """The database as a long writer leaves it to others."""
    path = door.app.instance / "imageapi.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("seconds", [1, 4])
def test_who_holds_it_for_less_costs_no_request(served, seconds):
    load = Load(served.app.port, served.headers)
    with under_load(load, slow=0):
        time.sleep(0.5)
        with locked(served):
            before = load.statuses["upload", 201]
            reads = load.statuses["kept", 200]
            time.sleep(seconds)
            assert load.statuses["upload", 201] <= before + 1
            assert load.statuses["kept", 200] > reads + 5, "reads do not wait"
        time.sleep(1)
    assert load.failures == []
    assert load.statuses["upload", 201] > before + 1


def test_who_holds_it_for_long_has_writes_refused_in_time(served):
    headers = {**served.headers, "Content-Type": FORM}
    with locked(served), served.connect() as connection:
        began = time.monotonic()
        connection.request("POST", PATH, form(picture(2000, seed=7)), headers)
        response = connection.getresponse()
        took = time.monotonic() - began
        body = response.read()
        assert_problem(response.status, response.headers, body, 503)
        assert response.headers["Retry-After"]
        assert WAIT * 0.9 < took < WAIT + 3
        assert served.get(connection, f"{PATH}?limit=1")[0] == 200
    with served.connect() as connection:
        assert served.post(connection, form(picture(2000, seed=7)))[0] == 201
    assert not [name for name in served.files() if name.startswith("staging/")]


def upload(served, seed):
    """The status of an upload, and the seconds that it took."""
    with served.connect() as connection:
        began = time.monotonic()
        status, _body = served.post(connection, form(picture(2000, seed=seed)))
        return status, time.monotonic() - began


def test_many_wait_as_long_as_one(served):
    """Not for their turn, and then as long again for the other process."""
    with locked(served), ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: upload(served, seed), range(100, 116)))
    assert {status for status, _took in answers} == {503}
    assert max(took for _status, took in answers) < WAIT + 3


def test_many_who_write_at_once_get_their_turn(served):
    with ThreadPoolExecutor(WRITERS) as pool:
        answers = list(pool.map(lambda seed: upload(served, seed), range(200, 200 + 4 * WRITERS)))
    assert {status for status, _took in answers} == {201}


def test_no_edit_of_several_processes_is_lost(served):
    with served.connect() as connection:
        status, image = served.post(connection, form(picture(2000, seed=8)))
        assert status == 201
    place = f"/api/v1/images/{image['public_id']}"

    def edit(start):
        headers, statuses = {**served.headers, "Content-Type": "application/json"}, []
        with served.connect() as connection:
            for number in range(start, start + EDITS // EDITORS):
                body = b'{"rotation": %d}' % (number % 4 * 90)
                connection.request("PUT", place, body, headers)
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
        return statuses

    with ThreadPoolExecutor(EDITORS) as pool:
        statuses = [status for some in pool.map(edit, range(EDITORS)) for status in some]
    assert set(statuses) <= {200, 409}
    with served.connect() as connection:
        connection.request("GET", place, headers=served.headers)
        response = connection.getresponse()
        response.read()
        assert response.headers["ETag"] == f'"{statuses.count(200)}"'
    assert statuses.count(200) > EDITS / 4
