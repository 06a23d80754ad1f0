"""Every route × every kind of token × own, other's, missing, deleted, against `matrix.ORACLE`."""

from __future__ import annotations

import time

import pytest

from imageapi.auth import revocation
from imageapi.extensions import transaction
from tests.auth import matrix
from tests.auth.conftest import assert_refused, insert_integrator
from tests.auth.matrix import ALL, FOR_USERS, OPEN, ORACLE

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"]
VOLATILE = {"X-Runtime", "X-Request-Id", "X-token"}


@pytest.fixture
def worlds(app):
    """`worlds()`: a world that nothing was done to."""
    now = int(time.time())
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", matrix.ACME)
        revocation.revoke(session, "user", "", "ivan", now)
    return lambda: matrix.make_world(app, now)


def call(client, row, target, asker, method=None):
    with client.application.app_context():
        options = row.call(target)
    headers = {"X-Request-Id": "of-the-matrix", **asker.headers}
    return client.open(**options, method=method or row.method, headers=headers, buffered=True)


def expected(row, asker, which):
    """The status of a cell, as the design has it."""
    if asker.may is False:
        return 401
    if which != "own" or not asker.reaches:
        return 200 if row.listed else 404
    if not row.permits(asker.may, owns=asker.owns) or (asker.hidden and row.locates):
        return 403
    return row.answers(asker.may)


