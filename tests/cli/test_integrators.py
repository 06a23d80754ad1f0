"""`flask integrators`: secrets shown once, and what requests meet when they change."""

import json
import os
import time

import pytest
import sqlalchemy as sa
import time_machine

from imageapi.extensions import read
from imageapi.models import IntegratorKey
from tests.auth.conftest import assert_refused
from tests.cli.conftest import assert_done, assert_told
from tests.conftest import bearing, sign

URL = "/api/v1/albums"
MAX_AGE = 30 * 24 * 3600


@pytest.fixture
def clock():
    with time_machine.travel(int(time.time()), tick=False) as traveller:
        yield traveller


@pytest.fixture
def mint(flask):
    """`mint(arguments)`: the secret that a command prints alone; answers the header it signs."""

    def run(*arguments):
        done = flask("integrators", *arguments)
        assert_done(done)
        assert done.stdout.count("\n") == 1
        secret = done.stdout.strip()
        assert len(secret) >= 64
        claims = {"iss": "acme", "user_id": "anna", "iat": int(time.time())}
        return secret, bearing(sign({**claims, "exp": int(time.time()) + MAX_AGE}, secret))

    return run


def test_an_integrator_mints_as_soon_as_it_is_added(client, flask, mint):
    assert_refused(client.get(URL, headers=bearing(sign({"iss": "acme", "user_id": "anna"}))))
    _, token = mint("add", "acme")
    answer = client.get(URL, headers=token)
    assert (answer.status_code, answer.json) == (200, [])
    assert_told(flask("integrators", "add", "acme"), 1, "'acme' is registered already")
    assert client.get(URL, headers=token).status_code == 200


def test_a_rotated_secret_signs_at_once_and_the_old_one_verifies_for_a_while(client, mint, clock):
    _, old = mint("add", "acme")
    assert client.get(URL, headers=old).status_code == 200
    secret, new = mint("rotate", "acme", "--grace", "2h")
    assert client.get(URL, headers=new).status_code == 200
    answer = client.get(URL, headers=old)
    assert answer.status_code == 200
    renewed = answer.headers["X-token"]
    claims = {"iss": "acme", "user_id": "anna", "iat": int(time.time())}
    assert renewed == sign({"exp": int(time.time()) + 4 * 3600, **claims}, secret)
    clock.shift(2 * 3600 - 1)
    assert client.get(URL, headers=old).status_code == 200
    clock.shift(1)
    assert_refused(client.get(URL, headers=old))
    assert client.get(URL, headers=bearing(renewed)).status_code == 200


def test_without_a_grace_the_old_secret_verifies_as_long_as_a_token_may_live(app, mint, clock):
    mint("add", "acme")
    mint("rotate", "acme")
    with app.app_context():
        ends = read(sa.select(IntegratorKey.ends_ms).order_by(IntegratorKey.id))
    assert [row.ends_ms for row in ends] == [int(time.time() + MAX_AGE) * 1000, None]


def test_no_grace_refuses_the_old_secret_at_once(client, mint):
    _, old = mint("add", "acme")
    assert client.get(URL, headers=old).status_code == 200
    _, new = mint("rotate", "acme", "--grace", "0")
    assert_refused(client.get(URL, headers=old))
    assert client.get(URL, headers=new).status_code == 200


def test_a_grace_that_is_running_is_never_prolonged(client, mint, clock):
    _, old = mint("add", "acme")
    mint("rotate", "acme", "--grace", "1h")
    mint("rotate", "acme", "--grace", "30d")
    clock.shift(3600)
    assert_refused(client.get(URL, headers=old))


def test_a_removed_integrator_is_refused_and_its_albums_stay(client, flask, mint, album):
    album("theirs", issuer="acme")
    _, token = mint("add", "acme")
    assert len(client.get(URL, headers=token).json) == 1
    assert_done(
        flask("integrators", "remove", "acme"), "Removed the integrator 'acme'; its albums stay."
    )
    assert_refused(client.get(URL, headers=token))
    assert_told(flask("integrators", "remove", "acme"), 1, "There is no integrator 'acme'.")
    assert len(json.loads(flask("albums", "list", "--json").stdout)) == 1


def test_they_are_listed_without_their_secrets(flask, mint, clock):
    secrets = [mint("add", name)[0] for name in ("zeta", "été")]
    clock.shift(60)
    secrets.append(mint("rotate", "zeta", "--grace", "1h")[0])
    done = flask("integrators", "list", "--json")
    assert_done(done)
    listed = json.loads(done.stdout)
    assert [(row["name"], row["keys"]) for row in listed] == [("zeta", 2), ("été", 1)]
    assert listed[0]["created_at"] < listed[0]["rotated_at"]
    assert listed[1]["created_at"] == listed[1]["rotated_at"]
    clock.shift(3600)
    header, line, _ = flask("integrators", "list").stdout.splitlines()
    assert header.split() == ["name", "keys", "created_at", "rotated_at"]
    assert line.split()[:2] == ["zeta", "1"]
    assert not any(secret in done.stdout for secret in secrets)


@pytest.mark.parametrize("name", ["", "a" * 129, "a\nb", os.fsdecode(b"\xff")])
def test_what_can_not_be_an_issuer_is_a_usage_error(flask, name):
    assert_told(flask("integrators", "add", name), 2, "name must be 1 to 128 characters")
    for command in ("rotate", "remove"):
        assert_told(flask("integrators", command, name), 1, "There is no integrator")


@pytest.mark.parametrize("grace", ["", "-1h", "00", "0h", "1.5h"])
def test_another_grace_is_a_usage_error(flask, mint, grace):
    mint("add", "acme")
    done = flask("integrators", "rotate", "acme", "--grace", grace)
    assert_told(done, 2, "is not a time span")
