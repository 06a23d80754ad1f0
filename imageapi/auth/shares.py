"""Shares: tokens that pass some of one's abilities in one album on, for a time.

A share token names its share, and every request is held against the share's row: what it allows,
when it ends, whether it was revoked. So the rows are all the live tokens there are.

Source: design §3 and §4.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.auth.policy import Ability
from imageapi.auth.tokens import Keyring
from imageapi.extensions import Row, read
from imageapi.models import Share

_LIVE = (
    sa.select(Share.__table__)
    .where(
        Share.album_id == sa.bindparam("album_id"),
        Share.revoked_ms.is_(None),
        Share.expires_at > sa.bindparam("now"),
    )
    .order_by(Share.created_ms.desc(), Share.id)
)


def add(
    session: orm.Session,
    album: Row,
    abilities: Sequence[Ability],
    expires_in: int,
    label: str | None,
    maker: str | None,
) -> Share:
    """Make a share of an album (a row of `models.ALBUMS`) that ends in `expires_in` seconds."""
    share = Share(
        id=str(uuid.uuid4()),
        album_id=album.id,
        created_ms=time.time_ns() // 1_000_000,
        expires_at=int(time.time()) + expires_in,
        abilities=json.dumps([str(ability) for ability in Ability if ability in abilities]),
        label=label,
        maker=maker,
    )
    session.add(share)
    return share


def token(share: Share, album: Row, keyring: Keyring, *, hide_location: bool) -> str:
    """The token of a share, signed with the newest key of the album's issuer; it ends with it."""
    access = dict.fromkeys(json.loads(share.abilities), True)
    hidden = {"hide_location": True} if hide_location else {}
    issuer = {"iss": album.issuer} if album.issuer else {}
    claims = {
        "exp": share.expires_at,
        "iat": share.created_ms // 1000,
        **issuer,
        "share": share.id,
        "abilities": {album.public_id: {"Access": access, **hidden}},
    }
    return keyring.issue(claims, album.issuer)


def live(album_id: int) -> Sequence[Row]:
    """The shares of an album that still open it, newest first: rows of `share`."""
    return read(_LIVE, album_id=album_id, now=int(time.time()))


def revoke(session: orm.Session, share_id: str) -> bool:
    """End a share now; False when there is none, or it has been ended."""
    ended = (
        sa.update(Share)
        .where(Share.id == share_id, Share.revoked_ms.is_(None))
        .values(revoked_ms=time.time_ns() // 1_000_000)
    )
    return session.connection().execute(ended).rowcount > 0
