"""A TCP proxy on loopback that refuses, hangs, crawls, cuts and lies on demand."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .ports import HOST, reserved

_CHUNK = 64 * 1024
_TICK = 0.05
_REQUEST = re.compile(rb"[A-Z]{3,8} \S+ HTTP/1\.[01]\r\n")
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
    b"Connection: close\r\n\r\nbusy\n"
)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What the proxy does to those who come; several at once where that makes sense.

    Args:
        refuse: connections are refused, those that stand are reset.
        hang: a connection is accepted, nothing comes back, also on those that stand.
        drop: as a host that is gone: not even the handshake is answered.
        delay: seconds before each piece of an answer is passed on.
        bandwidth: bytes per second of each direction of a connection.
        cut_request: reset after so many bytes of a connection towards the server.
        cut_answer: reset after so many bytes of a connection towards the client.
        fail: per cent of the HTTP requests that are answered by `answer` instead, evenly spread:
            50 fails every second one, 100 all.
        answer: the whole HTTP response of those.
        times: so many cuts and failures, then no more; None: for ever.
    """

    refuse: bool = False
    hang: bool = False
    drop: bool = False
    delay: float = 0
    bandwidth: int | None = None
    cut_request: int | None = None
    cut_answer: int | None = None
    fail: float = 0
    answer: bytes = _UNAVAILABLE
    times: int | None = None


@dataclass
class Counts:
    """What came by since the proxy was started.

    Args:
        connections: that were accepted.
        requests: that were seen in them, failed ones included, if they spoke HTTP.
        failed: of those, answered by the proxy.
    """

    connections: int = 0
    requests: int = 0
    failed: int = 0


