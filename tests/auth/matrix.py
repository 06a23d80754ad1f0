"""The access matrix: what each route answers to whom, written down apart from the policy table.

To add a route: one `Row` in `ORACLE`, and in `calls` how it is called where no call there fits.

Source: design §3 and §4.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from imageapi import models
from imageapi.catalog import library
from imageapi.extensions import transaction
from tests.auth.conftest import insert_image, mint
from tests.conftest import bearing, jpeg, part

API = "/api/v1"
ACME = "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c"
ALL = {
    *["see", "image_list", "image_upload", "image_download", "image_delete", "image_rotate"],
    *["image_crop", "image_tag", "image_duplicate", "image_share", "rename", "stats"],
}
LATITUDE = "48.861934399999996"
"""Stands wherever an image of the matrix tells where it was taken."""
_LOCATED = {
    "infos": f'{{"location":{{"latitude":{LATITUDE},"longitude":2.5}}}}',
    "exifs": f'{{"Make":"Nikon","GPSLatitude":"{LATITUDE}"}}',
    **dict.fromkeys(("gps_exifs", "gps_html", "gps_ip"), f"[{LATITUDE},2.5]"),
    "latitude": float(LATITUDE),
    "longitude": 2.5,
}
_numbers = itertools.count(1)


# what there is ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """An album and one of everything in it, or ids of nothing."""

    album: str
    row: int = 0
    image: str = field(default_factory=lambda: str(uuid.uuid4()))
    share: str = field(default_factory=lambda: str(uuid.uuid4()))
    tag: str = field(default_factory=lambda: str(uuid.uuid4()))
    tag_image: str = field(default_factory=lambda: str(uuid.uuid4()))


def insert_target(session, public_id: str, owner: str | None, now: int, **values: Any) -> Target:
    """An album with an image whose bytes are there, a tag on it, and a share."""
    album = models.Album(
        **{"issuer": "", "storage": "local", "created_ms": now * 1000, **values},
        public_id=public_id,
        owner=owner,
        images_count=1,
    )
    session.add(album)
    session.flush()
    image = insert_image(session, album.id, **_bytes())
    session.flush()
    session.execute(sa.update(models.Image).where(models.Image.id == image).values(**_LOCATED))
    share = insert_share(session, album.id, ALL - {"image_share"}, now)
    tag, tag_image = str(uuid.uuid4()), str(uuid.uuid4())
    session.add(models.Tag(id=tag, album_id=album.id, created_ms=1, name="Mer", label="Sea"))
    session.flush()
    session.add(models.TagImage(id=tag_image, tag_id=tag, image_id=image, created_ms=1))
    return Target(public_id, album.id, image, share, tag, tag_image)


def insert_share(session, album_id: int, abilities, now: int, **values: Any) -> str:
    """A live share; answers its id."""
    share = models.Share(
        **{"expires_at": now + 600, **values},
        id=str(uuid.uuid4()),
        album_id=album_id,
        created_ms=now * 1000,
        abilities=json.dumps(sorted(abilities)),
    )
    session.add(share)
    return share.id


def _bytes() -> dict[str, Any]:
    storage = library().storages["local"]
    with storage.stage() as staging:
        staging.write(jpeg(seed=next(_numbers)))
        key, infos = storage.put(staging.finish(), [])
    return {"key": key, "md5": infos["etag"], "bytes": infos["bytes"]}


@dataclass(frozen=True)
class World:
    """An album of anna's, what is not hers or not there, and shares of hers in several states."""

    now: int
    targets: dict[str, Target]
    third: Target
    shares: dict[str, str]


