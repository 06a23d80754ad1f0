"""What a read costs as rows are added: one image among many, the last page of a large album."""

from __future__ import annotations

import functools
import itertools
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flask import Flask

from bench import inprocess, library
from bench.table import Row
from tests.servers.postgres import by_psycopg, postgres

ALBUM = "large-1"
CLOCKS = {"SQLite": (time.process_time, "CPU µs"), "PostgreSQL": (time.perf_counter, "wall µs")}
"""Each database's, and what it shows: PostgreSQL does its work in a process of its own."""
PAGE = f"/api/v1/albums/{ALBUM}/images?limit=100"
SAMPLE = 2000
_NEXT = re.compile(r'<([^>]+)>; rel="next"')


def rows(*, short: bool) -> Iterator[Row]:
    yield from _on("SQLite", ("", ""), short=short)
    with postgres() as server, server.database() as one, server.database() as other:
        yield from _on("PostgreSQL", (by_psycopg(one), by_psycopg(other)), short=short)


def _on(database: str, urls: tuple[str, str], *, short: bool) -> Iterator[Row]:
    clock, unit = CLOCKS[database]
    few, many, large = (100, 10_000, 1_000) if short else (1_000, 1_000_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="imageapi-bench-") as name:
        secret = secrets.token_urlsafe(48)
        authorization = library.authorization(secret, int(time.time()) + 3600, ALBUM)
        small = library.application(Path(name) / "few", secret, urls[0])
        library.fill(small, [(ALBUM, few)])
        big = library.application(Path(name) / "many", secret, urls[1])
        others = [(f"other-{n}", 1000) for n in range((many - large) // 1000)]
        library.fill(big, [(ALBUM, large), *others])
        works = {
            app: _reader(app, authorization, min(SAMPLE, few if app is small else large))
            for app in (small, big)
        }
        figures = inprocess.compare(
            {"few": works[small], "many": works[big]},
            rounds=3 if short else 21,
            repeat=100,
            clock=clock,
        )
        yield Row(
            f"{database}: one image of {many:,} rows at random, in process: {unit}",
            figures["many"],
            figures["few"],
            f"of {few:,} rows",
            1.5,
        )
        yield from _pages(big, authorization, database, large, short=short)
        for app in (small, big):
            library.close(app)


def _reader(app: Flask, authorization: str, sample: int) -> Callable[[], object]:
    """Reads one image after the other; which they are says chance, through their ids."""
    environs = itertools.cycle(
        [
            inprocess.environ(f"/api/v1/images/{name}", authorization)
            for name in library.ids(app, ALBUM, sample)
        ]
    )
    return lambda: inprocess.call(app, next(environs))


def _pages(
    app: Flask, authorization: str, database: str, large: int, *, short: bool
) -> Iterator[Row]:
    first, last, count = PAGE, PAGE, 1
    while target := _next(inprocess.call(app, inprocess.environ(last, authorization))):
        last, count = target, count + 1
    clock, unit = CLOCKS[database]
    what = f"{database}: last page of {large:,} images, in process: {unit}"
    if count == 1:
        yield Row(what, peer="skipped: lists have no cursor yet")
        return
    if count != large // 100:
        raise RuntimeError(f"a walk through {large} images took {count} pages")
    figures = inprocess.compare(
        {
            name: functools.partial(inprocess.call, app, inprocess.environ(path, authorization))
            for name, path in (("first", first), ("last", last))
        },
        rounds=3 if short else 21,
        repeat=5,
        clock=clock,
    )
    yield Row(what, figures["last"], figures["first"], "first page", 1.1)


def _next(answer: inprocess.Answer) -> str | None:
    match = _NEXT.search(dict(answer.headers).get("Link", ""))
    return re.sub(r"^https?://[^/]+", "", match[1]) if match else None
