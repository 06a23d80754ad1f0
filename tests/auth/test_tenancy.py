"""Two integrators and the operator, each with the same album id and user id: three worlds."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

from imageapi import models
from imageapi.auth import revocation
from imageapi.extensions import Base, read, transaction
from tests.auth import matrix
from tests.auth.conftest import insert_image, insert_integrator, mint
from tests.auth.matrix import ALL, FOR_USERS, ORACLE
from tests.conftest import SECRET, bearing, jpeg, part

SECRETS = {
    "": SECRET,
    "acme": "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c",
    "globex": "the-secret-of-globex-0a1b2c3d4e5f60718293",
}
ALBUM = "holidays"


@pytest.fixture
def tenants(app):
    """Issuer to its album `holidays` of its user anna, and everything in it."""
    now = int(time.time())
    with app.app_context(), transaction() as session:
        for issuer in ("acme", "globex"):
            insert_integrator(session, issuer, SECRETS[issuer])
        return {
            issuer: matrix.insert_target(session, ALBUM, "anna", now, issuer=issuer)
            for issuer in SECRETS
        }


def tokens(issuer, **claims):
    """As anna, as anna with an entry for everything, and as a token for the album without a user."""
    said = {"exp": int(time.time()) + 3600, **({"iss": issuer} if issuer else {}), **claims}
    everything = {"abilities": {ALBUM: {"Access": dict.fromkeys(ALL, True)}}}
    kinds = [{"user_id": "anna"}, {"user_id": "anna", **everything}, everything]
    return [bearing(mint({**said, **kind}, secret=SECRETS[issuer])) for kind in kinds]


def rows_of(app, album_id):
    """Every row of every table that belongs to an album, but for what only counts."""
    with app.app_context():
        return {
            table.name: read(sa.select(table).where(column == album_id))
            for table in Base.metadata.sorted_tables
            for column in [table.c.id if table.name == "album" else table.c.get("album_id")]
            if column is not None
        }


def canaries(target):
    return [target.image, target.share, target.tag, target.tag_image]


@pytest.mark.parametrize("issuer", SECRETS, ids=lambda issuer: issuer or "the operator")
def test_nobody_sees_or_touches_anything_of_another(issuer, app, client, tenants):
    others = {name: target for name, target in tenants.items() if name != issuer}
    before = {name: rows_of(app, target.row) for name, target in others.items()}
    nowhere = matrix.Target("none at all")

    for row in sorted(ORACLE, key=lambda row: row.endpoint == "albums.delete"):
        by_name = _addresses_by_album(app, row)
        for name, target in others.items():
            for headers in tokens(issuer):
                _name_it_again(app, tenants[issuer])
                headers["X-Request-Id"] = "same"
                with app.app_context():
                    asked, missing = row.call(target), row.call(nowhere)
                response = client.open(**asked, method=row.method, headers=headers, buffered=True)
                for canary in canaries(target):
                    assert canary not in response.text, (row.endpoint, name)
                    assert canary not in str(response.headers), (row.endpoint, name)
                if by_name:
                    continue  # it is the own album that the name names
                absent = client.open(**missing, method=row.method, headers=headers, buffered=True)
                assert (response.status_code, response.data) == (absent.status_code, absent.data)
    for row in FOR_USERS:
        for headers in tokens(issuer):
            response = client.open(row.path, method=row.method, headers=headers)
            for target in others.values():
                for canary in canaries(target):
                    assert canary not in response.text, row.endpoint

    assert {name: rows_of(app, target.row) for name, target in others.items()} == before


def _name_it_again(app, target):
    with app.app_context(), transaction() as session:
        own = sa.update(models.Album).where(models.Album.id == target.row)
        session.execute(own.values(public_id=ALBUM))


def _addresses_by_album(app, row):
    with app.app_context():
        return "the name of an album" in str(row.call(matrix.Target("the name of an album")))


@pytest.mark.parametrize("issuer", SECRETS, ids=lambda issuer: issuer or "the operator")
def test_each_reaches_its_own(issuer, client, tenants):
    """The same requests are answered to whom they belong; else the test above could not fail."""
    target = tenants[issuer]
    for headers in tokens(issuer):
        assert client.get(f"/api/v1/images/{target.image}", headers=headers).status_code == 200
        images = client.get(f"/api/v1/albums/{ALBUM}/images", headers=headers).get_json()
        assert [image["public_id"] for image in images] == [target.image]


def test_the_same_bytes_and_the_same_key_are_each_ones_own(client, tenants):
    """No `X-duplicate` of another's picture, no replay of another's answer."""
    data = jpeg(seed=4711)
    made = {}
    for issuer in SECRETS:
        for number, headers in enumerate(tokens(issuer, iat=int(time.time()))):
            headers["Idempotency-Key"] = "k"
            path, form = f"/api/v1/albums/{ALBUM}/images", {"file": part(data)}
            response = client.post(path, data=form, headers=headers)
            made.setdefault(issuer, set()).add(response.get_json()["public_id"])
            assert response.status_code == (200 if number == 2 else 201), (issuer, number)
    assert len(set.union(*made.values())) == sum(map(len, made.values())) == len(SECRETS)
    albums = []
    for issuer in SECRETS:
        headers = {**tokens(issuer)[0], "Idempotency-Key": "k"}
        albums.append(client.post("/api/v1/albums", headers=headers).get_json()["public_id"])
    assert len(set(albums)) == len(SECRETS)


def test_a_cursor_is_of_its_issuers_list(app, client, tenants):
    with app.app_context(), transaction() as session:
        for target in tenants.values():
            insert_image(session, target.row)
    path = f"/api/v1/albums/{ALBUM}/images?limit=1"
    given = {
        issuer: client.get(path, headers=tokens(issuer)[0]).headers["Link"].split(">")[0][1:]
        for issuer in SECRETS
    }
    for asking in SECRETS:
        for of, link in given.items():
            status = client.get(link, headers=tokens(asking)[0]).status_code
            assert status == (200 if asking == of else 422), (asking, of)


def test_a_tag_is_not_put_on_anothers_image(app, client, tenants):
    ours, theirs = tenants["acme"], tenants["globex"]
    for image_ids in ([theirs.image], [ours.image, theirs.image]):
        for headers in tokens("acme"):
            body, path = {"image_ids": image_ids}, f"/api/v1/tags/{ours.tag}/tag_images"
            assert client.post(path, json=body, headers=headers).status_code in (403, 404)
    with app.app_context():
        assert len(read(sa.select(models.TagImage.id))) == len(SECRETS)


@pytest.mark.parametrize("issuer", SECRETS, ids=lambda issuer: issuer or "the operator")
def test_a_token_counts_with_its_issuers_secret_alone(issuer, client, tenants):
    path = f"/api/v1/images/{tenants[issuer].image}"
    said = {"exp": int(time.time()) + 3600, "user_id": "anna"}
    for claimed in SECRETS:
        for signer, secret in SECRETS.items():
            claims = {**said, **({"iss": claimed} if claimed else {})}
            status = client.get(path, headers=bearing(mint(claims, secret=secret))).status_code
            if claimed != signer:
                assert status == 401
            else:
                assert status == (200 if claimed == issuer else 404)


def test_a_revocation_is_its_issuers(app, client, tenants):
    """Of anna, of the album by its row, and of the issuer: the others' go on."""
    row = str(tenants["acme"].row)
    for kind, subject in (("user", "anna"), ("album", row), ("issuer", "")):
        with app.app_context(), transaction() as session:
            revocation.revoke(session, kind, "acme", subject, int(time.time()))
        for issuer, target in tenants.items():
            response = client.get(f"/api/v1/images/{target.image}", headers=tokens(issuer)[0])
            assert response.status_code == (401 if issuer == "acme" else 200), (kind, issuer)
        with app.app_context(), transaction() as session:
            assert revocation.lift(session, kind, "acme", subject)