def make_world(app, now: int) -> World:
    """New albums under new ids; nothing of an earlier world is touched."""
    name = f"w{next(_numbers)}-"
    with app.app_context(), transaction() as session:
        own = insert_target(session, f"{name}own é", "anna", now)
        third = insert_target(session, f"{name}third", "anna's friend", now)
        targets = {
            "own": own,
            "other's": insert_target(session, f"{name}other", "bob", now),
            "deleted": insert_target(session, f"{name}deleted", "anna", now, deleted_ms=now * 1000),
            "missing": Target(f"{name}missing"),
        }
        shares = {
            "live": insert_share(session, own.row, {"see", "image_list", "image_download"}, now),
            "narrow": insert_share(session, own.row, {"see", "image_share"}, now),
            "elsewhere": insert_share(session, third.row, ALL, now),
            "ended": insert_share(session, own.row, ALL, now, expires_at=now - 1),
            "revoked": insert_share(session, own.row, ALL, now, revoked_ms=now * 1000),
        }
    return World(now, targets, third, shares)


# who asks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asker:
    """A token, and what it may do in anna's album: None, it does not reach it; False: it is none.

    `hidden`: where its images were taken is not told.
    """

    headers: dict[str, str]
    may: set[str] | bool | None
    user: str | None = None
    hidden: bool = False

    @property
    def owns(self) -> bool:
        return self.user == "anna"

    @property
    def reaches(self) -> bool:
        return isinstance(self.may, set)


def askers(world: World) -> dict[str, Asker]:
    """Every kind of token there is."""
    own, now = world.targets["own"].album, world.now

    def asker(may, user=None, secret=None, *, hidden=False, **claims):
        said = {"exp": now + 3600, **claims, **({"user_id": user} if user else {})}
        token = mint(said, secret=secret) if secret else mint(said)
        return Asker(bearing(token), may, user, hidden)

    def entry(public_id, *abilities, **mark):
        return {public_id: {"Access": dict.fromkeys(abilities, True), **mark}}

    def share(may, name, *abilities, hidden=False, **claims):
        mark = {"hide_location": True} if hidden else {}
        said = {"iat": now, "abilities": entry(own, *abilities, **mark), **claims}
        return asker(may, share=world.shares[name], hidden=hidden, **said)

    def blind(user, may=ALL):
        return asker(may, user, hidden=True, abilities=entry(own, *may, hide_location=True))

    everywhere = {}
    for name in ("own", "missing", "deleted"):
        everywhere |= entry(world.targets[name].album, *ALL)
    return {
        "none": Asker({}, False),
        "expired": asker(False, "anna", exp=now - 31),
        "revoked": asker(False, "ivan", abilities=entry(own, *ALL)),
        "forged": asker(False, "anna", secret="another-key-of-no-one-0f1e2d3c4b5a6978"),
        "of nobody": asker(False, "anna", iss="nobody"),
        "owner": asker(ALL - {"image_share"}, "anna"),
        "owner, told all": asker(ALL, "anna", abilities=entry(own, *ALL)),
        "owner, told one": asker({"see"}, "anna", abilities=entry(own, "see")),
        "owner, told nothing": asker(set(), "anna", abilities={own: {}}),
        "another user": asker(None, "eve"),
        "nobody": asker(None),
        "told all": asker(ALL, "carl", abilities=entry(own, *ALL)),
        "told all, no user": asker(ALL, abilities=entry(own, *ALL)),
        "owner, location hidden": blind("anna"),
        "told all, location hidden": blind("carl"),
        "told to see, location hidden": blind("carl", {"see"}),
        "share, location hidden": share(
            {"see", "image_list", "image_download"}, "live", *ALL, hidden=True
        ),
        "told nothing": asker(set(), "carl", abilities=entry(own)),
        "told of all but bob's": asker(ALL, "carl", abilities=everywhere),
        "told of another album": asker(None, "carl", abilities=entry(world.third.album, *ALL)),
        "another issuer's": asker(None, "anna", ACME, iss="acme", abilities=entry(own, *ALL)),
        "share": share({"see", "image_list"}, "live", "see", "image_list", "rename"),
        "share, told all": share({"see", "image_list", "image_download"}, "live", *ALL),
        "share, narrow": share({"see"}, "narrow", *ALL),
        "share of another album": share(None, "elsewhere", *ALL),
        "share, ended": share(False, "ended", *ALL),
        "share, revoked": share(False, "revoked", *ALL),
        "share of nothing": asker(False, share=str(uuid.uuid4()), abilities=entry(own, *ALL)),
        **{f"told {one}": asker({one}, "carl", abilities=entry(own, one)) for one in sorted(ALL)},
    }


