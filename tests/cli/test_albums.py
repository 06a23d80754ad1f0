"""`flask albums`: made, listed, given to another user."""

import json
import re

from tests.cli.conftest import assert_done, assert_told
from tests.conftest import bearing, sign


def test_an_album_that_was_made_is_listed(flask):
    assert flask("albums", "create", "été 1", "--owner", "anna").exit_code == 0
    assert flask("albums", "create", "b", "--owner", "bob", "--issuer", "shop").exit_code == 0
    listed = json.loads(flask("albums", "list", "--json").stdout)
    moments = [album.pop("created_at") for album in listed]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", moment) for moment in moments)
    empty = {"storage": "local", "images_count": 0, "bytes": 0}
    assert listed == [
        {"issuer": "", "public_id": "été 1", "owner": "anna", **empty},
        {"issuer": "shop", "public_id": "b", "owner": "bob", **empty},
    ]


def test_the_list_for_people_has_columns(flask, album):
    album("short", owner="\x1b[31mred")
    album("much-longer", owner=None)
    header, *lines = flask("albums", "list").stdout.splitlines()
    assert header.split()[:4] == ["issuer", "public_id", "owner", "storage"]
    assert [line.index("local") for line in lines] == [header.index("storage")] * 2
    assert lines[1].split()[2] == r"\x1b[31mred"
    assert lines[0].split()[2] == "-"


def test_an_album_is_made_once_per_issuer(flask):
    assert flask("albums", "create", "a", "--owner", "anna").exit_code == 0
    assert flask("albums", "create", "a", "--owner", "anna", "--issuer", "x").exit_code == 0
    assert_told(flask("albums", "create", "a", "--owner", "bob"), 1, "There is an album 'a'")


def test_what_can_not_be_an_album_id_is_a_usage_error(flask):
    done = flask("albums", "create", "a/b", "--owner", "anna")
    assert_told(done, 2, "album[public_id] must not contain any of")
    assert_told(flask("albums", "create", "a", "--owner", ""), 2, "owner must be")


def test_an_unknown_storage_is_refused(flask):
    done = flask("albums", "create", "a", "--owner", "anna", "--storage", "attic")
    assert_told(done, 1, "There is no storage 'attic'.")
    assert json.loads(flask("albums", "list", "--json").stdout) == []


# albums transfer


def test_an_album_changes_hands_at_once(client, flask, album):
    album(issuer="")
    album(issuer="acme")
    anna, bob = (bearing(sign({"user_id": user})) for user in ("anna", "bob"))
    entry = {"holidays": {"Access": {"see": True}}}
    named = bearing(sign({"user_id": "carl", "abilities": entry}))
    done = flask("albums", "transfer", "holidays", "--owner", "bob")
    assert_done(done, "Gave the album 'holidays' of 'anna' to 'bob'.")
    codes = [
        client.get("/api/v1/albums/holidays", headers=header).status_code
        for header in (anna, bob, named)
    ]
    assert codes == [404, 200, 200]
    owners = {a["issuer"]: a["owner"] for a in json.loads(flask("albums", "list", "--json").stdout)}
    assert owners == {"": "bob", "acme": "anna"}
    done = flask("albums", "transfer", "holidays", "--owner", "zoë", "--issuer", "acme")
    assert_done(done, "Gave the album 'holidays' of 'anna' to 'zoë'.")
    assert client.get("/api/v1/albums/holidays", headers=bob).status_code == 200


def test_an_id_given_up_later_is_the_new_owners(client, flask, album):
    album()
    assert_done(flask("albums", "transfer", "holidays", "--owner", "bob"))
    bob, form = bearing(sign({"user_id": "bob"})), {"album[public_id]": "beach"}
    assert client.put("/api/v1/albums/holidays", data=form, headers=bob).status_code == 200
    assert_told(flask("albums", "create", "holidays", "--owner", "anna"), 1, "another owner's")
    assert_done(flask("albums", "create", "holidays", "--owner", "bob"))


def test_what_can_not_be_transferred(flask, album):
    album()
    transfer = ("albums", "transfer")
    assert_told(flask(*transfer, "none", "--owner", "bob"), 1, "There is no album 'none'.")
    other = flask(*transfer, "holidays", "--owner", "bob", "--issuer", "acme")
    assert_told(other, 1, "There is no album 'holidays'.")
    assert_told(flask(*transfer, "holidays", "--owner", ""), 2, "owner must be a text of 1 to 128")
    assert_told(flask(*transfer, "holidays"), 2, "Missing option '--owner'")
    assert json.loads(flask("albums", "list", "--json").stdout)[0]["owner"] == "anna"
