"""Revocation: what is refused, what passes, and that a late worker sees it on the very request."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
import time_machine

from imageapi import create_app, models
from imageapi.auth import revocation
from imageapi.extensions import read, transaction
from tests.auth.conftest import (
    NOW,
    assert_refused,
    insert_image,
    insert_integrator,
    mint,
)
from tests.conftest import bearing

ACME = "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c"


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def other(app, settings):
    """Another worker on the same database."""
    worker = create_app(settings)
    yield worker
    worker.extensions["reader"].close()


@pytest.fixture
def revoke(app):
    """`revoke(kind, subject, issuer=…, at=…)`; with `lift=True` it is taken back."""

    def act(kind, subject="", issuer="", at=NOW - 10, *, lift=False):
        with app.app_context(), transaction() as session:
            if lift:
                assert revocation.lift(session, kind, issuer, subject)
            else:
                revocation.revoke(session, kind, issuer, subject, at)

    return act


def anna(**claims):
    return bearing(mint({"exp": NOW + 3600, "user_id": "anna", **claims}))


BEFORE = [{}, {"iat": NOW - 1000}, {"iat": NOW - 10}]
AFTER = [{"iat": NOW - 9}, {"iat": NOW}, {"iat": NOW + 30}]


@pytest.mark.parametrize("kind", ["all", "issuer", "user", "album"])
@pytest.mark.parametrize("issuer", ["", "acme"])
def test_who_is_refused(kind, issuer, app, client, album, revoke):
    owned = {
        name: {"ours": album("ours", issuer=name), "theirs": album("theirs", issuer=name)}
        for name in ("", "acme")
    }
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)
    subject = {"user": "anna", "album": str(owned[issuer]["ours"])}.get(kind, "")

    def status(public_id, user_id, of, claims):
        said = {"exp": NOW + 3600, **({"iss": of} if of else {}), **claims}
        said |= {"user_id": user_id, "abilities": {public_id: {"Access": {"image_list": True}}}}
        token = mint(said, secret=ACME) if of else mint(said)
        return client.get(f"/api/v1/albums/{public_id}/images", headers=bearing(token)).status_code

    def refused():
        return {
            (public_id, user_id, of, number)
            for public_id in ("ours", "theirs")
            for user_id in ("anna", "bob")
            for of in ("", "acme")
            for number, claims in enumerate(BEFORE + AFTER)
            if status(public_id, user_id, of, claims) == 401
        }

    assert refused() == set()
    revoke(kind, subject, issuer if kind != "all" else "")
    assert refused() == {
        (public_id, user_id, of, number)
        for public_id in ("ours", "theirs")
        for user_id in ("anna", "bob")
        for of in ("", "acme")
        for number in range(len(BEFORE))
        if (of == issuer or kind == "all")
        and (user_id == "anna" or kind != "user")
        and (public_id == "ours" or kind != "album")
    }
    revoke(kind, subject, issuer if kind != "all" else "", lift=True)
    assert refused() == set()


KINDS = {"all": "", "issuer": "", "user": "anna", "album": "1"}
PATHS = ["images/{image}", "albums/holidays/images", "albums/holidays/shares"]
ELSEWHERE = ["images/00000000-0000-4000-8000-000000000000", "albums/none/images", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", [*PATHS, *ELSEWHERE])
def test_another_worker_sees_it_on_the_next_request(kind, path, other, image, revoke):
    client, path = other.test_client(), f"/api/v1/{path.format(image=image)}"
    entry = {"holidays": {"Access": {"see": True, "image_list": True, "image_share": True}}}
    old, new = anna(abilities=entry), anna(abilities=entry, iat=NOW)
    before = client.get(path, headers=old)
    assert before.status_code in (200, 404)

    revoke(kind, KINDS[kind])

    reaches = kind != "album" or "holidays" in path or image in path
    if reaches:
        assert_refused(client.get(path, headers=old))
    else:
        assert client.get(path, headers=old).status_code == before.status_code
    assert client.get(path, headers=new).status_code == before.status_code

    revoke(kind, KINDS[kind], lift=True)
    assert client.get(path, headers=old).status_code == before.status_code


@pytest.mark.parametrize("kind", KINDS)
def test_a_lift_is_seen_by_a_worker_that_only_the_revoked_ask(kind, other, image, revoke):
    client, path = other.test_client(), f"/api/v1/images/{image}"
    revoke(kind, KINDS[kind])
    assert_refused(client.get(path, headers=anna()))
    revoke(kind, KINDS[kind], lift=True)
    assert client.get(path, headers=anna()).status_code == 200


def test_a_renewed_token_is_as_old_as_its_first(client, image, revoke, clock):
    path = f"/api/v1/images/{image}"
    renewed = client.get(path, headers=anna(iat=NOW)).headers["X-token"]
    clock.shift(60)
    revoke("user", "anna", at=NOW + 10)
    assert_refused(client.get(path, headers=bearing(renewed)))


def test_a_revoked_album_shows_itself_to_nobody_else(client, image, album, revoke):
    """Who does not reach it gets the 404 of what is not there, not a 401."""
    stranger = {"X-Request-Id": "same", **anna(user_id="bob")}
    paths = [f"images/{image}", "albums/holidays/images", "albums/holidays/shares"]
    before = [client.get(f"/api/v1/{path}", headers=stranger) for path in paths]
    revoke("album", "1")
    after = [client.get(f"/api/v1/{path}", headers=stranger) for path in paths]
    assert [(r.status_code, r.data) for r in after] == [(r.status_code, r.data) for r in before]
    assert [response.status_code for response in after] == [404, 200, 200]


def test_an_album_stays_revoked_under_another_id(app, client, image, revoke):
    revoke("album", "1")
    with app.app_context(), transaction() as session:
        session.execute(sa.update(models.Album).values(public_id="renamed"))
    assert_refused(client.get(f"/api/v1/images/{image}", headers=anna()))
    assert_refused(client.get("/api/v1/albums/renamed/images", headers=anna()))


def test_a_write_looks_again(app, client, album, monkeypatch):
    """Revoked between the guard's look and the transaction: nothing is written."""
    album()
    header = anna(abilities={"holidays": {"Access": {"image_share": True, "see": True}}})
    plain = transaction

    def late():
        with app.app_context(), plain() as session:
            revocation.revoke(session, "user", "", "anna", NOW)
        return plain()

    monkeypatch.setattr("imageapi.blueprints.shares.transaction", late)
    body = {"abilities": ["see"], "expires_in": 60}
    assert_refused(client.post("/api/v1/albums/holidays/shares", json=body, headers=header))
    with app.app_context():
        assert read(sa.select(models.Share.id)) == []


