"""Clients that read and upload all the time, and what they met: the load of the tests of operation."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.faults.front import BOUNDARY, FORM, PATH, form, picture
from tests.servers.ports import HOST

SLOWEST = 2.5
"""Seconds that the slowest upload takes to be sent."""


@dataclass(frozen=True)
class Failure:
    """A request that was not answered as it should be."""

    at: float
    """When it began, seconds of `time.monotonic()`."""
    kind: str
    what: str


@dataclass
class Load:
    """What the clients did and met.

    Args:
        port: where they connect to.
        headers: with a token that may read and upload.
        expected: the statuses that are no failure.
    """

    port: int
    headers: Mapping[str, str]
    expected: tuple[int, ...] = (200, 201)
    sent: dict[str, int] = field(default_factory=dict)
    """SHA-256 of what was sent, to its length."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Image id to the SHA-256 that was uploaded."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    refusals: list[Failure] = field(default_factory=list)
    """Answers that were expected, and yet are not what was asked for."""
    over: threading.Event = field(default_factory=threading.Event)
    uploading: int = 0
    """Slow uploads whose head is sent and whose answer has not come."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _clients: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: list[Callable[[], None]]) -> None:
        """Run each of these beside the caller."""
        threads = [threading.Thread(target=client) for client in clients]
        for thread in threads:
            thread.start()
        self._clients += threads

    def end(self) -> None:
        """Let the clients end; none has a request under way then."""
        self.over.set()
        for client in self._clients:
            client.join()

    @property
    def requests(self) -> int:
        """How many were answered."""
        return self.statuses.total()

    def read(self, *, keep: bool) -> None:
        """Ask for an image, a list, a thumbnail, in turn, on one connection or one for each."""
        name = "kept" if keep else "closed"
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        headers = dict(self.headers) if keep else {**self.headers, "Connection": "close"}
        paths = [f"{PATH}?limit=2"]
        while not self.over.is_set():
            path = paths.pop(0) if paths else f"{PATH}?limit=2"
            body = self._ask(connection, name, "GET", path, headers=headers)
            if body and path.startswith(PATH):
                for image in json.loads(body):
                    mini = image["thumbnails"]["mini"]
                    paths += [f"/api/v1/images/{image['public_id']}"]
                    paths += [mini] if mini.startswith("/") else []  # others come from elsewhere
            time.sleep(0.01)
        connection.close()

    def upload(self) -> None:
        """Upload small pictures, one after the other, on one connection."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        while not self.over.is_set():
            data, sha256 = self._picture()
            headers = {**self.headers, "Content-Type": FORM}
            body = self._ask(connection, "upload", "POST", PATH, form(data), headers)
            self._acknowledge(body, sha256)
            time.sleep(0.05)
        connection.close()

    def upload_slowly(self) -> None:
        """Upload pictures piece by piece, each on a connection of its own."""
        while not self.over.is_set():
            data, sha256 = self._picture()
            body = form(data)
            pause = random.uniform(0.1, SLOWEST) / 10  # noqa: S311
            pieces = [body[n : n + len(body) // 9] for n in range(0, len(body), len(body) // 9)]
            self._acknowledge(self._send_slowly(pieces, pause), sha256)

    def _send_slowly(self, pieces: list[bytes], pause: float) -> bytes:
        began, counted = time.monotonic(), False
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.putrequest("POST", PATH)
            for name, value in {**self.headers, "Content-Type": FORM}.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(sum(map(len, pieces))))
            connection.endheaders(pieces[0])
            self._count(+1)
            counted = True
            for piece in pieces[1:]:
                time.sleep(pause)
                connection.send(piece)
            return self._answered("slow upload", began, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            self._fail("slow upload", began, repr(error))
            return b""
        finally:
            if counted:
                self._count(-1)
            connection.close()

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        kind: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        began = time.monotonic()
        try:
            connection.request(method, path, body, dict(headers or self.headers))
            return self._answered(kind, began, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            self._fail(kind, began, repr(error))
            connection.close()
            time.sleep(0.05)
            return b""

    def _answered(self, kind: str, began: float, response: http.client.HTTPResponse) -> bytes:
        body = response.read()
        with self._lock:
            self.statuses[kind, response.status] += 1
        if response.status not in self.expected:
            self._fail(kind, began, f"{response.status} {body[:300]!r}")
        elif response.status >= 400:
            with self._lock:
                self.refusals.append(Failure(began, kind, body.decode()))
        return body if response.status in (200, 201) else b""

    def _acknowledge(self, body: bytes, sha256: str) -> None:
        if body:
            with self._lock:
                self.acknowledged[json.loads(body)["public_id"]] = sha256

    def _picture(self) -> tuple[bytes, str]:
        data = picture(random.choice([300, 5_000, 90_000]), random.getrandbits(60))  # noqa: S311
        sha256 = hashlib.sha256(data).hexdigest()
        with self._lock:
            self.sent[sha256] = len(data)
        return data, sha256

    def _fail(self, kind: str, began: float, what: str) -> None:
        with self._lock:
            self.failures.append(Failure(began, kind, what))

    def _count(self, by: int) -> None:
        with self._lock:
            self.uploading += by


@contextlib.contextmanager
def under_load(
    load: Load, *, readers: int = 2, uploaders: int = 1, slow: int = 2
) -> Iterator[Load]:
    """Run the clients until the block ends; all of them have ended then."""
    clients: list[Callable[[], None]] = [load.upload] * uploaders + [load.upload_slowly] * slow
    clients += [lambda keep=keep: load.read(keep=keep) for keep in (True, False)] * readers
    load.start(clients)
    try:
        yield load
    finally:
        load.end()


def silent(port: int, count: int, start: bytes = b"") -> contextlib.ExitStack:
    """So many connections that send this and then nothing; closed with what is returned."""
    stack = contextlib.ExitStack()
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection((HOST, port), timeout=10))
        connection.sendall(start)
    return stack


HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "
HALF_A_BODY = (
    f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nContent-Length: 4000\r\n\r\n".encode()
    + b"--"
    + BOUNDARY
)
