"""Albums, their names, and what goes with them; tags and tag images."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

from imageapi import models
from imageapi.auth.policy import Ability
from imageapi.extensions import read
from tests.api.conftest import Api
from tests.conftest import bearing, jpeg
from tests.storages import everywhere


@everywhere
@pytest.mark.parametrize("kind", ["form", "json", "multipart"])
def test_bodies_in_every_form(anna, kind, storage):
    options = {
        "form": {"data": "album[public_id]=b", "content_type": "application/x-www-form-urlencoded"},
        "json": {"json": {"album": {"public_id": "b"}}},
        "multipart": {"data": {"album[public_id]": "b"}, "content_type": "multipart/form-data"},
    }[kind]
    response = anna.post("/albums", **options)
    assert response.status_code == 200, response.text
    assert list(response.json) == [
        "public_id", "upload_form", "images_count", "views_count", "thumbnails"
    ]  # fmt: skip
    assert response.json["public_id"] == "b"
    assert (response.json["upload_form"] is None) == (storage == "local")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"album": {"name": "b"}}, "album[name]"),
        ({"public_id": "b"}, "public_id"),
        ({"album": "b"}, "album"),
        ({"album": {"public_id": 7}}, "album[public_id]"),
        ({"album": {"public_id": "a/b"}}, "album[public_id]"),
        ({"album": {"public_id": ""}}, "album[public_id]"),
        ({"album": {"public_id": "x" * 129}}, "album[public_id]"),
        ({"album": {"public_id": ".."}}, "album[public_id]"),
        ({"album": {"public_id": "a\u0000"}}, "album[public_id]"),
    ],
)
def test_a_bad_body_names_its_field(anna, body, field):
    for method, path in (("POST", "/albums"), ("PUT", "/albums/holidays")):
        response = anna(method, path, json=body)
        assert response.status_code == 422, response.text
        assert response.json["errors"][0]["field"] == field


@everywhere
def test_a_rename_is_at_once_and_the_old_id_is_kept_for_its_owner(anna, api):
    image = anna.upload()
    renamed = anna.put("/albums/holidays", json={"album": {"public_id": "Ferien 2016 é"}})
    assert renamed.status_code == 200
    assert anna.get("/albums/holidays").status_code == 404
    assert anna.get("/albums/Ferien%202016%20%C3%A9").json["images_count"] == 1
    moved = anna.get(f"/images/{image['public_id']}").json
    assert (moved["album_id"], moved["infos"]) == ("Ferien 2016 é", image["infos"])
    bert = api(user_id="bert")
    taken = bert.post("/albums", json={"album": {"public_id": "holidays"}})
    assert (taken.status_code, taken.json["code"]) == (409, "conflict")
    assert anna.post("/albums", json={"album": {"public_id": "holidays"}}).status_code == 200
    assert bert.post("/albums", json={"album": {"public_id": "holidays"}}).status_code == 409


def entries(**abilities):
    return {name: {"Access": dict.fromkeys(may, True)} for name, may in abilities.items()}


def assert_denied(response):
    assert (response.status_code, response.json["code"]) == (403, "access_denied"), response.text


def test_a_rename_brings_no_other_entry_of_the_token_to_bear(anna, api):
    bert = api(user_id="bert", abilities=entries(holidays=["rename"], berts=["stats", "rename"]))
    assert_denied(bert.get("/albums/holidays/stats"))
    assert_denied(bert.put("/albums/holidays", json={"album": {"public_id": "berts"}}))
    assert bert.get("/albums/berts/stats").status_code == 404
    assert anna.get("/albums/holidays").status_code == 200
    # Its own id is none, though there is an entry for it; any other is.
    for name in ("holidays", "elsewhere"):
        renamed = bert.put("/albums/holidays", json={"album": {"public_id": name}})
        assert renamed.status_code == 200, renamed.text
    assert bert.get("/albums/elsewhere").status_code == 404


def test_a_share_renames_its_album_and_back(anna, api):
    maker = api(user_id="anna", abilities=entries(holidays=[*Ability]))
    shared = {"abilities": ["rename", "see"], "expires_in": 60}
    made = maker.post("/albums/holidays/shares", json=shared).json
    share = Api(anna.client, bearing(made["token"]))
    for old, new in (("holidays", "b"), ("b", "holidays")):
        renamed = share.put(f"/albums/{old}", json={"album": {"public_id": new}})
        assert renamed.status_code == 200, renamed.text
    assert_denied(share.get("/albums/holidays/stats"))


@everywhere
def test_deleting_an_album_takes_images_and_bytes(app, anna, fetch, stored, api):
    images = [anna.upload(data=jpeg(seed=number)) for number in range(5)]
    assert (
        api("holidays", "image_delete", user_id="bert").delete("/albums/holidays").status_code
        == 403
    )
    assert anna.delete("/albums/holidays").status_code == 204
    assert anna.get("/albums/holidays").status_code == 404
    for image in images:
        assert anna.get(f"/images/{image['public_id']}").status_code == 404
    deadline = time.monotonic() + 10
    while stored():
        assert time.monotonic() < deadline, "bytes were left"
        time.sleep(0.05)
    assert {fetch(image["thumbnails"]["mini"]).status_code for image in images} == {404}
    app.extensions["background"].stop()
    with app.app_context():
        for model in (models.Album, models.Image, models.StoredObject, models.Work):
            assert read(sa.select(sa.func.count()).select_from(model))[0][0] == 0, model
    assert (
        api(user_id="bert").post("/albums", json={"album": {"public_id": "holidays"}}).status_code
        == 409
    )


@everywhere
def test_the_list_shows_owned_albums_and_those_with_see(anna, api, album):
    album("berts", owner="bert", created_ms=5)
    album("closed", owner="bert", created_ms=6)
    album("muted", owner="anna", created_ms=7)
    album("foreign", issuer="other", owner="anna", created_ms=8)
    token = {
        "berts": {"Access": {"see": True}},
        "closed": {"Access": {"image_list": True}},
        "muted": {"Access": {"image_list": True}},
    }
    images = [anna.upload(data=jpeg(seed=number)) for number in range(6)]
    listed = api(user_id="anna", abilities=token).get("/albums").json
    assert [item["public_id"] for item in listed] == ["berts", "holidays"]
    assert list(listed[0]) == ["public_id", "images_count", "thumbnails"]
    newest = [image["public_id"] for image in images[:1:-1]]
    assert [image["public_id"] for image in listed[1]["thumbnails"]] == newest
    assert api("holidays", "see").get("/albums").status_code == 403
    assert api().post("/albums").status_code == 403


def test_the_list_of_albums_is_paged(anna, album):
    for number in range(5):
        album(f"a{number}", owner="anna", created_ms=10 + number)
    path, seen = "/albums?limit=2", []
    while path:
        response = anna.get(path)
        seen.append([item["public_id"] for item in response.json])
        link = response.headers.get("Link")
        path = link.partition("</api/v1")[2].partition(">")[0] if link else None
    assert seen == [["a4", "a3"], ["a2", "a1"], ["a0", "holidays"]]


def tags(api, **labels):
    entry = {"Tags": labels, "Access": {"image_tag": True, "see": True}}
    return api(abilities={"holidays": entry}, user_id="bert")


@everywhere
def test_tags_that_a_token_names_are_made_once(anna, api):
    tagger = tags(api, Sea="Das Meer", Land={"en": "Land", "fr": ["é"]}, **{"x" * 129: "long"})
    first = tagger.get("/albums/holidays/tags").json
    assert [(tag["name"], tag["label"]) for tag in first] == [
        ("Sea", "Das Meer"),
        ("Land", '{"en":"Land","fr":["é"]}'),
    ]
    assert list(first[0]) == ["id", "created_at", "name", "label"]
    assert tags(api, Sea="Another").get("/albums/holidays/tags").json == first
    assert anna.get("/albums/holidays/tags").json == first
    assert api("other").get("/albums/holidays/tags").json == []
    assert api("holidays").get("/albums/holidays/tags").json == first


@everywhere
def test_tagging(anna, api, album):
    album("other", owner="anna")
    images = [anna.upload(data=jpeg(seed=number))["public_id"] for number in range(3)]
    foreign = anna.upload("other", data=jpeg(seed=9))["public_id"]
    tagger = tags(api, Sea="Sea")
    (tag,) = tagger.get("/albums/holidays/tags").json
    path = f"/tags/{tag['id']}/tag_images"
    made = tagger.post(path, json={"image_ids": images[::-1]})
    assert made.status_code == 200
    assert [row["image"]["public_id"] for row in made.json] == images[::-1]
    assert {row["user"] for row in made.json} == {"bert"}
    again = anna.post(path, data={"image_ids[]": [images[0], images[0]]})
    assert [row["id"] for row in again.json] == [made.json[2]["id"]] * 2
    for wrong in (foreign, "5cf8c06d-83fa-4ede-b995-5efd3133b6e5", "x"):
        refused = tagger.post(path, json={"image_ids": [images[0], wrong]})
        assert refused.status_code == 404
    for bad in ({}, {"image_ids": []}, {"image_ids": "x"}, {"image_ids": [1]}):
        assert tagger.post(path, json=bad).status_code == 422
    listed = tagger.get("/tag_images?album_id=holidays")
    assert len(listed.json) == 3
    one = tagger.get(f"/tag_images?album_id=holidays&tag_name=Sea&image_id={images[1]}").json
    assert [row["image"]["public_id"] for row in one] == [images[1]]
    assert tagger.get("/tag_images?album_id=holidays&tag_name=Land").json == []
    assert tagger.get("/tag_images?album_id=other").json == []
    assert tagger.get("/tag_images").status_code == 422
    assert api("holidays", "image_list").get("/tag_images?album_id=holidays").status_code == 403

    gone = f"/tag_images/{one[0]['id']}"
    assert api("other", "image_tag").delete(gone).status_code == 404
    assert api("holidays", "see").delete(gone).status_code == 403
    assert tagger.delete(gone).status_code == 204
    assert tagger.delete(gone).status_code == 404
    anna.delete(f"/images/{images[0]}")
    left = tagger.get("/tag_images?album_id=holidays&limit=1")
    assert [row["image"]["public_id"] for row in left.json] == [images[2]]
    assert "Link" not in left.headers
