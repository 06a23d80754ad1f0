"""deploy/nginx.conf with the real nginx: limits, tokens, renditions that nginx sends, its problems."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from imageapi import models
from tests.auth.conftest import mint
from tests.conftest import jpeg
from tests.contract import test_specification as specification
from tests.deploy.site import served
from tests.faults.front import FORM, PATH, form, picture
from tests.faults.invariants import DATABASE
from tests.faults.load import HALF_A_BODY, HALF_A_HEAD, silent
from tests.servers.ports import HOST

LIMIT = 1024 * 1024 * 64


@pytest.fixture(scope="module")
def site():
    with served() as site:
        yield site


@pytest.fixture(scope="module")
def image(site):
    headers = {**site.door.headers, "Content-Type": FORM}
    answer = site.ask(PATH, "POST", form(jpeg(900, 700)), headers)
    assert answer.status == 201
    return answer.json


def token(site, **claims):
    secret = site.door.app.env["IMAGEAPI_SECRET_KEYS"]
    return mint({"exp": int(time.time()) + 3600, "user_id": "anna", **claims}, secret=secret)


@pytest.mark.parametrize("length", [100, 20_000, 1_500_000, 16_000_000])
def test_uploads(length, site):
    data = picture(length, seed=length)
    headers = {**site.door.headers, "Content-Type": FORM}
    answer = site.ask(PATH, "POST", form(data), headers)
    assert answer.status == 201, answer.body
    assert answer.json["infos"]["bytes"] == length
    assert answer.headers["Location"] == f"/api/v1/images/{answer.json['public_id']}"
    original = site.ask(f"{answer.headers['Location']}/original", headers=site.door.headers)
    assert original.body == data


def test_the_largest_upload_and_one_byte_more(site):
    """The same answer, whether it is the application that refuses or nginx."""
    headers = {**site.door.headers, "Content-Type": FORM}
    assert site.ask(PATH, "POST", form(picture(LIMIT)), headers).status == 201
    ours = site.ask(PATH, "POST", form(picture(LIMIT + 1)), headers)
    body = form(picture(LIMIT + 70 * 1024))
    with socket.create_connection((HOST, site.nginx.port), timeout=10) as connection:
        head = site.door.head(f"Content-Length: {len(body)}", "X-Request-Id: too-much")
        connection.sendall(head + body[:1000])
        text = connection.recv(65536).decode()
    start, _, body = text.partition("\r\n\r\n")
    assert start.startswith("HTTP/1.1 413 ")
    assert "X-Request-Id: too-much" in start
    assert "application/problem+json" in start
    assert "no-store" in start
    theirs = json.loads(body)
    assert theirs["instance"] == "urn:uuid:too-much"
    assert ours.status == ours.json["status"] == theirs["status"] == 413
    assert ours.json["code"] == theirs["code"] == "payload_too_large"
    assert theirs.keys() == ours.json.keys()


def test_a_token_of_8_kib_both_ways(site, image):
    path = f"/api/v1/images/{image['public_id']}"
    fill = 8192 - len('Token token=""') - len(token(site, note=""))
    long = token(site, note="n" * (fill * 3 // 4))
    assert 8170 < len(long) < 8192
    answer = site.ask(path, headers={"Authorization": f'Token token="{long}"'})
    assert answer.status == 200
    assert len(answer.headers["X-token"]) > 8100
    again = site.ask(path, headers={"Authorization": f"Bearer {answer.headers['X-token']}"})
    assert again.status == 200
    too_long = site.ask(path, headers={"Authorization": f"Bearer {token(site, note='n' * 13000)}"})
    assert too_long.status == 400
    assert too_long.json["code"] == "bad_request"
    assert too_long.headers["Content-Type"] == "application/problem+json"


def test_the_metadata_are_as_the_application_answers_them(site, image):
    path = f"/api/v1/images/{image['public_id']}"
    theirs = site.ask(path, headers={**site.door.headers, "X-Request-Id": "r1"})
    ours = site.ask(
        path, headers={**site.door.headers, "X-Request-Id": "r1"}, port=site.door.app.port
    )
    assert theirs.body == ours.body
    # nginx writes these two first; the others keep their order.
    for name in ("Content-Type", "Content-Length"):
        assert theirs.headers[name] == ours.headers[name]
    varying = {"Server", "Date", "Connection", "X-Runtime", "X-token"}
    varying |= {"Content-Type", "Content-Length"}
    assert [h for h in theirs.headers.items() if h[0] not in varying] == [
        h for h in ours.headers.items() if h[0] not in varying
    ]
    assert "no-store" in theirs.headers["Cache-Control"]


def test_the_specifications_exchange():
    """Of today, with a token of today: else the answer is the specification's own."""
    with served(env={"IMAGEAPI_TIMEZONE": "Europe/Paris"}) as site:
        site.door.app.flask("albums", "create", specification.ALBUM, "--owner", "anna")
        engine = sa.create_engine(f"sqlite:///{site.door.app.instance / DATABASE}")
        with orm.Session(engine) as session, session.begin():
            find = sa.select(models.Album.id).where(models.Album.public_id == specification.ALBUM)
            specification.put_image(session, session.scalars(find).one())
        engine.dispose()
        claims = {**specification.CLAIMS, "exp": int(time.time()) + 3600}
        signed = mint(claims, secret=site.door.app.env["IMAGEAPI_SECRET_KEYS"])
        asked = {
            "Authorization": f'Token token="{signed}"',
            "X-Request-Id": dict(specification.HEADERS)["X-Request-Id"],
        }
        answer = site.ask(f"/api/v1/images/{specification.IMAGE}", headers=asked)
        assert (answer.status, answer.body.decode()) == (200, specification.BODY)
        volatile = {"X-token", "X-Runtime"}
        assert volatile <= set(answer.headers)
        for name, value in specification.HEADERS:
            assert name in volatile or answer.headers[name] == value


