"""The one table of who may do what, and the decision. Pure.

The guard, the `X-access-*` headers, the documentation and the access tests are made from it.

Source: design §3 and §4.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from imageapi.auth.tokens import Token


class Ability(enum.StrEnum):
    """What an entry of a token may allow in one album."""

    SEE = "see"
    IMAGE_LIST = "image_list"
    IMAGE_UPLOAD = "image_upload"
    IMAGE_DOWNLOAD = "image_download"
    IMAGE_DELETE = "image_delete"
    IMAGE_ROTATE = "image_rotate"
    IMAGE_CROP = "image_crop"
    IMAGE_TAG = "image_tag"
    IMAGE_DUPLICATE = "image_duplicate"
    IMAGE_SHARE = "image_share"
    RENAME = "rename"
    STATS = "stats"


class Access(enum.Enum):
    """Rules of routes that no ability guards."""

    PUBLIC = "no token is needed"
    SIGNED = "the URL itself is signed"
    USER = "the token names a user"
    ENTRY = "the token has an entry for the album, or its user owns it"


Rule = frozenset[Ability] | Access

OWNER_ABILITIES = frozenset(Ability) - {Ability.IMAGE_SHARE}
"""What a token without an entry may do in an album of its user's: all but sharing (design §3)."""


def _any(*abilities: Ability) -> frozenset[Ability]:
    return frozenset(abilities)


POLICY: Mapping[str, Rule] = {
    "images.show": _any(Ability.IMAGE_LIST, Ability.SEE),
    "images.update": _any(Ability.IMAGE_ROTATE, Ability.IMAGE_CROP),
    "images.delete": _any(Ability.IMAGE_DELETE),
    "images.duplicate": _any(Ability.IMAGE_DUPLICATE),
    "images.original": _any(Ability.IMAGE_DOWNLOAD),
    "albums.upload_image": _any(Ability.IMAGE_UPLOAD),
    "albums.list_images": _any(Ability.IMAGE_LIST),
    "albums.list_untagged": _any(Ability.IMAGE_LIST),
    "albums.create": Access.USER,
    "albums.index": Access.USER,
    "albums.show": _any(Ability.SEE),
    "albums.update": _any(Ability.RENAME),
    "albums.delete": _any(Ability.IMAGE_DELETE),
    "albums.stats": _any(Ability.STATS),
    "tags.index": Access.ENTRY,
    "tags.list_images": _any(Ability.IMAGE_TAG, Ability.SEE),
    "tags.put_on": _any(Ability.IMAGE_TAG),
    "tags.take_off": _any(Ability.IMAGE_TAG),
    "shares.create": _any(Ability.IMAGE_SHARE),
    "shares.index": _any(Ability.IMAGE_SHARE),
    "shares.delete": _any(Ability.IMAGE_SHARE),
    "files.rendition": Access.SIGNED,
    "files.blank": Access.PUBLIC,
    "files.cloudinary_cors": Access.PUBLIC,
    "ops.healthz": Access.PUBLIC,
    "ops.readyz": Access.PUBLIC,
    "ops.metrics": Access.PUBLIC,
    "openapi.show": Access.PUBLIC,
    "docs.page": Access.PUBLIC,
    "docs.asset": Access.PUBLIC,
}
"""Endpoint to its rule: any one of the abilities in the album, or an `Access`."""

ACCESS_HEADERS: Mapping[str, Mapping[str, Ability]] = {
    "images.show": {
        "X-access-crop": Ability.IMAGE_CROP,
        "X-access-rotate": Ability.IMAGE_ROTATE,
    },
    "albums.show": {
        f"X-access-{ability}": ability
        for ability in (
            Ability.IMAGE_DELETE,
            Ability.IMAGE_UPLOAD,
            Ability.IMAGE_SHARE,
            Ability.IMAGE_ROTATE,
            Ability.IMAGE_CROP,
            Ability.STATS,
        )
    },
}
"""Endpoint to the headers that tell a client what it may do next, in contract order."""


class AlbumFacts(NamedTuple):
    """What the decision looks at in an album; `id` is its row's own."""

    id: int
    issuer: str
    public_id: str
    owner: str | None


class ShareFacts(NamedTuple):
    """What a live share allows: these abilities, in the album whose row has this id."""

    album_id: int
    abilities: frozenset[str]


def abilities(
    token: Token, album: AlbumFacts, share: ShareFacts | None = None
) -> frozenset[Ability] | None:
    """What `token` may do in `album`.

    Args:
        token: verified.
        album: to be decided about.
        share: the share that the token comes from, where it comes from one; must be live.
    Returns: the abilities, or None when the token does not reach the album at all.
    """
    if token.issuer != album.issuer:
        return None
    if token.share is not None:
        return _shared(token, album, share)
    if album.public_id in token.entries:
        return _by_entry(token, album.public_id)
    if album.owner is not None and token.user_id == album.owner:
        return OWNER_ABILITIES
    return None


def _shared(token: Token, album: AlbumFacts, share: ShareFacts | None) -> frozenset[Ability] | None:
    if share is None or share.album_id != album.id:
        return None
    (entry,) = token.entries.values()
    return (granted(entry) & share.abilities) - {Ability.IMAGE_SHARE}


def gains_nothing(token: Token, public_id: str) -> bool:
    """Whether no other entry of `token` would come to bear on an album that is renamed to `public_id`.

    A share's entry is its album's whatever the id.
    """
    return token.share is not None or public_id not in token.entries


def hides_location(token: Token, public_id: str) -> bool:
    """Whether the token's entry for an album keeps positions from it.

    `"hide_location"` beside its `Access`, or in it, hides with any value but JSON false.
    """
    if token.share is not None:
        (entry,) = token.entries.values()
    else:
        entry = token.entries.get(public_id)
    if not isinstance(entry, dict):
        return False
    places = (entry, entry.get("Access"))
    marks = [place.get("hide_location", False) for place in places if isinstance(place, dict)]
    return any(mark is not False for mark in marks)


def _by_entry(token: Token, public_id: str) -> frozenset[Ability]:
    found = token.granted.get(public_id)
    if found is None:
        found = token.granted[public_id] = granted(token.entries[public_id])
    return found


def granted(entry: object) -> frozenset[Ability]:
    """The abilities that one entry of a token grants: only JSON true counts."""
    flags = entry.get("Access") if isinstance(entry, dict) else None
    if not isinstance(flags, dict):
        return frozenset()
    return frozenset(ability for ability in Ability if flags.get(ability) is True)
