"""What is made of every call of a storage: a count, and an alarm where it refuses us."""

from __future__ import annotations

import time

from imageapi import metrics
from imageapi.errors import StorageDenied
from imageapi.storage.storages import Observe
from imageapi.telemetry import log

_ALARM_SECONDS = 60


def observe() -> Observe:
    """The observer of an application's storages.

    A storage that refuses our credentials stays so until somebody acts: it is told once a minute.
    """
    told: dict[str, float] = {}

    def seen(storage: str, operation: str, seconds: float, outcome: str) -> None:
        metrics.storage_call(storage, operation, seconds, outcome)
        if outcome == StorageDenied.code:
            now = time.monotonic()
            if now - told.get(storage, -_ALARM_SECONDS) >= _ALARM_SECONDS:
                told[storage] = now
                log.error("the storage refuses this service", storage=storage, call=operation)

    return seen
