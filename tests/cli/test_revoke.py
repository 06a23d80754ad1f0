"""`flask revoke`: requests are refused at once, and pass again when it is lifted."""

import uuid
import zoneinfo

import pytest
import sqlalchemy as sa
import time_machine

from imageapi.catalog import albums, work
from imageapi.extensions import read, transaction
from imageapi.models import Album, Image, Revocation, Work
from tests.auth.conftest import assert_refused, insert_image, insert_integrator
from tests.cli.conftest import assert_done, assert_told
from tests.conftest import bearing, sign

NOW = 1_800_000_000
MOMENT = "2027-01-15T08:00:00+00:00"
PARIS = zoneinfo.ZoneInfo("Europe/Paris")
ACME = "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c"
URL = "/api/v1/albums/holidays/images"


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def acme(app, album):
    """An integrator that has the same album and the same user as the operator."""
    album("holidays", issuer="acme")
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)


def ours(**claims):
    return bearing(sign({"user_id": "anna", **claims}))


def theirs(**claims):
    return bearing(sign({"iss": "acme", "user_id": "anna", **claims}, ACME))


KINDS = {
    ("user", "anna"): "the tokens of the user 'anna'",
    ("album", "holidays"): "the tokens of the album 'holidays'",
    ("issuer", ""): "the operator's tokens",
    ("all",): "all tokens",
}


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_who_was_revoked_is_refused_until_it_is_lifted(client, flask, album, acme, kind):
    album()
    for header in (ours(iat=NOW), ours(), theirs(iat=NOW)):
        assert client.get(URL, headers=header).status_code == 200
    said = f"Revoked {KINDS[kind]} that were issued up to {MOMENT}."
    assert_done(flask("revoke", *kind), said)
    assert_refused(client.get(URL, headers=ours(iat=NOW)))
    assert_refused(client.get(URL, headers=ours()))
    assert client.get(URL, headers=ours(iat=NOW + 1)).status_code == 200
    others = client.get(URL, headers=theirs(iat=NOW)).status_code
    assert others == (401 if kind == ("all",) else 200)
    assert_done(flask("revoke", *kind, "--lift"), f"Lifted the revocation of {KINDS[kind]}.")
    assert client.get(URL, headers=ours(iat=NOW)).status_code == 200
    done = flask("revoke", *kind, "--lift")
    assert_told(done, 1, f"No revocation of {KINDS[kind]} is in force.")


@pytest.mark.parametrize(
    "kind", [("user", "anna", "--issuer", "acme"), ("album", "holidays", "--issuer", "acme"),
             ("issuer", "acme")], ids=" ".join,
)  # fmt: skip
def test_an_integrators_is_revoked_apart_from_ours(client, flask, album, acme, kind):
    album()
    done = flask("revoke", *kind)
    assert_done(done)
    assert ("'acme'" in done.stdout) or kind[0] == "album"
    assert_refused(client.get(URL, headers=theirs(iat=NOW)))
    assert client.get(URL, headers=ours(iat=NOW)).status_code == 200
    assert_done(flask("revoke", *kind, "--lift"))
    assert client.get(URL, headers=theirs(iat=NOW)).status_code == 200


@pytest.mark.parametrize(
    ("at", "last"),
    [
        ("now", NOW),
        (MOMENT, NOW),
        ("2027-01-15T10:00:00+02:00", NOW),
        ("2027-01-15T09:00:00", NOW),
        ("2027-01-15T08:00:00.999Z", NOW),
        ("2027-01-15", NOW - 9 * 3600),
        ("1969-12-31T23:59:59Z", -1),
        ("0001-01-01T00:00:00+23:59", -62135683140),
        ("9999-12-31T23:59:59-23:59", 253402387139),
    ],
)
@pytest.mark.configure(timezone=PARIS)
def test_a_moment_is_iso_8601_of_our_zone(app, flask, at, last):
    assert_done(flask("revoke", "user", "anna", "--at", at))
    with app.app_context():
        assert read(sa.select(Revocation.at))[0].at == last


