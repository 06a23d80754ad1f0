"""A stand-in for Cloudinary on loopback: Upload API, Admin API, downloads, rendering by URL.

A process of its own that shares no code with the SDK or with us. It checks every signature itself,
keeps what it is given on disk, draws what a delivery URL asks, and fails on demand. What it draws
is strict: strict transformations are on, and a step that it does not know is refused.
"""

import argparse
import base64
import binascii
import contextlib
import dataclasses
import hashlib
import hmac
import io
import json
import random
import re
import shutil
import string
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from multipart import MultipartParser, parse_options_header
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from . import http
from .ports import HOST, reserved
from .process import Process, Server, running, temporary

CLOUD = "demo"
API_KEY = "123456789012345"
API_SECRET = "abcdefghijklmnopqrstuvwxyz1"
TOKEN_KEY = "00112233445566778899aabbccddeeff"

_FORMATS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "HEIF": "heic"}
_KINDS = ("image", "video", "raw")
_TURNS = {
    "90": Image.Transpose.ROTATE_270,
    "180": Image.Transpose.ROTATE_180,
    "270": Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.createProfile("sRGB")
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class CloudinaryServer(Server):
    """The stand-in, with one account."""

    url: str
    cloud_name: str = CLOUD
    api_key: str = API_KEY
    api_secret: str = API_SECRET
    token_key: str = TOKEN_KEY

    @contextlib.contextmanager
    def faults(self, **fault: Any) -> Iterator[None]:
        """This fault (see `Fault`) until the block ends."""
        self.fail(**fault)
        try:
            yield
        finally:
            self._control("PUT", {"faults": []})

    def fail(self, **fault: Any) -> None:
        """This fault from now on, and no other."""
        self._control("PUT", {"faults": [fault]})

    def clear(self) -> None:
        """No assets and no faults, as a new account."""
        self._control("PUT", {"faults": [], "clear": True})

    def requests(self) -> list[str]:
        """Method and target of every request so far."""
        return self._control("GET")["requests"]

    def connections(self) -> int:
        """How many connections they came by."""
        return self._control("GET")["connections"]

    def _control(self, method: str, body: object = None) -> Any:
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, "/control", json.dumps(body))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextlib.contextmanager
def cloudinary() -> Iterator[CloudinaryServer]:
    """Run the stand-in; its assets outlive `kill` and `restart`."""
    with temporary("cloudinary") as directory, reserved() as ports:
        process = Process(
            [sys.executable, "-m", __name__, "--port", str(ports[0]), "--root", directory],
            log=directory / "log",
            ready=lambda: http.status(ports[0], "/control") == 200,
            cwd=_REPOSITORY,
        )
        with running(process):
            yield CloudinaryServer(
                process=process,
                port=ports[0],
                directory=directory,
                url=f"http://{HOST}:{ports[0]}",
            )


@dataclass
class Fault:
    """What is done to requests that match.

    Args:
        match: a regular expression that is searched in `METHOD target`.
        status: answer this at once, with `body` and `headers`.
        hang: answer nothing for so many seconds, then close the connection.
        late: do what is asked after so many seconds.
        drop: close the connection instead of an answer.
        lose: do what is asked, then close the connection instead of an answer.
        wrong: store other bytes than were sent.
        omit: fields that answers lack.
        cut: close the connection after so many bytes of an answer's body.
        limit: uploads of more bytes are refused, as a plan's limit is.
        plain: ranges are not known.
        redirect: downloads are answered with another place.
        times: so often, then no more; None: for ever.
    """

    match: str = ""
    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0
    late: float = 0
    drop: bool = False
    lose: bool = False
    wrong: bool = False
    omit: list[str] = field(default_factory=list)
    cut: int | None = None
    limit: int | None = None
    plain: bool = False
    redirect: bool = False
    times: int | None = None


