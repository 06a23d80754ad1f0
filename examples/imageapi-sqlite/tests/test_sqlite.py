import contextlib
import sqlite3

import pytest
from imageapi.storage.backend import Context
from imageapi.storage.conformance import Conformance, Harness, served
from imageapi.storage.storages import Storages

from imageapi_sqlite import SQLiteBackend, SQLiteOptions

SECRETS = ("a secret of at least thirty-two bytes",)


class SQLiteHarness(Harness):
    page = 200
    tampered = 2000

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "instance" / "storage" / "blobs" / "files.sqlite3"

    def open(self, timeout=30, **options):
        context = Context("blobs", self.folder / "instance", SECRETS, timeout=timeout)
        return SQLiteBackend(SQLiteOptions(**options), context)

    def absent(self):
        (self.folder / "a file").touch()
        return self.open(file=self.folder / "a file" / "files.sqlite3")

    def fetch(self, url):
        return served(self.open(), url)

    @contextlib.contextmanager
    def denied(self):
        pytest.skip("whoever runs the tests may have every right on a file")
        yield

    @contextlib.contextmanager
    def unavailable(self):
        with self.hanging() as backend:  # a file refuses no connection; it can be locked
            yield backend

    @contextlib.contextmanager
    def hanging(self):
        backend = self.open(timeout=0.2)
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            yield backend

    @contextlib.contextmanager
    def full(self):
        size = self.file.stat().st_size
        yield self.open(max_bytes=size + (1 << 20))


class TestSQLite(Conformance):
    @pytest.fixture
    def harness(self, tmp_path):
        return SQLiteHarness(tmp_path)


def test_it_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEAPI_STORAGE_BLOBS_FILE", str(tmp_path / "here.sqlite3"))
    storages = Storages({"blobs": "sqlite"}, Context("", tmp_path, SECRETS))
    assert storages.check("blobs") is None
    assert (tmp_path / "here.sqlite3").exists()
    assert storages.variables() == [
        "IMAGEAPI_STORAGE_BLOBS_FILE",
        "IMAGEAPI_STORAGE_BLOBS_MAX_BYTES",
    ]