def test_a_later_revocation_stays(client, flask, album):
    album()
    assert_done(flask("revoke", "user", "anna"))
    done = flask("revoke", "user", "anna", "--at", "2020-01-01T00:00:00Z")
    assert_done(done, f"Revoked the tokens of the user 'anna' that were issued up to {MOMENT}.")
    assert_refused(client.get(URL, headers=ours(iat=NOW)))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("user", ""), 2, "ID must be a text of 1 to 128"),
        (("user", "anna", "--issuer", "acne"), 1, "There is no integrator 'acne'."),
        (("user", "anna", "--issuer", "a\nb"), 2, "can be printed"),
        (("issuer", "acne"), 1, "There is no integrator 'acne'."),
        (("issuer", "a" * 129), 2, "can be printed"),
        (("album", "none"), 1, "There is no album 'none'."),
        (("album", "holidays", "--issuer", "acne"), 1, "There is no album 'holidays'."),
        (("user", "anna", "--at", "yesterday"), 2, "is neither now nor a moment"),
        (("user", "anna", "--at", "now", "--lift"), 2, "--lift takes no --at."),
        (("share", "6f0d"), 2, "is not a valid UUID"),
        (("share", str(uuid.UUID(int=1))), 1, "There is no share 00000000-"),
        (("share", str(uuid.UUID(int=1)), "--lift"), 1, "There is no share 00000000-"),
    ],
)
def test_what_is_refused(app, flask, album, arguments, code, words):
    album()
    assert_told(flask("revoke", *arguments), code, words)
    with app.app_context():
        assert read(sa.select(Revocation.kind)) == []


# albums


def test_an_album_stays_revoked_under_another_id(client, flask, album):
    album()
    assert_done(flask("revoke", "album", "holidays"))
    form = {"album[public_id]": "beach"}
    header = ours(iat=NOW + 1)
    assert client.put("/api/v1/albums/holidays", data=form, headers=header).status_code == 200
    assert_refused(client.get("/api/v1/albums/beach/images", headers=ours(iat=NOW)))
    assert_told(flask("revoke", "album", "holidays", "--lift"), 1, "There is no album 'holidays'.")
    assert_done(flask("revoke", "album", "beach", "--lift"))
    assert client.get("/api/v1/albums/beach/images", headers=ours(iat=NOW)).status_code == 200


def test_a_revocation_goes_with_its_album(app, settings, client, flask, album):
    """SQLite gives the row id of the last album out again."""
    first = album()
    assert_done(flask("revoke", "album", "holidays"))
    assert_refused(client.get(URL, headers=ours()))
    header = ours(iat=NOW + 1)
    assert client.delete("/api/v1/albums/holidays", headers=header).status_code == 204
    app.extensions["background"].stop()  # it may have the album in hand
    with app.app_context():
        assert read(sa.select(Album.id)) == []
        assert read(sa.select(Revocation.kind)) == []
    assert album("beach") == first or settings.database_url
    assert client.get("/api/v1/albums/beach/images", headers=ours()).status_code == 200


def test_an_album_is_not_emptied_for_one_that_had_its_row_id(app, album):
    number = album()
    with app.app_context(), transaction() as session:
        insert_image(session, number)
        work.record(session, "empty_album", {"album": number})
    with app.app_context():
        assert work.run_due() == 1
        assert read(sa.select(Work.id)) == []
        assert len(read(sa.select(Image.id))) == 1
        assert albums.find("holidays") is not None


# shares


@pytest.fixture
def share(client, album):
    """The block of a share of `holidays` that lasts ten minutes, with its `header`."""
    album()
    access = {"see": True, "image_list": True, "image_share": True}
    header = ours(abilities={"holidays": {"Access": access}})
    body = {"abilities": ["image_list"], "expires_in": 600}
    block = client.post("/api/v1/albums/holidays/shares", json=body, headers=header).get_json()
    return {**block, "header": bearing(block["token"])}


def test_a_share_ends_and_comes_back(client, flask, share):
    assert client.get(URL, headers=share["header"]).status_code == 200
    for _ in range(2):
        assert_done(flask("revoke", "share", share["id"]), f"Ended the share {share['id']}.")
        assert_refused(client.get(URL, headers=share["header"]))
    done = flask("revoke", "share", share["id"].upper(), "--lift")
    assert_done(done, f"Gave the share {share['id']} back.")
    assert client.get(URL, headers=share["header"]).status_code == 200
    assert_told(flask("revoke", "share", share["id"], "--lift"), 1, "has not been ended")


def test_a_share_that_expired_meanwhile_does_not_come_back(client, flask, share, clock):
    assert_done(flask("revoke", "share", share["id"]))
    clock.shift(600)
    assert_told(flask("revoke", "share", share["id"], "--lift"), 1, "has expired")
    clock.shift(-600)
    assert_refused(client.get(URL, headers=share["header"]))


def test_a_revoked_album_takes_its_shares_with_it(client, flask, share):
    assert_done(flask("revoke", "user", "anna"))
    assert client.get(URL, headers=share["header"]).status_code == 200
    assert_done(flask("revoke", "album", "holidays"))
    assert_refused(client.get(URL, headers=share["header"]))
