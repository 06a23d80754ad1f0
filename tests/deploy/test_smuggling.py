"""Malformed requests through nginx and gunicorn: what nginx takes for one request, gunicorn does too.

Every case carries, where a second reading of it would find it, another request. Both servers write
down what they took for a request; the two lists must be equal, and bystanders must get their own
answers.

Source: RFC 9112 §2.2, §5.1, §5.2, §6.3, §7.1, §11.2; RFC 9110 §7.2.
"""

from __future__ import annotations

import http.client
import itertools
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.deploy.site import served
from tests.servers.ports import HOST

LOG = 'log_format front escape=json "$request_method $request_uri $upstream_status";'

TRANSFER = [
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"transfer-encoding:chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding : chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding\0: chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: chunked\0",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: ",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
]
LENGTHS = [
    b"Content-Length: 0",
    b"Content-Length: +0",
    b"Content-Length: -0",
    b"Content-Length: -1",
    b"Content-Length: 0x0",
    b"Content-Length: 0, 0",
    b"Content-Length: 0, %d",
    b"Content-Length: 0\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length: %d\r\nContent-Length: %d",
    b"Content-Length : 0",
    b"Content_Length: %d",
    b"Content-Length: 0 0",
    b"Content-Length: 0\0",
    b"Content-Length: 00",
    b"Content-Length: 0e0",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 18446744073709551616",
    b"Content-Length: ",
    b"Content-Length:\r\n 0",
    b"X: y\r\n Content-Length: 0",
    b"X: y\nContent-Length: 0",
    b"X: y\rContent-Length: 0",
]
CHUNKS = [
    b"0\r\n\r\n",
    b"00\r\n\r\n",
    b"0;a=b\r\n\r\n",
    b"0;a=\nb\r\n\r\n",
    b"0 \r\n\r\n",
    b" 0\r\n\r\n",
    b"+0\r\n\r\n",
    b"-0\r\n\r\n",
    b"0x0\r\n\r\n",
    b"0_0\r\n\r\n",
    b"0\n\n",
    b"0\n\r\n",
    b"0\r\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\nX: y\n\n",
    b"1\r\nZ\r\n0\r\n\r\n",
    b"1\r\nZ0\r\n\r\n",
    b"1\r\nZZ0\r\n\r\n",
    b"1\nZ\n0\n\n",
    b"1;\r\nZ\r\n0\r\n\r\n",
    b"1\r\nZ\r\nG\r\n\r\n",
    b"10000000000000000\r\nZ\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nZ\r\n0\r\n\r\n",
    b"1" * 40 + b"\r\nZ\r\n0\r\n\r\n",
    b"\r\n\r\n",
]
HOSTS = [
    b"Host: a\r\nHost: a",
    b"Host: a\r\nHost: b",
    b"Host: ",
    b"X: no host",
    b"Host: a b",
    b"Host: a@b",
    b"Host: a/b",
    b"Host: a:80:90",
    b"Host: a\0b",
    b"Host : a",
    b" Host: a",
    b"Host: a\r\n b",
    b"host: a\r\nHOST: b",
    b"Host: a, b",
    b"Host: a\nHost: b",
]
LINES = [
    b"GET  %s HTTP/1.1",
    b"GET\t%s\tHTTP/1.1",
    b" GET %s HTTP/1.1",
    b"get %s HTTP/1.1",
    b"GET %s HTTP/1.1 ",
    b"GET %s HTTP/1.1 X",
    b"GET %s HTTP/1.0",
    b"GET %s HTTP/0.9",
    b"GET %s",
    b"GET %s HTTP/1.10",
    b"GET %s HTTP/2.0",
    b"GET %s http/1.1",
    b"GET %s HTTP/1,1",
    b"GET http://elsewhere%s HTTP/1.1",
    b"GET //elsewhere%s HTTP/1.1",
    b"GET %s\0 HTTP/1.1",
    b"GET %s%%00 HTTP/1.1",
    b"GET %s%%0d%%0aX:y HTTP/1.1",
    b"GET %s#x HTTP/1.1",
    b"GET %s\rX HTTP/1.1",
    b"GET %s\x7f HTTP/1.1",
    b"GET %s\xff HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT %s HTTP/1.1",
    b"CONNECT a:80 HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"GE(T %s HTTP/1.1",
    b"G" * 300 + b" %s HTTP/1.1",
    b"\r\nGET %s HTTP/1.1",
    b"\r\n\r\n\r\nGET %s HTTP/1.1",
    b"\nGET %s HTTP/1.1",
]
FIELDS = [
    b"X Y: z",
    b"X\0: y",
    b"X: \0",
    b": y",
    b"X",
    b"\x80: y",
    b"X: \x7f",
    b"X: \xff\xfe",
    b"X\t: y",
    b"X_Y: z",
    b"X(: y",
    b"Connection: close, Content-Length",
    b"Connection: Transfer-Encoding",
    b"Connection: X-Forwarded-For",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Connection: keep-alive\r\nKeep-Alive: timeout=99",
    b"Proxy-Connection: keep-alive",
    b"Expect: 100-continue",
    b"Expect: nonsense",
    b"TE: trailers\r\nTrailer: Content-Length",
    b"X-Forwarded-For: 1.2.3.4\nX: y",
    b"X-Forwarded-Proto: https\r\nX-Forwarded-Protocol: http",
    b"X-HTTP-Method-Override: DELETE",
    b"Content-Encoding: gzip",
    b"Range: bytes=0-,0-,0-",
]


@dataclass(frozen=True)
class Case:
    """One thing to send, and the path of the request in it."""

    number: int
    data: bytes


def cases():
    """All of them; `/healthz?N` is the request, `/smuggled?N` what may be found in it."""
    made = []

    def case(line, *fields, host=b"Host: a", body=b""):
        path = b"/healthz?%d" % len(made)
        line = line.replace(b"%s", path).replace(b"%%", b"%")
        made.append(Case(len(made), b"\r\n".join([line, host, *fields, b"", b""]) + body))

    def smuggled():
        return b"GET /smuggled?%d HTTP/1.1\r\nHost: a\r\n\r\n" % len(made)

    for transfer in TRANSFER:
        inside = smuggled()
        last = b"0\r\n\r\n" + inside
        case(b"POST %s HTTP/1.1", transfer, body=last)
        case(b"POST %s HTTP/1.1", b"Content-Length: %d" % len(last), transfer, body=last)
        case(b"POST %s HTTP/1.1", transfer, b"Content-Length: 5", body=last)
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inside), inside)
        case(b"POST %s HTTP/1.1", b"Content-Length: 4", transfer, body=chunk)
    for length, method in itertools.product(LENGTHS, (b"POST", b"GET")):
        inside = smuggled()
        given = length.replace(b"%d", b"%d" % len(inside))
        case(method + b" %s HTTP/1.1", given, body=inside)
    for chunk in CHUNKS:
        case(b"POST %s HTTP/1.1", b"Transfer-Encoding: chunked", body=chunk + smuggled())
    for host in HOSTS:
        case(b"GET %s HTTP/1.1", host=host, body=smuggled())
    for line in LINES:
        case(line, body=smuggled())
    for fields in FIELDS:
        case(b"GET %s HTTP/1.1", fields, body=smuggled())
        case(b"POST %s HTTP/1.1", fields, b"Content-Length: 0", body=smuggled())
    return made


