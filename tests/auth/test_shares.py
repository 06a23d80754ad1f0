"""Shares over HTTP: what may be passed on, to what end, and that the list is all there is."""

from __future__ import annotations

import datetime
import json
import uuid

import pytest
import sqlalchemy as sa
import time_machine

from imageapi import models
from imageapi.extensions import read, transaction
from tests.auth import reference
from tests.auth.conftest import NOW, assert_refused, insert_image, insert_integrator, mint
from tests.conftest import bearing

ACME = "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c"
MAX_AGE = reference.SECONDS_30_DAYS
SHARES = "/api/v1/albums/holidays/shares"
IMAGES = "/api/v1/albums/{}/images"
MAY = ["see", "image_list", "image_crop", "image_share"]


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


def maker(*abilities, secret=None, **claims):
    """The header of someone who may do this, and share, in the album `holidays`."""
    access = dict.fromkeys(abilities or MAY, True)
    said = {"exp": NOW + 3600, "user_id": "carl", "abilities": {"holidays": {"Access": access}}}
    said |= claims
    return bearing(mint(said, secret=secret) if secret else mint(said))


@pytest.fixture
def share(client, image):
    """`share(*abilities, expires_in=…)`: make one; answers its block."""

    def make(*abilities, headers=None, expires_in=600, **more):
        body = {"abilities": list(abilities or ["image_list"]), "expires_in": expires_in, **more}
        response = client.post(SHARES, json=body, headers=headers or maker())
        assert response.status_code == 201, response.text
        return response.get_json()

    return make


def claims_of(token):
    return json.loads(reference.decode(token.split(".")[1]))


def listed(client, headers=None):
    response = client.get(SHARES, headers=headers or maker())
    assert response.status_code == 200
    return response.get_json()


# made ---------------------------------------------------------------------------------------