class Refused(Exception):
    """An answer with a status and a message, in Cloudinary's form."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Asset:
    """A stored file; `file` is its name on disk."""

    public_id: str
    resource_type: str
    type: str
    format: str
    bytes: int
    etag: str
    width: int
    height: int
    version: int
    created: float
    tags: list[str]
    file: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the APIs say of it."""
        facts = asdict(self)
        created, _ = facts.pop("created"), facts.pop("file")
        facts["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
        facts["asset_id"] = hashlib.md5(self.file.encode(), usedforsecurity=False).hexdigest()
        facts["placeholder"] = False
        if self.resource_type != "image":
            del facts["width"], facts["height"]
        if self.resource_type == "raw":
            del facts["format"]
        return facts

    @property
    def signed(self) -> dict[str, Any]:
        """The facts with Cloudinary's signature."""
        text = f"public_id={self.public_id}&version={self.version}{API_SECRET}"
        return {**self.facts, "signature": _sha1(text)}


class Store:
    """All assets, in memory and on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root / "assets"
        self.root.mkdir(exist_ok=True)
        self.lock = threading.RLock()
        self.assets: dict[tuple[str, str, str], Asset] = {}
        for path in self.root.glob("*.json"):
            self._remember(Asset(**json.loads(path.read_text())))

    def find(self, kind: str, delivery: str, public_id: str) -> Asset:
        asset = self.assets.get((kind, delivery, public_id))
        if asset is None:
            raise Refused(404, f"Resource not found - {public_id}")
        return asset

    def add(self, asset: Asset, content: Path) -> None:
        with self.lock:
            content.replace(self.root / asset.file)
            self._save(asset)

    def remove(self, asset: Asset) -> None:
        with self.lock:
            del self.assets[asset.resource_type, asset.type, asset.public_id]
            (self.root / asset.file).unlink()
            (self.root / f"{asset.file}.json").unlink()

    def rename(self, asset: Asset, public_id: str) -> Asset:
        with self.lock:
            del self.assets[asset.resource_type, asset.type, asset.public_id]
            renamed = dataclasses.replace(asset, public_id=public_id)
            self._save(renamed)
            return renamed

    def clear(self) -> None:
        with self.lock:
            for asset in list(self.assets.values()):
                self.remove(asset)

    def _save(self, asset: Asset) -> None:
        (self.root / f"{asset.file}.json").write_text(json.dumps(asdict(asset)))
        self._remember(asset)

    def _remember(self, asset: Asset) -> None:
        self.assets[asset.resource_type, asset.type, asset.public_id] = asset


class StandIn(ThreadingHTTPServer):
    """The server: assets, faults, and what was asked of it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, root: Path) -> None:
        super().__init__((HOST, port), Handler)
        self.store = Store(root)
        self.incoming = root / "incoming"
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir()
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.connections = 0

    def fault(self, line: str) -> Fault:
        """What is to be done to this request."""
        with self.store.lock:
            for fault in self.faults:
                if re.search(fault.match, line) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Limited:
    """So many bytes of a stream, and no more."""

    def __init__(self, stream: Any, left: int) -> None:
        self.stream = stream
        self.left = left

    def read(self, size: int) -> bytes:
        piece = self.stream.read(min(size, self.left))
        self.left -= len(piece)
        return piece


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StandIn
    fault: Fault
    counted = False

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        body = _Limited(self.rfile, int(self.headers.get("Content-Length") or 0))
        if self.path == "/control":
            self._control(body)
            return
        line = f"{self.command} {self.path}"
        self.server.log.append(line)
        if not self.counted:  # not by its address: ports come again
            self.counted = True
            with self.server.store.lock:
                self.server.connections += 1
        self.fault = self.server.fault(line)
        try:
            self._answer(body)
        except Refused as error:
            self._send_json(error.status, {"error": {"message": str(error)}})
        finally:
            while body.read(1 << 16):
                pass

    def _control(self, body: _Limited) -> None:
        if self.command == "PUT":
            asked = json.loads(body.read(1 << 20))
            self.server.faults = [Fault(**fault) for fault in asked["faults"]]
            if asked.get("clear"):
                self.server.store.clear()
        self.fault = Fault()
        counts = {"requests": self.server.log, "connections": self.server.connections}
        self._send_json(200, counts)

    def _answer(self, body: _Limited) -> None:
        time.sleep(self.fault.late)
        if self.fault.hang:
            time.sleep(self.fault.hang)
            self.close_connection = True
        elif self.fault.drop:
            self.close_connection = True
        elif self.fault.status:
            self._send(self.fault.status, self.fault.body.encode(), **self.fault.headers)
        else:
            url = urlsplit(self.path)
            parts = [unquote(part) for part in url.path[1:].split("/")]
            if parts[0] == "v1_1":
                self._api(parts[1], parts[2:], url.query, body)
            elif self.command == "GET":
                self._deliver(url.path, url.query)
            else:
                raise Refused(404, "no such page")

    # --- APIs

    def _api(self, cloud: str, parts: list[str], query: str, body: _Limited) -> None:
        if self.command == "POST" and len(parts) == 2:
            kind, action = parts
            form = self._form(body)
            _authentic(cloud, [pair for pair in form if pair[0] != "file"])
            fields = dict(form)
            if kind not in (*_KINDS, "auto"):
                raise Refused(400, "Invalid resource type")
            answer = getattr(self, f"_{action}")(kind, fields)
            self._send_json(200, answer)
        elif self.command == "GET" and parts[1:] == ["download"]:
            self._download(cloud, parts[0], dict(parse_qsl(query)))
        elif self.command == "GET":
            self._admin(cloud, parts, dict(parse_qsl(query)))
        else:
            raise Refused(404, "no such action")

    def _form(self, body: _Limited) -> list[tuple[str, Any]]:
        kind, options = parse_options_header(self.headers.get("Content-Type", ""))
        if kind != "multipart/form-data":
            raise Refused(400, "Missing required parameter - file")
        parser = MultipartParser(body, options["boundary"], content_length=body.left, strict=True)
        return [(part.name, part if part.name == "file" else part.value) for part in parser]

    def _upload(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        delivery = fields.get("type", "upload")
        public_id = fields.get("public_id") or _random_id()
        path = self.server.incoming / _random_id()
        if span := self.headers.get("Content-Range"):
            path = self.server.incoming / self.headers["X-Unique-Upload-Id"]
            first, last, total = map(int, re.findall(r"\d+", span))
            if first != (path.stat().st_size if path.exists() else 0):
                raise Refused(400, "Chunks out of order")
        else:
            last, total = 0, 1
        with path.open("ab") as file:
            shutil.copyfileobj(fields["file"].file, file)
        if last + 1 < total:
            return {"done": False, "public_id": public_id, "bytes": path.stat().st_size}
        with self.server.store.lock:
            known = self.server.store.assets.get((kind, delivery, public_id))
            if known and fields.get("overwrite") in ("0", "false"):
                path.unlink()
                return {**known.signed, "existing": True}
            asset = self._taken(path, kind, delivery, public_id, fields)
            self.server.store.add(asset, path)
        return asset.signed

    def _taken(
        self, path: Path, kind: str, delivery: str, public_id: str, fields: dict[str, Any]
    ) -> Asset:
        limit, size = self.fault.limit, path.stat().st_size
        if limit is not None and size > limit:
            raise Refused(400, f"File size too large. Got {size}. Maximum is {limit}.")
        if self.fault.wrong:
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        found, width, height = _inspect(path)
        if kind == "auto":
            kind = "image" if found else "raw"
        if kind == "image":
            if not found:
                raise Refused(400, "Invalid image file")
            if (transformation := fields.get("transformation")) and _orientation(path) != 1:
                drawn, width, height = _draw(path, transformation.split("/"), found)
                path.write_bytes(drawn)
        elif kind == "raw":
            public_id += Path(fields["file"].filename).suffix
        content = path.read_bytes()
        now = time.time()
        return Asset(
            public_id=public_id,
            resource_type=kind,
            type=delivery,
            format=found,
            bytes=len(content),
            etag=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            width=width,
            height=height,
            version=int(now),
            created=int(now),
            tags=[tag for tag in fields.get("tags", "").split(",") if tag],
            file=_random_id(),
        )

    def _destroy(self, kind: str, fields: dict[str, str]) -> dict[str, Any]:
        with self.server.store.lock, contextlib.suppress(Refused):
            store = self.server.store
            store.remove(store.find(kind, fields.get("type", "upload"), fields["public_id"]))
            return {"result": "ok"}
        return {"result": "not found"}

    def _rename(self, kind: str, fields: dict[str, str]) -> dict[str, Any]:
        delivery, to = fields.get("type", "upload"), fields["to_public_id"]
        with self.server.store.lock:
            asset = self.server.store.find(kind, delivery, fields["from_public_id"])
            if (kind, delivery, to) in self.server.store.assets:
                raise Refused(409, f"to_public_id {to} already exists")
            return self.server.store.rename(asset, to).signed

    def _admin(self, cloud: str, parts: list[str], query: dict[str, str]) -> None:
        expected = base64.b64encode(f"{API_KEY}:{API_SECRET}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            raise Refused(401, "Invalid credentials")
        if cloud != CLOUD:
            raise Refused(401, "cloud_name mismatch")
        limits = {
            "X-FeatureRateLimit-Limit": "500",
            "X-FeatureRateLimit-Remaining": "499",
            "X-FeatureRateLimit-Reset": formatdate(time.time() + 600, usegmt=True),
        }
        if parts == ["ping"]:
            self._send_json(200, {"status": "ok"}, **limits)
        elif parts[0] == "resources" and len(parts) == 3:
            self._send_json(200, self._list(parts[1], parts[2], query), **limits)
        elif parts[0] == "resources":
            found = self.server.store.find(parts[1], parts[2], "/".join(parts[3:]))
            self._send_json(200, found.facts, **limits)
        else:
            raise Refused(404, "no such action")

    def _list(self, kind: str, delivery: str, query: dict[str, str]) -> dict[str, Any]:
        """Newest first, as Cloudinary lists; the cursor says how far one has come."""
        prefix, most = query.get("prefix", ""), int(query.get("max_results", "10"))
        if most > 500:
            raise Refused(400, "max_results must not exceed 500")
        with self.server.store.lock:
            found = [
                asset
                for asset in self.server.store.assets.values()
                if (asset.resource_type, asset.type) == (kind, delivery)
                and asset.public_id.startswith(prefix)
            ]
        found.sort(key=lambda asset: (asset.created, asset.file), reverse=True)
        if cursor := query.get("next_cursor"):
            created, file = json.loads(bytes.fromhex(cursor))
            found = [asset for asset in found if (asset.created, asset.file) < (created, file)]
        page, rest = found[:most], found[most:]
        facts = [asset.facts for asset in page]
        for fact in facts:
            del fact["etag"]
            if query.get("tags") != "true":
                del fact["tags"]
        answer: dict[str, Any] = {"resources": facts}
        if rest:
            answer["next_cursor"] = json.dumps([page[-1].created, page[-1].file]).encode().hex()
        return answer

    def _download(self, cloud: str, kind: str, query: dict[str, str]) -> None:
        _authentic(cloud, list(query.items()))
        if int(query.get("expires_at", "9" * 12)) < time.time():
            raise Refused(401, "Link expired")
        asset = self.server.store.find(kind, query.get("type", "upload"), query["public_id"])
        if query.get("format", asset.format) != asset.format:
            raise Refused(400, "Downloads are not converted here")
        if self.fault.redirect:
            self._send(302, b"", Location=self.path)
            return
        content = (self.server.store.root / asset.file).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or self.fault.plain:
            self._send(200, content)
            return
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        last = min(last, len(content) - 1)
        if first >= len(content):
            self._send(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
        else:
            span = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], **{"Content-Range": span})

    # --- delivery

    def _deliver(self, path: str, query: str) -> None:
        try:
            content, extension = self._drawn(path, query)
        except Refused as error:
            self._send(error.status, b"", **{"X-Cld-Error": str(error)})
            return
        kind = "image/jpeg" if extension == "jpg" else f"image/{extension}"
        self._send(200, content, **{"Content-Type": kind})

    def _drawn(self, path: str, query: str) -> tuple[bytes, str]:
        shared = path.removeprefix(f"/{CLOUD}")
        match = re.fullmatch(
            r"/image/(?P<type>private|authenticated)(/s--(?P<signature>[\w-]+)--)?"
            r"/(?P<steps>.+?)/v\d+/(?P<id>[^?]+)\.(?P<extension>jpg|png)",
            shared,
        )
        if not match:
            raise Refused(404, "Resource not found")
        if token := dict(parse_qsl(query)).get("__cld_token__"):
            _check_token(path, token)
        else:
            source = f"{match['steps']}/{match['id']}.{match['extension']}"
            if not match["signature"] or not _signs(match["signature"], unquote(source)):
                raise Refused(401, "Invalid signature")
        asset = self.server.store.find("image", match["type"], unquote(match["id"]))
        steps = unquote(match["steps"]).split("/")
        drawn, _, _ = _draw(self.server.store.root / asset.file, steps, match["extension"])
        return drawn, match["extension"]

    # --- answers

    def _send_json(self, status: int, body: Any, **headers: str) -> None:
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if name not in self.fault.omit}
        headers["Content-Type"] = "application/json; charset=utf-8"
        self._send(status, json.dumps(body).encode(), **headers)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        if self.fault.lose:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.fault.cut is not None:
            body = body[: self.fault.cut]
            self.close_connection = True
        self.wfile.write(body)


