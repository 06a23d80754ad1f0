"""After a storage failed to answer several times in a row, do not wait for it each time again."""

from __future__ import annotations

import time

from imageapi.errors import StorageUnavailable

_FAILURES = 5
_PAUSE = 2.0


class Breaker:
    """Opens after five calls in a row without an answer; then one call every two seconds tries.

    Counts are not locked: threads that race add a try or two, no more.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._failures >= _FAILURES

    def refuse_if_open(self, *, trying: bool = True) -> None:
        """Refuse a call at once while the breaker is open.

        Args:
            trying: the call asks the storage itself, so that others wait for what becomes of it.
        Raises:
            StorageUnavailable: it is open.
        """
        if not self.is_open:
            return
        now = time.monotonic()
        if now < self._until:
            raise StorageUnavailable
        if trying:
            self._until = now + _PAUSE

    def answered(self) -> None:
        """The storage answered, were it with an error: all is well."""
        self._failures = 0

    def failed(self) -> None:
        """The storage did not answer."""
        self._failures += 1
        self._until = time.monotonic() + _PAUSE
