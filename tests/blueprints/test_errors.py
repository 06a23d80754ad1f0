"""Errors: one shape, all the safety headers, logged once, and nothing told that should not be."""

from __future__ import annotations

import errno
import json
import re
import socket
import threading
import time

import flask
import pytest
import sqlalchemy as sa
from werkzeug.exceptions import Gone, ImATeapot

from imageapi import create_app
from imageapi.auth import guard, policy
from imageapi.auth.policy import Access
from imageapi.blueprints import responses
from imageapi.errors import StorageFull
from tests.blueprints.conftest import FORM, IMAGES, form
from tests.conftest import bearing, jpeg, sign
from tests.servers import gunicorn
from tests.servers.ports import HOST

SOMEWHERE = "/api/v1/images/00000000-0000-4000-8000-000000000000"
SAFETY = [
    ("Cache-Control", "no-cache, no-store, must-revalidate, private, max-age=0"),
    ("Pragma", "no-cache"),
    ("Expires", "Fri, 01 Jan 1990 00:00:00 GMT"),
    ("X-Frame-Options", "DENY"),
    ("X-XSS-Protection", "1; mode=block"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Download-Options", "noopen"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
]


class Unforeseen(Exception):
    """What no code of ours knows of."""


def boom():
    raise Unforeseen("canary-of-the-message")


@pytest.fixture
def routes(app, monkeypatch):
    """`routes(path, view, rule)` adds a route of the test's own."""

    def add(path, view, rule):
        monkeypatch.setattr(policy, "POLICY", {**policy.POLICY, view.__name__: rule})
        app.add_url_rule(path, view.__name__, view)

    return add


CASES = {
    # name: (method, path, with a token, status, code)
    "unknown route": ("GET", "/api/v1/nothing", True, 404, "not_found"),
    "unknown route, no token": ("GET", "/api/v1/nothing", False, 401, "unauthorized"),
    "unknown path": ("GET", "/nothing", False, 404, "not_found"),
    "no UUID": ("GET", "/api/v1/images/1", True, 404, "not_found"),
    "a slash more": ("GET", f"{SOMEWHERE}/", True, 404, "not_found"),
    "two slashes": ("GET", "//api/v1/images/1", False, 404, "not_found"),
    "unknown image": ("GET", SOMEWHERE, True, 404, "not_found"),
    "unknown image, no token": ("GET", SOMEWHERE, False, 401, "unauthorized"),
    "wrong method": ("PATCH", SOMEWHERE, True, 405, "method_not_allowed"),
    "wrong method, no token": ("PATCH", SOMEWHERE, False, 401, "unauthorized"),
    "wrong method, public": ("POST", "/healthz", False, 405, "method_not_allowed"),
    "lacking": ("POST", IMAGES, True, 403, "access_denied"),
    "unsigned": ("GET", "/files/local/ab/x", False, 404, "not_found"),
}


@pytest.fixture
def ask(client, album, token):
    """Asks for one of `CASES`."""
    album()
    headers = token("holidays", "see")

    def ask(case):
        method, path, authorised, *_ = CASES[case]
        return client.open(
            path,
            method=method,
            headers={**(headers if authorised else {}), "Accept": "text/html,*/*;q=0.8"},
        )

    return ask


def assert_problem(response, status, code):
    """The whole shape of RFC 9457, and nothing beside it."""
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert [pair for pair in response.headers if pair in SAFETY] == SAFETY
    assert response.headers["P3P"] == 'CP="NOI ADM DEV PSAi COM NAV OUR OTRo STP IND DEM"'
    for absent in ("X-token", "X-Runtime", "Set-Cookie", "ETag", "Server"):
        assert absent not in response.headers
    assert int(response.headers["Content-Length"]) == len(response.data)
    body = response.get_json()
    assert list(body) == ["type", "title", "status", "detail", "instance", "code"] + (
        ["errors"] if "errors" in body else []
    )
    assert body["status"] == status
    assert body["code"] == code
    assert body["instance"] == f"urn:uuid:{response.headers['X-Request-Id']}"
    assert body["detail"].endswith(".")
    for word in ("<html", "<!doctype", "Traceback", 'File "', "werkzeug", "sqlalchemy"):
        assert word.lower() not in response.text.lower()
    return body


def logged(capsys):
    """The lines of the log, each a JSON object."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_a_problem_and_logged_once(ask, capsys, case):
    *_, status, code = CASES[case]

    response = ask(case)

    assert_problem(response, status, code)
    (line,) = logged(capsys)
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert (line["status"], line["code"]) == (status, code)
    assert line["level"] == "info"
    assert "exception" not in line


def test_an_error_answers_head_without_a_body(client):
    response = client.head("/nothing")
    assert response.status_code == 404
    assert response.data == b""
    assert int(response.headers["Content-Length"]) > 100


def test_401_asks_for_a_token(ask):
    assert ask("unknown image, no token").headers["WWW-Authenticate"] == 'Token realm="Application"'


def test_403_says_so(ask):
    response = ask("lacking")
    assert response.headers["X-message"] == "Access denied"
    assert "WWW-Authenticate" not in response.headers


def test_405_lists_what_there_is(ask):
    assert set(ask("wrong method").headers["Allow"].split(", ")) >= {"GET", "HEAD", "OPTIONS"}
    assert set(ask("wrong method, public").headers["Allow"].split(", ")) == {
        "GET",
        "HEAD",
        "OPTIONS",
    }


def test_what_is_not_yours_equals_what_is_not_there(app, client, album, token):
    album("secret", owner="bea")
    mine = client.post(
        "/api/v1/albums/secret/images",
        data=form(("file", jpeg(), "a.jpg")),
        content_type=FORM,
        headers=token("secret", "image_upload"),
    ).get_json()["public_id"]
    stranger = {**token("holidays", "see", "image_upload"), "X-Request-Id": "the-same"}

    pairs = [
        (
            client.get(f"/api/v1/images/{mine}", headers=stranger),
            client.get(SOMEWHERE, headers=stranger),
        ),
        (
            client.head(f"/api/v1/images/{mine}", headers=stranger),
            client.head(SOMEWHERE, headers=stranger),
        ),
        (
            client.post("/api/v1/albums/secret/images", headers=stranger),
            client.post("/api/v1/albums/nowhere/images", headers=stranger),
        ),
    ]
    for not_yours, not_there in pairs:
        assert not_yours.status == not_there.status == "404 NOT FOUND"
        assert list(not_yours.headers) == list(not_there.headers)
        assert not_yours.data == not_there.data


def test_a_list_out_of_reach_equals_one_that_is_not_there(client, album, token):
    album("secret", owner="bea")
    headers = {**token("holidays", "image_list"), "X-Request-Id": "the-same"}
    answers = [
        client.get(f"/api/v1/albums/{name}/images", headers=headers)
        for name in ("secret", "nowhere", "a\0b", "..", "%2e%2e")
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.data == b"[]"
        assert without(answer, "X-Runtime") == without(answers[0], "X-Runtime")


def without(response, name):
    return [pair for pair in response.headers if pair[0] != name]


# what nobody foresaw ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Access.PUBLIC, frozenset({policy.Ability.SEE})])
def test_an_exception_nobody_foresaw(app, client, routes, token, capsys, rule):
    routes("/api/v1/boom", boom, rule)

    response = client.get("/api/v1/boom", headers=token("holidays", "see"))

    assert_problem(response, 500, "internal_error")
    assert "canary" not in response.text
    (line,) = logged(capsys)
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert line["level"] == "error"
    assert "Unforeseen: canary-of-the-message" in line["exception"]
    assert "Traceback" in line["exception"]


def test_an_exception_after_the_view(app, client, capsys):
    def boom_after(_response):
        raise Unforeseen

    app.after_request(boom_after)
    response = client.get("/healthz")
    assert_problem(response, 500, "internal_error")  # though it fails after that answer too
    (line,) = logged(capsys)
    assert "Unforeseen" in line["exception"]


def test_a_view_that_is_replaced(app, client, monkeypatch, capsys):
    monkeypatch.setitem(app.view_functions, "ops.healthz", boom)
    assert_problem(client.get("/healthz"), 500, "internal_error")
    assert len(logged(capsys)) == 1


@pytest.mark.parametrize(
    ("raised", "status", "code", "level"),
    [
        (
            sa.exc.OperationalError("SELECT secret", {}, Exception("canary")),
            503,
            "database_unavailable",
            "error",
        ),
        (
            sa.exc.DatabaseError("SELECT secret", {}, Exception("canary")),
            503,
            "database_unavailable",
            "error",
        ),
        (
            sa.exc.IntegrityError("INSERT secret", {}, Exception("canary")),
            500,
            "internal_error",
            "error",
        ),
        (StorageFull("The storage is full."), 507, "storage_full", "error"),
        (OSError(errno.EIO, "canary"), 503, "storage_unavailable", "error"),
        (ImATeapot(), 400, "bad_request", "info"),
        (Gone("<b>gone</b>"), 400, "bad_request", "info"),
        (RecursionError("canary"), 500, "internal_error", "error"),
        (MemoryError(), 500, "internal_error", "error"),
        (UnicodeDecodeError("utf-8", b"canary", 0, 1, "x"), 500, "internal_error", "error"),
    ],
)
def test_what_libraries_raise(app, client, monkeypatch, capsys, raised, status, code, level):
    def view():
        raise raised

    monkeypatch.setitem(app.view_functions, "ops.healthz", view)
    response = client.get("/healthz")
    assert_problem(response, status, code)
    assert "canary" not in response.text
    assert "secret" not in response.text
    (line,) = logged(capsys)
    assert line["level"] == level
    if status == 503:
        assert response.headers["Retry-After"] == "5"


# logs ---------------------------------------------------------------------------------------


def test_no_secret_is_logged(app, client, album, routes, capsys):
    album()
    routes("/api/v1/boom", tell, Access.PUBLIC)
    canary = sign({"user_id": "canary-user"})
    wrong = sign({"user_id": "anna"}, "another-key-0123456789-abcdef-ghijkl")
    for text in (canary, wrong, canary[:-3], f"{canary}.{canary}"):
        for path in (SOMEWHERE, "/nothing", IMAGES, "/api/v1/boom", f"/{text}", f"/api/v1/{text}"):
            for headers in (bearing(text), {"Authorization": text}, {"Cookie": f"t={text}"}):
                client.get(f"{path}?token={text}&key=canary-query", headers=headers)
                client.post(
                    f"{path}?token={text}",
                    headers=headers,
                    data=form(("canary-field", b"canary-value"), ("file", b"x", "canary-name.jpg")),
                    content_type=FORM,
                )

    output = capsys.readouterr()
    assert output.out == ""
    lines = [json.loads(line) for line in output.err.splitlines()]
    assert len(lines) > 100
    signatures = [text.rpartition(".")[2] for text in (canary, wrong)]
    for secret in ("canary-query", "canary-field", "canary-value", "canary-name", *signatures):
        assert secret not in output.err


def tell():
    raise Unforeseen(f"with {flask.request.headers.get('Authorization')}")


def test_a_line_stays_a_line(client, capsys):
    for text in ("a\r\nb", "\x1b[31mred", "\u2028", "x" * 8000, "\udcff"):
        client.get("/" + text.encode("utf-8", "surrogateescape").decode("latin-1"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert line.isascii()
        assert json.loads(line)["event"] == "refused"


def test_a_success_is_logged_once(client, capsys):
    response = client.get("/healthz?token=canary", headers={"X-Request-Id": "a-1"})
    (line,) = logged(capsys)
    assert 0 < line.pop("ms") < 5000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "request_id": "a-1",
        "method": "GET",
        "endpoint": "ops.healthz",
        "path": "/healthz",
        "status": 200,
        "bytes": len(response.data),
        "address": "127.0.0.1",
        "event": "answered",
        "level": "info",
    }


@pytest.mark.configure(access_log=False)
def test_the_lines_of_successes_can_be_turned_off(client, capsys):
    client.get("/healthz")
    client.get("/nothing")
    assert [line["event"] for line in logged(capsys)] == ["refused"]


@pytest.mark.configure(log_level="WARNING")
def test_the_level_holds_for_requests_too(client, capsys):
    client.get("/healthz")
    client.get("/nothing")
    assert logged(capsys) == []


# request ids --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["a", "A.b_c-9", "0157b7b3-564c-4dce-916c-bbb5c05b77ce", "x" * 64]
)
def test_a_valid_request_id_is_kept(client, capsys, given):
    response = client.get("/nothing", headers={"X-Request-Id": given})
    assert response.headers["X-Request-Id"] == given
    assert_problem(response, 404, "not_found")
    assert logged(capsys)[0]["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a,b", "é", "<x>", '"', "a\tb", "a\x00b"])
def test_an_invalid_request_id_is_replaced(client, given):
    response = client.get("/nothing", environ_overrides={"HTTP_X_REQUEST_ID": given})
    made = response.headers["X-Request-Id"]
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made
    )
    assert_problem(response, 404, "not_found")


# the policy table ---------------------------------------------------------------------------


def test_a_route_without_a_rule_stops_the_start(settings, monkeypatch):
    rules = {name: rule for name, rule in policy.POLICY.items() if name != "images.show"}
    monkeypatch.setattr(policy, "POLICY", rules)
    with pytest.raises(RuntimeError, match=r"images\.show"):
        create_app(settings)


def test_a_rule_without_a_route_stops_the_start(settings, monkeypatch):
    monkeypatch.setattr(policy, "POLICY", {**policy.POLICY, "images.gone": Access.PUBLIC})
    with pytest.raises(RuntimeError, match=r"images\.gone"):
        create_app(settings)


def test_an_answer_that_asked_no_guard_turns_500(client, routes, token, capsys):
    routes("/api/v1/leak", leak, frozenset({policy.Ability.SEE}))

    response = client.get("/api/v1/leak", headers=token("holidays", "see"))

    assert_problem(response, 500, "internal_error")
    assert "leaked" not in response.text
    (line,) = logged(capsys)
    assert "answered without a decision" in line["exception"]


def leak():
    return responses.json('"leaked"')


def test_an_answer_that_asked_the_guard_is_given(client, routes, token, album):
    album()
    routes("/api/v1/asked", asked, frozenset({policy.Ability.SEE}))
    response = client.get("/api/v1/asked", headers=token("holidays", "see"))
    assert response.status_code == 200


def asked():
    guard.album("holidays")
    return responses.json('"asked"')


# bodies that do not come --------------------------------------------------------------------


class Broken:
    """A body that could not be read, as gunicorn has it."""

    failed = True

    def __init__(self):
        self.reads = 0

    def read(self, _size=-1):
        self.reads += 1
        raise BlockingIOError


def test_a_body_that_could_not_be_read_is_not_waited_for_again(client, album, token):
    album()
    for headers, path, most in (({}, "/api/v1/albums", 0), (token("holidays"), IMAGES, 1)):
        body = Broken()
        environ = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": "10"}
        assert client.post(path, headers=headers, environ_overrides=environ).status_code >= 400
        assert body.reads <= most


@pytest.fixture(scope="module")
def served():
    with gunicorn.gunicorn({}, "--workers=1", "--threads=8") as app:
        yield app


@pytest.fixture
def connection(served):
    with socket.create_connection((HOST, served.port), timeout=20) as connection:
        yield connection


LENGTH, CHUNKED = b"Content-Length: 1000", b"Transfer-Encoding: chunked"


def begin(connection, framing):
    head = b"POST /api/v1/albums HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n"
    connection.sendall(head)


def answered(connection):
    """The one answer that comes next, and the seconds that it took."""
    began, answer = time.monotonic(), connection.makefile("rb")
    status = int(answer.readline().split()[1])
    length = 0
    while (line := answer.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    answer.read(length)
    return status, time.monotonic() - began


def assert_ended(connection):
    """What comes now is not taken for another request."""
    try:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1) == b""
    except ConnectionError:
        pass


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n"])
def test_a_withheld_body_holds_no_answer_up(connection, framing, sent):
    begin(connection, framing)
    connection.sendall(sent)
    status, seconds = answered(connection)
    assert status == 401
    assert seconds < 4
    assert_ended(connection)


def test_a_body_that_trickles_holds_no_answer_up_for_long(connection):
    begin(connection, LENGTH)
    over = threading.Event()

    def trickle():
        while not over.wait(0.3):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        status, seconds = answered(connection)
    finally:
        over.set()
        thread.join()
    assert status == 401
    assert seconds < 9
    assert_ended(connection)


def test_a_body_that_comes_late_but_whole_leaves_the_connection_as_it_was(connection):
    for _ in range(2):
        begin(connection, LENGTH)
        time.sleep(0.3)
        connection.sendall(b"x" * 1000)
        assert answered(connection)[0] == 401
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answered(connection)[0] == 200
