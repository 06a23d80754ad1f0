"""The thread of each process that does, beside the requests, what need not hold them up."""

from __future__ import annotations

import threading

from flask import Flask, current_app

from imageapi import metrics
from imageapi.catalog import library, work
from imageapi.telemetry import log

PATIENCE = 5.0
"""Seconds that a process which ends waits for what its thread is doing; another finds it again."""
TICK = 2.0
"""Seconds between two looks at the outbox and two writes of the counted views."""


def init_app(app: Flask) -> None:
    """Give `app` its background thread; it is not started yet."""
    app.extensions["background"] = Background(app)


def wake() -> None:
    """Have the current application's background thread do what is due now."""
    background: Background = current_app.extensions["background"]
    background.wake()


class Background:
    """Does due work and writes counted views; started when first needed, once a process."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

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

    def stop(self) -> None:
        """Write what was counted, and end the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        self.once()

    def once(self) -> None:
        """Look once: do what is due, write what was counted; a fault is logged, never raised."""
        try:
            with self._app.app_context():
                library().views.flush()
                for name, is_open in library().storages.open_breakers().items():
                    metrics.breaker(name, is_open=is_open)
                while work.run_due() == work.BATCH:
                    pass
        except Exception:  # noqa: BLE001 - the thread outlives whatever one look meets
            log.exception("background work failed")

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(TICK)
            self._wake.clear()
            self.once()
