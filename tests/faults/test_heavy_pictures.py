"""Many large pictures at once, and decoders that crash: the server lives, and answers meanwhile.

A sample, or with FAULTS=full the whole figures.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import statistics
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from imageapi.imaging.decoder import DECODING
from tests.faults.front import FORM, PATH, Front, form, front
from tests.servers.cgroup import Cgroup, NoCgroup, memory_cgroup
from tests.servers.memory import family, taken

FULL = os.environ.get("FAULTS") == "full"
UPLOADS = 100 if FULL else 12
CRASHES = 1000 if FULL else 20
GIB = 1 << 30
SIDES = 8660, 5774
"""50 megapixels."""
CRASH = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """A JPEG and a PNG of 50 megapixels, with texture enough that both are some megabytes."""
    tile = Image.effect_noise((433, 433), 20)
    grain = Image.new("L", SIDES)
    for left in range(0, SIDES[0], 433):
        for top in range(0, SIDES[1], 433):
            grain.paste(tile, (left, top))
    picture = Image.merge("RGB", (grain, Image.linear_gradient("L").resize(SIDES), grain))
    found = {}
    for form_, options in (("JPEG", {"quality": 80}), ("PNG", {"compress_level": 1})):
        file = io.BytesIO()
        picture.save(file, form_, **options)
        found[form_] = file.getvalue()
    return found


def another(data: bytes, number: int) -> bytes:
    """The same picture in other bytes: with a comment."""
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"\xff\xfe" + struct.pack(">HI", 6, number) + data[2:]
    text = b"tEXtnumber\0%d" % number
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[:33] + chunk + data[33:]


class Meanwhile(threading.Thread):
    """Reads metadata again and again, and looks at the memory, until it is told to stop."""

    def __init__(self, server: Front, path: str) -> None:
        super().__init__()
        self._server, self._path, self._ends = server, path, threading.Event()
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.most = 0

    def run(self) -> None:
        while not self._ends.is_set():
            start = time.monotonic()
            with self._server.connect(120) as connection:
                status, _ = self._server.get(connection, self._path)
            self.statuses[status] += 1
            self.seconds.append(time.monotonic() - start)
            self.most = max(self.most, taken(self._server.app.pid))
            self._ends.wait(0.05)

    def stop(self) -> None:
        self._ends.set()
        self.join()


@contextlib.contextmanager
def within(most: int) -> Iterator[tuple[Front, Cgroup | None]]:
    """A server in a cgroup of so many bytes; without one where none can be made."""
    with contextlib.ExitStack() as stack:
        try:
            cgroup = stack.enter_context(memory_cgroup(most))
        except NoCgroup:
            cgroup = None
        yield stack.enter_context(front(cgroup=cgroup)), cgroup


def test_many_large_pictures_at_once_take_less_than_a_gibibyte(pictures):
    """In a cgroup the kernel would kill; where none can be made, what they have is counted."""
    with within(GIB) as (server, cgroup):
        with server.connect() as connection:
            status, image = server.upload(connection, encoded(Image.new("RGB", (64, 48))), "a.png")
        assert status == 201
        workers = children(server)
        reader = Meanwhile(server, f"/api/v1/images/{image['public_id']}")
        reader.start()
        try:
            with ThreadPoolExecutor(UPLOADS) as pool:
                answers = list(pool.map(lambda n: upload(server, pictures, n), range(UPLOADS)))
        finally:
            reader.stop()
        report(answers, reader, cgroup)
        assert {status for status, _ in answers} <= {201, 503}
        assert all(after for status, after in answers if status == 503)
        assert 201 in {status for status, _ in answers}
        assert set(reader.statuses) == {200}
        assert statistics.median(reader.seconds) < 1  # some threads are left for reads
        assert children(server) == workers
        assert "picture.decoder_died" not in server.app.log
        assert reader.most < GIB
        if cgroup:
            assert cgroup.kills == 0


def upload(server: Front, pictures: dict[str, bytes], number: int) -> tuple[int, str | None]:
    """Status and Retry-After."""
    data = another(pictures["JPEG" if number % 2 else "PNG"], number)
    with server.connect(300) as connection:
        connection.request("POST", PATH, form(data), {**server.headers, "Content-Type": FORM})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After")


def children(server: Front) -> set[int]:
    """The workers."""
    return {child.pid for child in psutil.Process(server.app.pid).children()}


def report(answers: list[tuple[int, str | None]], reader: Meanwhile, cgroup: Cgroup | None) -> None:
    """The figures; shown by pytest -rP."""
    statuses = dict(Counter(status for status, _ in answers))
    p99 = sorted(reader.seconds)[int(len(reader.seconds) * 0.99)]
    peak = f"{cgroup.peak >> 20} MiB in its cgroup" if cgroup else "no cgroup could be made"
    sys.stdout.write(
        f"{len(answers)} uploads: {statuses}; at most {reader.most >> 20} MiB of their own, {peak}; "
        f"{len(reader.seconds)} reads: median {statistics.median(reader.seconds):.3f} s, "
        f"p99 {p99:.3f} s\n"
    )


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_a_decoder_that_crashes_costs_its_own_picture_only():
    large = encoded(Image.new("L", (9900, 9900)))  # a second of work, 100 kB
    with front() as server:
        workers, hit = children(server), set[int]()
        with server.connect(120) as connection, ThreadPoolExecutor(1) as pool:
            for number in range(CRASHES):
                answer = pool.submit(server.upload, connection, large, "a.png")
                decoder(server, hit).send_signal(CRASH[number % len(CRASH)])
                status, body = answer.result(60)
                assert (status, body.get("code")) == (422, "undecodable_picture"), number
                assert children(server) == workers
            status, _ = server.upload(connection, encoded(Image.new("L", (50, 50))), "a.png")
            assert status == 201
        assert len(server.rows()) == 1


def decoder(server: Front, hit: set[int]) -> psutil.Process:
    """The process that decodes a picture, as soon as there is one that was not `hit` before."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in family(server.app.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == DECODING and process.pid not in hit:
                    hit.add(process.pid)
                    return process
        time.sleep(0.002)
    raise TimeoutError