class TestRenditions:
    """Which nginx sends."""

    def test_the_bytes_and_headers_of_the_application(self, site, image):
        for name, url in image["thumbnails"].items():
            ours = site.ask(url, port=site.door.app.port)
            assert ours.headers["X-Accel-Redirect"].startswith("/_bytes/")
            assert ours.body == b""
            theirs = site.ask(url)
            key = ours.headers["X-Accel-Redirect"].removeprefix("/_bytes/")
            assert f".{name}." in key
            assert theirs.status == 200
            assert theirs.body == (site.door.root / key).read_bytes()
            assert theirs.headers["Content-Type"] == "image/jpeg"
            assert theirs.headers["X-Content-Type-Options"] == "nosniff"
            assert theirs.headers["Cache-Control"].startswith("private, max-age=")
            for absent in ("X-Accel-Redirect", "X-token", "ETag", "Last-Modified", "Set-Cookie"):
                assert absent not in theirs.headers

    def test_a_range_and_a_head(self, site, image):
        url = image["thumbnails"]["large"]
        whole = site.ask(url).body
        part = site.ask(url, headers={"Range": "bytes=10-29"})
        assert (part.status, part.body) == (206, whole[10:30])
        assert part.headers["Content-Range"] == f"bytes 10-29/{len(whole)}"
        assert part.headers["X-Content-Type-Options"] == "nosniff"
        head = site.ask(url, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(whole))
        beyond = site.ask(url, headers={"Range": "bytes=9999999-"})
        assert (beyond.status, beyond.json["code"]) == (416, "range_not_satisfiable")

    def test_one_that_is_missing_is_rendered(self, site, image):
        url = image["thumbnails"]["mini"]
        before = site.ask(url)
        (file,) = site.door.root.glob(f"*/{image['public_id']}.0.mini.*")
        file.unlink()
        assert site.ask(url).body == before.body

    def test_no_way_in_but_a_signed_url(self, site, image):
        (file,) = site.door.root.glob(f"*/{image['public_id']}.0.mini.*")
        key = file.relative_to(site.door.root)
        for path in (
            f"/_bytes/{key}",
            f"//_bytes/{key}",
            f"/x/../_bytes/{key}",
            f"/%5fbytes/{key}",
            "/_bytes/",
            "/_problem/413",
            image["thumbnails"]["mini"].replace("signature=", "signature=A"),
            image["thumbnails"]["mini"].partition("?")[0],
        ):
            answer = site.ask(path)
            assert answer.status == 404, path
            assert answer.json["code"] == "not_found"

    def test_nothing_outside_of_the_folder(self, site, image):
        secret = site.door.app.directory / "canary"
        secret.write_text("canary")
        url = image["thumbnails"]["full"]
        (file,) = site.door.root.glob(f"*/{image['public_id']}.0.full.*")
        data = file.read_bytes()
        for climb in ("../../canary", "..%2f..%2fcanary", "%2e%2e/%2e%2e/canary", "....//canary"):
            path = url.partition("?")
            answer = site.ask(f"{path[0].rpartition('/')[0]}/{climb}?{path[2]}")
            assert answer.status in {400, 404}
        file.unlink()
        file.symlink_to(secret)
        try:
            answer = site.ask(url)  # the application says what it is: no file of its own
            assert b"canary" not in answer.body
            assert answer.status in {200, 404}
        finally:
            file.unlink()
            file.write_bytes(data)

    def test_nginx_itself_follows_no_link(self, site, image, tmp_path):
        """Also where a link is planted behind the application's back."""
        (file,) = site.door.root.glob(f"*/{image['public_id']}.0.full.*")
        folder, aside = file.parent, file.parent.with_name("aside")
        folder.rename(aside)
        folder.symlink_to(aside)
        try:
            assert site.ask(image["thumbnails"]["full"]).body != (aside / file.name).read_bytes()
        finally:
            folder.unlink()
            aside.rename(folder)


