"""A storage in trouble, seen through the API: who reads rows notices nothing, uploads are told, nothing
is left, and all is well by itself afterwards.

Source: threats F11 to F19.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import jpeg
from tests.faults.front import front
from tests.faults.invariants import DATABASE, collect, rows
from tests.servers.fault_proxy import fault_proxy
from tests.storages import BUCKET, cloudinary_settings, post_directly, s3_api, s3_settings

FULL = os.environ.get("FAULTS") == "full"
LIES = 1000 if FULL else 3
BOUND = 10
"""Seconds after which an upload is answered whatever its storage does."""
UNAVAILABLE, DENIED = (503, "storage_unavailable"), (503, "storage_denied")


def xml(status, code):
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


class Service:
    """A server with the album `holidays` on a storage that fails, `cellar` on the local one."""

    def __init__(self, door, keys):
        self.door, self.keys = door, keys
        self.seed = 0
        door.app.flask("albums", "create", "cellar", "--owner", "anna", "--storage", "local")
        self.shown = [self.upload().json(), self.upload("cellar").json()]
        self.before = self.read()

    def ask(self, method, path, **options):
        url = f"{self.door.app.url}/api/v1{path}"
        return requests.request(method, url, headers=self.door.headers, timeout=60, **options)

    def upload(self, album="holidays", data=None):
        self.seed += 1
        files = {"file": ("a.jpg", jpeg(90, 60, seed=self.seed) if data is None else data)}
        return self.ask("POST", f"/albums/{album}/images", files=files)

    def read(self):
        """What rows alone answer: metadata and lists of both albums."""
        paths = [f"/images/{image['public_id']}" for image in self.shown]
        answers = [self.ask("GET", path) for path in paths]
        assert {answer.status_code for answer in answers} == {200}
        assert self.ask("GET", "/albums/holidays/images").status_code == 200
        assert self.ask("GET", "/albums/holidays").status_code == 200
        assert self.ask("GET", "/albums").status_code == 200
        return [answer.json() for answer in answers]

    def refused(self, expected):
        """An upload that its storage's trouble refuses, in time and as documented."""
        begun = time.monotonic()
        answer = self.upload()
        assert time.monotonic() - begun < BOUND
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (answer.status_code, answer.json()["code"]) == expected, answer.text
        assert answer.status_code != 503 or int(answer.headers["Retry-After"]) > 0
        return answer

    def nobody_waits_for_silence(self):
        """Uploads at once end in time; after five failures nobody waits."""
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda _: self.refused(UNAVAILABLE), range(5)))
        begun = time.monotonic()
        self.refused(UNAVAILABLE)
        print(f"refused in {time.monotonic() - begun:.3f} s")  # noqa: T201 - a figure
        assert time.monotonic() - begun < 1
        self.others_are_well()

    def others_are_well(self):
        assert self.read() == self.before
        assert self.upload("cellar").status_code == 201
        path = f"/images/{self.shown[1]['public_id']}/original"
        assert self.ask("GET", path).status_code == 200

    def recovers(self):
        """An upload is taken within five seconds; what trouble left is nothing."""
        begun = time.monotonic()
        while (answer := self.upload()).status_code != 201:
            assert time.monotonic() - begun < 5, answer.text
            time.sleep(0.1)
        print(f"well again in {time.monotonic() - begun:.1f} s")  # noqa: T201 - a figure
        self.nothing_is_left()

    def nothing_is_left(self):
        """Nor what a request stored whose answer came too late: that is collected."""
        collect(self.door)
        kept = [row for row in rows(self.door.app.instance / DATABASE) if row.storage != "local"]
        held = self.keys()
        originals = {key for key in held if "." not in key}
        assert originals == {row.key for row in kept}
        images = {row.id for row in kept}
        assert {key[3:39] for key in held - originals} <= images
        staged = list((self.door.app.instance / "storage").glob("*/staging/*"))
        assert staged == []


