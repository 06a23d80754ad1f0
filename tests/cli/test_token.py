"""`flask token`: what is printed counts; what is explained is what requests meet."""

import datetime
import json
import os
import re
import time

import pytest
import sqlalchemy as sa

from imageapi.auth import integrators, revocation
from imageapi.auth.policy import Ability
from imageapi.cli.explain import path
from imageapi.extensions import transaction
from imageapi.models import Album, Share
from tests.auth import matrix
from tests.auth.conftest import insert_integrator
from tests.cli.conftest import assert_done, assert_told
from tests.conftest import SECRET, bearing, sign

ACME = matrix.ACME


def claims_of(app, text):
    with app.app_context():
        keyring = app.extensions["authority"].latest().keyring
        return keyring.verify(text.strip(), time.time()).claims


def test_a_token_speaks_for_a_user_for_four_hours(app, flask):
    done = flask("token", "create", "--user", "anna")
    claims = claims_of(app, done.stdout)
    assert claims["exp"] - claims["iat"] == 4 * 3600
    assert abs(claims["iat"] - time.time()) < 60
    assert claims == {"exp": claims["exp"], "iat": claims["iat"], "user_id": "anna"}


def test_a_token_has_the_abilities_asked_for(app, flask):
    options = ("--album", "a", "--album", "b", "--ability", "see", "--ability", "image_crop")
    claims = claims_of(app, flask("token", "create", "--user", "anna", *options).stdout)
    entry = {"Access": {"see": True, "image_crop": True}}
    assert claims["abilities"] == {"a": entry, "b": entry}


def test_an_album_without_an_ability_is_opened_wholly(app, flask):
    claims = claims_of(app, flask("token", "create", "--user", "u", "--album", "a").stdout)
    assert claims["abilities"] == {"a": {"Access": dict.fromkeys(Ability, True)}}


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("90s", 90), ("15m", 900), ("4h", 14400), ("30d", 2592000)]
)
def test_a_ttl_is_a_number_and_a_unit(app, flask, ttl, seconds):
    claims = claims_of(app, flask("token", "create", "--user", "u", "--ttl", ttl).stdout)
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize(
    "ttl", ["", "4", "h", "0s", "-1h", "1.5h", "4 h", "4H", "٣h", "9999999999s"]
)
def test_another_ttl_is_a_usage_error(flask, ttl):
    assert_told(flask("token", "create", "--user", "u", "--ttl", ttl), 2, "is not a time span")


@pytest.mark.configure(token_max_age=14400)
def test_a_ttl_is_at_most_the_greatest_age(flask):
    assert flask("token", "create", "--user", "u", "--ttl", "4h").exit_code == 0
    assert_told(flask("token", "create", "--user", "u", "--ttl", "241m"), 2, "at most 14400s")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ability", "see"), "--ability needs an --album"),
        (("--album", "a", "--ability", "fly"), "'fly' is not one of"),
        (("--album", "a/b"), "album[public_id]"),
        (("--user", ""), "--user must be a text of 1 to 128"),
        (("--user", "u" * 129), "--user must be a text of 1 to 128"),
        (("--user", os.fsdecode(b"\xff")), "--user must be a text of 1 to 128"),
    ],
)
def test_a_token_that_makes_no_sense_is_a_usage_error(flask, options, words):
    assert_told(flask("token", "create", "--user", "u", *options), 2, words)


def test_a_token_is_signed_with_the_issuers_own_secret(app, flask):
    done = flask("token", "create", "--user", "u", "--issuer", "shop")
    assert_told(done, 1, "its issuer 'shop' is not registered")
    with app.app_context(), transaction() as session:
        integrators.add(session, "shop", 1)
    claims = claims_of(app, flask("token", "create", "--user", "u", "--issuer", "shop").stdout)
    assert claims["iss"] == "shop"


def test_a_token_that_would_be_refused_is_not_printed(app, flask):
    ids = [option for n in range(60) for option in ("--album", f"{n:0128d}")]
    assert_told(flask("token", "create", "--user", "u", *ids), 1, "longer than 8192 bytes")
    with app.app_context(), transaction() as session:
        revocation.revoke(session, "user", "", "u", int(time.time()) + 60)
    assert_told(flask("token", "create", "--user", "u"), 1, "tokens of this user were revoked")


# token explain


@pytest.fixture
def explain(flask):
    """`explain(text)`: the code, and what is said as JSON; both forms agree and tell no secret."""

    def run(text):
        done = flask("token", "explain", "--json", input=text)
        told = flask("token", "explain", input=text)
        assert (done.stderr, told.stderr, done.exit_code) == ("", "", told.exit_code)
        said = json.loads(done.stdout)
        assert said["valid"] is (done.exit_code == 0)
        if said["refused"]:
            assert told.stdout == f"Refused: {said['refused']}.\n"
        else:
            assert told.stdout.startswith(f"Valid until {said['ends_at']}.\n")
        for secret in (SECRET, ACME, *(part for part in text.split(".") if len(part) > 40)):
            assert secret not in done.stdout + told.stdout
        return done.exit_code, said

    return run


