"""Things to ask a running application for: albums of anna's with one of everything, made by requests."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import requests

from imageapi.auth.policy import Ability
from imageapi.auth.tokens import sign
from tests.conftest import jpeg

API = "/api/v1"


@dataclass(frozen=True)
class Seeded:
    """An album with an image, a tag on it and a share.

    Attributes:
        token: of the user anna, who owns the album; it says all of it, and names its tag.
        image: the image block.
        ids: variable of a path to what stands for it.
    """

    token: str
    image: dict[str, Any]
    ids: dict[str, str]


def claims(album: str) -> dict[str, Any]:
    """Those of a token of anna's that says all of an album, and names a tag."""
    entry = {"Access": dict.fromkeys(Ability, True), "Tags": {"Mer": {"en": "Sea"}}}
    return {"exp": int(time.time()) + 86400, "user_id": "anna", "abilities": {album: entry}}


def seed(server) -> Seeded:
    """One more of everything on a server of `tests.servers.gunicorn`."""
    album = f"album-{uuid.uuid4()}"
    token = sign(claims(album), server.env["IMAGEAPI_SECRET_KEYS"])
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"

        def ask(method: str, path: str, **options: Any) -> Any:
            answer = session.request(method, f"{server.url}{API}{path}", timeout=30, **options)
            answer.raise_for_status()
            return answer.json()

        ask("POST", "/albums", json={"album": {"public_id": album}})
        picture = {"file": ("seaside.jpg", jpeg(64, 48))}
        image = ask("POST", f"/albums/{album}/images", files=picture)
        (tag,) = ask("GET", f"/albums/{album}/tags")
        named = {"image_ids": [image["public_id"]]}
        (tagged,) = ask("POST", f"/tags/{tag['id']}/tag_images", json=named)
        share = {"abilities": ["see"], "expires_in": 3600}
        shared = ask("POST", f"/albums/{album}/shares", json=share)
    storage, folder, name = image["thumbnails"]["mini"].partition("?")[0].split("/")[2:]
    ids = {
        "album_id": album,
        "image_id": image["public_id"],
        "tag_id": tag["id"],
        "tag_image_id": tagged["id"],
        "share_id": shared["id"],
        "storage": storage,
        "key": f"{folder}/{name}",
        "name": "docs.js",
    }
    return Seeded(token, image, ids)
