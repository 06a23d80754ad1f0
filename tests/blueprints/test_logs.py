"""Logs and audit: one line each, whatever is sent; nothing in them that must not be."""

from __future__ import annotations

import errno
import json
import os
import random
import time
import uuid

import pytest

from imageapi import telemetry
from imageapi.auth.tokens import Key
from imageapi.catalog import images as catalog_images
from imageapi.errors import StorageUnavailable
from imageapi.settings import Settings
from imageapi.storage.backend import Context
from tests.blueprints.conftest import FORM, IMAGES, form
from tests.conftest import SECRET, bearing, jpeg, sign

FULL = os.environ.get("FAULTS") == "full"
HOSTILE = 10_000 if FULL else 400
PIECES = [
    "\r\n",
    "\n",
    "\x1b[31m",
    "\0",
    '"',
    "\\",
    "é",
    "\u2028",
    "{}",
    '", "level": "x',
    "a" * 8000,
]
PIECES += ["%0d%0aX: y", "\t", "\x7f", "\u202e", "level=error", "<script>", "$(id)", "../" * 20]


def lines(capsys):
    """The log, each line parsed."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_hostile_values_leave_one_line_each(client, album, capsys):
    album()
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)  # noqa: S311
    authorization = sign({"abilities": {"holidays": {"Access": {"image_upload": True}}}})
    capsys.readouterr()
    for number in range(HOSTILE):
        text = "".join(chance.choices(PIECES, k=chance.randrange(1, 4)))
        raw = text.encode().decode("latin-1")
        body = form(("file", b"x", text.encode().replace(b'"', b"'").replace(b"\r\n", b"?")))
        answer = client.post(
            IMAGES if number % 2 else f"/{number}",
            data=body,
            content_type=FORM,
            environ_overrides={
                "HTTP_X_REQUEST_ID": raw,
                "HTTP_USER_AGENT": raw,
                "HTTP_AUTHORIZATION": f"Bearer {authorization}",
                "REMOTE_ADDR": raw if number % 3 else "127.0.0.1",
            },
        )
        told = lines(capsys)
        assert answer.status_code < 500, (seed, text)
        assert len(told) == 1, (seed, text)
        assert told[0]["request_id"] == answer.headers["X-Request-Id"]
        uuid.UUID(told[0]["request_id"])


# audit --------------------------------------------------------------------------------------


@pytest.fixture
def changes(app, client, album, token):
    """Endpoint to a call of it that changes something, all by one user who may do everything."""
    rights = ["see", "image_list", "image_upload", "image_delete", "image_rotate", "image_tag"]
    rights += ["image_duplicate", "image_share", "rename"]
    album()
    entry = {"Access": dict.fromkeys(rights, True), "Tags": {"sea": "Sea"}}
    headers = bearing(sign({"user_id": "anna", "abilities": {"holidays": entry}}))
    owner = token(user_id="anna")

    def post(path, **options):
        return client.post(f"/api/v1{path}", headers=headers, **options)

    def upload(seed):
        body = form(("file", jpeg(seed=seed), "a.jpg"))
        return post("/albums/holidays/images", data=body, content_type=FORM)

    image = upload(1).json["public_id"]
    tag = client.get("/api/v1/albums/holidays/tags", headers=headers).json[0]["id"]
    tagged = post(f"/tags/{tag}/tag_images", json={"image_ids": [image]}).json[0]["id"]
    share = post("/albums/holidays/shares", json={"abilities": ["see"], "expires_in": 60}).json
    one = {"headers": headers}
    calls = {
        "albums.create": lambda: client.post(
            "/api/v1/albums", headers=owner, json={"album": {"public_id": "new"}}
        ),
        "albums.upload_image": lambda: upload(2),
        "images.update": lambda: client.put(
            f"/api/v1/images/{image}", json={"rotation": 90}, **one
        ),
        "images.duplicate": lambda: post(f"/images/{image}/duplicate"),
        "tags.put_on": lambda: post(f"/tags/{tag}/tag_images", json={"image_ids": [image]}),
        "tags.take_off": lambda: client.delete(f"/api/v1/tag_images/{tagged}", **one),
        "shares.create": lambda: post(
            "/albums/holidays/shares", json={"abilities": ["see"], "expires_in": 60}
        ),
        "shares.delete": lambda: client.delete(f"/api/v1/shares/{share['id']}", **one),
        "images.delete": lambda: client.delete(f"/api/v1/images/{image}", **one),
        "albums.update": lambda: client.put(
            "/api/v1/albums/holidays", data={"album[public_id]": "renamed"}, **one
        ),
        "albums.delete": lambda: client.delete("/api/v1/albums/renamed", headers=owner),
    }
    return calls, {"image": image, "tag": tag, "tag_image": tagged, "share": share["id"]}


class _FullDisk:
    """Standard error on a disk that takes no more."""

    def write(self, *_text):
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = write


def test_a_log_that_can_not_be_written_fails_no_request(client, album, token, monkeypatch):
    album()
    owner = token(user_id="anna")
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", _FullDisk())
        data = form(("file", jpeg(), "a.jpg"))
        made = client.post(IMAGES, data=data, content_type=FORM, headers=owner)
        refused = client.get(IMAGES)
        shown = client.get(IMAGES, headers=owner)
    assert (made.status_code, refused.status_code, shown.status_code) == (201, 401, 200)
    assert [image["public_id"] for image in shown.json] == [made.json["public_id"]]


def test_every_change_leaves_one_audit_line(app, changes, capsys):
    calls, ids = changes
    changing = {
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if rule.methods - {"GET", "HEAD", "OPTIONS"}
    }
    assert calls.keys() == changing
    capsys.readouterr()
    for endpoint, call in calls.items():
        answer = call()
        assert answer.status_code < 300, (endpoint, answer.text)
        told = lines(capsys)
        audits = [line for line in told if line["event"] == "audit"]
        assert len(audits) == 1, endpoint
        (line,) = audits
        assert line["operation"] == endpoint
        assert (line["issuer"], line["user"]) == ("", "anna")
        assert line["request_id"] == answer.headers["X-Request-Id"]
        assert line["status"] == answer.status_code
        assert line["album"] in ("new", "holidays", "renamed"), endpoint
        for name, value in ids.items():
            if name in line and endpoint != "albums.upload_image":
                assert line[name] == value
        if endpoint == "albums.upload_image":
            assert line["image"] == answer.json["public_id"]


def test_a_refused_change_leaves_none(client, album, token, capsys):
    album()
    client.delete("/api/v1/albums/holidays", headers=token("holidays", "see"))
    client.put("/api/v1/albums/nowhere", headers=token("holidays", "see"))
    client.get("/api/v1/albums/holidays", headers=token("holidays", "see"))
    assert [line["event"] for line in lines(capsys)] == ["refused", "refused", "answered"]


def test_a_tag_that_a_read_makes_is_audited_once(client, album, capsys):
    album()
    entry = {"Access": {"see": True}, "Tags": {"sea": "Sea"}}
    headers = bearing(sign({"user_id": "anna", "abilities": {"holidays": entry}}))
    for _ in range(2):
        client.get("/api/v1/albums/holidays/tags", headers=headers)
    (line,) = [line for line in lines(capsys) if line["event"] == "audit"]
    assert (line["operation"], line["tags"], line["user"]) == ("tags.index", ["sea"], "anna")


def test_the_user_is_in_audit_lines_alone(client, token, capsys):
    canary = "anna.canary@example.org"
    client.post("/api/v1/albums", headers=token(user_id=canary))
    client.get("/api/v1/albums", headers=token(user_id=canary))
    told = lines(capsys)
    assert {line["event"] for line in told if canary in json.dumps(line)} == {"audit"}


def test_audit_lines_can_go_to_a_file(settings, app, client, token, tmp_path, capsys, monkeypatch):
    file = tmp_path / "audit.log"
    monkeypatch.setattr(telemetry._output, "audit", file)
    for _ in range(2):
        client.post("/api/v1/albums", headers=token(user_id="anna"))
    assert [json.loads(line)["event"] for line in file.read_text().splitlines()] == ["audit"] * 2
    assert file.stat().st_mode & 0o777 == 0o600
    assert "audit" not in {line["event"] for line in lines(capsys)}
    monkeypatch.setattr(telemetry._output, "audit", tmp_path / "no" / "audit.log")
    assert client.post("/api/v1/albums", headers=token(user_id="anna")).status_code == 200
    assert "audit" in {line["event"] for line in lines(capsys)}, "it is not lost"


# secrets ------------------------------------------------------------------------------------

PASSWORD = "hunter2-of-the-database"
S3_SECRET = "the-s3-secret-canary-51fa"
S3_KEY = "AKIACANARY0123456789"


@pytest.mark.configure(
    log_level="DEBUG",
    redis_url=f"redis://user:{PASSWORD}@127.0.0.1:1/0",
    storages={"local": "local", "s3": "s3"},
)
def test_no_secret_is_in_logs_or_answers(  # noqa: C901 - a tour
    request, monkeypatch, capsys
):
    for name, value in {
        "BUCKET": "b",
        "ENDPOINT_URL": "http://127.0.0.1:1",
        "ACCESS_KEY_ID": S3_KEY,
        "SECRET_ACCESS_KEY": S3_SECRET,
    }.items():
        monkeypatch.setenv(f"IMAGEAPI_STORAGE_S3_{name}", value)
    client = request.getfixturevalue("client")
    album = request.getfixturevalue("album")
    album()
    album("far", storage="s3")
    email, place = "anna.canary@example.org", "48.8619343"
    entry = {"Access": dict.fromkeys(("see", "image_upload", "image_list"), True)}
    token = sign({"user_id": email, "abilities": {"holidays": entry, "far": entry}})
    headers = bearing(token)
    answers = []

    def ask(method, path, **options):
        given = {**headers, **options.pop("headers", {})}
        answers.append(client.open(path, method=method, headers=given, **options))

    position = [("latitude", place.encode()), ("longitude", place.encode())]
    for name in ("holidays", "far"):
        ask(
            "POST",
            f"/api/v1/albums/{name}/images",
            data=form(("file", jpeg(), "a.jpg"), *position),
            content_type=FORM,
        )
        ask("GET", f"/api/v1/albums/{name}/images?bbox={place},1,2,{place}&token={token}")
        ask("GET", f"/api/v1/albums/{name}?api_key={S3_SECRET}")
    ask("GET", f"/{token}")
    ask("GET", f"/api/v1/albums/{token}/images")
    ask("GET", "/readyz")

    def fail(*_arguments, **_options):
        raise StorageUnavailable from RuntimeError(
            f"{S3_SECRET} {S3_KEY} {SECRET} redis://user:{PASSWORD}@h/ Authorization: Bearer {token}"
        )

    def fall(*_arguments, **_options):
        raise RuntimeError(
            f"{S3_SECRET} {S3_KEY} {SECRET} {PASSWORD} {token} X-Amz-Signature=0123abcd"
        )

    for broken in (fail, fall):
        monkeypatch.setattr(catalog_images, "find", broken)
        ask(
            "POST",
            "/api/v1/albums/holidays/images",
            data=form(("file", jpeg(seed=3), "a.jpg")),
            content_type=FORM,
        )
    assert [answer.status_code for answer in answers[-2:]] == [503, 500]

    told = capsys.readouterr().err
    logged = [json.loads(line) for line in told.splitlines()]
    assert any("RuntimeError" in line.get("exception", "") for line in logged)
    without_audit = "\n".join(json.dumps(line) for line in logged if line["event"] != "audit")
    signature = token.rpartition(".")[2]
    for secret in (S3_SECRET, S3_KEY, SECRET, PASSWORD, signature, "0123abcd", place):
        assert secret not in told, secret
    assert email not in without_audit
    for answer in answers:
        if answer.status_code >= 400:
            for secret in (S3_SECRET, S3_KEY, SECRET, PASSWORD, signature, place, email):
                assert secret not in answer.text


def test_no_secret_is_in_a_repr(app):
    library = app.extensions["library"]
    context = Context("x", library.settings.instance, (SECRET,))
    url = "postgresql://u:hunter2@db/images"
    known = Settings(secret_keys=(SECRET,), database_url=url, redis_url="redis://:hunter2@h/0")
    token = sign({"user_id": "anna"})
    with app.app_context():
        verified = app.extensions["authority"].snapshot.keyring.verify(token, time.time())
    shown = repr(
        [
            library,
            library.storages,
            library.storages["local"],
            context,
            known,
            Key(SECRET),
            verified,
        ]
    )
    for secret in (SECRET, "hunter2", token):
        assert secret not in shown
    assert {"hunter2", SECRET} <= {*known.secrets()}


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def-ghi",
        'Token token="abc.def-ghi"',
        "https://h/k?X-Amz-Signature=abc.def-ghi&a=1",
        "https://h/k?a=1&token=abc.def-ghi",
        "postgresql://u:abc.def-ghi@h/d",
    ],
)
def test_what_looks_like_a_secret_is_blanked(text):
    blanked = telemetry.redact(None, "", {"why": text, "deep": [{"a": text}]})
    assert "abc.def-ghi" not in json.dumps(blanked)
    assert telemetry.redact(None, "", {"api_key": "x"}) == {"api_key": "[redacted]"}


def test_ordinary_words_are_left_alone():
    text = "The token counts, and the bearer of it too; a signature is there."
    assert telemetry.redact(None, "", {"detail": text}) == {"detail": text}


# addresses ----------------------------------------------------------------------------------


def forms(client_hop):
    """200 ways to say in X-Forwarded-For that one is 203.0.113.9, before the proxy's own hop."""
    lies = [
        "203.0.113.9",
        "203.0.113.9:80",
        '"203.0.113.9"',
        "for=203.0.113.9",
        "::ffff:203.0.113.9",
    ]
    lies += ["203.0.113.9\t", "[203.0.113.9]", "0xcb007109", "203.0.113.9%00", "unknown", "", "é"]
    joins = [", ", ",", " ,", ",,", ", ,", ";,", "\t,\t", ",\x0b", ", 203.0.113.9, "]
    found = [f"{a}{join}{b}, {client_hop}" for a in lies for b in lies[:2] for join in joins]
    return found[:200]


@pytest.mark.configure(trusted_proxies=1)
def test_nobody_speaks_for_the_proxy(client, capsys):
    given = forms("192.0.2.7")
    assert len(given) == 200
    for text in given:
        raw = text.encode().decode("latin-1")
        client.get("/healthz", environ_overrides={"HTTP_X_FORWARDED_FOR": raw})
    assert {line["address"] for line in lines(capsys)} == {"192.0.2.7"}


@pytest.mark.configure(trusted_proxies=1)
@pytest.mark.parametrize("hop", ["unknown", "203.0.113.9:80", "for=203.0.113.9", "203.0.113.999"])
def test_what_is_no_address_is_not_believed(client, capsys, hop):
    client.get("/healthz", headers={"X-Forwarded-For": f"203.0.113.9, {hop}"})
    assert [line["address"] for line in lines(capsys)] == ["127.0.0.1"]


def test_without_a_trusted_proxy_nothing_is_believed(client, capsys):
    for text in forms("203.0.113.9"):
        raw = text.encode().decode("latin-1")
        client.get("/healthz", environ_overrides={"HTTP_X_FORWARDED_FOR": raw})
    assert {line["address"] for line in lines(capsys)} == {"127.0.0.1"}
