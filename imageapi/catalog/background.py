"""Who does the work that a transaction has left, and when: the one place that knows of a broker.

Without one, the request that left it does it after its commit, and a thread of each process what is due
by the clock. With one, that thread tells Celery workers its number (`tasks.py`), so that no request waits
for the broker. A message is a wish, no more: what is lost with it is found again in the rows.

Source: design §6, §7.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app

from imageapi import metrics
from imageapi.catalog import library, work
from imageapi.telemetry import log

PATIENCE = 5.0
"""Seconds that a process which ends waits for what its thread is doing; another finds it again."""
TICK = 2.0
"""Seconds between two looks at the outbox and two writes of the counted views."""
PAUSE = 5.0
"""Seconds for which a broker that did not answer is told nothing."""
KEPT = 1000
"""The most numbers that wait to be told; of more, the oldest are left to the workers' own look."""


def init_app(app: Flask) -> None:
    """Give `app` its background thread; it is not started yet."""
    app.extensions["background"] = Background(app)


def soon(*numbers: int, wait: bool = True) -> None:
    """Have work done whose transaction is over.

    Args:
        numbers: from `work.record`.
        wait: without a broker, it is done when this returns, unless the database is gone by now; else
            the background thread does it.
    """
    background: Background = current_app.extensions["background"]
    if library().settings.broker_url:
        background.tell(numbers)
    elif not wait:
        background.wake()
    elif not _done(numbers):
        background.start()


def _done(numbers: tuple[int, ...]) -> bool:
    """Whether all of it could be tried; a database that is gone now has not undone what left it."""
    try:
        for number in numbers:
            work.run(number)
    except sa.exc.SQLAlchemyError as error:
        log.warning("work put off", why=str(error))
        return False
    return True


class Background:
    """Writes counted views, and does due work or tells workers of it; a thread once a process.

    It starts when it is first needed.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._told: deque[int] = deque(maxlen=KEPT)
        self._silent_until = 0.0

    @functools.cached_property
    def celery(self) -> Any:
        """The Celery application; only where there is a broker."""
        from imageapi.catalog import tasks  # noqa: PLC0415 - Celery is an extra, and slow to import

        return tasks.celery(self._app, library().settings)

    def start(self) -> None:
        """Start the thread if this process has none."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="background", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Look at once, not at the next tick; starts the thread where there is none."""
        self._wake.set()
        self.start()

    def tell(self, numbers: tuple[int, ...]) -> None:
        """Have the thread tell the workers of this work; returns at once."""
        self._told.extend(numbers)
        self.wake()

    def stop(self) -> None:
        """Write what was counted, and end the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        self.once()

    def once(self) -> None:
        """Look once; a fault is logged, never raised."""
        with self._app.app_context():
            alone = not library().settings.broker_url
            for step in (library().views.flush, _measure, self._do if alone else self._send):
                try:
                    step()
                except Exception:  # noqa: BLE001 - the thread outlives whatever one look meets
                    log.exception("background work failed")

    def _do(self) -> None:
        while work.run_due() == work.BATCH:
            pass

    def _send(self) -> None:
        numbers = [self._told.popleft() for _ in range(len(self._told))]
        if not numbers or time.monotonic() < self._silent_until:
            return
        try:
            self.celery.tell(numbers)
        except Exception as error:  # noqa: BLE001 - each transport has errors of its own
            self._silent_until = time.monotonic() + PAUSE
            log.warning("broker does not answer", why=type(error).__name__)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(TICK)
            self._wake.clear()
            self.once()


def _measure() -> None:
    for name, is_open in library().storages.open_breakers().items():
        metrics.breaker(name, is_open=is_open)