def test_what_is_answered(client, image):
    body = {"abilities": ["image_crop", "see", "see"], "expires_in": 90, "label": "Für Zoë 🜨"}
    response = client.post(SHARES, json=body, headers=maker())
    made = response.get_json()
    assert response.status_code == 201
    assert list(made) == ["id", "created_at", "expires_at", "abilities", "label", "token"]
    assert str(uuid.UUID(made["id"])) == made["id"]
    assert made["label"] == "Für Zoë 🜨"
    assert "Für Zoë 🜨" in response.text
    assert made["abilities"] == ["see", "image_crop"]
    moments = [datetime.datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at")]
    assert [moment.timestamp() for moment in moments] == [NOW, NOW + 90]
    assert made["token"] == mint(
        {
            "exp": NOW + 90,
            "iat": NOW,
            "share": made["id"],
            "abilities": {"holidays": {"Access": {"see": True, "image_crop": True}}},
        }
    )
    shown = client.get(SHARES, headers=maker())
    assert shown.get_json() == [{name: made[name] for name in made if name != "token"}]
    assert "eyJ" not in shown.text


def test_a_form_does_as_well(client, image):
    form = {"abilities[]": ["see", "image_list"], "expires_in": "60", "label": "a b"}
    response = client.post(SHARES, data=form, headers=maker())
    assert response.status_code == 201
    assert response.get_json()["abilities"] == ["see", "image_list"]


def test_an_integrators_share_is_signed_by_its_newest_key(app, client, album):
    album(issuer="acme")
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", "an-older-secret-of-acme-1a2b3c4d5e6f7a8b")
        insert_integrator(session, "acme", ACME)
    headers = maker(iss="acme", secret="an-older-secret-of-acme-1a2b3c4d5e6f7a8b")
    body = {"abilities": ["image_list"], "expires_in": 60}
    token = client.post(SHARES, json=body, headers=headers).get_json()["token"]
    said = claims_of(token)
    assert said["iss"] == "acme"
    assert token == mint(said, secret=ACME)
    assert client.get(IMAGES.format("holidays"), headers=bearing(token)).status_code == 200


REFUSED = {
    "abilities": [
        *[[], None, "see", "", 1, True, {}, {"see": True}, [None], [1], [True], [["see"]]],
        *[["nothing"], ["See"], ["see "], [""], ["see", "nothing"], ["__class__"], ["\ud800"]],
        *[["image_share"], ["see", "image_share"]],
        *[["rename"], ["stats"], ["see", "image_delete"]],  # not the maker's own
    ],
    "expires_in": [
        *[0, -1, MAX_AGE + 1, 10**30, None, True, [], {}, [60], "", "x", "1e3", "6 0", "0x10"],
        *[1.5, "1.5", "-1", "0", str(MAX_AGE + 1)],
    ],
    "label": [1, True, [], {}, ["a"], "x" * 129, "a\0b", "\ud800"],
    "token": ["x"],
    "\ud800": [1],
    "share": ["x"],
    "album_id": [2],
    "maker": ["anna"],
    "user_id": ["anna"],
    "id": ["x"],
    "expires_at": [NOW + 10**9],
    "revoked_ms": [None],
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_what_can_not_be_asked_for(name, app, client, image):
    for value in REFUSED[name]:
        body = {"abilities": ["see"], "expires_in": 60, name: value}
        response = client.post(
            SHARES, data=json.dumps(body), content_type="application/json", headers=maker()
        )
        assert response.status_code in (400, 422), (value, response.text)
        if response.status_code == 422 and name.isascii():
            fields = [fault["field"] for fault in response.get_json()["errors"]]
            assert {field[: len(name)] for field in fields} == {name}, value
    for missing in ("abilities", "expires_in"):
        body = {"abilities": ["see"], "expires_in": 60}
        del body[missing]
        response = client.post(SHARES, json=body, headers=maker())
        assert [fault["field"] for fault in response.get_json()["errors"]] == [missing]
    with app.app_context():
        assert read(sa.select(models.Share.id)) == []


def test_the_longest_and_the_shortest(share):
    assert claims_of(share(expires_in=1)["token"])["exp"] == NOW + 1
    assert claims_of(share(expires_in=MAX_AGE, label="x" * 128)["token"])["exp"] == NOW + MAX_AGE


@pytest.mark.parametrize("own", [*sorted(reference.ABILITIES - {"image_share"})])
def test_nobody_passes_on_more_than_one_has(own, client, image):
    for wanted in sorted(reference.ABILITIES):
        body = {"abilities": [wanted], "expires_in": 60}
        response = client.post(SHARES, json=body, headers=maker(own, "image_share"))
        assert response.status_code == (201 if wanted == own else 422), wanted


def test_a_share_is_not_shared_on(client, share):
    """Not by the share as made, and not by a token of its own issuer that says it may."""
    made = share("see", "image_list")
    said = claims_of(made["token"])
    greedy = {"holidays": {"Access": dict.fromkeys(reference.ABILITIES, True)}}
    with_more = mint({**said, "abilities": greedy})
    body = {"abilities": ["see"], "expires_in": 60}
    for token in (made["token"], with_more):
        headers = bearing(token)
        assert client.post(SHARES, json=body, headers=headers).status_code == 403
        assert client.get(SHARES, headers=headers).status_code == 403
        delete = client.delete(f"/api/v1/shares/{made['id']}", headers=headers)
        assert delete.status_code == 403
    assert len(listed(client)) == 1


# used ---------------------------------------------------------------------------------------


def test_it_opens_its_album_alone(app, client, image, album, share):
    other = album("other")
    with app.app_context(), transaction() as session:
        theirs = insert_image(session, other)
    headers = bearing(share("image_list", "see")["token"])
    assert client.get(f"/api/v1/images/{image}", headers=headers).status_code == 200
    assert client.get(IMAGES.format("holidays"), headers=headers).get_json() != []
    assert client.get(f"/api/v1/images/{theirs}", headers=headers).status_code == 404
    assert client.get(IMAGES.format("other"), headers=headers).data == b"[]"


def test_a_rename_holds(app, client, image, album, share):
    """The album by row: under its new id, and not whatever is made under the old one."""
    token = share("image_list", "see")["token"]
    with app.app_context(), transaction() as session:
        session.execute(sa.update(models.Album).values(public_id="renamed"))
    newcomer = album("holidays", owner="bob")
    with app.app_context(), transaction() as session:
        theirs = insert_image(session, newcomer)
    headers = bearing(token)
    response = client.get(f"/api/v1/images/{image}", headers=headers)
    assert response.status_code == 200
    assert claims_of(response.headers["X-token"]) == claims_of(token)
    assert len(client.get(IMAGES.format("renamed"), headers=headers).get_json()) == 1
    assert client.get(IMAGES.format("holidays"), headers=headers).data == b"[]"
    assert client.get(f"/api/v1/images/{theirs}", headers=headers).status_code == 404


def test_the_row_counts_not_only_the_token(app, client, image, share):
    made = share("image_list", "image_crop")
    headers = bearing(made["token"])
    path = f"/api/v1/images/{image}"
    assert client.get(path, headers=headers).headers["X-access-crop"] == "true"
    with app.app_context(), transaction() as session:
        session.execute(sa.update(models.Share).values(abilities='["see"]'))
    assert client.get(path, headers=headers).status_code == 403
    said = {
        **claims_of(made["token"]),
        "abilities": {"x": {"Access": {"see": True, "rename": True}}},
    }
    response = client.get(path, headers=bearing(mint(said)))
    assert response.status_code == 200
    assert response.headers["X-access-crop"] == "false"


def test_another_issuers_share_opens_nothing(app, client, image, album, share):
    album(issuer="acme")
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)
    said = {**claims_of(share("image_list", "see")["token"]), "iss": "acme"}
    headers = bearing(mint(said, secret=ACME))
    assert client.get(f"/api/v1/images/{image}", headers=headers).status_code == 404
    assert client.get(IMAGES.format("holidays"), headers=headers).data == b"[]"


# ended --------------------------------------------------------------------------------------


def test_it_ends_on_time(client, image, share, clock):
    """At its second: the leeway of `exp` is not the share's. And its renewals end with it."""
    made = share("image_list", expires_in=5 * 3600)
    token, path = made["token"], f"/api/v1/images/{image}"
    for after in (0, 1, 3600, 2 * 3600, 5 * 3600 - 1, 5 * 3600 - 0.25):
        clock.move_to(NOW + after)
        response = client.get(path, headers=bearing(token))
        assert response.status_code == 200, after
        token = response.headers["X-token"]
        assert claims_of(token)["exp"] <= NOW + 5 * 3600
    assert claims_of(token)["exp"] == NOW + 5 * 3600
    assert len(listed(client, maker(exp=NOW + 9 * 3600))) == 1
    for after in (0, 0.25, 1, 29):
        clock.move_to(NOW + 5 * 3600 + after)
        for text in (token, made["token"]):
            assert_refused(client.get(path, headers=bearing(text)))
        assert listed(client, maker(exp=NOW + 9 * 3600)) == []


def test_no_token_outlives_the_share(client, image, share):
    """Also not one that its issuer minted with a later end: the X-token ends with the share."""
    said = claims_of(share("image_list", expires_in=600)["token"])
    for more in ({}, {"iat": NOW - 60}, {"renew_until": NOW + MAX_AGE}):
        token = mint({**said, "exp": NOW + 7200, **more})
        response = client.get(f"/api/v1/images/{image}", headers=bearing(token))
        assert claims_of(response.headers["X-token"])["exp"] == NOW + 600, more


def test_a_deleted_share_is_refused_on_the_next_request(client, image, share):
    made = share("image_list", "see")
    path = f"/api/v1/images/{image}"
    renewed = client.get(path, headers=bearing(made["token"])).headers["X-token"]
    gone = client.delete(f"/api/v1/shares/{made['id']}", headers=maker())
    assert gone.status_code == 204
    assert gone.data == b""
    assert "X-token" in gone.headers
    nowhere = f"/api/v1/images/{uuid.uuid4()}"
    for token in (made["token"], renewed):
        for path_ in (
            path,
            nowhere,
            IMAGES.format("holidays"),
            IMAGES.format("none"),
            "/api/v1/no",
        ):
            assert_refused(client.get(path_, headers=bearing(token)))
    again = client.delete(f"/api/v1/shares/{made['id']}", headers=maker())
    assert again.status_code == 404


def test_an_ended_share_is_as_if_it_were_not(client, share, clock):
    made = share(expires_in=10)
    clock.shift(10)
    ids = (made["id"], str(uuid.uuid4()))
    answers = [
        client.delete(f"/api/v1/shares/{id_}", headers={"X-Request-Id": "same", **maker()})
        for id_ in ids
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].data == answers[1].data


def test_another_albums_maker_does_not_end_it(client, album, share):
    album("other", owner="anna")
    made = share()
    elsewhere = {"other": {"Access": dict.fromkeys(MAY, True)}}
    headers = maker(abilities=elsewhere)
    assert client.delete(f"/api/v1/shares/{made['id']}", headers=headers).status_code == 404
    assert len(listed(client)) == 1


# listed -------------------------------------------------------------------------------------


def test_the_list_is_exactly_the_live_tokens(client, image, share, clock):
    """Whatever opens the album by a share is listed, newest first; nothing else is."""
    made = []
    for number in range(6):
        clock.move_to(NOW + number)
        made.append(share("image_list", expires_in=20 if number % 3 else 4, label=str(number)))
    client.delete(f"/api/v1/shares/{made[2]['id']}", headers=maker())
    for after in (5, 6.5, 7, 20.75, 21, 24, 25, 30):
        clock.move_to(NOW + after)
        opening = [
            block["id"]
            for block in reversed(made)
            if client.get(f"/api/v1/images/{image}", headers=bearing(block["token"])).status_code
            == 200
        ]
        assert [block["id"] for block in listed(client)] == opening, after
    assert opening == []


def test_who_may_share_sees_all_of_them_whoever_made_them(client, share):
    made = {share(headers=maker(user_id=user))["id"] for user in ("carl", "dora")}
    made.add(share(headers=maker(user_id=None))["id"])
    assert {block["id"] for block in listed(client, maker("image_share", user_id="eve"))} == made
