"""What starting costs: CPU time of the imports, memory of a worker, and what is not imported."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench import library, processes
from bench.load import get, load
from bench.table import Row

ALBUM = "holidays-1"
IMPORTS = {
    "peers": "import flask, flask_sqlalchemy, jwt, PIL.Image",
    "import": "import imageapi",
    "create_app": "import imageapi; imageapi.create_app()",
}
LAZY = ("boto3", "botocore", "cloudinary", "celery", "pillow_heif", "psycopg")
"""What the local backend with SQLite needs nothing of."""
_REPORT = """
import json, sys, time
status = open("/proc/self/status").read().split("VmHWM:")[1]
print(json.dumps({"ms": time.process_time() * 1e3, "mib": int(status.split()[0]) / 1024,
                  "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def start(statements: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Run statements in a new interpreter: CPU milliseconds, peak MiB, top-level modules."""
    command = [sys.executable, "-c", statements + _REPORT]
    done = subprocess.run(command, cwd=processes.ROOT, env=env, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(*, short: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="imageapi-bench-") as name:
        folder, secret = Path(name), secrets.token_urlsafe(48)
        env = processes.environment(folder / "instance", IMAGEAPI_SECRET_KEYS=secret)
        yield from _imports(env, turns=1 if short else 11)
        app = library.application(folder / "instance", secret)
        library.fill(app, [(ALBUM, 100)])
        paths = [f"/api/v1/images/{library.ids(app, ALBUM, 1)[0]}"]
        paths.append(f"/api/v1/albums/{ALBUM}/images")
        library.close(app)
        authorization = library.authorization(secret, int(time.time()) + 3600, ALBUM)
        requests = [get(path, authorization) for path in paths]
        for options in ((),) if short else ((), ("--preload",)):
            yield from _worker(env, options, requests)


def _imports(env: Mapping[str, str], turns: int) -> Iterator[Row]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in IMPORTS}
    for _ in range(turns):
        for name, statements in IMPORTS.items():
            found[name].append(start(statements, env))
    cpu = {name: median(run["ms"] for run in runs) for name, runs in found.items()}
    memory = {name: median(run["mib"] for run in runs) for name, runs in found.items()}
    peer = "flask, flask_sqlalchemy, jwt, PIL"
    yield Row("import imageapi: CPU ms", cpu["import"], cpu["peers"], peer, 1.1)
    yield Row("import imageapi, create_app(): CPU ms", cpu["create_app"], cpu["peers"], peer)
    yield Row(
        "import imageapi, create_app(): peak MiB", memory["create_app"], memory["peers"], peer
    )
    modules = found["create_app"][0]["modules"]
    needless = sorted(set(LAZY) & set(modules))
    what = f"of {', '.join(LAZY)} imported"
    yield Row(what, len(needless), peer=", ".join(needless), most=0, absolute=True)


def _worker(
    env: Mapping[str, str], options: tuple[str, ...], requests: list[bytes]
) -> Iterator[Row]:
    with processes.gunicorn("wsgi:app", env, *options) as server:
        for request in requests:
            load(server.port, request, 200)
        label = " ".join(("worker after 400 reads", *options))
        rss = median(processes.memory(pid, "VmRSS") for pid in server.workers)
        pss = median(processes.memory(pid, "Pss") for pid in server.workers)
    yield Row(f"{label}: RSS MiB", rss, most=52, absolute=True)
    yield Row(f"{label}: PSS MiB", pss, most=25 if options else None, absolute=True)