def opened(said):
    return {
        f"{method} {route['route'].removeprefix('/api/v1')}": route["albums"]
        for route in said["routes"]
        for method in route["methods"]
    }


def test_a_token_opens_its_entries_and_its_users_albums(explain, album):
    for name in ("mine", "named", "both"):
        album(name, owner="bob" if name == "named" else "anna")
    album("other", owner="bob")
    album("mine too", issuer="acme")
    entries = {
        "both": {"Access": {"see": True, "image_crop": 1}},
        "named": {"Access": {"image_list": True, "fly": True}},
        "gone": {"Access": {"image_share": True}},
    }
    now = int(time.time())
    text = sign({"exp": now + 900, "iat": now, "user_id": "anna", "abilities": entries})
    code, said = explain(text)
    assert code == 0
    assert (said["issuer"], said["user"], said["share"]) == ("", "anna", None)
    moments = [said["issued_at"], said["ends_at"]]
    seconds = [datetime.datetime.fromisoformat(moment).timestamp() for moment in moments]
    assert seconds == [now, now + 900]
    owners = [str(ability) for ability in Ability if ability != Ability.IMAGE_SHARE]
    assert said["albums"] == [
        {"public_id": "both", "by": "entry", "abilities": ["see"], "refused": None},
        {"public_id": "mine", "by": "owner", "abilities": owners, "refused": None},
        {"public_id": "named", "by": "entry", "abilities": ["image_list"], "refused": None},
        {
            "public_id": "gone",
            "by": "entry",
            "abilities": ["image_share"],
            "refused": "there is no such album",
        },
    ]
    routes = opened(said)
    assert routes["GET /images/:image_id"] == ["both", "mine", "named"]
    assert routes["GET /albums/:album_id"] == ["both", "mine"]
    assert routes["GET /albums/:album_id/images"] == ["mine", "named"]
    assert routes["DELETE /albums/:album_id"] == ["mine"]
    assert routes["GET /albums/:album_id/tags"] == ["both", "mine", "named"]
    assert routes["POST /albums"] is None
    assert "POST /albums/:album_id/shares" not in routes
    assert "GET /healthz" not in routes


def test_the_text_is_for_people(flask, album):
    album()
    lines = flask("token", "explain", input=sign({"user_id": "an\x1bna"})).stdout.splitlines()
    assert any(line.split() == ["user", r"an\x1bna"] for line in lines)
    assert "public_id  by" not in "\n".join(lines)
    done = flask("token", "explain", input=sign({"user_id": "anna"}))
    assert re.search(r"^holidays +owner +see, image_list, ", done.stdout, re.MULTILINE)
    assert re.search(r"^GET, HEAD +/api/v1/images/:image_id +holidays$", done.stdout, re.MULTILINE)
    nobody = flask("token", "explain", input=sign({}))
    assert nobody.stdout.endswith("\nIt opens nothing.\n")


def test_a_token_that_says_odd_things_is_explained(explain):
    entries = {"a": None, "b/c": {"Access": ["see"]}, "": 1}
    code, said = explain(sign({"iat": -(10**30), "abilities": entries, "user_id": "u"}))
    assert code == 0
    assert said["issued_at"] == f"{-(10**30)} seconds since 1970"
    assert [(row["public_id"], row["abilities"]) for row in said["albums"]] == [
        ("a", []),
        ("b/c", []),
        ("", []),
    ]
    assert set(opened(said).values()) == {None}


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        " {}\n",
        "Bearer {}",
        "token {}",
        'Token token="{}", x="y"',
        "Token token={}\n",
        "authorization:Bearer {}",
    ],
)
def test_a_token_or_a_whole_header_is_read(explain, form):
    assert explain(form.format(sign({"user_id": "anna"})))[0] == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no Authorization header"),
        ("hello", "the header is not one credential"),
        ("Basic YTpi", "the header is not one credential"),
        ("x" * 9000, "longer than 8192 bytes"),
        ("ÿ\n", "the header is not one credential"),
        (
            sign({"user_id": "anna"}, "another-key-of-no-one-0f1e2d3c4b5a6978"),
            "not of a key in use",
        ),
        (sign({"iss": "nobody"}), "its issuer 'nobody' is not registered"),
        (sign({"exp": 1000000000}), "it has expired"),
        (sign({"exp": 4000000000}), "its exp is more than 2592000 seconds ahead"),
        (sign({"exp": 1e9}), "its exp is not a whole number of seconds"),
        (sign({"iat": 4000000000}), "its iat lies in the future"),
        (sign({"user_id": 7}), "its user_id is not a text"),
        (sign({"share": "6f0d"}), "a share token has one entry and no user_id"),
        (sign({"share": "6f0d", "abilities": {"a": {}}}), "there is no such share"),
    ],
)
def test_a_refused_token_is_said_why(explain, text, why):
    code, said = explain(text)
    assert code == 1
    assert why in said["refused"]
    assert (said["albums"], said["routes"]) == ([], [])


