"""Every file of the corpus through the front door: accepted or refused, told and served as is known of it."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from PIL import Image

from tests.faults.front import Front, front
from tests.imaging.corpus import Row, rows
from tests.imaging.pictures import ALL
from tests.servers.memory import taken

MB = 1_000_000
GROWTH = 50 * MB
SLOWEST = 2.0
"""Seconds that a refusal may take."""
UNSUPPORTED = {"bmp", "ico", "empty", "text", "html", "svg", "eps", "pdf"}
WORKERS = 2
STATUS = {"accept": {201}, "refuse": {415, 422}, "either": {201, 422}}


@dataclass(frozen=True)
class Answer:
    """What became of a file: its row of the manifest, status, body, seconds."""

    row: Row
    status: int
    body: dict
    seconds: float


@pytest.fixture(scope="module")
def served(shared) -> Iterator[Front]:
    with front("--workers", str(WORKERS)) as server:
        yield server


@pytest.fixture(scope="module")
def memory(served) -> int:
    """The server's before the first picture, with all its workers there."""
    deadline = time.monotonic() + 30
    while served.app.log.count("Booting worker") < WORKERS and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # a worker that boots has still to load the application
    return taken(served.app.pid)


@pytest.fixture(scope="module")
def answers(served, memory) -> list[Answer]:
    found = []
    for row in rows():
        with served.connect() as connection:  # of its own: every worker gets some
            start = time.monotonic()
            status, body = served.upload(connection, row.path.read_bytes(), row.path.name)
            found.append(Answer(row, status, body, time.monotonic() - start))
    return found


def test_each_is_accepted_or_refused(answers):
    assert len(answers) == 120
    wrong = [
        f"{answer.row.path.name}: {answer.status} {answer.body}"
        for answer in answers
        if answer.status not in STATUS[answer.row.expected]
        or (answer.status == 415) != (answer.row.format in UNSUPPORTED)
    ]
    assert wrong == []


def test_a_refusal_says_why(answers):
    for answer in answers:
        if answer.status != 201:
            code = "unsupported_format" if answer.status == 415 else "undecodable_picture"
            assert answer.body["code"] == code, answer
            assert answer.body["detail"].endswith("."), answer


def test_infos_size_and_position_are_those_of_the_manifest(answers):
    for answer in answers:
        if answer.status != 201:
            continue
        row, body, data = answer.row, answer.body, answer.row.path.read_bytes()
        width, height = row.upright
        created_at = body["infos"].pop("created_at")
        assert created_at.endswith("Z"), row
        assert body["infos"] == {
            "bytes": len(data),
            "etag": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "format": row.format,
            "height": height,
            "resource_type": "image",
            "tags": ["holidays"],
            "type": "private",
            "width": width,
        }, row
        assert (body["width"], body["height"]) == row.upright, row
        expected = pytest.approx(row.gps, abs=1e-7) if row.gps else None
        assert body["gps_exifs"] == body["gps"] == expected, row
        assert body["gps_html"] is body["gps_ip"] is None
        if row.kind != "broken":
            assert bool(body["exifs"]) == row.has_exif, row


def test_what_is_served_is_the_file_and_its_renditions(served, answers):
    with served.connect() as connection:
        for answer in answers:
            if answer.status != 201:
                continue
            path = f"/api/v1/images/{answer.body['public_id']}"
            status, data = served.get(connection, path)
            shown = json.loads(data)
            assert (status, shown.pop("infos")["etag"]) == (200, answer.body["infos"]["etag"])
            assert shown == {name: answer.body[name] for name in shown}
            status, data = served.get(connection, f"{path}/original")
            assert (status, data) == (200, answer.row.path.read_bytes()), answer.row
            for rendition in ALL:
                status, data = served.get(connection, answer.body["thumbnails"][rendition.name])
                assert status == 200, answer.row
                picture = Image.open(io.BytesIO(data))
                picture.load()
                assert picture.width <= rendition.width, answer.row
                assert picture.height <= rendition.height, answer.row


def test_no_refusal_is_slow(answers):
    slow = [answer for answer in answers if answer.status != 201 and answer.seconds > SLOWEST]
    assert slow == []


def test_the_memory_is_given_back(served, memory, answers):
    deadline = time.monotonic() + 10
    while (after := taken(served.app.pid)) > memory + GROWTH and time.monotonic() < deadline:
        time.sleep(0.1)  # a decoder that ends gives back what it has
    assert after <= memory + GROWTH, f"{memory / MB:.0f} MB before, {after / MB:.0f} MB after"