@pytest.fixture(scope="module")
def proxy(s3_server):
    with fault_proxy(s3_server.port) as proxy:
        yield proxy


@pytest.fixture
def bucket(s3_server, proxy):
    """A service on S3 behind the proxy, every time a new one: breakers are a process's own."""
    env = s3_settings(s3_server, proxy.url)
    api, prefix = s3_api(s3_server), env["IMAGEAPI_STORAGE_S3_PREFIX"]

    def keys():
        assert "Uploads" not in api.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
        found = api.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        return {entry["Key"].removeprefix(prefix) for entry in found}

    with front("--workers", "1", "--threads", "8", env={**env, "IMAGEAPI_STORAGE": "s3"}) as door:
        service = Service(door, keys)
        service.api, service.prefix = api, prefix
        yield service


@pytest.fixture
def cloud(cloudinary_server):
    env = cloudinary_settings(cloudinary_server)

    def keys():
        url = f"{cloudinary_server.url}/v1_1/{cloudinary_server.cloud_name}/resources/image/private"
        account = (cloudinary_server.api_key, cloudinary_server.api_secret)
        found = requests.get(f"{url}?max_results=500", auth=account, timeout=10).json()
        return {asset["public_id"] for asset in found["resources"]}

    with front(
        "--workers", "1", "--threads", "8", env={**env, "IMAGEAPI_STORAGE": "cloudinary"}
    ) as door:
        yield Service(door, keys)
    cloudinary_server.clear()


@contextlib.contextmanager
def frozen(server):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_s3_refuses_connections_or_fails(bucket, proxy):
    """One after the other: refused, 503 of every kind, 403, no bucket, cut; well again after each."""
    slow = xml("503 Slow Down", "SlowDown")
    for fault, expected in (
        ({"refuse": True}, UNAVAILABLE),
        ({"fail": 100}, UNAVAILABLE),
        ({"fail": 100, "answer": slow}, UNAVAILABLE),
        ({"fail": 100, "answer": xml("403 Forbidden", "AccessDenied")}, DENIED),
        ({"fail": 100, "answer": xml("403 Forbidden", "RequestTimeTooSkewed")}, DENIED),
        ({"fail": 100, "answer": xml("404 Not Found", "NoSuchBucket")}, DENIED),
        ({"fail": 100, "answer": xml("507 Full", "XMinioStorageFull")}, (507, "storage_full")),
        ({"cut_request": 900}, UNAVAILABLE),
    )[:: 1 if FULL else 3]:
        with proxy.faults(**fault):
            before = proxy.counts.requests
            bucket.refused(expected)
            asked = proxy.counts.requests - before
            assert asked <= (3 if expected == UNAVAILABLE else 2), fault
            asked = proxy.counts.connections, proxy.counts.requests
            bucket.others_are_well()
            assert (proxy.counts.connections, proxy.counts.requests) == asked, "a read asked S3"
        bucket.recovers()


def test_s3_frozen(bucket, s3_server):
    """It thaws, and all is well."""
    with frozen(s3_server):
        bucket.nobody_waits_for_silence()
    bucket.recovers()


def test_s3_says_that_it_stored_and_did_not(bucket, proxy):
    nothing = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    for _ in range(LIES):
        with proxy.faults(fail=100, answer=nothing, times=1):
            bucket.refused((502, "storage_corrupt"))
    bucket.recovers()


DAMAGES = ["other", "lost", "short", "long", "swapped", "cut"]