# what is asked ------------------------------------------------------------------------------


def on_image(rest: str = "", **options: Any) -> Callable[[Target], dict[str, Any]]:
    """A call under `/images/:id`."""
    return lambda target: {"path": f"{API}/images/{target.image}{rest}", **options}


def on_album(rest: str = "", **options: Any) -> Callable[[Target], dict[str, Any]]:
    """A call under `/albums/:id`."""
    return lambda target: {"path": f"{API}/albums/{target.album}{rest}", **options}


def on_tag(target: Target) -> dict[str, Any]:
    return {"path": f"{API}/tags/{target.tag}/tag_images", "json": {"image_ids": [target.image]}}


def on_tag_image(target: Target) -> dict[str, Any]:
    return {"path": f"{API}/tag_images/{target.tag_image}"}


def tag_images_of(target: Target) -> dict[str, Any]:
    return {"path": f"{API}/tag_images", "query_string": {"album_id": target.album}}


def a_rename(target: Target) -> dict[str, Any]:
    name = {"album[public_id]": f"renamed-{next(_numbers)}"}
    return {"path": f"{API}/albums/{target.album}", "data": name}


def on_share(target: Target) -> dict[str, Any]:
    return {"path": f"{API}/shares/{target.share}"}


def at(path: str) -> Callable[[Target], dict[str, Any]]:
    """A call of one path, whatever the target."""
    return lambda _target: {"path": path}


def an_upload(target: Target) -> dict[str, Any]:
    data = {"file": part(jpeg(seed=next(_numbers)))}
    return {"path": f"{API}/albums/{target.album}/images", "data": data}


def a_rendition(target: Target) -> dict[str, Any]:
    key = f"{target.image[:2]}/{target.image}.1.mini.jpg"
    return {"path": library().storages.urls.url("local", key, 1 << 20)}


def _only_of_ones_own(*wanted: str) -> Callable[[set[str]], int]:
    return lambda may: 201 if may >= set(wanted) else 422


Needs = set[str] | Callable[[set[str], bool], bool]


@dataclass(frozen=True)
class Row:
    """A route of the API as the design has it.

    Args:
        endpoint, method: as the URL map names it; a GET stands for its HEAD too.
        call: how it is called on a target.
        needs: any one of these abilities; or says whether abilities and ownership do.
        ok: the status for who may, or that by what one may.
        listed: out of reach is an empty list, not a 404.
        locates: tells where images were taken by what it is asked, or as bytes: never to those whom the
            location is hidden from.
        tells: the X-access-* headers that it carries, and the ability that each tells of.
    """

    endpoint: str
    method: str
    call: Callable[[Target], dict[str, Any]]
    needs: Needs
    ok: int | Callable[[set[str]], int] = 200
    listed: bool = False
    locates: bool = False
    tells: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def permits(self, may: set[str], *, owns: bool) -> bool:
        return self.needs(may, owns) if callable(self.needs) else bool(self.needs & may)

    def answers(self, may: set[str]) -> int:
        return self.ok(may) if callable(self.ok) else self.ok


@dataclass(frozen=True)
class User:
    """A route of one path that every token with a user may ask."""

    endpoint: str
    method: str
    path: str = f"{API}/albums"
    ok: int = 200


@dataclass(frozen=True)
class Open:
    """A route that no token opens or shuts: its status by target."""

    endpoint: str
    call: Callable[[Target], dict[str, Any]]
    ok: dict[str, int] = field(default_factory=dict)
    method: str = "GET"