def _authentic(cloud: str, fields: list[tuple[str, str]]) -> None:
    """Check key, signature and time of a signed call, as the vendor's pages tell it."""
    given = dict(fields)
    if given.get("api_key") != API_KEY:
        raise Refused(401, f"Unknown API key {given.get('api_key')}")
    if cloud != CLOUD:
        raise Refused(401, "cloud_name mismatch")
    values: dict[str, str] = {}
    for name, value in fields:
        if name not in ("api_key", "signature", "cloud_name", "resource_type") and value:
            plain = name.removesuffix("[]")
            values[plain] = f"{values[plain]},{value}" if plain in values else value
    signed = "&".join(f"{name}={values[name]}".replace("&", "%26") for name in sorted(values))
    expected, signature = _sha1(signed + API_SECRET), given.get("signature", "")
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise Refused(401, f"Invalid Signature {signature}. String to sign - '{signed}'.")
    if not given.get("timestamp", "").isdecimal():
        raise Refused(400, "Missing required parameter - timestamp")
    at = int(given["timestamp"])
    if time.time() - at > 3600:
        reported = time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(at))
        raise Refused(
            400, f"Stale request - reported time is {reported} which is more than 1 hour ago"
        )


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _signs(signature: str, source: str) -> bool:
    digest = hashlib.sha1((source + API_SECRET).encode(), usedforsecurity=False).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest)[:8], signature.encode())