def test_originals_are_sent_by_the_application_which_checks_them(site):
    headers = {**site.door.headers, "Content-Type": FORM}
    data = picture(300_000, seed=5)
    path = site.ask(PATH, "POST", form(data), headers).headers["Location"] + "/original"
    answer = site.ask(path, headers=site.door.headers)
    assert answer.body == data
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Repr-Digest" in answer.headers
    part = site.ask(path, headers={**site.door.headers, "Range": "bytes=-7"})
    assert (part.status, part.body) == (206, data[-7:])
    assert site.ask(path, "HEAD", headers=site.door.headers).headers["Content-Length"] == "300000"


def test_the_client_s_address_is_the_one_that_came_to_nginx():
    with served(env={"IMAGEAPI_RATE_LIMIT": "5/minute"}) as site:
        statuses = []
        for number in range(11):  # each of two workers counts its own
            forged = {"X-Forwarded-For": f"10.0.0.{number}", "Authorization": f"Bearer {number}"}
            statuses.append(site.ask("/api/v1/albums", headers=forged).status)
        assert set(statuses) == {401, 429}


@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
def test_what_is_the_operator_s_stays_inside(path, site):
    answer = site.ask(path)
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET /" + "a" * 20000 + " HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "a" * 20000 + "\r\n\r\n", 400),
        ("GET / HTTP/9.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ],
)
def test_what_nginx_refuses_is_a_problem(text, status, site):
    with socket.create_connection((HOST, site.nginx.port), timeout=10) as connection:
        connection.sendall(text.encode())
        answer = connection.recv(65536).decode()
    start, _, body = answer.partition("\r\n\r\n")
    assert start.startswith(f"HTTP/1.1 {status} ")
    assert "application/problem+json" in start
    assert json.loads(body)["status"] == status


def test_no_host_behind_it(site):
    site.door.app.pause()
    site.door.app.resume()
    site.door.app.stop()
    try:
        answer = site.ask("/api/v1/albums", headers=site.door.headers)
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "2"
        assert "no-store" in answer.headers["Cache-Control"]
    finally:
        site.door.app.start()


def test_slow_clients_hold_nobody_up(site, image):
    """Three kinds at once, more than the threads of the application."""
    count = 400 if os.environ.get("FAULTS") == "full" else 60
    path = f"/api/v1/images/{image['public_id']}"
    site.ask(path, headers=site.door.headers)
    took = []
    with (
        silent(site.nginx.port, count),
        silent(site.nginx.port, count, HALF_A_HEAD),
        silent(site.nginx.port, count, HALF_A_BODY),
    ):
        for _ in range(50):
            began = time.monotonic()
            assert site.ask(path, headers=site.door.headers).status == 200
            took.append(time.monotonic() - began)
    print("slowest of 50:", max(took))  # noqa: T201
    assert max(took) < 5
