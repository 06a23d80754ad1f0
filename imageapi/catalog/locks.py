"""Locks that all processes on all hosts share: a file between those of a host, PostgreSQL between hosts."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from imageapi.catalog import library
from imageapi.errors import Busy
from imageapi.extensions import db, reader
from imageapi.storage.disk import disk_errors

PATIENCE = 60.0
"""Seconds that a host waits for another one."""
SESSIONS = 4
"""The most locks between hosts that a process has at once; each takes a connection for as long."""
_POLL = 0.05
_sessions = threading.BoundedSemaphore(SESSIONS)

_NUMBER = sa.bindparam("number", type_=sa.BigInteger)
_LOCK = sa.select(sa.func.pg_try_advisory_lock(_NUMBER))
_UNLOCK = sa.select(sa.func.pg_advisory_unlock(_NUMBER))


@contextlib.contextmanager
def rendering(image_id: str) -> Iterator[None]:
    """Hold the lock for the renditions of an image; a 256th of all images share one.

    No transaction is open meanwhile. A process that dies lets go.

    Raises:
        Busy: another host holds it all the time.
    """
    with _alone(image_id[:2]):
        yield


@contextlib.contextmanager
def moving(object_id: int) -> Iterator[None]:
    """As `rendering`, for where an object and the renditions of its images are."""
    with _alone(f"object-{object_id % 256:02x}"):
        yield


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    url = db.engine.url
    shared = url.get_backend_name() == "postgresql"
    # Whoever shares an SQLite database is on one host, and has its folder in common if nothing else.
    folder = library().settings.instance if shared else Path(url.database or "").parent
    with contextlib.ExitStack() as stack:
        with disk_errors():
            (folder / "locks").mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / "locks" / name).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        if shared:
            stack.enter_context(_between_hosts(name))
        yield


@contextlib.contextmanager
def _between_hosts(name: str) -> Iterator[None]:
    """Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS."""
    digest = hashlib.sha256(f"renditions {name}".encode()).digest()
    number = int.from_bytes(digest[:8], signed=True)
    end = time.monotonic() + PATIENCE
    with _sessions, reader().session() as session:
        while not session.scalar(_LOCK, {"number": number}):
            if time.monotonic() > end:
                raise Busy
            time.sleep(_POLL)
        try:
            yield
        finally:
            session.execute(_UNLOCK, {"number": number})
