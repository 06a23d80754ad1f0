"""Two hosts behind nginx, under load, while each part is killed and brought back in turn."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import time

import psutil
import pytest
import requests

from tests.conftest import jpeg
from tests.faults.cluster import cluster
from tests.faults.front import FORM, PATH, form
from tests.faults.load import Load, under_load
from tests.servers.ports import HOST
from tests.servers.process import descendants

BLANK = "/assets/blank.jpg"
SECONDS = 600 if os.environ.get("FAULTS") == "full" else 20
DOWN = 3.0
"""Seconds that a part is away."""
AGAIN = 12.0
"""Seconds after its return in which an answer may still be that of a service that lacks it."""
DOCUMENTED = {200, 201, 502, 503}


@pytest.fixture(scope="module")
def whole():
    with cluster() as running:
        yield running


@pytest.fixture
def ask(whole):
    def request(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(HOST, whole.nginx.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {**whole.headers, **(headers or {})})
            response = connection.getresponse()
            data = response.read()
            return response.status, response.headers, data

    return request


def test_an_image_s_life_through_nginx(ask):
    """Upload, list, crop, thumbnail, original, delete, each answered by either host."""
    data = jpeg(640, 480)
    status, headers, body = ask("POST", PATH, form(data), {"Content-Type": FORM})
    assert status == 201
    image = json.loads(body)
    assert ask("POST", PATH, form(data), {"Content-Type": FORM})[0] == 200
    assert [i["public_id"] for i in json.loads(ask("GET", PATH)[2])] == [image["public_id"]]
    path = headers["Location"]
    crop = json.dumps({"crop_x": 10, "crop_y": 20, "crop_w": 300, "crop_h": 200})
    status, _, body = ask("PUT", path, crop, {"Content-Type": "application/json"})
    assert (status, json.loads(body)["width"]) == (200, 300)
    for _ in range(6):
        assert json.loads(ask("GET", path)[2])["height"] == 200
    end = time.monotonic() + 30
    while BLANK in (urls := json.loads(ask("GET", path)[2])["thumbnails"]).values():
        assert time.monotonic() < end, "no worker has rendered it"
        time.sleep(0.1)
    assert all(requests.get(url, timeout=30).status_code == 200 for url in urls.values())
    assert ask("GET", f"{path}/original")[2] == data
    assert ask("DELETE", path)[0] == 204
    assert ask("GET", path)[0] == 404


def test_each_part_is_killed_and_brought_back_under_load(whole):
    load = Load(whole.nginx.port, whole.headers, expected=tuple(DOCUMENTED))
    away, sizes = [], []
    parts = [name for name in whole.parts if name != "nginx"]
    with under_load(load, readers=1):
        time.sleep(3)
        began, number = time.monotonic(), 0
        while time.monotonic() - began < SECONDS or number < len(parts):
            sizes.append(size(whole))
            name = parts[number % len(parts)]
            number += 1
            start = time.monotonic()
            whole.parts[name].kill()
            time.sleep(DOWN)
            whole.parts[name].start()
            away.append((name, start, time.monotonic()))
            answered = load.statuses["upload", 201]
            while load.statuses["upload", 201] < answered + 2:
                assert time.monotonic() - away[-1][2] < 60, f"no upload after {name} was back"
                time.sleep(0.1)
        time.sleep(3)
        sizes.append(size(whole))
    report(load, away, sizes)
    assert load.failures == []
    for refusal in load.refusals:
        assert json.loads(refusal.what)["status"] in DOCUMENTED
    reads = [refusal for refusal in load.refusals if refusal.kind in {"kept", "closed"}]
    assert [read for read in reads if not explained(read, away)] == []
    assert len(load.acknowledged) > 20
    check_all_is_there(whole, load)
    if SECONDS > 100:
        for what in ("memory", "descriptors"):
            _first, settled, last = thirds(sizes, what)
            assert last < settled * 1.15


def size(whole):
    """Memory in MiB and descriptors of all processes of both hosts."""
    memory = descriptors = 0
    for host in whole.hosts:
        for pid in [host.pid, *descendants(host.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                memory += process.memory_info().rss >> 20
                descriptors += process.num_fds()
    return {"memory": memory, "descriptors": descriptors}


def thirds(sizes, what):
    """The most in each third of the time: a host that was just brought back has less."""
    third = len(sizes) // 3
    parts = sizes[:third], sizes[third : 2 * third], sizes[2 * third :]
    return [max(size[what] for size in part) for part in parts]


def explained(read, away):
    """Metadata are not to be had while the database is away; what a host was answering dies with it."""
    return any(
        start - 1 < read.at < end + AGAIN
        for name, start, end in away
        if name.startswith(("database", "host"))
    )


def report(load, away, sizes):
    print("requests", load.requests, dict(load.statuses))  # noqa: T201 - shown with -s and on failure
    print("uploads acknowledged", len(load.acknowledged), "parts killed", len(away))  # noqa: T201
    print("failures", len(load.failures), load.failures[:5])  # noqa: T201
    for what in ("memory", "descriptors"):
        print(what, thirds(sizes, what))  # noqa: T201


def check_all_is_there(whole, load):
    connection = http.client.HTTPConnection(HOST, whole.nginx.port, timeout=60)
    for image_id, sha256 in load.acknowledged.items():
        connection.request("GET", f"/api/v1/images/{image_id}/original", headers=whole.headers)
        response = connection.getresponse()
        data = response.read()
        assert (response.status, hashlib.sha256(data).hexdigest()) == (200, sha256), image_id
    connection.close()
    checked = whole.hosts[0].flask("fsck", check=False)
    assert checked.returncode == 0, checked.stdout