def test_bytes_that_are_no_text_are_no_token(flask):
    done = flask("token", "explain", input=b"Bearer \xff\0\x1b")
    assert (done.exit_code, done.stderr) == (1, "")
    assert done.stdout.startswith("Refused: the header is not one credential")


@pytest.mark.configure(require_iat=True)
def test_a_token_without_iat_is_refused_where_that_is_asked_for(explain):
    assert "IMAGEAPI_REQUIRE_IAT" in explain(sign({"user_id": "anna"}))[1]["refused"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (("user", "anna"), "tokens of this user were revoked"),
        (("issuer", ""), "tokens of this issuer were revoked"),
        (("all",), "all tokens were revoked"),
    ],
)
def test_a_revoked_token_is_said_to_be(explain, flask, kind, why):
    text = sign({"user_id": "anna"})
    assert_done(flask("revoke", *kind))
    assert explain(text)[1]["refused"] == why
    assert_done(flask("revoke", *kind, "--lift"))
    assert explain(text)[0] == 0


def test_a_revoked_album_is_closed_and_the_others_are_open(explain, flask, album):
    album()
    album("beach")
    assert_done(flask("revoke", "album", "holidays"))
    code, said = explain(sign({"user_id": "anna"}))
    assert code == 0
    assert [(row["public_id"], row["refused"]) for row in said["albums"]] == [
        ("beach", None),
        ("holidays", "tokens of this album were revoked"),
    ]
    assert opened(said)["GET /images/:image_id"] == ["beach"]


def test_an_integrators_token_opens_its_own_albums(app, explain, album):
    album(owner="anna")
    album("theirs", issuer="acme", owner="anna")
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)
    entries = {"holidays": {"Access": {"see": True}}}
    text = sign({"iss": "acme", "user_id": "anna", "abilities": entries}, ACME)
    said = explain(text)[1]
    assert [(row["public_id"], row["refused"]) for row in said["albums"]] == [
        ("theirs", None),
        ("holidays", "there is no such album"),
    ]
    with app.app_context(), transaction() as session:
        integrators.rotate(session, "acme", int(time.time() * 1000), 60_000)
    ends = datetime.datetime.fromisoformat(explain(text)[1]["ends_at"]).timestamp()
    assert ends <= time.time() + 60


def test_a_share_opens_what_its_row_still_allows(app, client, explain, flask, album):
    number = album()
    album("beach")
    access = dict.fromkeys(("see", "image_list", "image_share", "rename"), True)
    header = bearing(sign({"user_id": "anna", "abilities": {"holidays": {"Access": access}}}))
    body = {"abilities": ["see", "image_list"], "expires_in": 600}
    share = client.post("/api/v1/albums/holidays/shares", json=body, headers=header).get_json()
    client.put("/api/v1/albums/holidays", data={"album[public_id]": "new"}, headers=header)
    with app.app_context(), transaction() as session:
        session.execute(sa.update(Share).values(abilities='["see", "image_share"]'))
    code, said = explain(share["token"])
    assert (code, said["share"], said["user"]) == (0, share["id"], None)
    assert said["ends_at"] == share["expires_at"].replace(".000", "")
    assert said["albums"] == [
        {"public_id": "new", "by": "share", "abilities": ["see"], "refused": None}
    ]
    assert "POST /albums" not in opened(said)
    assert_done(flask("revoke", "share", share["id"]))
    assert explain(share["token"])[1]["refused"] == "its share was ended"
    assert_done(flask("revoke", "share", share["id"], "--lift"))
    with app.app_context(), transaction() as session:
        session.execute(sa.update(Share).values(expires_at=int(time.time())))
    assert explain(share["token"])[1]["refused"] == "its share has expired"
    with app.app_context(), transaction() as session:
        session.execute(sa.update(Share).values(expires_at=int(time.time()) + 600))
        session.execute(sa.update(Album).where(Album.id == number).values(deleted_ms=1))
    code, said = explain(share["token"])
    assert (code, said["albums"], said["routes"]) == (0, [], [])


def test_what_it_says_is_what_the_access_matrix_says(app, explain):
    """For every kind of token; that requests meet the same is shown beside the matrix."""
    now = int(time.time())
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)
        revocation.revoke(session, "user", "", "ivan", now)
    world = matrix.make_world(app, now)
    own = world.targets["own"].album
    rules = {(r.endpoint, m): r for r in app.url_map.iter_rules() for m in r.methods}
    for kind, asker in matrix.askers(world).items():
        code, said = explain(asker.headers.get("Authorization", ""))
        assert code == (1 if asker.may is False else 0), kind
        told = opened(said)
        for row in matrix.ORACLE:
            name = f"{row.method} {path(rules[row.endpoint, row.method]).removeprefix('/api/v1')}"
            may = asker.reaches and any(
                other.permits(asker.may, owns=asker.owns)
                for other in matrix.ORACLE
                if (other.endpoint, other.method) == (row.endpoint, row.method)
            )
            assert (own in (told.get(name) or ())) is may, (kind, name)
        for row in matrix.FOR_USERS:
            known = f"{row.method} /albums" in told
            assert known is (code == 0 and asker.user is not None), (kind, row)
