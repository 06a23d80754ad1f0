"""The benchmark's short form: it runs, and what can be counted is as promised. No time is asserted."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import (
    counting,
    growth,
    inprocess,
    library,
    processes,
    reads,
    startup,
    table,
    upkeep,
    uploads,
)
from bench.table import Row
from imageapi.geometry import Rendition
from imageapi.imaging import Limits
from imageapi.settings import Settings
from tests.imaging.inprocess import take_in

SIZES = [
    Rendition("full", 1920, 1920, "fit"),
    Rendition("large", 200, 200, "fill"),
    Rendition("mini", 100, 100, "fill"),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[reads.Stage]:
    with reads.stage(150) as made:
        yield made


def answer(stage: reads.Stage, path: str) -> inprocess.Answer:
    return inprocess.call(stage.ours, inprocess.environ(path, stage.authorization))


def test_one_image_is_one_statement(stage: reads.Stage):
    (statement,) = reads.statements(stage.paths["one"], stage)
    assert statement.startswith("SELECT")


@pytest.mark.parametrize("limit", [1, 100, 150])
def test_a_list_is_two_statements_at_any_length(stage: reads.Stage, limit: int):
    path = f"{reads.LIST}?limit={limit}"
    assert len(json.loads(answer(stage, path).body)) == limit
    assert len(reads.statements(path, stage)) == 2


def test_the_peers_answer_the_same(stage: reads.Stage):
    for path in stage.paths.values():
        ours = answer(stage, path)
        given = inprocess.environ(path, stage.authorization)
        names = [name for name, _ in ours.headers if name not in reads.ADDITIONS]
        for app in (stage.bare, stage.obvious):
            peer = inprocess.call(app, given)
            assert peer.body == ours.body
            assert {name for name, _ in peer.headers} == set(names)


def test_a_peer_that_answers_otherwise_stops_the_benchmark(stage: reads.Stage):
    ours = answer(stage, stage.paths["one"])._replace(body=b"{}")
    with pytest.raises(RuntimeError, match="otherwise"):
        reads._same(stage, stage.paths["one"], ours)


@pytest.fixture
def upload(tmp_path: Path) -> Iterator[object]:
    """A function that uploads bytes to an application in this process."""
    secret = secrets.token_urlsafe(48)
    app = library.application(tmp_path / "instance", secret)
    library.fill(app, [(uploads.ALBUM, 0)])
    authorization = library.authorization(secret, int(time.time()) + 3600, uploads.ALBUM)

    def send(data: bytes) -> inprocess.Answer:
        body, content_type = uploads.form(data)
        return inprocess.call(app, inprocess.post(uploads.PATH, authorization, body, content_type))

    yield send
    library.close(app)


@pytest.mark.parametrize("make", [uploads.picture, uploads.segments])
def test_the_bytes_of_an_upload_are_written_once(upload, make):
    assert upload(uploads.picture(0)).status == 201  # what only the first one writes
    data = make(8 * uploads.MB)
    written = counting.Written()
    assert upload(data).status == 201
    assert len(data) < written.bytes < len(data) + 500_000


def test_all_renditions_come_from_one_decode(tmp_path: Path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(uploads.picture(1000))
    with counting.decodes() as seen:
        _, rendered = take_in(path, SIZES, Limits())
    assert len(rendered.files) == 3
    assert seen == ["JPEG"]


def test_the_local_backend_imports_no_other(tmp_path: Path):
    env = processes.environment(tmp_path / "instance")
    started = (
        "import imageapi\n"
        "app = imageapi.create_app()\n"
        "app.extensions['library'].storages['local'].check()\n"
    )
    modules = startup.start(started, env)["modules"]
    assert "imageapi" in modules
    assert set(startup.LAZY).isdisjoint(modules)


def figures(rows: Iterator[Row]) -> dict[str, Row]:
    found = list(rows)
    table.show(found, heads=True)
    assert all(len(row.cells()) == len(table.HEADS) for row in found)
    return {row.what: row for row in found}


def test_reads_in_short():
    found = figures(reads.rows(short=True))
    assert found["one image: SQL statements"].reached
    assert found["list of 100: SQL statements"].reached


def test_growth_in_short():
    assert figures(growth.rows(short=True))


def test_uploads_in_short():
    found = figures(uploads.rows(short=True))
    assert found["upload of 3 MB, bytes written"].reached
    assert found["upload of 50 MB, bytes written"].reached


def test_start_up_in_short():
    found = figures(startup.rows(short=True))
    assert found[f"of {', '.join(startup.LAZY)} imported"].reached


def test_upkeep_in_short():
    assert figures(upkeep.rows(short=True))


def test_goals_are_of_the_ratio_or_of_the_figure():
    assert Row("a", 3.0, 2.0, most=1.5).reached is True
    assert Row("a", 3.1, 2.0, most=1.5).reached is False
    assert Row("a", 3.1, 2.0).reached is None
    assert Row("a", 1, most=0, absolute=True).reached is False
    assert Row("a", 0, most=0, absolute=True).reached is True


def test_a_statement_is_counted_whoever_sends_it(tmp_path: Path):
    with counting.statements() as seen:
        app = library.create_app(Settings(secret_keys=("s" * 32,), instance=tmp_path))
        with app.app_context():
            library.db.session.execute(library.sa.text("SELECT 1"))
            library.db.session.remove()
        library.close(app)
    assert "SELECT 1" in seen


def test_the_cpu_time_of_a_process_is_that_of_its_own_clock():
    before = time.process_time() * 1e3
    found = processes.cpu(os.getpid())
    children = sum(os.times()[2:4]) * 1e3
    assert before <= found <= time.process_time() * 1e3 + children + 10