@pytest.mark.parametrize("damage", DAMAGES if FULL else DAMAGES[:2])
def test_wrong_bytes_of_s3_are_never_given_for_right(bucket, proxy, damage):
    image = bucket.shown[0]
    path = f"/images/{image['public_id']}/original"
    data = bucket.ask("GET", path).content
    kept = {row.id: row.key for row in rows(bucket.door.app.instance / DATABASE)}
    other = bucket.upload().json()
    target = {"Bucket": BUCKET, "Key": bucket.prefix + kept[image["public_id"]]}
    damaged = {
        "other": data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        "short": data[:-1],
        "long": data + b"x",
        "swapped": bucket.ask("GET", f"/images/{other['public_id']}/original").content,
    }
    assert data not in damaged.values()
    if damage == "lost":
        bucket.api.delete_object(**target)
    elif damage in damaged:
        bucket.api.put_object(**target, Body=damaged[damage])
    with proxy.faults(**({"cut_answer": 600} if damage == "cut" else {})):
        try:
            answer = bucket.ask("GET", path)
        except requests.RequestException:
            pass  # too few bytes, and the connection broken
        else:
            if damage == "long":  # what was asked for is right
                assert (answer.status_code, answer.content) == (200, data)
                return
            expected = {"lost": "storage_not_found"}.get(damage, "storage_corrupt")
            assert answer.status_code in (502, 503), damage
            assert answer.json()["code"] in (expected, "storage_unavailable")
    assert bucket.read() == bucket.before  # the rows are as they were
    assert requests.get(image["thumbnails"]["mini"], timeout=10).status_code == 200


def test_s3_direct_uploads_wait_for_it(bucket, proxy):
    form = bucket.ask("GET", "/albums/holidays").json()["upload_form"]
    data = jpeg(80, 80, seed=5000)
    answer = post_directly(form, data)
    for fault, expected in (
        ({"refuse": True}, UNAVAILABLE),
        ({"fail": 100, "answer": xml("403 Forbidden", "AccessDenied")}, DENIED),
    ):
        with proxy.faults(**fault):
            refused = bucket.ask("POST", "/albums/holidays/images", json=answer)
            assert (refused.status_code, refused.json()["code"]) == expected
    deadline = time.monotonic() + 5
    while (made := bucket.ask("POST", "/albums/holidays/images", json=answer)).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert made.status_code == 201, made.text
    assert made.json()["infos"]["etag"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
    bucket.nothing_is_left()


def test_cloudinary_refuses_or_fails(cloud, cloudinary_server):
    said = json.dumps({"error": {"message": "no"}})
    for fault, expected in (
        ({"status": 420, "body": said}, UNAVAILABLE),
        ({"status": 429, "body": said}, UNAVAILABLE),
        ({"status": 500, "body": said}, UNAVAILABLE),
        ({"status": 502, "body": "<html>Bad Gateway</html>"}, UNAVAILABLE),
        ({"status": 401, "body": said}, DENIED),
        ({"status": 403, "body": said}, DENIED),
        ({"status": 200, "body": "<html>"}, UNAVAILABLE),
        ({"drop": True}, UNAVAILABLE),
        ({"wrong": True}, (502, "storage_corrupt")),
        ({"limit": 10}, (507, "storage_full")),
    )[:: 1 if FULL else 3]:
        with cloudinary_server.faults(match="/v1_1/", **fault):
            begun = len(cloudinary_server.requests())
            answer = cloud.refused(expected)
            if fault.get("status") in (420, 429):
                assert int(answer.headers["Retry-After"]) >= 5
            asked = len(cloudinary_server.requests()) - begun
            assert asked <= (3 if expected == UNAVAILABLE else 2), fault
            begun = len(cloudinary_server.requests())
            cloud.others_are_well()
            assert len(cloudinary_server.requests()) == begun, "a read asked Cloudinary"
        cloud.recovers()


def test_cloudinary_is_silent(cloud, cloudinary_server):
    with cloudinary_server.faults(match="/v1_1/", hang=20):
        cloud.nobody_waits_for_silence()
    cloud.recovers()


def test_an_original_that_cloudinary_lost(cloud, cloudinary_server):
    path = f"/images/{cloud.shown[0]['public_id']}/original"
    cloudinary_server.clear()
    answer = cloud.ask("GET", path)
    assert (answer.status_code, answer.json()["code"]) == (502, "storage_not_found")
    assert cloud.read() == cloud.before