def send(port: int, case: Case) -> bytes:
    """What comes back until nothing does for a moment."""
    answer = b""
    with socket.create_connection((HOST, port), timeout=0.4) as connection:
        try:
            connection.sendall(case.data)
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            pass
    return answer


class Bystander(threading.Thread):
    """Asks on a kept connection all the time; each answer must bear its own request's id."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.over, self.answers, self.wrong = port, threading.Event(), 0, []

    def run(self):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        while not self.over.is_set():
            given = f"bystander-{self.name}-{self.answers}"
            connection.request("GET", "/api/v1/albums", headers={"X-Request-Id": given})
            response = connection.getresponse()
            body = response.read()
            self.answers += 1
            if (response.status, response.headers["X-Request-Id"]) != (401, given) or (
                given.encode() not in body
            ):
                self.wrong.append((given, response.status, body))
            time.sleep(0.005)
        connection.close()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    return folder / "front", folder / "back"


@pytest.fixture(scope="module")
def site(logs):
    front, back = logs
    gunicorn = ["--access-logfile", str(back), "--access-logformat", "%(m)s %(U)s?%(q)s %(s)s"]
    with served(*gunicorn, more=f"access_log {front} front;", http=LOG) as site:
        yield site


def lines(log):
    """Method, target and status of what a server took for a request."""
    text = log.read_text("latin-1")
    return [line for line in text.split("\n") if re.search(r"\?\d", line)]


def test_nginx_and_gunicorn_see_the_same_requests(site, logs):
    bystanders = [Bystander(site.nginx.port) for _ in range(2)]
    for bystander in bystanders:
        bystander.start()
    sent = cases()
    assert len(sent) >= 200
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda case: send(site.nginx.port, case), sent))
    for bystander in bystanders:
        bystander.over.set()
        bystander.join()
    time.sleep(1)

    assert all(bystander.answers > 50 for bystander in bystanders)
    assert [wrong for bystander in bystanders for wrong in bystander.wrong] == []
    front = Counter(line.replace("#x", "") for line in lines(logs[0]) if not line.endswith(" "))
    back = Counter(lines(logs[1]))
    assert back - front == Counter(), "gunicorn took for a request what nginx did not"
    unread = front - back
    assert {line.rpartition(" ")[2] for line in unread} <= {"400"}, "neither answered nor refused"
    assert back.total() > 100, "nearly nothing came through: nothing was shown"
    assert not [line for line in front if line.rpartition(" ")[2].startswith("5")]
    for case, answer in zip(sent, answers, strict=True):
        assert b"<html" not in answer, case
        assert answer.count(b"HTTP/1.1 ") <= case.data.count(b"HTTP/1.") + 1, case
