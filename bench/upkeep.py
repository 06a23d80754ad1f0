"""What `fsck` costs beside reading the same files and hashing them, which is all that it has to do."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from flask import Flask

from bench import library
from bench.table import Row
from imageapi.catalog import albums, upkeep
from imageapi.extensions import transaction
from imageapi.models import StoredObject
from imageapi.storage.backend import original_key

MB = 1_000_000
SIZES = {"3 MB": (3 * MB, 300, 1.1), "50 kB": (50_000, 4000, None)}
"""Bytes of a file, how many files, the goal."""
PEER = "read + SHA-256, one after the other"


def rows(*, short: bool) -> Iterator[Row]:
    for name, (length, count, most) in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="imageapi-bench-", dir=library.disk()) as folder:
            app = library.application(Path(folder) / "instance", secrets.token_urlsafe(48))
            files = fill(app, length, count // (50 if short else 1))
            yield from _compared(app, files, name, length, most, turns=1 if short else 5)
            library.close(app)


def fill(app: Flask, length: int, count: int) -> Sequence[Path]:
    """So many originals of random bytes in the local storage, with their rows; their paths."""
    root = Path(app.extensions["library"].settings.instance) / "storage/local"
    files = []
    with app.app_context():
        albums.create("holidays", library.OWNER)
        album = albums.find("holidays")
    with app.app_context(), transaction() as session:
        for _ in range(count):
            data, key = os.urandom(length), original_key()
            files.append(root / key)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_bytes(data)
            stored = StoredObject(
                album_id=album.id,
                storage="local",
                key=key,
                sha256=hashlib.sha256(data).hexdigest(),
                md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
                bytes=length,
                format="jpg",
                width=1,
                height=1,
                created_ms=library.START,
            )
            session.add(stored)
    return files


def fsck(app: Flask) -> float:
    """Seconds that it takes to find that nothing is wrong."""
    with app.app_context():
        started = time.perf_counter()
        for finding in upkeep.fsck(upkeep.Scope()):
            raise RuntimeError(f"the benchmark's own files are damaged: {finding}")
        return time.perf_counter() - started


def limit(files: Sequence[Path]) -> float:
    """Seconds that it takes to read the files and hash them."""
    started = time.perf_counter()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - started


def _compared(
    app: Flask, files: Sequence[Path], name: str, length: int, most: float | None, turns: int
) -> Iterator[Row]:
    ours, least = [], []
    for _ in range(turns):
        least.append(limit(files))
        ours.append(fsck(app))
    size = len(files) * length / MB
    what = f"fsck of {len(files)} originals of {name}"
    yield Row(f"{what}, wall ms", median(ours) * 1e3, median(least) * 1e3, PEER, most)
    yield Row(f"{what}, MB/s", size / median(ours), size / median(least), PEER)
