"""The order of the system calls: file synced < renamed < folder synced < row synced < answer."""

from __future__ import annotations

import sys

import pytest

from tests.faults.front import form, front, picture
from tests.faults.syscalls import CALLS, RENAMES, SYNCS, faults
from tests.oracles import strace, syscalls, traced
from tests.servers.gunicorn import ROOT

# A trace as strace writes it; what belongs to the promise is marked in `NEEDED`.
TRACE = """\
10 write(9</s/staging/f1>, "\\211PNG"..., 1000) = 1000
10 fsync(9</s/staging/f1>) = 0
11 write(2</dev/null>, "x", 1) = 1
10 renameat(7</s/staging>, "f1", 8</s/ab>, "ab1") = 0
10 fsync(8</s/ab> <unfinished ...>
11 sendto(5<TCP:[1]>, "HTTP/1.1 200 OK"..., 900, 0, NULL, 0) = 900
10 <... fsync resumed>) = 0
10 write(9</s/staging/r1>, "\\377\\330"..., 500) = 500
10 fsync(9</s/staging/r1>) = 0
10 renameat(7</s/staging>, "r1", 8</s/ab>, "ab2.1.full.jpg") = 0
10 pwrite64(6</i/x.sqlite3-wal>, "\\0"..., 24, 0) = 24
10 pwrite64(6</i/x.sqlite3-wal>, "\\0"..., 4096, 24) = 4096
10 fdatasync(6</i/x.sqlite3-wal>) = 0
10 sendto(5<TCP:[1]>, "HTTP/1.1 201 CREATED\\r\\n"..., 900, 0, NULL, 0) = 900
"""
ABOUT = {"target": "/s/ab/ab1", "wal": "/i/x.sqlite3-wal", "answer": "HTTP/1.1 201"}
NEEDED = {
    "the file's sync": "fsync(9</s/staging/f1>)",
    "the rename": '"ab1")',
    "the folder's sync": "fsync resumed>",
    "the row's sync": "fdatasync(6",
    "the answer": "201 CREATED",
}


def parsed(trace):
    return list(syscalls(trace))


def without(text):
    return "".join(line for line in TRACE.splitlines(keepends=True) if text not in line)


def moved(text, before):
    """The trace with one line of it brought before another."""
    lines = TRACE.splitlines(keepends=True)
    line = next(line for line in lines if text in line)
    lines.remove(line)
    lines.insert(next(n for n, other in enumerate(lines) if before in other), line)
    return "".join(lines)


def test_the_order_as_it_should_be():
    assert faults(parsed(TRACE), **ABOUT) == []


@pytest.mark.parametrize("what", NEEDED)
def test_a_call_that_is_missing_is_seen(what):
    assert faults(parsed(without(NEEDED[what])), **ABOUT)


@pytest.mark.parametrize(
    ("call", "before"),
    [
        ("fsync(9</s/staging/f1>)", "write(9</s/staging/f1>"),  # synced before it was written
        ('renameat(7</s/staging>, "f1"', "fsync(9</s/staging/f1>)"),
        ("fdatasync(6", 'pwrite64(6</i/x.sqlite3-wal>, "\\0"..., 4096'),
        ("201 CREATED", "fdatasync(6"),
        ('pwrite64(6</i/x.sqlite3-wal>, "\\0"..., 24', "fsync resumed>"),  # the row too early
    ],
)
def test_a_call_that_comes_too_late_is_seen(call, before):
    assert faults(parsed(moved(call, before)), **ABOUT)


def test_a_sync_that_failed_is_none():
    failed = TRACE.replace("fsync(9</s/staging/f1>) = 0", "fsync(9</s/staging/f1>) = -1 EIO (x)")
    assert faults(parsed(failed), **ABOUT)


def assert_durable(calls, target, wal, answer):
    """The order holds, and would not be seen to hold with any one of its calls taken out."""
    assert faults(calls, target, wal, answer) == []
    renames = [call for call in calls if call.name in RENAMES and call.paths[-1] == target]
    source, folder = renames[0].paths[0], target.rpartition("/")[0]
    needed = [
        *(
            [c for c in calls if c.name in SYNCS and c.paths == (path,)]
            for path in (source, folder, wal)
        ),
        renames,
        [call for call in calls if f'"{answer}' in call.arguments],
    ]
    for taken in needed:
        assert taken
        assert faults([call for call in calls if call not in taken], target, wal, answer), taken


@pytest.fixture(scope="module")
def served():
    with front("--workers", "1") as door:
        yield door


@pytest.mark.parametrize("number", range(3))
def test_an_upload(served, number):
    known = {row["key"] for row in served.rows()}
    with traced(*served.app.workers, calls=CALLS) as calls, served.connect() as connection:
        status, _ = served.post(connection, form(picture(100_000, seed=number)))
        assert status == 201
        # Another answer: the trace of the first is written by then.
        assert served.get(connection, "/healthz")[0] == 200

    (key,) = {row["key"] for row in served.rows()} - known
    assert_durable(
        calls,
        target=str(served.root / key),
        wal=str(served.app.instance / "imageapi.sqlite3-wal"),
        answer="HTTP/1.1 201",
    )


def test_seeding(served, tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(50_000, seed=100 + number))
    known = {row["key"] for row in served.rows()}
    options = ["--album", "holidays", "--owner", "anna"]
    command = [sys.executable, "-m", "flask", "albums", "seed", tmp_path, *options]

    monkeypatch.chdir(ROOT)
    for name, value in served.app.env.items():
        monkeypatch.setenv(name, value)
    calls = strace(command, calls=CALLS)

    keys = {row["key"] for row in served.rows()} - known
    assert len(keys) == 3
    for key in keys:
        assert_durable(
            calls,
            target=str(served.root / key),
            wal=str(served.app.instance / "imageapi.sqlite3-wal"),
            answer="added 3",
        )
