"""Work by Celery workers on a real Redis: nothing waits for it, nothing is lost with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from tests.servers.celery import celery, lines
from tests.servers.fault_proxy import fault_proxy
from tests.servers.gunicorn import ROOT, gunicorn
from tests.tasks.conftest import (
    BLANK,
    FULL,
    Anna,
    all_shown,
    backlog,
    database_of,
    drawn,
    remove,
    sql,
    until,
)

QUICK = 1.0
"""Seconds that no request takes, busy as the machine may be: no timeout of a broker is as short."""
BLANK_JPG = (ROOT / "imageapi/assets/blank.jpg").read_bytes()
MOVED = 40
KEY = """
    SELECT key FROM stored_object JOIN image ON image.object_id = stored_object.id WHERE image.id = :id
"""


def remaining(app, kind):
    """The pieces of work of a kind that are still to be done."""
    return sql(app, "SELECT id FROM work WHERE kind = :kind", kind=kind)


def moved(app):
    [(count,)] = sql(app, "SELECT count(*) FROM stored_object WHERE storage = 'attic'")
    return count


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if FULL else ["sqlite"])
def database(request):
    """The settings of a database; what differs between them is in test_databases.py."""
    yield from database_of(request)


@pytest.fixture(autouse=True)
def _broker_answers(broker):
    yield
    broker.resume()
    if not broker.process.alive:
        broker.start()


def test_a_copy_and_a_deletion_too(app, anna):
    anna.call("POST", "/albums", json={"album": {"public_id": "gone"}})
    image = anna.upload("gone")
    with celery(app.env):
        copy = anna.call("POST", f"/images/{image['public_id']}/duplicate").json()
        anna.shown(copy)
        anna.call("DELETE", f"/images/{image['public_id']}")
        anna.call("DELETE", "/albums/gone")
        until(lambda: not sql(app, "SELECT id FROM album WHERE deleted_ms IS NOT NULL"))
    assert list((app.instance / "storage/local").glob(f"*/{copy['public_id']}*")) == []


def test_a_broker_that_is_down_is_not_waited_for(app, anna, broker):
    images = [anna.upload() for _ in range(3)]
    broker.kill()
    images.append(anna.upload())
    assert max(anna.rotate(image).seconds for image in images) < QUICK
    assert len(backlog(app)) == len(images)
    assert set(anna.get(images[0])["thumbnails"].values()) == {BLANK}
    broker.start()  # and knows nothing
    with celery(app.env):
        all_shown(anna, images)


def test_a_broker_that_hangs_is_not_waited_for(app, anna, broker):
    with celery(app.env):
        images = [anna.upload() for _ in range(3)]
        broker.pause()
        assert max(anna.rotate(image).seconds for image in images) < QUICK
        time.sleep(3)  # its time to answer is over
        assert max(anna.rotate(image).seconds for image in images) < QUICK
        broker.resume()
        all_shown(anna, images)


def test_a_slow_broker_is_not_waited_for(app, broker):
    with fault_proxy(broker.port) as proxy:
        env = {**app.env, "IMAGEAPI_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        with gunicorn(env, "--workers", "1", migrate=False) as slow:
            anna = Anna(slow)
            with proxy.faults(delay=0.5):
                images = [anna.upload() for _ in range(3)]
                assert max(anna.rotate(image).seconds for image in images) < QUICK
            with celery(slow.env):
                all_shown(anna, images)


def test_a_broker_that_is_emptied_loses_nothing(app, anna, broker):
    images = [anna.upload() for _ in range(3)]
    for image in images:
        anna.rotate(image)
    flush = ["redis-cli", "-p", str(broker.port), "flushall"]
    subprocess.run(flush, check=True, capture_output=True)
    with celery(app.env) as worker:
        all_shown(anna, images)
        more = [anna.upload() for _ in range(5)]
        for image in more:  # while it works, too
            anna.rotate(image)
            subprocess.run(flush, check=True, capture_output=True)
        all_shown(anna, more)
        assert worker.process.alive


def test_a_broker_that_comes_back_finds_its_workers(app, anna, broker):
    with celery(app.env):
        image = anna.upload()
        broker.kill()
        anna.rotate(image)
        time.sleep(1)
        broker.start()
        anna.shown(image)


def test_a_killed_process_of_a_worker_is_replaced(app, anna):
    image = anna.upload()
    with celery(app.env) as worker:
        for pid in worker.pool:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        anna.rotate(image)
        anna.shown(image)


def test_a_message_that_comes_twice_is_done_once(app, anna):
    image = anna.upload()
    anna.rotate(image)
    [number] = backlog(app)
    script = (
        "import sys, wsgi\n"
        "for _ in range(20): wsgi.celery.send_task('imageapi.do', [int(sys.argv[1])])"
    )
    command = [sys.executable, "-c", script, str(number)]
    subprocess.run(command, cwd=ROOT, env=app.env, check=True, timeout=60)
    with celery(app.env) as worker, celery(app.env, "--hostname", "two@%h") as other:
        anna.shown(image)
        time.sleep(1)
        assert len(drawn(worker.log + other.log, image)) == 1


def test_what_is_lost_is_restored_by_a_worker(app, anna):
    image = anna.upload()
    assert remove(app, image) == 3
    paths = list(image["thumbnails"].values())
    with requests.Session() as session:
        for _ in range(20):
            for path in paths:
                answer = session.get(app.url + path, timeout=30)
                assert answer.status_code == 200
                assert (answer.content, answer.headers["Cache-Control"]) == (BLANK_JPG, "no-store")
    with celery(app.env) as worker:
        until(lambda: not remaining(app, "restore"))
        anna.shown(image)
        assert len(drawn(worker.log, image)) == 1
    assert drawn(app.log, image) == []


def test_what_lost_its_original_too_is_given_up(app, anna):
    image = anna.upload()
    remove(app, image)
    [(key,)] = sql(app, KEY, id=image["public_id"])
    (app.instance / "storage/local" / key).unlink()
    path = image["thumbnails"]["mini"]
    assert requests.get(app.url + path, timeout=30).content == BLANK_JPG
    with celery(app.env) as worker:
        until(lambda: not remaining(app, "restore"))
        [told] = lines(worker.log, "no renditions")
        assert told["image"] == image["public_id"]
    assert requests.get(app.url + path, timeout=30).content == BLANK_JPG
    anna.call("DELETE", f"/images/{image['public_id']}")


def test_a_move_left_to_the_workers_goes_on_where_one_was_killed(app, anna):
    anna.call("POST", "/albums", json={"album": {"public_id": "moving"}})
    images = [anna.upload("moving", size=(1600, 1200)) for _ in range(MOVED)]
    command = ["storages", "migrate", "--album", "moving", "--to", "attic", "--background"]
    said = app.flask(*command).stdout
    assert said.startswith(f"{MOVED} originals, ")
    assert moved(app) == 0
    with celery(app.env, "--concurrency", "1") as worker:
        until(lambda: moved(app) > 0)
        worker.process.kill()
    assert len(remaining(app, "move")) == 1
    sql(app, "UPDATE work SET due_ms = 0 WHERE kind = 'move'")
    with celery(app.env) as worker:
        edited = anna.upload("moving")
        anna.rotate(edited)  # is not kept waiting
        anna.shown(edited)
        until(lambda: not remaining(app, "move"))
        assert lines(worker.log, "album moved")[-1]["left"] == 0
    assert moved(app) == MOVED + 1
    for image in images:
        anna.shown(image)


def test_rebuilding_left_to_the_workers(app, anna):
    anna.call("POST", "/albums", json={"album": {"public_id": "rebuilt"}})
    images = [anna.upload("rebuilt", size=(1600, 1200)) for _ in range(MOVED)]
    for image in images:
        assert remove(app, image) == 3
    command = ["renditions", "rebuild", "--album", "rebuilt", "--background"]
    assert app.flask(*command).stdout == f"{MOVED} images are left to be rendered.\n"
    assert [drawn(app.log, image) for image in images] == [[]] * MOVED
    with celery(app.env) as worker:
        until(lambda: not remaining(app, "rebuild"))
        assert [len(drawn(worker.log, image)) for image in images] == [1] * MOVED
        assert lines(worker.log, "renditions rebuilt")[-1]["album"] == "rebuilt"


def test_two_edits_in_a_row_are_one_rendering(app, anna):
    image = anna.upload()
    anna.rotate(image)
    anna.rotate(image)
    with celery(app.env) as worker:
        assert anna.shown(image)["rotation"] == 180
        until(lambda: backlog(app) == [])
        assert len(drawn(worker.log, image)) == 1


def test_a_worker_that_is_asked_to_end_ends_its_work_first(app, anna):
    images = [anna.upload() for _ in range(4)]
    with celery(app.env) as worker:
        for image in images:
            anna.rotate(image)
        worker.process.stop()
        assert "Traceback" not in worker.log
    with celery(app.env):
        all_shown(anna, images)


def test_beat_in_a_worker(app, anna, tmp_path):
    image = anna.upload()
    with celery(app.env, "-B", "--schedule", str(tmp_path / "beat")):
        anna.rotate(image)
        anna.shown(image)


def test_chores_by_message(app):
    script = (
        "import wsgi\nfor name in ('collect', 'fsck'): wsgi.celery.send_task('imageapi.' + name)"
    )
    command = [sys.executable, "-c", script]
    with celery(app.env) as worker:
        subprocess.run(command, cwd=ROOT, env=app.env, check=True, timeout=60)
        until(lambda: lines(worker.log, "collected") and lines(worker.log, "fsck done"))
        assert lines(worker.log, "fsck") == []


def test_views_are_counted_once_each(app, anna):
    token = app.flask(
        "token", "create", "--user", "bert", "--album", "seen", "--ability", "image_list"
    ).stdout.strip()
    anna.call("POST", "/albums", json={"album": {"public_id": "seen"}})
    bert = Anna(app)
    bert.session.headers["Authorization"] = f'Token token="{token}"'
    for _ in range(40):
        bert.call("GET", "/albums/seen/images")
    app.process.stop()  # before the next tick, or after
    app.process.start()
    assert anna.call("GET", "/albums/seen").json()["views_count"] == 40