def test_the_oracle_knows_every_route(app):
    routes = {
        (rule.endpoint, method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(row.endpoint, row.method) for row in [*ORACLE, *FOR_USERS, *OPEN]} == routes


@pytest.mark.parametrize("row", ORACLE, ids=lambda row: f"{row.endpoint} {row.note}".strip())
def test_who_may(row, app, client, worlds):
    world = worlds()
    not_there = call(client, row, world.targets["missing"], matrix.askers(world)["owner"])
    cells = [(kind, which) for kind in matrix.askers(world) for which in world.targets]
    for cell in cells:
        kind, which = cell
        asker = matrix.askers(world)[kind]
        response = call(client, row, world.targets[which], asker)

        assert response.status_code == expected(row, asker, which), (cell, response.text)
        told = {name: value for name, value in response.headers if name.startswith("X-access-")}
        succeeded = response.status_code < 300
        if succeeded and which == "own" and asker.reaches:
            assert told == {
                name: str(ability in asker.may).lower() for name, ability in row.tells.items()
            }, cell
        else:
            assert told == {}, cell
        assert ("X-token" in response.headers) == succeeded, cell
        if succeeded and response.is_json and which == "own" and asker.reaches:
            assert_located(row, response, asker, cell)
        if response.status_code == 401:
            assert_refused(response)
        elif response.status_code == 403:
            assert response.get_json()["code"] == "access_denied", cell
            assert response.headers["X-message"] == "Access denied", cell
        elif not (which == "own" and asker.reaches):
            same = (response.data, seen(response)) == (not_there.data, seen(not_there))
            assert same, cell
            assert response.data == b"[]" if row.listed else response.status_code == 404, cell
        if row.method == "GET":
            assert_head(response, call(client, row, world.targets[which], asker, "HEAD"), cell)
        elif succeeded:
            world = worlds()


SHOWING = {"images.show", "albums.show", "albums.list_images", "tags.list_images"}
"""What an image of the world stands in, wherever it may be told where it was taken."""


def assert_located(row, response, asker, cell):
    """Where an image was taken is told, and to those whom it is hidden from it is not there at all."""
    if asker.hidden:
        assert matrix.LATITUDE not in response.text, cell
        assert '"location"' not in response.text, cell
        assert '"GPS' not in response.text, cell
        if row.endpoint in SHOWING:
            nowhere = '"gps":null,"gps_ip":null,"gps_exifs":null,"gps_html":null'
            assert nowhere in response.text, cell
    elif row.endpoint in SHOWING:
        assert response.text.count(matrix.LATITUDE) == 6, cell


def seen(response):
    """All that a client sees of an answer beside its body, but for what is the request's own."""
    return response.status, [pair for pair in response.headers if pair[0] not in VOLATILE]


def assert_head(got, head, cell):
    assert head.data == b"", cell
    assert seen(head) == seen(got), cell


@pytest.mark.parametrize("row", OPEN, ids=lambda row: row.endpoint)
def test_what_needs_no_token(row, client, worlds):
    world = worlds()
    for kind, asker in matrix.askers(world).items():
        for which, target in world.targets.items():
            response = call(client, row, target, asker)
            assert response.status_code == row.ok.get(which, 200), (kind, which)
            assert "X-token" not in response.headers, (kind, which)


@pytest.mark.parametrize("method", METHODS)
def test_other_methods(method, app, client, worlds):
    """401 without a token, 405 with one that counts; never a look at what is behind."""
    world = worlds()
    known = matrix.askers(world)
    adapter = app.url_map.bind("localhost")
    for row in [*ORACLE, *OPEN]:
        for target in world.targets.values():
            with app.app_context():
                path = row.call(target)["path"].partition("?")[0]
            allowed = set(adapter.allowed_methods(path))
            if method in allowed:
                continue
            guarded = path.startswith(matrix.API)
            for asker in (known["owner"], known["told nothing"], known["another issuer's"]):
                response = client.open(path, method=method, headers=asker.headers)
                assert response.status_code == 405, (path, method)
                assert set(response.headers["Allow"].split(", ")) == allowed
            for kind in ("none", "expired", "revoked", "share, revoked", "share, ended"):
                response = client.open(path, method=method, headers=known[kind].headers)
                if guarded:
                    assert response.status_code == 401, (path, method, kind)
                else:
                    assert response.status_code == 405, (path, method, kind)


def test_options_need_no_token(app, client, worlds):
    world = worlds()
    for row in [*ORACLE, *OPEN]:
        answers = set()
        for target in world.targets.values():
            for kind in ("none", "expired", "owner", "told nothing", "another issuer's"):
                with app.app_context():
                    path = row.call(target)["path"].partition("?")[0]
                headers = matrix.askers(world)[kind].headers
                response = client.options(path, headers=headers)
                assert response.status_code in (200, 204)
                assert row.method in response.headers["Allow"]
                assert "X-token" not in response.headers
                answers.add((response.status_code, response.data))
        assert len(answers) == 1


def test_what_is_nowhere(client, worlds):
    world = worlds()
    for kind, asker in matrix.askers(world).items():
        for path in (
            "/api/v1/nothing",
            "/api/v1/images/x",
            "/api/v1/images/%00",
            "/api/",
            "/api/v2",
        ):
            response = client.get(path, headers=asker.headers)
            assert response.status_code == (401 if asker.may is False else 404), (kind, path)
        assert client.get("/nothing", headers=asker.headers).status_code == 404


@pytest.mark.parametrize("row", FOR_USERS, ids=lambda row: row.endpoint)
def test_who_names_a_user(row, client, worlds):
    for kind, asker in matrix.askers(worlds()).items():
        response = client.open(row.path, method=row.method, headers=asker.headers)
        if asker.may is False:
            assert_refused(response)
        else:
            assert response.status_code == (row.ok if asker.user else 403), kind
            assert ("X-token" in response.headers) == bool(asker.user), kind


def test_the_albums_that_a_token_lists(client, worlds):
    """Those of its user, and those that it has an entry with `see` for; what the entry says counts."""
    world = worlds()
    own = world.targets["own"].album
    mine = {target.album for target in (*world.targets.values(), world.third)}
    for kind, asker in matrix.askers(world).items():
        if asker.user:
            found = client.get("/api/v1/albums", headers=asker.headers)
            if asker.may is False:
                assert_refused(found)
                continue
            assert (matrix.LATITUDE in found.text) <= (not asker.hidden), kind
            listed = {album["public_id"] for album in found.get_json()} & mine
            expected = {own} if asker.reaches and "see" in asker.may else set()
            if kind == "told of another album":
                expected = {world.third.album}
            assert listed == expected, kind


def test_the_oracle_has_every_ability():
    """What no route needs would be a promise without a meaning."""
    needed = {
        ability
        for row in ORACLE
        for ability in ALL
        if row.permits({ability}, owns=True) or (ability in EDITED and row.note == "both")
    }
    assert needed == ALL


EDITED = {"image_rotate", "image_crop"}
