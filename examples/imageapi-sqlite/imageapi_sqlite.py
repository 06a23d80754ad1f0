"""A storage plugin for Image API: stored files as rows of one SQLite file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imageapi.errors import (
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.geometry import Rendition
from imageapi.settings import setting
from imageapi.storage.backend import (
    Backend,
    Context,
    Infos,
    Picture,
    Staged,
    Stored,
    infos,
    rendition_key,
)
from imageapi.storage.disk import disk_errors, opened_staged
from imageapi.storage.signing import SignedURLs

_PIECE = 256 * 1024
_PAGE = 200
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    created REAL NOT NULL,
    data BLOB NOT NULL
)
"""
_MEANING: dict[int, type[StorageError]] = {
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_TOOBIG: StorageFull,
    sqlite3.SQLITE_BUSY: StorageUnavailable,
    sqlite3.SQLITE_LOCKED: StorageUnavailable,
    sqlite3.SQLITE_READONLY: StorageDenied,
    sqlite3.SQLITE_PERM: StorageDenied,
    sqlite3.SQLITE_CORRUPT: StorageCorrupt,
    sqlite3.SQLITE_NOTADB: StorageCorrupt,
}


@dataclass(frozen=True, kw_only=True)
class SQLiteOptions:
    """Settings of this storage: `IMAGEAPI_STORAGE_<NAME>_FILE`, `…_MAX_BYTES`."""

    file: Path | None = setting(
        "The database file; made if absent.",
        kind="path",
        shown="`storage/<name>/files.sqlite3` in `IMAGEAPI_INSTANCE`",
    )
    max_bytes: int | None = setting("How large that file may become.", kind="int", shown="no limit")


class SQLiteBackend(Backend):
    """One row a file. Every call has a connection of its own: nothing to share, nothing to fork."""

    Options = SQLiteOptions

    def __init__(self, options: SQLiteOptions, context: Context) -> None:
        super().__init__(options, context)
        self._folder = context.instance / "storage" / context.name
        self._file = options.file or self._folder / "files.sqlite3"
        self._urls = SignedURLs(context.secret_keys, context.public_url, context.url_window)

    @property
    def staging(self) -> Path:
        folder = self._folder / "staging"
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def put(self, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        created = time.time()
        with self._writing() as connection, opened_staged(staged) as source:
            row = _insert(connection, key, staged.length, staged.md5, created)
            sha256, place = hashlib.sha256(), 0
            with connection.blobopen("files", "data", row) as blob:
                while piece := os.pread(source, _PIECE, place):
                    sha256.update(piece)
                    blob.write(piece)
                    place += len(piece)
            if sha256.hexdigest() != staged.sha256:
                raise StorageCorrupt("The staged file is not what was staged.")
        return infos(staged, tags, created)

    def keep(self, key: str, data: bytes, content_type: str) -> None:  # noqa: ARG002
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        with self._writing() as connection:
            row = _insert(connection, key, len(data), md5, time.time())
            with connection.blobopen("files", "data", row) as blob:
                blob.write(data)

    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._connected() as connection:
            connection.execute("BEGIN")  # one view of row and bytes, whoever replaces them
            row, size = _find(connection, key)[:2]
            end = size if length is None else start + length
            if start > size or end > size:
                raise StorageCorrupt
            with connection.blobopen("files", "data", row, readonly=True) as blob:
                blob.seek(start)
                while start < end:
                    piece = blob.read(min(_PIECE, end - start))
                    start += len(piece)
                    yield piece

    def stat(self, key: str) -> Stored:
        with self._connected() as connection:
            return Stored(key, *_find(connection, key)[1:])

    def delete(self, key: str) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM files WHERE key = ?", (key,))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        select = (
            "SELECT key, bytes, md5, created FROM files"
            " WHERE key > ? AND substr(key, 1, ?) = ? ORDER BY key LIMIT ?"
        )
        while True:
            with self._connected() as connection:
                page = connection.execute(select, (after, len(prefix), prefix, _PAGE)).fetchall()
            if not page:
                return
            for row in page:
                yield Stored(*row)
            after = page[-1][0]

    def rendition_url(self, picture: Picture, rendition: Rendition, window: int) -> str:
        key = rendition_key(picture.image_id, picture.revision, rendition.name, picture.extension)
        return self._urls.url(self.context.name, key, window)

    def check(self) -> None:
        with self._writing() as connection:
            connection.execute("UPDATE files SET key = key WHERE id = -1")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable at the end of the block; an error undoes it."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with _sqlite_errors():
            self._make_file()
            with contextlib.closing(
                sqlite3.connect(
                    self._file,
                    timeout=self.context.timeout,
                    isolation_level=None,
                    check_same_thread=False,  # a download may end in another thread
                )
            ) as connection:
                connection.execute("PRAGMA journal_mode = WAL")  # slow readers hinder no writer
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(_SCHEMA)
                if self.options.max_bytes is not None:
                    [size] = connection.execute("PRAGMA page_size").fetchone()
                    pages = self.options.max_bytes // size
                    connection.execute(f"PRAGMA max_page_count = {pages}")
                yield connection

    def _make_file(self) -> None:
        """Ours alone to read; and where it can not be opened, the system says why."""
        with disk_errors():
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _insert(connection: sqlite3.Connection, key: str, length: int, md5: str, created: float) -> int:
    values = (key, length, md5, created, length)
    insert = "REPLACE INTO files (key, bytes, md5, created, data) VALUES (?, ?, ?, ?, zeroblob(?))"
    return connection.execute(insert, values).lastrowid or 0


def _find(connection: sqlite3.Connection, key: str) -> tuple[int, int, str, float]:
    select = "SELECT id, bytes, md5, created FROM files WHERE key = ?"
    row: tuple[int, int, str, float] | None = connection.execute(select, (key,)).fetchone()
    if row is None:
        raise StorageNotFound
    return row


@contextlib.contextmanager
def _sqlite_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the code says where
        kind = _MEANING.get(code, StorageError)
        raise kind(f"{kind.detail} ({error})") from error
