"""A small HTTP client: keep-alive connections that always have one request under way."""

from __future__ import annotations

import re
import selectors
import socket
import time

from bench.processes import HOST

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection:
    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((HOST, port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._head = b""
        self._left = 0

    def send(self) -> None:
        self._head, self._left = b"", -1
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Take what came; whether the answer is whole."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed a connection")
        if self._left < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if not end:
                return False
            if not head.startswith(b"HTTP/1.1 200 ") or not length:
                raise RuntimeError(head.decode(errors="replace"))
            self._left = int(length[1])
        self._left -= len(data)
        return self._left == 0


def load(port: int, request: bytes, number: int, connections: int = 8) -> float:
    """Send `request` `number` times over `connections` keep-alive connections.

    Each is opened when the one before has had its first answer. Of connections that come all at once,
    one of two workers most often takes seven: what is measured then is how they were dealt.

    Returns: the seconds that took.
    Raises:
        RuntimeError: an answer is not 200.
    """
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        opened = [_answered(port, request) for _ in range(min(connections, number))]
        to_send = to_come = number - len(opened)
        for connection in opened[:to_send]:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
            to_send -= 1
        while to_come:
            for key, _ in selector.select(30):
                if key.data.receive():
                    to_come -= 1
                    if to_send:
                        to_send -= 1
                        key.data.send()
        seconds = time.perf_counter() - started
        for connection in opened:
            connection.socket.close()
    return seconds


def _answered(port: int, request: bytes) -> _Connection:
    connection = _Connection(port, request)
    connection.send()
    while not connection.receive():
        pass
    return connection


def get(path: str, authorization: str) -> bytes:
    """The bytes of a GET request as a client sends it."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Authorization: {authorization}\r\n\r\n"
    ).encode()