class FaultProxy:
    """Stands at `port` for a server on another port of this machine; made by `fault_proxy`."""

    def __init__(self, port: int, upstream: int) -> None:
        self.port = port
        self.upstream = upstream
        self.counts = Counts()
        self._faults = Faults()
        self._lock = threading.Lock()
        self._due = 0.0
        self._left: int | None = None
        self._listener: socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._links: set[_Link] = set()
        self._listen()

    @property
    def url(self) -> str:
        """The proxy's place as an http URL."""
        return f"http://{HOST}:{self.port}"

    @contextmanager
    def faults(self, **faults: object) -> Iterator[None]:
        """These faults (see `Faults`) until the block ends."""
        self.set(**faults)
        try:
            yield
        finally:
            self.set()

    def set(self, **faults: object) -> None:
        """These faults from now on, and no others; without any, all is well."""
        with self._lock:
            self._faults = Faults(**faults)
            self._due, self._left = 0, self._faults.times
        if self._faults.refuse or self._faults.drop:
            self._stop_listening()
            self._reset_all()
        if self._faults.drop:
            self._fill()
        elif not self._faults.refuse:
            self._listen()

    def close(self) -> None:
        """End it: reset what stands and wait for its threads."""
        self._stop_listening()
        self._reset_all()

    def _listen(self) -> None:
        self._empty()
        if self._listener:
            return
        self._listener = _listening(self.port, backlog=128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        self._empty()
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            self._listener.close()
            self._listener = None

    def _fill(self) -> None:
        """Listen, accept none and fill the queue, so that the kernel drops further handshakes."""
        self._fillers = [_listening(self.port, backlog=0)]
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, self.port))
            self._fillers.append(filler)

    def _empty(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers = []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.counts.connections += 1
            link = _Link(self, client)
            with self._lock:
                self._links.add(link)
            link.start()

    def _reset_all(self) -> None:
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.reset()
        for link in links:
            link.join(5)

    def _forget(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)

    def _fails(self) -> bool:
        """Count a request; whether it is the turn of one that fails."""
        with self._lock:
            self.counts.requests += 1
            self._due += self._faults.fail
            if self._due < 100:
                return False
            self._due -= 100
        if not self._spend():
            return False
        self.counts.failed += 1
        return True

    def _spend(self) -> bool:
        """Whether one more cut or failure is due."""
        with self._lock:
            if self._left is not None:
                self._left -= 1
            return self._left is None or self._left >= 0


class _Link:
    """One connection through the proxy: a thread each way, the first of which ends both sockets."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.socket()
        self._gone = threading.Event()
        self._request_ended = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def reset(self) -> None:
        """End it as a crash would, with RST both ways."""
        self._gone.set()

    def join(self, timeout: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._hold()
            self._server.connect((HOST, self._proxy.upstream))
            for end in (self._client, self._server):
                end.settimeout(_TICK)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = threading.Thread(target=self._guarded, args=(self._pass_answers,))
            answers.start()
            self._guarded(self._pass_requests)
            answers.join()
        except OSError:
            self._gone.set()
        finally:
            for end in (self._client, self._server):
                if self._gone.is_set():
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
            self._proxy._forget(self)

    def _guarded(self, pump: Callable[[], None]) -> None:
        try:
            pump()
        except OSError:  # one end is gone: so is the other
            self._gone.set()

    def _pass_requests(self) -> None:
        meter = _Meter("cut_request")
        while piece := self._receive(self._client):
            if self._request_ended and _REQUEST.match(piece):
                self._request_ended = False
                if self._proxy._fails():
                    self._answer_instead()
                    return
            self._pass(piece, self._server, meter)
        self._server.shutdown(socket.SHUT_WR)

    def _pass_answers(self) -> None:
        meter = _Meter("cut_answer")
        while piece := self._receive(self._server):
            if not piece.startswith(b"HTTP/1.1 100"):
                self._request_ended = True
            self._sleep(self._proxy._faults.delay)
            self._pass(piece, self._client, meter)
        self._client.shutdown(socket.SHUT_WR)

    def _answer_instead(self) -> None:
        """Answer in the server's place; take in the rest of the request, or RST would overtake."""
        self._client.sendall(self._proxy._faults.answer)
        self._server.shutdown(socket.SHUT_RDWR)
        self._client.shutdown(socket.SHUT_WR)
        end = time.monotonic() + 5
        while time.monotonic() < end and self._receive(self._client):
            pass

    def _pass(self, piece: bytes, sink: socket.socket, meter: "_Meter") -> None:
        self._hold()
        faults = self._proxy._faults
        limit = meter.left(faults)
        if limit is not None and len(piece) >= limit and self._proxy._spend():
            self._send(piece[:limit], sink, faults.bandwidth)
            raise ConnectionAbortedError
        self._send(piece, sink, faults.bandwidth)
        meter.passed += len(piece)

    def _send(self, piece: bytes, sink: socket.socket, bandwidth: int | None) -> None:
        rest = memoryview(piece)
        while rest:
            if self._gone.is_set():
                raise ConnectionAbortedError
            size = max(int(bandwidth * _TICK), 1) if bandwidth else len(rest)
            with suppress(TimeoutError):
                sent = sink.send(rest[:size])
                rest = rest[sent:]
                self._sleep(sent / bandwidth if bandwidth else 0)

    def _receive(self, source: socket.socket) -> bytes:
        while not self._gone.is_set():
            with suppress(TimeoutError):
                return source.recv(_CHUNK)
        raise ConnectionAbortedError

    def _hold(self) -> None:
        while self._proxy._faults.hang:
            self._sleep(_TICK)

    def _sleep(self, seconds: float) -> None:
        if self._gone.wait(seconds):
            raise ConnectionAbortedError


class _Meter:
    """Counts the bytes of one direction since the faults were last set."""

    def __init__(self, limit: str) -> None:
        self._limit = limit
        self._faults: Faults | None = None
        self.passed = 0

    def left(self, faults: Faults) -> int | None:
        """How many bytes may still pass; None: any number."""
        if faults is not self._faults:
            self._faults, self.passed = faults, 0
        limit: int | None = getattr(faults, self._limit)
        return None if limit is None else max(limit - self.passed, 0)


def _listening(port: int, backlog: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(backlog)
    return listener


@contextmanager
def fault_proxy(upstream: int) -> Iterator[FaultProxy]:
    """Stand in front of the server on loopback port `upstream`, without a fault at first."""
    with reserved() as (port,):
        proxy = FaultProxy(port, upstream)
        try:
            yield proxy
        finally:
            proxy.close()
