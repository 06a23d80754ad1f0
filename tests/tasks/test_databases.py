"""Workers on both databases: who takes work up, and who takes it over."""

from __future__ import annotations

import time

from tests.servers.celery import celery
from tests.tasks.conftest import BLANK, all_shown, backlog, drawn, sql, until


def test_an_edit_is_rendered_by_a_worker(app, anna):
    image = anna.upload()
    assert BLANK not in image["thumbnails"].values()  # an upload's are there with its row
    assert len(drawn(app.log, image)) == 0
    with celery(app.env) as worker:
        answer = anna.rotate(image, **{"X-Request-Id": "edit-4711"})
        assert set(answer.json()["thumbnails"].values()) == {BLANK}
        assert anna.shown(image)["rotation"] == 90
        [line] = drawn(worker.log, image)
        assert line["request_id"] == "edit-4711"
    assert drawn(app.log, image) == []
    assert backlog(app) == []


def test_what_a_killed_worker_had_is_done_by_another_after_its_lease(app, anna):
    image = anna.upload(size=(5000, 5000))
    with celery(app.env, "--concurrency", "1") as worker:
        anna.rotate(image)
        until(lambda: [row for row in sql(app, "SELECT attempts FROM work") if row.attempts])
        worker.process.kill()
    [number] = backlog(app)
    with celery(app.env) as other:
        time.sleep(3)
        assert backlog(app) == [number]  # it is still the first one's
        assert drawn(other.log, image) == []
        sql(app, "UPDATE work SET due_ms = 0 WHERE id = :number", number=number)
        anna.shown(image)
        until(lambda: backlog(app) == [])
        assert len(drawn(other.log, image)) == 1


def test_two_workers_share_what_there_is_to_do(app, anna):
    images = [anna.upload() for _ in range(12)]
    with celery(app.env) as worker, celery(app.env, "--hostname", "two@%h") as other:
        for image in images:
            anna.rotate(image)
        all_shown(anna, images)
        both = worker.log + other.log
        assert [len(drawn(both, image)) for image in images] == [1] * len(images)
