"""What operators ask: alive, ready, how much of what."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from imageapi import metrics
from imageapi.catalog import library, readiness, work
from imageapi.errors import StorageDenied, StorageUnavailable
from imageapi.extensions import db, transaction
from imageapi.storage import breaker
from tests.blueprints.conftest import FORM, IMAGES, form
from tests.blueprints.test_errors import SAFETY, assert_problem
from tests.conftest import bearing, jpeg, sign
from tests.servers import gunicorn
from tests.servers.fault_proxy import fault_proxy
from tests.servers.redis import redis

OUTSIDE = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}


def samples(text):
    """Name and labels to value of a scrape."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def count(found, name, **labels):
    """The sum of all samples of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for key, value in found.items() if key[0] == name and wanted <= set(key[1:]))


# ready --------------------------------------------------------------------------------------


def test_ready(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert [pair for pair in answer.headers if pair in SAFETY] == SAFETY
    assert answer.json == {
        "status": "ready",
        "checks": {
            "database": {"ok": True, "needed": True},
            "storage local": {"ok": True, "needed": True},
        },
    }


def break_local(app):
    root = app.extensions["library"].settings.instance / "storage"
    root.mkdir(exist_ok=True)
    (root / "local").write_text("no folder")


def test_a_broken_storage_of_new_albums_is_red(app, client):
    break_local(app)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["status"] == "unavailable"
    assert answer.json["checks"]["database"]["ok"]
    assert answer.json["checks"]["storage local"]["reason"]


def test_a_broken_storage_of_other_albums_is_degraded(app, client, album):
    album(storage="attic")
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json["status"] == "degraded"
    assert answer.json["checks"]["storage attic"] == {
        "ok": False,
        "needed": False,
        "reason": "There is no storage 'attic'.",
    }


def test_a_database_that_is_not_migrated_is_red(app, client):
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE generation"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "flask db upgrade" in answer.json["checks"]["database"]["reason"]


@pytest.mark.parametrize(
    "options",
    [
        OUTSIDE,
        {"headers": {"X-Forwarded-For": "127.0.0.1"}},
        {"headers": {"Forwarded": "for=127.0.0.1"}},
        {"environ_base": {"REMOTE_ADDR": ""}},
    ],
)
def test_reasons_and_metrics_are_for_operators(app, client, options):
    break_local(app)
    answer = client.get("/readyz", **options)
    assert answer.status_code == 503
    assert answer.json["checks"]["storage local"] == {"ok": False, "needed": True}
    hidden = client.get("/metrics", **options)
    assert_problem(hidden, 404, "not_found")


def test_a_mapped_address_is_the_address(client):
    mapped = {"REMOTE_ADDR": "::ffff:127.0.0.1"}
    assert client.get("/metrics", environ_base=mapped).status_code == 200


@pytest.mark.configure(trusted_proxies=1)
def test_behind_a_proxy_the_client_counts(client):
    assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 200
    spoofed = {"X-Forwarded-For": "127.0.0.1, 192.0.2.7"}
    assert client.get("/metrics", headers=spoofed).status_code == 404


def test_what_hangs_is_bounded_and_does_not_pile_up(app, client, album, monkeypatch):
    for number in range(4):
        album(f"a{number}", storage=f"s{number}")
    release = threading.Event()
    monkeypatch.setattr(readiness, "DEADLINE", 0.4)
    monkeypatch.setattr(readiness, "_check", lambda _name: release.wait(30))
    try:
        started = time.monotonic()
        answers = [client.get("/readyz") for _ in range(4)]
        assert time.monotonic() - started < 4 * 1.5
        hung = [t for t in threading.enumerate() if t.name == "readiness"]
        assert len(hung) == 5, "one for each storage, however often it is asked"
    finally:
        release.set()
    for answer in answers:
        assert answer.status_code == 503
        reasons = [check.get("reason") for check in answer.json["checks"].values()]
        assert reasons == [None] + ["It does not answer in time."] * 5


def test_an_answer_is_good_for_a_second(client, monkeypatch):
    asked = []
    monkeypatch.setattr(readiness, "_check", asked.append)
    for _ in range(20):
        client.get("/readyz")
    assert len(asked) <= 2


def test_a_process_that_ends_is_red(app, client):
    app.extensions["readiness"].stopping = True
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (503, "stopping")


def test_redis_is_comfort():
    with redis() as server, fault_proxy(server.port) as proxy:
        settings = {
            "IMAGEAPI_RATE_LIMIT": "600/minute",
            "IMAGEAPI_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0",
        }
        with gunicorn.gunicorn(settings, "--workers=1") as app:
            assert requests.get(f"{app.url}/readyz", timeout=5).json()["status"] == "ready"
            time.sleep(readiness.KEPT)
            proxy.set(hang=True)
            started = time.monotonic()
            answer = requests.get(f"{app.url}/readyz", timeout=5)
            assert time.monotonic() - started < 3.5
            assert answer.status_code == 200
            assert answer.json()["status"] == "degraded"
            assert not answer.json()["checks"]["rate limits"]["ok"]


# the end ------------------------------------------------------------------------------------


def test_a_stop_is_red_first_and_finishes_what_is_under_way():
    with gunicorn.gunicorn({}, "--workers=1", "--threads=4") as app:
        app.flask("albums", "create", "holidays", "--owner", "anna")
        token = app.flask(
            *("token", "create", "--user", "anna", "--album", "holidays"),
            *("--ability", "image_upload"),
        ).stdout.strip()
        body = form(("file", jpeg(), "a.jpg"))
        head = (
            f"POST {IMAGES} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        slow = socket.create_connection(("127.0.0.1", app.port), timeout=20)
        slow.sendall(head.encode() + body[:-10])
        kept = requests.Session()
        assert kept.get(f"{app.url}/readyz", timeout=5).status_code == 200
        time.sleep(0.3)

        app.process._popen.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        seen = []
        for _ in range(3):
            try:
                seen.append(kept.get(f"{app.url}/readyz", timeout=1).status_code)
            except requests.RequestException:  # nobody accepts connections any more
                seen.append(None)
        slow.sendall(body[-10:])
        answer = slow.recv(65536)
        assert answer.startswith(b"HTTP/1.1 201")
        assert 200 not in seen
        assert seen[0] == 503, "the kept connection is told so"
        assert app.process.wait(30) == 0
        slow.close()
        kept.close()


# metrics ------------------------------------------------------------------------------------


def test_metrics_of_one_process(app, client, upload):
    before = samples(client.get("/metrics").text)
    assert upload(("file", jpeg(), "a.jpg")).status_code == 201
    assert upload(("file", jpeg(), "a.jpg")).status_code == 200
    assert upload(("file", b"no picture", "a.jpg")).status_code == 415
    client.get("/nothing")
    answer = client.get("/metrics")
    assert answer.content_type == metrics.CONTENT_TYPE
    assert [pair for pair in answer.headers if pair in SAFETY] == SAFETY
    found = samples(answer.text)

    def more(name, **labels):
        return count(found, name, **labels) - count(before, name, **labels)

    upload_of = {"endpoint": "albums.upload_image", "method": "POST"}
    assert more("imageapi_request_seconds_count", **upload_of, status="201") == 1
    assert more("imageapi_request_seconds_count", **upload_of, status="200") == 1
    assert more("imageapi_request_seconds_bucket", **upload_of, status="201", le="+Inf") == 1
    assert more("imageapi_refusals_total", code="unsupported_format") == 1
    assert more("imageapi_refusals_total", endpoint="none", code="not_found") == 1
    assert more("imageapi_uploads_total", outcome="new") == 1
    assert more("imageapi_uploads_total", outcome="duplicate") == 1
    assert more("imageapi_uploaded_bytes_total", outcome="new") == len(jpeg())
    assert more("imageapi_decode_seconds_count", task="take_in", outcome="ok") == 1
    assert more("imageapi_decode_seconds_count", task="take_in", outcome="unsupported_format") == 1
    assert count(found, "imageapi_decodes_in_progress") == 0
    puts = {"storage": "local", "operation": "put", "outcome": "ok"}
    assert more("imageapi_storage_call_seconds_count", **puts) == 1
    assert count(found, "imageapi_check_ok", check="database") == 1
    assert count(found, "imageapi_check_ok", check="storage local") == 1


def test_the_outbox_is_told_of(app, client):
    with app.app_context(), transaction() as session:
        work.record(session, "render", {"image": "x"}, delay_ms=-7000)
        work.record(session, "render", {"image": "y"})
        work.record(session, "remove", {"storage": "local", "keys": []}, delay_ms=60_000)
    found = samples(client.get("/metrics").text)
    assert count(found, "imageapi_work_waiting", kind="render") == 2
    assert count(found, "imageapi_work_due", kind="render") == 2
    assert 7 <= count(found, "imageapi_work_oldest_due_seconds", kind="render") < 60
    assert count(found, "imageapi_work_waiting", kind="remove") == 1
    assert count(found, "imageapi_work_due", kind="remove") == 0
    assert count(found, "imageapi_work_waiting", kind="empty_album") == 0


def test_no_label_comes_from_a_client(client):
    for path in ("/a", "/api/v1/albums/x/images", "/api/v1/images/1"):
        client.open(path, method="GET")
        client.open(path, method="BREW")
    before = set(samples(client.get("/metrics").text))
    for number in range(60):
        client.open(f"/a{number}", method="GET")
        client.open(f"/a{number}", method=f"BREW{number}")
        client.get(f"/api/v1/albums/x{number}/images", headers={"X-Request-Id": f"r{number}"})
        client.get(f"/api/v1/images/{number}")
    after = set(samples(client.get("/metrics").text))
    assert {key for key in after - before if "endpoint" in dict(key[1:])} <= {
        key for key in after if ("endpoint", "ops.metrics") in key
    }


def test_a_refusing_storage_is_an_alarm_once_a_minute(app, capsys):
    with app.app_context():
        storage = library().storages["local"]
        for _ in range(3):
            with pytest.raises(StorageDenied):
                storage._call("open", lambda: (_ for _ in ()).throw(StorageDenied("No.")))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["storage"], line["level"]) for line in lines] == [
        ("the storage refuses this service", "local", "error")
    ]


def test_a_breaker_is_told_of(app, client, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    before = samples(client.get("/metrics").text)

    def silent():
        raise StorageUnavailable

    with app.app_context():
        storage = library().storages["local"]
        for _ in range(breaker._FAILURES):
            with pytest.raises(StorageUnavailable):
                storage._call("stat", silent)
        app.extensions["background"].once()
    found = samples(client.get("/metrics").text)
    assert count(found, "imageapi_storage_breaker_open", storage="local") == 1
    name, of = "imageapi_storage_call_seconds_count", {"storage": "local", "operation": "stat"}
    tried = {**of, "outcome": "storage_unavailable"}
    assert count(found, name, **tried) - count(before, name, **tried) == breaker._FAILURES
    spared = {**of, "outcome": "not_tried"}
    assert count(found, name, **spared) - count(before, name, **spared) >= 1
    storage._breaker.answered()
    app.extensions["background"].once()
    assert not count(
        samples(client.get("/metrics").text), "imageapi_storage_breaker_open", storage="local"
    )


def test_metrics_are_right_over_several_processes():
    with gunicorn.gunicorn({}, "--workers=3", "--threads=2") as app:
        headers = bearing(sign({"user_id": "anna"}, app.env["IMAGEAPI_SECRET_KEYS"]))
        url, asked, counted = f"{app.url}/api/v1/albums", 0, app.instance / "metrics"
        while len(list(counted.glob("histogram_*.db"))) < 2:
            # Which process takes a connection is the kernel's choice.
            assert asked < 1000, "one process has counted all"
            with ThreadPoolExecutor(10) as pool:
                each = [
                    pool.submit(requests.get, url, headers=headers, timeout=20) for _ in range(20)
                ]
            assert all(answer.result().ok for answer in each)
            asked += len(each)
        scrapes = [requests.get(f"{app.url}/metrics", timeout=5).text for _ in range(6)]
        of = {"endpoint": "albums.index", "status": "200"}
        assert {
            count(samples(text), "imageapi_request_seconds_count", **of) for text in scrapes
        } == {asked}
        assert not re.search(r'pid="', scrapes[0])
        app.restart()
        again = samples(requests.get(f"{app.url}/metrics", timeout=5).text)
        assert count(again, "imageapi_request_seconds_count", **of) == 0


@pytest.mark.parametrize(
    ("env", "option"),
    [({"FLASK_DEBUG": "1"}, "--threads=2"), ({}, "--forwarded-allow-ips=*")],
    ids=["debug", "forwarded"],
)
def test_an_open_configuration_is_refused(env, option, tmp_path):
    with (
        pytest.raises(RuntimeError, match="is refused"),
        gunicorn.gunicorn(env, option, directory=tmp_path, migrate=False),
    ):
        pass
    log = (tmp_path / "log").read_text()
    assert "Booting worker" not in log
    assert "Traceback" not in log