def test_the_answer_to_a_repeated_request_is_decided_anew(client, other, revoke):
    """An Idempotency-Key brings the same album back, but only to who may still have it."""
    headers, late = {**anna(), "Idempotency-Key": "k"}, other.test_client()
    made = client.post("/api/v1/albums", headers=headers)
    again = client.post("/api/v1/albums", headers=headers)
    assert (made.status_code, again.status_code) == (200, 200)
    assert again.text == made.text
    for kind, subject in KINDS.items():
        assert late.post("/api/v1/albums", headers=headers).text == made.text
        revoke(kind, subject)
        assert_refused(late.post("/api/v1/albums", headers=headers))
        revoke(kind, subject, lift=True)


def test_one_statement_on_the_hot_path(app, client, image, revoke, statements):
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)
        album_id = session.scalars(sa.select(models.Album.id)).one()
        share = models.Share(
            id="6f0d2a52-5f5b-4c1e-9c43-0d7b6f4f3c11",
            album_id=album_id,
            created_ms=NOW * 1000,
            expires_at=NOW + 600,
            abilities='["see"]',
        )
        session.add(share)
        theirs = models.Album(
            issuer="acme", public_id="x", owner="anna", storage="local", created_ms=1
        )
        session.add(theirs)
        session.flush()
        of_acme = insert_image(session, theirs.id)
    for kind, subject in KINDS.items():
        revoke(kind, subject, at=NOW - 1000)
    entry = {"abilities": {"holidays": {"Access": {"see": True}}}}
    shared = {"exp": NOW + 600, "iat": NOW, "share": share.id, **entry}
    acme = mint({"exp": NOW + 600, "iss": "acme", "user_id": "anna", "iat": NOW}, secret=ACME)
    hot = [
        (image, anna(iat=NOW)),
        (image, anna(iat=NOW, user_id="bob", **entry)),
        (image, bearing(mint(shared))),
        (of_acme, bearing(acme)),
    ]
    for image_id, header in hot:
        client.get(f"/api/v1/images/{image_id}", headers=header)
        statements.clear()
        assert client.get(f"/api/v1/images/{image_id}", headers=header).status_code == 200
        assert len(statements) == 1, statements
