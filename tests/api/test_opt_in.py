"""What only shows to those who ask, and what does not show to those who may not see it."""

from __future__ import annotations

import base64

import pytest
from PIL import Image as Pillow

from tests.conftest import jpeg
from tests.storages import everywhere

GPS = {0x8825: {1: "N", 2: (48.0, 51.0, 43.0), 3: "E", 4: (2.0, 21.0, 0.0)}}


def located():
    exif = Pillow.Exif()
    exif[0x010F] = "Nikon"
    for tag, value in GPS.items():
        exif[tag] = value
    return jpeg(300, 200, exif=exif)


@pytest.fixture
def image(anna):
    return anna.upload(data=located(), latitude="48.5", longitude="2.5", accuracy="7")


@everywhere
def test_placeholder_and_srcset_only_when_asked(anna, image):
    path = f"/images/{image['public_id']}"
    plain = anna.get(path).json
    assert plain == image
    asked = anna.get(f"{path}?include=placeholder,srcset").json
    assert {name: asked.pop(name) for name in ("srcset",)} == {
        "srcset": {"full": 300, "large": 200, "mini": 100}
    }
    assert 5 <= len(base64.b64decode(asked.pop("placeholder"))) <= 30
    assert asked == plain
    (listed,) = anna.get("/albums/holidays/images?include=srcset").json
    assert list(listed)[-1] == "srcset"
    assert anna.get("/albums/holidays/images").json == [plain]
    assert anna.get(f"{path}?include=all").status_code == 422
    assert anna.get("/albums/holidays/images?include=").status_code == 422


@everywhere
def test_the_placeholder_follows_the_edit(anna, image, storage):
    """Or is null: what Cloudinary renders by URL, nobody has looked at here."""
    path = f"/images/{image['public_id']}"
    before = anna.get(f"{path}?include=placeholder").json["placeholder"]
    anna.put(path, json={"rotation": 90})
    after = anna.get(f"{path}?include=placeholder,srcset").json
    assert after["placeholder"] != before
    assert (after["placeholder"] is None) is (storage == "cloudinary")
    assert after["srcset"]["full"] == 200


HIDING = [
    {"Access": {"see": True}, "hide_location": True},
    {"Access": {"see": True}, "hide_location": None},
    {"Access": {"see": True}, "hide_location": "no"},
    {"Access": {"see": True}, "hide_location": 0},
    {"Access": {"see": True, "hide_location": True}},
]


def entry(mark):
    granted = {"image_list": True, "image_download": True, "image_tag": True, "image_share": True}
    return {**mark, "Access": {**granted, **mark["Access"]}}


@pytest.mark.parametrize("mark", HIDING)
def test_hidden_location_shows_nowhere(anna, api, image, mark):
    assert image["gps_exifs"] is not None
    assert any(name.startswith("GPS") for name in image["exifs"])
    hidden = api(user_id="bert", abilities={"holidays": entry(mark)})
    (tag,) = (
        api(abilities={"holidays": {"Tags": {"Sea": "Sea"}, "Access": {"image_tag": True}}})
        .get("/albums/holidays/tags")
        .json
    )
    anna.post(f"/tags/{tag['id']}/tag_images", json={"image_ids": [image["public_id"]]})
    shown = [
        hidden.get(f"/images/{image['public_id']}").json,
        hidden.get("/albums/holidays/images").json[0],
        hidden.get("/albums/holidays").json["thumbnails"][0],
        hidden.get("/albums").json[0]["thumbnails"][0],
        hidden.get("/tag_images?album_id=holidays").json[0]["image"],
    ]
    for body in shown:
        assert [body[name] for name in ("gps", "gps_ip", "gps_exifs", "gps_html")] == [None] * 4
        assert "location" not in body["infos"]
        assert body["exifs"] == {"Make": "Nikon"}
        assert list(body) == list(image)
    assert hidden.get("/albums/holidays/images?bbox=0,0,9,9").status_code == 403
    original = hidden.get(f"/images/{image['public_id']}/original")
    assert (original.status_code, original.headers["X-message"]) == (403, "Access denied")


@pytest.mark.parametrize("mark", [{"Access": {}}, {"Access": {}, "hide_location": False}])
def test_without_the_mark_it_shows(api, image, mark):
    sees = api(abilities={"holidays": entry(mark)})
    assert sees.get(f"/images/{image['public_id']}").json == image
    assert sees.get("/albums/holidays/images?bbox=0,0,90,90").json == [image]
    assert sees.get(f"/images/{image['public_id']}/original").status_code == 200


@everywhere
def test_a_share_hides_what_its_maker_does_not_see(client, api, image):
    maker = api(abilities={"holidays": entry(HIDING[0])})
    body = {"abilities": ["see", "image_download"], "expires_in": 60}
    token = maker.post("/albums/holidays/shares", json=body).json["token"]
    headers = {"Authorization": f"Bearer {token}"}
    path = f"/api/v1/images/{image['public_id']}"
    shown = client.get(path, headers=headers)
    assert shown.json["gps"] is None
    renewed = {"Authorization": f"Bearer {shown.headers['X-token']}"}
    assert client.get(path, headers=renewed).json["gps"] is None
    assert client.get(f"{path}/original", headers=headers).status_code == 403
