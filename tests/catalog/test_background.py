"""Work without workers: what a process does itself, whose request it was, and what it does not load."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import sqlalchemy as sa

from imageapi.catalog import library, work
from imageapi.errors import Busy, StorageUnavailable
from imageapi.extensions import read, transaction
from imageapi.models import Album, Work
from imageapi.settings import SettingsError, load
from tests.conftest import SECRET, jpeg, part
from tests.servers.celery import lines
from tests.servers.gunicorn import ROOT, environment

LOADED = """
import sys
from imageapi import create_app
create_app()
print([name for name in ("celery", "redis", "kombu") if name in sys.modules])
"""


def python(script, env):
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True
    )


def test_nothing_of_celery_is_loaded_without_a_broker(tmp_path):
    env = environment(tmp_path)
    assert python(LOADED, env).stdout == "[]\n"
    with_broker = {**env, "IMAGEAPI_BROKER_URL": "redis://127.0.0.1:1/0"}
    assert python(LOADED, with_broker).stdout == "[]\n"  # until there is something to tell
    assert python("import wsgi; print(wsgi.celery.main)", with_broker).stdout == "imageapi\n"


def test_celery_without_a_broker_says_so(tmp_path):
    command = [sys.executable, "-m", "celery", "-A", "wsgi", "worker"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "IMAGEAPI_BROKER_URL is required" in done.stderr


@pytest.mark.parametrize("url", ["amqp://host", "host:6379", "memory://"])
def test_a_broker_is_a_redis(url, monkeypatch):
    monkeypatch.setenv("IMAGEAPI_SECRET_KEYS", SECRET)
    monkeypatch.setenv("IMAGEAPI_BROKER_URL", url)
    with pytest.raises(SettingsError, match="IMAGEAPI_BROKER_URL must be the URL of a Redis"):
        load()


def test_a_broker_without_the_extra_is_refused(monkeypatch):
    monkeypatch.setenv("IMAGEAPI_SECRET_KEYS", SECRET)
    monkeypatch.setenv("IMAGEAPI_BROKER_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError) as refused:
        load()
    assert refused.value.faults == (
        "IMAGEAPI_BROKER_URL needs the extra `celery`, which is not installed.",
    )


@pytest.fixture
def failing(monkeypatch):
    """A rendering that fails with what `failing` says, if it says anything."""
    states = [StorageUnavailable]
    real = work._HANDLERS["render"]

    def render(payload):
        if states[0]:
            raise states[0]
        real(payload)

    monkeypatch.setitem(work._HANDLERS, "render", render)
    return states


def test_the_request_is_in_the_lines_of_its_work(app, client, album, token, failing, capsys):
    album()
    anna = token(user_id="anna")
    sent = client.post("/api/v1/albums/holidays/images", data={"file": part(jpeg())}, headers=anna)
    path = f"/api/v1/images/{sent.json['public_id']}"
    named = {**anna, "X-Request-Id": "edit-1"}
    assert client.put(path, json={"rotation": 90}, headers=named).status_code == 200
    with app.app_context(), transaction() as session:
        [row] = session.scalars(sa.select(Work).where(Work.kind == "render"))
        assert row.request_id == "edit-1"
        row.due_ms = 0
    app.extensions["background"].once()
    told = [line["request_id"] for line in lines(capsys.readouterr().err, "work failed")]
    assert told == ["edit-1", "edit-1"]  # by the request, by the background thread

    failing[0] = None
    with app.app_context(), transaction() as session:
        session.execute(sa.update(Work).values(due_ms=0))
    app.extensions["background"].once()
    assert "/assets/blank.jpg" not in client.get(path, headers=anna).json["thumbnails"].values()


def test_who_finds_all_decoders_taken_comes_again_soon(app, client, album, token, failing):
    album()
    anna = token(user_id="anna")
    sent = client.post("/api/v1/albums/holidays/images", data={"file": part(jpeg())}, headers=anna)
    path = f"/api/v1/images/{sent.json['public_id']}"
    failing[0] = Busy
    edited = client.put(path, json={"rotation": 90}, headers=anna)
    assert set(edited.json["thumbnails"].values()) == {"/assets/blank.jpg"}
    app.extensions["background"].once()
    failing[0] = None
    app.extensions["background"].once()
    assert "/assets/blank.jpg" not in client.get(path, headers=anna).json["thumbnails"].values()


def test_work_that_work_leaves_is_of_the_same_request(app, monkeypatch):
    def again(_payload):
        with transaction() as session:
            work.record(session, "second", {})

    monkeypatch.setitem(work._HANDLERS, "first", again)
    with app.test_request_context(headers={"X-Request-Id": "r-1"}):
        app.preprocess_request()
        with transaction() as session:
            number = work.record(session, "first", {})
    with app.app_context():
        work.run(number)
        assert [row.request_id for row in read(sa.select(Work.request_id))] == ["r-1"]


@pytest.mark.parametrize("at", ["statement", "commit"])
def test_views_are_never_counted_twice(app, album, at):
    """Whether a commit that failed was done is not known: it is not repeated."""
    number = album()

    def fail(*_arguments):
        raise sa.exc.OperationalError("lost", None, Exception())

    with app.app_context():
        views = library().views
        views.count(number)
        engine = app.extensions["sqlalchemy"].engine
        event = "commit" if at == "commit" else "before_cursor_execute"
        sa.event.listen(engine, event, fail)
        with pytest.raises(sa.exc.OperationalError):
            views.flush()
        sa.event.remove(engine, event, fail)
        views.flush()
        [row] = read(sa.select(Album.views_count))
        assert row.views_count == (0 if at == "commit" else 1)
