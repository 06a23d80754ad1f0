"""The front door: uploads to a real server, byte by byte, and what it keeps of them on disk."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.gunicorn import Application, gunicorn
from tests.servers.ports import HOST

BOUNDARY = b"----boundary-7MA4YWxkTrZu0gW"
FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"
HEAD = (
    b"--"
    + BOUNDARY
    + b'\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
    + b"Content-Type: image/png\r\n\r\n"
)
END = b"\r\n--" + BOUNDARY + b"--\r\n"
PATH = "/api/v1/albums/holidays/images"


def form(data: bytes) -> bytes:
    """A multipart body with this one file."""
    return HEAD + data + END


def picture(length: int, seed: int = 0) -> bytes:
    """A PNG of one pixel and exactly `length` bytes; another `seed`, other bytes."""
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    rest = _chunk(b"IDAT", zlib.compress(b"\0\x10\x20\x30")) + _chunk(b"IEND", b"")
    padding = length - len(start) - len(rest) - 12
    if padding < 0:
        raise ValueError(f"no PNG has {length} bytes")
    # What a boundary begins with stands everywhere in it.
    filler = (f"{seed}\r\n--".encode() * (padding // 5 + 1))[:padding]
    return start + _chunk(b"paDd", filler) + rest


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@dataclass(frozen=True)
class Front:
    """A server with an album `holidays`, and a token that may do everything in it."""

    app: Application
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """The token's header."""
        return {"Authorization": f'Token token="{self.token}"'}

    def connect(self, timeout: float = 30) -> closing[http.client.HTTPConnection]:
        """A connection, closed after the block."""
        return closing(http.client.HTTPConnection(HOST, self.app.port, timeout=timeout))

    def post(
        self, connection: http.client.HTTPConnection, body: bytes | Iterable[bytes]
    ) -> tuple[int, dict]:
        """Status and JSON of an upload; a body in pieces goes chunked, a chunk a piece."""
        headers = {**self.headers, "Content-Type": FORM}
        connection.request("POST", PATH, body, headers, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def upload(
        self, connection: http.client.HTTPConnection, data: bytes, name: str
    ) -> tuple[int, dict]:
        """Status and JSON of the upload of a file under its name."""
        return self.post(connection, form(data).replace(b"a.png", name.encode(), 1))

    def get(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        connection.request("GET", path, headers=self.headers)
        response = connection.getresponse()
        return response.status, response.read()

    def raw(self, *pieces: bytes) -> bytes:
        """Send these bytes, end the sending side, and read what comes back until the end."""
        with socket.create_connection((HOST, self.app.port), timeout=10) as connection:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer

    def head(self, *lines: str, start: str = f"POST {PATH}", kind: str = FORM) -> bytes:
        """A request's head for `raw`: an upload's, unless told what it starts with."""
        first = [f"{start} HTTP/1.1", f"Host: {HOST}", f"Content-Type: {kind}"]
        token = f"Authorization: {self.headers['Authorization']}"
        return "\r\n".join([*first, token, *lines, "", ""]).encode()

    @property
    def root(self) -> Path:
        """The local storage's folder."""
        return self.app.instance / "storage" / "local"

    def rows(self) -> list[sqlite3.Row]:
        """Image id, key, SHA-256 and length of every image, straight from the database."""
        database = f"file:{self.app.instance / 'imageapi.sqlite3'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(
                "SELECT image.id, key, sha256, bytes FROM stored_object"
                " LEFT JOIN image ON image.object_id = stored_object.id"
            ).fetchall()

    def files(self) -> set[str]:
        """All files of the storage, staging too, as paths below its root."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}

    def stored(self, key: str) -> str:
        """The SHA-256 of the bytes under a key."""
        return hashlib.sha256((self.root / key).read_bytes()).hexdigest()


@contextmanager
def front(*options: str, **given) -> Iterator[Front]:
    """Serve an album; arguments as of `gunicorn`."""
    with gunicorn(given.pop("env", None), *options, **given) as app:
        app.flask("albums", "create", "holidays", "--owner", "anna")
        created = app.flask("token", "create", "--user", "anna")
        yield Front(app, created.stdout.strip())
