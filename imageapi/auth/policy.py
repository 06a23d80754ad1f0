"""The one table of who may do what, and the decision. Pure.

The guard, the `X-access-*` headers, the documentation and the access tests are made from it.

Source: design §3 and §4.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

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


Rule = frozenset[Ability] | Access

OWNER_ABILITIES = frozenset(Ability) - {Ability.IMAGE_SHARE}
"""What a token without an entry may do in an album of its user's: all but sharing (design §3)."""


def _any(*abilities: Ability) -> frozenset[Ability]:
    return frozenset(abilities)


POLICY: Mapping[str, Rule] = {
    "images.show": _any(Ability.IMAGE_LIST, Ability.SEE),
    "albums.upload_image": _any(Ability.IMAGE_UPLOAD),
    "albums.list_images": _any(Ability.IMAGE_LIST),
    "files.rendition": Access.SIGNED,
    "files.blank": Access.PUBLIC,
    "ops.healthz": Access.PUBLIC,
}
"""Endpoint to its rule: any one of the abilities in the album, or an `Access`."""

ACCESS_HEADERS: Mapping[str, Mapping[str, Ability]] = {
    "images.show": {
        "X-access-crop": Ability.IMAGE_CROP,
        "X-access-rotate": Ability.IMAGE_ROTATE,
    },
}
"""Endpoint to the headers that tell a client what it may do next, in contract order."""


def abilities(
    token: Token, issuer: str, public_id: str, owner: str | None
) -> frozenset[Ability] | None:
    """What `token` may do in the album `(issuer, public_id)` of `owner`.

    Returns: the abilities, or None when the token does not reach the album at all.
    """
    if token.issuer != issuer:
        return None
    if public_id in token.entries:
        return _granted(token.entries[public_id])
    if owner is not None and token.user_id == owner:
        return OWNER_ABILITIES
    return None


def _granted(entry: object) -> frozenset[Ability]:
    flags = entry.get("Access") if isinstance(entry, dict) else None
    if not isinstance(flags, dict):
        return frozenset()
    return frozenset(ability for ability in Ability if flags.get(ability) is True)