EDIT = {"image_rotate", "image_crop"}
SHARE = {"abilities": ["see"], "expires_in": 60}
TELLS_OF_IMAGE = {"X-access-crop": "image_crop", "X-access-rotate": "image_rotate"}
TELLS_OF_ALBUM = {
    f"X-access-{ability}": ability
    for ability in (
        *("image_delete", "image_upload", "image_share", "image_rotate", "image_crop", "stats"),
    )
}

ORACLE = [
    Row("images.show", "GET", on_image(), {"see", "image_list"}, tells=TELLS_OF_IMAGE),
    Row("images.update", "PUT", on_image(data={"rotation": "90"}), {"image_rotate"}, note="turn"),
    Row(
        "images.update",
        "PUT",
        on_image(json={"crop_w": 9, "crop_h": 9}),
        {"image_crop"},
        note="crop",
    ),
    Row("images.update", "PUT", on_image(json={"rotation": 0, "crop_x": 0}), EDIT, note="as it is"),
    Row(
        "images.update",
        "PUT",
        on_image(json={"rotation": 90, "crop_w": 9, "crop_h": 9}),
        lambda may, _owns: may >= EDIT,
        note="both",
    ),
    Row("images.delete", "DELETE", on_image(), {"image_delete"}, 204),
    Row("images.duplicate", "POST", on_image("/duplicate"), {"image_duplicate"}, 201),
    Row("images.original", "GET", on_image("/original"), {"image_download"}, locates=True),
    Row("albums.show", "GET", on_album(), {"see"}, tells=TELLS_OF_ALBUM),
    Row("albums.update", "PUT", a_rename, {"rename"}),
    Row(
        "albums.delete", "DELETE", on_album(), lambda may, owns: owns and "image_delete" in may, 204
    ),
    Row("albums.stats", "GET", on_album("/stats"), {"stats"}),
    Row("albums.upload_image", "POST", an_upload, {"image_upload"}, 201),
    Row("albums.list_images", "GET", on_album("/images"), {"image_list"}, listed=True),
    Row("albums.list_untagged", "GET", on_album("/images/untag"), {"image_list"}, listed=True),
    *(
        Row(
            f"albums.{endpoint}",
            "GET",
            on_album(path, query_string={"bbox": "0,40,10,50"}),
            {"image_list"},
            listed=True,
            locates=True,
            note="in a box",
        )
        for endpoint, path in (("list_images", "/images"), ("list_untagged", "/images/untag"))
    ),
    Row("tags.index", "GET", on_album("/tags"), lambda _may, _owns: True, listed=True),
    Row("tags.list_images", "GET", tag_images_of, {"image_tag", "see"}, listed=True),
    Row("tags.put_on", "POST", on_tag, {"image_tag"}),
    Row("tags.take_off", "DELETE", on_tag_image, {"image_tag"}, 204),
    Row(
        "shares.create",
        "POST",
        on_album("/shares", json=SHARE),
        {"image_share"},
        _only_of_ones_own("see"),
    ),
    Row("shares.index", "GET", on_album("/shares"), {"image_share"}, listed=True),
    Row("shares.delete", "DELETE", on_share, {"image_share"}, 204),
]

FOR_USERS = [
    User("albums.create", "POST"),
    User("albums.index", "GET"),
]

OPEN = [
    Open("files.rendition", a_rendition, {"missing": 404, "deleted": 404}),
    Open("files.blank", at("/assets/blank.jpg")),
    Open("files.cloudinary_cors", at("/cloudinary_cors.html")),
    Open("ops.healthz", at("/healthz")),
    Open("ops.readyz", at("/readyz")),
    Open("ops.metrics", at("/metrics")),
    Open("openapi.show", at("/openapi.json")),
    Open("docs.page", at("/docs")),
    Open("docs.asset", at("/docs/docs.js")),
]
