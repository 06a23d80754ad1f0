"""Whether the service can do its work: each thing that it needs, asked side by side within a deadline.

A check that hangs is left alone in its thread, and no second one is started beside it; what a check
found is good for a second. Ready means: the database answers, the storage of new albums is usable,
and the process is not about to end. What only some albums or some comfort need makes it degraded.

Source: design §4, §7; F13, F16, F24 and F28 of the faults.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app

from imageapi.catalog import library, work
from imageapi.errors import StorageError
from imageapi.extensions import read
from imageapi.models import Album, Generation

DEADLINE = 2.5
"""Seconds until what has not answered counts as not answering."""
KEPT = 1.0
"""Seconds that an answer is good for."""
_NAMES_KEPT = 60.0
"""Seconds that the names of the storages in use are good for: they are counted out of all albums."""
_ANSWERS = sa.select(Generation.value)
_STORAGES = sa.select(Album.storage).where(Album.deleted_ms.is_(None)).distinct()


@dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
        reason: why not, in words; None when all is well.
        needed: whether the service is of no use without.
        value: what it answered.
    """

    reason: str | None
    needed: bool
    value: Any = None


class _Probe:
    """One check; at most one thread is at it."""

    def __init__(self, app: Flask, work: Callable[[], Any], kept: float = KEPT) -> None:
        self._app = app
        self._work = work
        self._kept = kept
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()
        self._ended = -kept
        self._value: Any = None
        self._reason: str | None = "It was not asked yet."

    def start(self) -> None:
        """Ask, unless it is being asked, or the last answer is good still."""
        with self._lock:
            if self._done.is_set() and time.monotonic() - self._ended >= self._kept:
                self._done.clear()
                threading.Thread(target=self._run, name="readiness", daemon=True).start()

    def result(self, until: float) -> tuple[str | None, Any]:
        """Why not, and what it answered; waits up to a moment of the monotonic clock."""
        if not self._done.wait(max(0.0, until - time.monotonic())):
            return "It does not answer in time.", None
        return self._reason, self._value

    def _run(self) -> None:
        try:
            with self._app.app_context():
                self._value, self._reason = self._work(), None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready
            self._value, self._reason = None, _words(error)
        finally:
            self._ended = time.monotonic()
            self._done.set()


class Readiness:
    """The checks of one process; `stopping` turns it red for good."""

    def __init__(self, app: Flask) -> None:
        self.stopping = False
        self._app = app
        self._used = _Probe(app, _storages_in_use, _NAMES_KEPT)
        self._probes: dict[str, _Probe] = {}
        self._lock = threading.Lock()

    def look(self) -> dict[str, Found]:
        """Ask everything, within `DEADLINE`; by name, the database first."""
        until = time.monotonic() + DEADLINE
        shelf = library()
        checks: dict[str, tuple[Callable[[], Any], bool]] = {"database": (_backlog, True)}
        for name in self._names():
            needed = name == shelf.settings.storage
            checks[f"storage {name}"] = (functools.partial(_check, name), needed)
        for name, url in (
            ("rate limits", shelf.settings.redis_url),
            ("broker", shelf.settings.broker_url),
        ):
            if url:
                checks[name] = (functools.partial(_ping, url), False)
        for name, (ask, _needed) in checks.items():
            self._probe(name, ask).start()
        return {
            name: Found(reason, needed, value)
            for name, (ask, needed) in checks.items()
            for reason, value in [self._probe(name, ask).result(until)]
        }

    def _names(self) -> list[str]:
        self._used.start()
        _reason, used = self._used.result(time.monotonic() + DEADLINE / 5)
        return sorted({library().settings.storage, *(used or ())})

    def _probe(self, name: str, ask: Callable[[], Any]) -> _Probe:
        with self._lock:
            return self._probes.setdefault(name, _Probe(self._app, ask))


def init_app(app: Flask) -> None:
    """Give `app` its readiness."""
    app.extensions["readiness"] = Readiness(app)


def readiness() -> Readiness:
    """The readiness of the current application."""
    found: Readiness = current_app.extensions["readiness"]
    return found


def _storages_in_use() -> frozenset[str]:
    return frozenset(row.storage for row in read(_STORAGES))


def _check(storage: str) -> None:
    library().storages[storage].check()


def _backlog() -> Mapping[str, work.Backlog]:
    read(_ANSWERS)
    return work.backlog()


def _ping(url: str) -> None:
    import redis  # noqa: PLC0415 - only where it is asked for

    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        client.ping()


def _words(error: Exception) -> str:
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, sa.exc.ProgrammingError | sa.exc.OperationalError) and (
        "no such table" in str(error.orig) or "does not exist" in str(error.orig)
    ):
        return "It is not migrated: run `flask db upgrade`."
    return f"It does not answer ({type(error).__name__})."
