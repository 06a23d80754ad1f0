"""One metadata read and a list of 100, beside a bare Flask view and the obvious implementation."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask

from bench import counting, inprocess, library, processes
from bench.load import get, load
from bench.peers import bare, obvious
from bench.table import Row

ALBUM = "holidays-1"
LIST = f"/api/v1/albums/{ALBUM}/images"
# What we add to the contract's headers, the bare view does not send.
ADDITIONS = {"ETag", "Link"}
TIMES_OBVIOUS = {"one": 2.5, "list": 4.0}
SERVED = {"one": 1.35, "list": 3.2}
IN_PROCESS = {"one": 2.0, "list": None}


@dataclass(frozen=True)
class Stage:
    """The three applications, with the same images, and what is asked of them."""

    folder: Path
    secret: str
    authorization: str
    paths: dict[str, str]
    ours: Flask
    bare: Flask
    obvious: Flask

    def environment(self, workers: int) -> dict[str, str]:
        return processes.environment(
            self.folder / "instance",
            IMAGEAPI_SECRET_KEYS=self.secret,
            BENCH_ANSWERS=str(self.folder / "answers.json"),
            BENCH_DATABASE=f"sqlite:///{self.folder / 'obvious.sqlite3'}",
            BENCH_SECRET=self.secret,
            WEB_CONCURRENCY=str(workers),
        )


@contextlib.contextmanager
def stage(images: int = 1000) -> Iterator[Stage]:
    """An album of so many images behind all three; their answers are seen to be the same."""
    with tempfile.TemporaryDirectory(prefix="imageapi-bench-") as name:
        folder, secret = Path(name), secrets.token_urlsafe(48)
        ours = library.application(folder / "instance", secret)
        library.fill(ours, [(ALBUM, images)])
        authorization = library.authorization(secret, int(time.time()) + 3600, ALBUM)
        listed = inprocess.call(ours, inprocess.environ(LIST, authorization))
        first = json.loads(listed.body)[0]["public_id"]
        paths = {"one": f"/api/v1/images/{first}", "list": LIST}
        answers = {
            path: inprocess.call(ours, inprocess.environ(path, authorization))
            for path in paths.values()
        }
        prepared = {
            path: {
                "headers": [pair for pair in answer.headers if pair[0] not in ADDITIONS],
                "body": answer.body.decode(),
            }
            for path, answer in answers.items()
        }
        (folder / "answers.json").write_text(json.dumps(prepared))
        other = obvious.create_app(f"sqlite:///{folder / 'obvious.sqlite3'}", secret)
        obvious.fill(other, json.loads(listed.body))
        made = Stage(folder, secret, authorization, paths, ours, bare.create_app(prepared), other)
        for path, answer in answers.items():
            _same(made, path, answer)
        yield made
        library.close(ours)
        with other.app_context():
            obvious.db.engine.dispose()


def _same(made: Stage, path: str, ours: inprocess.Answer) -> None:
    given = inprocess.environ(path, made.authorization)
    for app in (made.bare, made.obvious):
        peer = inprocess.call(app, given)
        if peer.status != 200 or peer.body != ours.body:
            raise RuntimeError(f"a peer answers {path} otherwise: {peer.status}, {peer.body!r}")


def statements(path: str, made: Stage) -> list[str]:
    """The SQL statements of one warm request."""
    with counting.statements() as seen:
        app = library.create_app(
            library.Settings(secret_keys=(made.secret,), instance=made.folder / "instance")
        )
        given = inprocess.environ(path, made.authorization)
        inprocess.call(app, given)
        before = len(seen)
        inprocess.call(app, given)
        library.close(app)
    return [text for text in seen[before:] if not text.startswith("PRAGMA")]


def rows(*, short: bool) -> Iterator[Row]:
    with stage(100 if short else 1000) as made:
        names = {"one": "one image", "list": "list of 100"}
        for kind, path in made.paths.items():
            count = len(statements(path, made))
            most = {"one": 1, "list": 2}[kind]
            yield Row(f"{names[kind]}: SQL statements", count, most=most, absolute=True)
        for kind, name in names.items():
            figures = _in_process(made, kind, short=short)
            ours = figures["ours"]
            yield Row(
                f"{name}, in process: CPU µs", ours, figures["bare"], "bare view", IN_PROCESS[kind]
            )
            yield Row(f"{name}, in process: CPU µs", ours, figures["obvious"], "obvious")
        served = _served(made, short=short)
        for kind, name in names.items():
            cpu, rate = served[kind]
            ours = cpu["ours"]
            yield Row(
                f"{name}, served: CPU ms/request", ours, cpu["bare"], "bare view", SERVED[kind]
            )
            most = round(1 / TIMES_OBVIOUS[kind], 2)
            yield Row(f"{name}, served: CPU ms/request", ours, cpu["obvious"], "obvious", most)
            for peer in ("bare", "obvious"):
                label = "bare view" if peer == "bare" else peer
                yield Row(f"{name}, served: requests/s", rate["ours"], rate[peer], label)


def _in_process(made: Stage, kind: str, *, short: bool) -> dict[str, float]:
    given = inprocess.environ(made.paths[kind], made.authorization)
    apps = {"ours": made.ours, "bare": made.bare, "obvious": made.obvious}
    work = {name: functools.partial(inprocess.call, app, given) for name, app in apps.items()}
    repeat = {"one": 200, "list": 20}[kind]
    return inprocess.compare(work, rounds=2 if short else 41, repeat=repeat // 4)


def _served(made: Stage, *, short: bool) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    peer = ("--config", "bench/peers/gunicorn.conf.py")
    apps: dict[str, tuple[str, ...]] = {
        "ours": ("wsgi:app",),
        "bare": ("bench.peers.bare:app", *peer),
        "obvious": ("bench.peers.obvious:app", *peer),
    }
    requests = {"one": (2000, 2000, 800), "list": (600, 1500, 80)}
    figures: dict[Any, list[float]] = {}
    env = made.environment(1 if short else 2)
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(processes.gunicorn(app, env, *options))
            for name, (app, *options) in apps.items()
        }
        for turn in range(2 if short else 6):
            for kind, path in made.paths.items():
                request = get(path, made.authorization)
                for (name, server), number in zip(servers.items(), requests[kind], strict=True):
                    if short or not turn:
                        number //= 10  # noqa: PLW2901 - the first round warms up
                    before = server.cpu()
                    seconds = load(server.port, request, number)
                    if turn:
                        spent = (server.cpu() - before) / number
                        figures.setdefault((kind, name, "cpu"), []).append(spent)
                        figures.setdefault((kind, name, "rate"), []).append(number / seconds)
    middle = {key: median(found) for key, found in figures.items()}
    return {
        kind: (
            {name: middle[kind, name, "cpu"] for name in apps},
            {name: middle[kind, name, "rate"] for name in apps},
        )
        for kind in made.paths
    }
