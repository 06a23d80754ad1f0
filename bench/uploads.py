"""Uploads beside their limit: hashing, writing and syncing the same bytes in a plain process.

The files are small pictures with many bytes behind them, as a motion photo has its film: large to
move, cheap to decode, no two alike. What pixels cost is measured apart (`renditions`).
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from PIL import Image

from bench import library, processes
from bench.table import Row
from imageapi import imaging
from imageapi.geometry import Rendition

ALBUM = "uploads-1"
PATH = f"/api/v1/albums/{ALBUM}/images"
PIECE = 256 * 1024
MB = 1_000_000
PEER = "hash + write + fsync"
# Bytes, how often, and the greatest ratio: of the whole upload, its decoding and rendering included.
SIZES = {"3 MB": (3 * MB, 30, 2.0), "50 MB": (50 * MB, 10, 1.8)}
GROWTH_MIB = 4
BOUNDARY = "bench-7f3c9a"


def picture(length: int) -> bytes:
    """A JPEG of 64×48 pixels with random bytes after its end; never the same twice."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(file, "JPEG")
    head = file.getvalue()
    return head + secrets.token_bytes(max(16, length - len(head)))


def segments(length: int) -> bytes:
    """As `picture`, with the bytes in comment segments before the pixels."""
    plain = picture(0)
    part = 65_000
    comments = b"".join(
        b"\xff\xfe" + (part + 2).to_bytes(2, "big") + secrets.token_bytes(part)
        for _ in range(length // part)
    )
    return plain[:2] + comments + plain[2:]


def form(data: bytes) -> tuple[bytes, str]:
    """A multipart body with one file, and its content type."""
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="IMG_0001.JPG"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    return head + data + tail, f"multipart/form-data; boundary={BOUNDARY}"


def limit(folder: Path, data: bytes) -> tuple[float, float]:
    """MD5 and SHA-256 of bytes, which are written and synced: wall and CPU milliseconds."""
    started, cpu = time.perf_counter(), time.process_time()
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    path = folder / secrets.token_hex(8)
    with path.open("xb", buffering=0) as file:
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            md5.update(piece)
            sha256.update(piece)
            file.write(piece)
        os.fsync(file.fileno())
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    path.unlink()
    return wall * 1e3, cpu * 1e3


def upload(server: processes.Server, authorization: str, data: bytes) -> float:
    """One upload over a connection that is open already: wall milliseconds."""
    body, content_type = form(data)
    connection = http.client.HTTPConnection(processes.HOST, server.port, timeout=60)
    connection.connect()
    started = time.perf_counter()
    headers = {"Authorization": authorization, "Content-Type": content_type}
    connection.request("POST", PATH, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    wall = (time.perf_counter() - started) * 1e3
    connection.close()
    if answer.status != 201:
        raise RuntimeError(f"{answer.status} {text!r}")
    return wall


def rows(*, short: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="imageapi-bench-", dir=library.disk()) as name:
        folder, secret = Path(name), secrets.token_urlsafe(48)
        app = library.application(folder / "instance", secret)
        library.fill(app, [(ALBUM, 0)])
        library.close(app)
        _as_if_filled(folder / "instance" / "storage" / "local")
        authorization = library.authorization(secret, int(time.time()) + 3600, ALBUM)
        env = processes.environment(
            folder / "instance", IMAGEAPI_SECRET_KEYS=secret, WEB_CONCURRENCY="1"
        )
        with processes.gunicorn("wsgi:app", env) as server:
            for _ in range(3):
                upload(server, authorization, picture(100_000))
            yield from _times(server, authorization, folder, short=short)
            yield from _growth(server, authorization, short=short)


def _as_if_filled(storage: Path) -> None:
    """Make the 256 folders of a local storage, as some hundred uploads would have."""
    for number in range(256):
        (storage / f"{number:02x}").mkdir(parents=True, exist_ok=True)


def _times(
    server: processes.Server, authorization: str, folder: Path, *, short: bool
) -> Iterator[Row]:
    yield Row(
        "an upload's picture decoded and rendered in a child, wall ms",
        _decoding(folder, 3 if short else 30),
    )
    for name, (length, times, most) in SIZES.items():
        yield from _size(
            server, authorization, folder, name, length, most, times // (15 if short else 1)
        )


def _size(
    server: processes.Server,
    authorization: str,
    folder: Path,
    name: str,
    length: int,
    most: float,
    times: int,
) -> Iterator[Row]:
    """Uploads of one size, of 1 kB, and the limit, in turns: what is subtracted is of the same turn."""
    ours, small, least = [], [], []
    cpu, small_cpu, written = 0.0, 0.0, 0
    for _ in range(max(1, times)):
        data = picture(length)
        least.append(limit(folder, data))
        before = server.cpu()
        small.append(upload(server, authorization, picture(0)))
        between, wrote = server.cpu(), sum(map(processes.written, server.workers))
        ours.append(upload(server, authorization, data))
        written += sum(map(processes.written, server.workers)) - wrote
        cpu, small_cpu = cpu + server.cpu() - between, small_cpu + between - before
    turns = len(ours)
    wall_limit, cpu_limit = (median(figures) for figures in zip(*least, strict=True))
    moved = median(whole - fixed for whole, fixed in zip(ours, small, strict=True))
    yield Row(f"upload of {name}, wall ms", median(ours), wall_limit, PEER, most)
    yield Row(f"upload of {name}, CPU ms", cpu / turns, cpu_limit, PEER)
    yield Row("upload of 1 kB beside it, wall ms: what any upload costs", median(small))
    yield Row("upload of 1 kB beside it, CPU ms", small_cpu / turns)
    yield Row(f"upload of {name} less that of 1 kB, wall ms (no goal)", moved, wall_limit, PEER)
    yield Row(f"upload of {name}, bytes written", written / turns, length, "of the file", 1.1)


def _decoding(folder: Path, times: int) -> float:
    """Wall milliseconds that the picture of these uploads takes to be looked at and rendered."""
    path = folder / "picture.jpg"
    path.write_bytes(picture(0))
    renditions = [
        Rendition("full", 1920, 1920, "fit"),
        Rendition("large", 200, 200, "fill"),
        Rendition("mini", 100, 100, "fill"),
    ]
    found = []
    for _ in range(times + 1):
        started = time.perf_counter()
        imaging.take_in(path, renditions, imaging.Limits())
        found.append((time.perf_counter() - started) * 1e3)
    return median(found[1:])  # the first starts the helper


def _growth(server: processes.Server, authorization: str, *, short: bool) -> Iterator[Row]:
    kinds = {"behind the picture": picture, "in comment segments": segments}
    for where, make in kinds.items():
        (worker,) = server.workers
        processes.forget_peak(worker)
        before = processes.memory(worker, "VmRSS")
        for _ in range(1 if short else 2):
            upload(server, authorization, make(50 * MB))
        grown = processes.memory(worker, "VmHWM") - before
        what = f"worker's peak above its size before, MiB: 50 MB {where}"
        yield Row(what, max(grown, 0.0), most=GROWTH_MIB, absolute=True)
