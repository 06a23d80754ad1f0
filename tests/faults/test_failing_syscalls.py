"""A system call of an upload fails: the client is told so, nothing is acknowledged, nothing stays.

Every call that touches a disk, in turn, with every error a disk or the kernel has for it, once and for
ever; and a disk that takes fewer bytes than it is given.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import jpeg
from tests.faults.front import FORM, PATH, form, front, picture
from tests.faults.injection import OPTIONS, answering, injected
from tests.faults.invariants import assert_healthy, assert_kept, assert_problem, decoded
from tests.oracles import traced

FULL = os.environ.get("FAULTS") == "full"
DISK, ROOM, OWN = ("EIO",), ("ENOSPC", "EDQUOT"), ("EMFILE",)
ERRORS = {
    "openat": (*DISK, *ROOM, *OWN),
    "newfstatat": DISK,
    "mkdirat": (*DISK, *ROOM),
    "fchmod": DISK,
    "write": (*DISK, *ROOM),
    "fadvise64": DISK,
    "fsync": (*DISK, *ROOM),
    "renameat": (*DISK, *ROOM),
    "unlinkat": DISK,
    "pread64": DISK,
    "pwrite64": (*DISK, *ROOM),
    "fdatasync": (*DISK, *ROOM),
    "fcntl": DISK,
    "socket": OWN,
    "socketpair": OWN,
    "sendmsg": OWN,
}
"""The calls of an upload that need a disk or a descriptor, with the errors that each may meet."""
WRITES = 4
"""The first writes: of the original and its three renditions."""
LOGGED = 2
"""How often the log is written to when that fails. What comes then is a byte in the pipe by which
gunicorn's threads wake each other, which no disk can fail."""
SOME = (
    ("openat", 4, "ENOSPC", ""),
    ("openat", 2, "EMFILE", "+"),
    ("write", 1, "EDQUOT", ""),
    ("fsync", 2, "EIO", "+"),
    ("fsync", 3, "EIO", ""),
    ("write", 1, "ENOSPC", f"..{1 + LOGGED}"),
    ("unlinkat", 1, "EIO", "+"),
    ("renameat", 1, "EIO", ""),
    ("renameat", 2, "ENOSPC", "+"),
    ("pwrite64", 3, "ENOSPC", ""),
    ("fdatasync", 1, "EIO", ""),
    ("socketpair", 1, "EMFILE", ""),
    ("write", 1, "EINTR", "..9"),
)
ANSWERS = (201, 503, 507)
"""201: what failed was not needed, or was done another way."""
HALVES = """
import os
real = os.write
os.write = lambda fd, data: real(fd, bytes(data)[: max(1, len(data) // 2)])
"""
"""A sitecustomize with a disk that takes half of what it is given, each time."""


def cases(calls):
    """Call, number, error, and how long: once, `+` for ever, `..n` until then (strace's words)."""
    if not FULL:
        return SOME
    return [
        (name, n, error, often)
        for name in ERRORS
        for n, call in enumerate((call for call in calls if call.name == name), 1)
        if n <= WRITES or name != "write"
        # No kernel fails to take a lock back, and SQLite could not go on after that.
        if "F_UNLCK" not in call.arguments
        for error, often in errors(name, n)
    ]


def errors(name, n):
    """The errors that a call may meet at its nth place, and how long."""
    if name == "fcntl":
        return [(error, "") for error in ERRORS[name]]
    last = f"..{n + LOGGED}" if name == "write" else "+"
    lasting = [(error, often) for error in ERRORS[name] for often in ("", last)]
    return [*lasting, ("EINTR", f"..{n + 9}")]  # no kernel interrupts for ever


@pytest.fixture(scope="module")
def served():
    with front(*OPTIONS) as door:
        yield door


def test_each_call_with_each_error(served):
    acknowledged, statuses, wrong = dict([assert_healthy(served)]), Counter(), []
    with served.connect() as connection:
        thread, calls = answering(served, connection, seed=-1)
        wanted = cases(calls)
        for number, (name, n, error, often) in enumerate(wanted):
            data = picture(100_000, seed=number)
            status = 0
            try:
                with injected(thread, name, f"error={error}:when={n}{often}"):
                    status, headers, body = upload(served, connection, data)
                statuses[error, status] += 1
                if status == 201:
                    acknowledged[json.loads(body)["public_id"]] = hashlib.sha256(data).hexdigest()
                else:
                    assert_problem(status, headers, body, *ANSWERS)
            except (AssertionError, OSError, http.client.HTTPException) as fault:
                wrong.append(f"{name} {n}{often} {error}: {fault!r}")
                connection.close()
            if status != 201 and not recovered(served, connection, number):
                wrong.append(f"{name} {n}{often} {error}: nothing is taken any more")
    sys.stdout.write(f"{len(wanted)} faults: {sorted(statuses.items())}\n")
    sys.stdout.writelines(f"{one}\n" for one in wrong)
    assert wrong == []
    acknowledged.update([assert_healthy(served)])
    assert_kept(served, acknowledged)
    assert any(status != 201 for _, status in statuses)


def recovered(served, connection, seed):
    """Whether an upload is taken; after several failures a storage is left alone for two seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if upload(served, connection, picture(2000, seed=1_000_000 + seed))[0] == 201:
                return True
        connection.close()
        time.sleep(0.2)
    return False


def upload(served, connection, data):
    connection.request("POST", PATH, form(data), {**served.headers, "Content-Type": FORM})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def test_a_sync_that_failed_is_not_tried_again(served):
    """After it the kernel may have dropped the pages, and the next would succeed."""
    failed = set()
    with served.connect() as connection:
        thread, _ = answering(served, connection, seed=10_000)
        # Which sync is the nth depends on whether the key's folder is a new one: a folder's or a file's.
        for number in range(60):
            if number >= 3 and failed == {True, False}:
                break
            often = f"error=EIO:when={1 + number % 3}"
            with injected(thread, "fsync", often, ",renameat") as calls:
                status, body = served.post(connection, form(picture(9000, seed=10_001 + number)))
            assert (status, body["code"]) == (503, "storage_error")
            (place,) = (k for k, call in enumerate(calls) if not call.ok)
            later = calls[place + 1 :]
            assert calls[place].paths not in [call.paths[:1] for call in later]
            failed.add(Path(calls[place].paths[0]).parent.name == "staging")
    assert failed == {True, False}
    assert_kept(served, {})


def test_a_disk_that_takes_half_of_what_it_is_given(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HALVES)
    with front(*OPTIONS, env={"PYTHONPATH": str(tmp_path)}) as door, door.connect() as connection:
        acknowledged = {}
        (worker, *_) = door.app.workers
        with traced(worker, calls="write") as calls:
            for data in (picture(100_000), jpeg(300, 200)):
                status, body = door.post(connection, form(data))
                assert status == 201, body
                acknowledged[body["public_id"]] = hashlib.sha256(data).hexdigest()
            status, shown = door.get(connection, body["thumbnails"]["full"])
            assert status == 200
            assert decoded(shown)
        assert sum("staging" in call.paths[0] for call in calls if call.paths) > 30
        assert_kept(door, acknowledged)
