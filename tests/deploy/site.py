"""deploy/nginx.conf as it stands, with ports and folders of a test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path

from tests.faults.front import Front, front
from tests.servers.nginx import Nginx, nginx
from tests.servers.ports import HOST

DEPLOY = Path(__file__).parents[2] / "deploy"


def site(ports: Sequence[int], root: Path = Path("/nonexistent"), *, more: str = "") -> str:
    """The text of an http block.

    Args:
        ports: of the gunicorns.
        root: the local storage's folder.
        more: further lines of the server.
    """
    text = (DEPLOY / "nginx.conf").read_text()
    (host,) = (line for line in text.splitlines() if line.strip().startswith("server app:8000"))
    hosts = "\n".join(host.replace("app:8000", f"{HOST}:{port}") for port in ports)
    for old, new in [
        (host, hosts),
        ("listen 80;", f"listen {HOST}:@PORT@;"),
        ("alias /var/lib/imageapi/bytes/;", f"alias {root}/;"),
        ("    location / {", f"{more}\n    location / {{"),
    ]:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} is not there once")
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """nginx, and the gunicorn with an album behind it."""

    nginx: Nginx
    door: Front

    def ask(self, path: str, method="GET", body=None, headers=None, *, port: int | None = None):
        """One request on a connection of its own, through nginx unless a port is given."""
        connection = HTTPConnection(HOST, port or self.nginx.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


@contextlib.contextmanager
def served(
    *options: str, more: str = "", http: str = "", env: dict[str, str] | None = None
) -> Iterator[Site]:
    """The application behind nginx, set up as docs/deployment.md has it.

    Args:
        options: of gunicorn.
        more: further lines of the server, `http` of the http block.
        env: further settings.
    """
    env = {
        "IMAGEAPI_TRUSTED_PROXIES": "1",
        "IMAGEAPI_STORAGE_LOCAL_X_ACCEL_PREFIX": "/_bytes/",
        "IMAGEAPI_STORAGE_LOCAL_GROUP": "true",
        **(env or {}),
    }
    with (
        front("--workers", "2", *options, env=env) as door,
        nginx(http + site([door.app.port], door.root, more=more)) as server,
    ):
        yield Site(server, door)
