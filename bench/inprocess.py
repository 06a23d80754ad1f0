"""WSGI calls without a server."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

from werkzeug.test import EnvironBuilder

Application = Any


class Answer(NamedTuple):
    """What a WSGI application answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def environ(path: str, authorization: str) -> dict[str, Any]:
    """The environment of a GET, as a server makes it."""
    builder = EnvironBuilder(path=path, headers={"Authorization": authorization})
    try:
        return builder.get_environ()
    finally:
        builder.close()


def post(path: str, authorization: str, body: bytes, content_type: str) -> dict[str, Any]:
    """The environment of a POST whose body lies in memory."""
    return {
        **environ(path, authorization),
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }


def call(app: Application, given: Mapping[str, Any]) -> Answer:
    """One request."""
    began: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_error: Any) -> None:
        began[:] = [int(status[:3]), headers]

    pieces = app(dict(given), start_response)
    try:
        body = b"".join(pieces)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    return Answer(*began, body)


def compare(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    repeat: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """CPU microseconds of each piece of work: medians over rounds in which they take turns.

    Args:
        clock: `time.perf_counter` where another process does some of the work.
    """
    figures: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, function in work.items():
            started = clock()
            for _ in range(repeat):
                function()
            if turn:  # the first warms up
                figures[name].append((clock() - started) * 1e6 / repeat)
    return {name: median(found) for name, found in figures.items()}