def _check_token(path: str, token: str) -> None:
    match = re.fullmatch(r"exp=(\d+)~hmac=([0-9a-f]{64})", token)
    if not match:
        raise Refused(401, "Malformed token")
    escaped = re.sub("%..", lambda sign: sign[0].lower(), quote(path, safe="!$()*+,-._"))
    message = f"exp={match[1]}~url={escaped}".encode()
    expected = hmac.new(binascii.unhexlify(TOKEN_KEY), message, "sha256").hexdigest()
    if not hmac.compare_digest(expected, match[2]) or int(match[1]) < time.time():
        raise Refused(403, "Token invalid or ended")


def _random_id() -> str:
    return "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=20))


def _inspect(path: Path) -> tuple[str, int, int]:
    """Format, width and height; no format for what is no picture."""
    try:
        with Image.open(path) as picture:
            return _FORMATS.get(picture.format, picture.format.lower()), *picture.size
    except (UnidentifiedImageError, OSError):
        return "", 0, 0


def _orientation(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.getexif().get(0x0112, 1)


# --- drawing


def _draw(path: Path, steps: list[str], extension: str) -> tuple[bytes, int, int]:
    """The picture after these steps, as `w_200,h_100` each, in this format."""
    quality = 80
    with Image.open(path) as opened:
        picture = opened
        picture.load()
        for step in steps:
            given = dict(part.split("_", 1) for part in step.split(","))
            if all(re.fullmatch(r"\$[A-Za-z][A-Za-z0-9]*", name) for name in given):
                continue
            if "q" in given:
                quality = int(given.pop("q"))
            picture = _step(picture, given)
        output = io.BytesIO()
        if extension == "png":
            picture.save(output, "PNG")
        else:
            plain = picture if picture.mode in ("RGB", "L") else picture.convert("RGB")
            plain.info.clear()
            plain.save(output, "JPEG", quality=quality)
        return output.getvalue(), *picture.size


def _step(picture: Image.Image, given: dict[str, str]) -> Image.Image:
    names = set(given)
    if names == {"a"} and given["a"] == "exif":
        return ImageOps.exif_transpose(picture)
    if names == {"a"} and given["a"] in _TURNS:
        return picture.transpose(_TURNS[given["a"]])
    if names == {"c", "g", "w", "h", "x", "y"} and (given["c"], given["g"]) == (
        "crop",
        "north_west",
    ):
        x, y, w, h = (int(given[name]) for name in "xywh")
        if x + w > picture.width or y + h > picture.height or min(w, h) < 1 or min(x, y) < 0:
            raise Refused(400, "Invalid crop")
        return picture.crop((x, y, x + w, y + h))
    if names == {"c", "w", "h"} and given["c"] in ("limit", "scale"):
        w, h = int(given["w"]), int(given["h"])
        if given["c"] == "limit":
            scale = min(1.0, w / picture.width, h / picture.height)
            w, h = (max(1, round(side * scale)) for side in picture.size)
        if picture.mode in ("P", "1"):
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        return picture.resize((w, h), Image.Resampling.LANCZOS)
    if given == {"cs": "srgb"}:
        return _to_srgb(picture)
    if not given:
        return picture
    raise Refused(400, f"Invalid transformation parameter {given}")


def _to_srgb(picture: Image.Image) -> Image.Image:
    profile = picture.info.pop("icc_profile", None)
    if not profile:
        return picture
    mode = "RGBA" if picture.mode in ("RGBA", "LA", "PA") else "RGB"
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, source, _SRGB, outputMode=mode)
    return picture


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    arguments = parser.parse_args()
    with StandIn(arguments.port, arguments.root) as server:
        server.serve_forever()


if __name__ == "__main__":
    _main()
