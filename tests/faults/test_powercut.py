"""The power cut tells who keeps his promises: of stores that differ in one call, the right one."""

import contextlib
import hashlib
import sqlite3
import subprocess
import sys

import pytest

from tests.faults.block_log import Ack, Flush, Write
from tests.faults.powercut import Cut, Recording, record

STORE = """
import os, pathlib, sys
folder, acks, leave_out = pathlib.Path(sys.argv[1]), open(sys.argv[2], "wb", buffering=0), sys.argv[3]

def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

for number in range(12):
    data = os.urandom(9000)
    (folder / "staging").write_bytes(data)
    if leave_out != "file":
        sync(folder / "staging")
    (folder / "staging").rename(folder / str(number))
    if leave_out != "folder":
        sync(folder)
    acks.write(f"{number} {__import__('hashlib').sha256(data).hexdigest()}".encode())
"""


def broken(directory, acknowledged):
    """The acknowledgements that a recovered folder does not keep."""
    promises = [line.split() for line in acknowledged]
    return [name for name, digest in promises if content(directory / name) != digest]


def content(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


@pytest.mark.parametrize(
    ("leave_out", "safe"), [("nothing", True), ("file", False), ("folder", False)]
)
def test_files_need_both_fsyncs(leave_out, safe):
    def workload(disk):
        command = [sys.executable, "-c", STORE, disk.directory, disk.acks, leave_out]
        subprocess.run(command, check=True)

    recording = record(workload)
    assert sum(isinstance(event, Ack) for event in recording.events) == 12
    lost = 0
    for cut in recording.cuts(40):
        with cut.recovered() as directory:
            lost += bool(broken(directory, cut.acknowledged))
    assert (lost == 0) == safe


@pytest.mark.parametrize(("synchronous", "safe"), [("FULL", True), ("NORMAL", False)])
def test_sqlite_needs_full_synchronisation(synchronous, safe):
    """What WAL commits with NORMAL is consistent after a power cut, and forgotten."""

    def opened(directory):
        database = sqlite3.connect(directory / "rows.sqlite3", isolation_level=None)
        database.execute("pragma journal_mode = wal")
        database.execute(f"pragma synchronous = {synchronous}")
        return database

    def prepare(directory):
        with contextlib.closing(opened(directory)) as database:
            database.execute("create table rows (n int)")

    def workload(disk):
        with contextlib.closing(opened(disk.directory)) as database:
            for number in range(20):
                database.execute("insert into rows values (?)", (number,))
                disk.acknowledge(str(number))

    lost = 0
    for cut in record(workload, prepare=prepare).cuts(30):
        with cut.recovered() as directory, contextlib.closing(opened(directory)) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
            rows = [number for (number,) in database.execute("select n from rows")]
        assert rows == list(range(len(rows)))
        lost += len(rows) < len(cut.acknowledged)
    assert (lost == 0) == safe


def test_a_cut_keeps_what_was_flushed_and_may_tear_the_rest():
    events = [
        Write(0, b"a" * 1024),
        Flush(),
        Ack("a"),
        Write(1024, b"b" * 1024),
        Write(0, b"c" * 1024),
        Ack("b"),
    ]
    recording = Recording(2048, [Write(512, b"-" * 1024)], events)
    assert [Cut(recording, n, 0).acknowledged for n in (2, 3, 6)] == [[], ["a"], ["a", "b"]]
    assert sectors(recording, 0) == {b"\0--\0"}
    assert sectors(recording, 3) == {b"aa-\0"}
    first = [b"aa", b"ac", b"ca", b"cc"]
    second = [b"-\0", b"-b", b"b\0", b"bb"]
    assert sectors(recording, 6) == {one + other for one in first for other in second}
    assert list(recording.cuts(9)) == list(recording.cuts(9))
    assert {cut.position for cut in recording.cuts(50)} == {0, 1, 2, 3, 4, 5, 6}


def sectors(recording, position):
    """The first bytes of all sectors, over many cuts at one place."""
    seen = set()
    for seed in range(200):
        image = bytearray(recording.size)
        for write in Cut(recording, position, seed).writes():
            image[write.offset : write.offset + len(write.data)] = write.data
        seen.add(bytes(image[::512]))
    return seen
