"""Why a token counts or does not, and what it opens: the guard's own answers, in words.

Verification, revocation and the decision are those that requests meet; only what they would say of
all albums and routes is put together here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from flask import current_app
from werkzeug.routing import Rule

from imageapi.auth import guard, policy, revocation, tokens
from imageapi.auth.policy import Ability, Access, AlbumFacts, ShareFacts
from imageapi.auth.revocation import Snapshot
from imageapi.auth.tokens import Token, TokenFault
from imageapi.catalog import albums
from imageapi.errors import NotFound
from imageapi.extensions import Row

OWNERS_ALONE = frozenset({"albums.delete"})
"""Routes that ask for the album's owner beside the policy table (`guard.demand_owner`)."""


class Reach(NamedTuple):
    """What a token may do in one album.

    Attributes:
        public_id: the album's.
        by: what reaches it: `entry`, `owner` or `share`.
        abilities: what is granted there.
        refused: why a request is refused all the same, or None.
        owned: whether the token's user owns it.
    """

    public_id: str
    by: str
    abilities: frozenset[Ability]
    refused: str | None
    owned: bool


class Opened(NamedTuple):
    """A route that a token opens: in these albums, or None where it is about no album."""

    methods: list[str]
    route: str
    albums: list[str] | None


class Explanation(NamedTuple):
    """A token that counts: until when (seconds since 1970), and what it opens."""

    token: Token
    ends: int
    albums: list[Reach]
    routes: list[Opened]


def explain(text: str) -> Explanation:
    """What is to be said of a token, or of an Authorization header, with or without its name.

    Raises:
        TokenFault: it is refused, and why.
    """
    value = re.sub(r"(?i)^authorization:\s*", "", text)
    header = value if re.search(r"\s", value) or not value else f"Token {value}"
    snapshot = guard.authority().latest()
    token = snapshot.keyring.verify(tokens.credential(header), time.time())
    snapshot.check(token)
    share = _live_share(token)
    ends = min(token.expires, token.key_ends, share.expires_at if share else token.expires)
    reached = list(_shared(token, share, snapshot) if share else _reached(token, snapshot))
    return Explanation(token, int(ends), reached, list(_routes(token, reached)))


def path(rule: Rule) -> str:
    """A rule of the URL map as documentation writes it: `/albums/:album_id`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r":\1", rule.rule)


def _live_share(token: Token) -> Row | None:
    if token.share is None:
        return None
    share = revocation.share(token.share)
    if share is None:
        raise TokenFault("there is no such share any more")
    if share.revoked_ms is not None:
        raise TokenFault("its share was ended")
    if share.expires_at <= time.time():
        raise TokenFault("its share has expired")
    return share


def _shared(token: Token, share: Row, snapshot: Snapshot) -> Iterator[Reach]:
    try:
        album = albums.get(share.album_id)
    except NotFound:
        return
    facts = ShareFacts(share.album_id, frozenset(json.loads(share.abilities)))
    granted = policy.abilities(token, _facts(album), facts)
    if granted is not None:
        yield _reach(token, album, "share", granted, snapshot)


def _reached(token: Token, snapshot: Snapshot) -> Iterator[Reach]:
    missing = dict.fromkeys(token.entries)
    for album in albums.reached(token.issuer, token.user_id, token.entries):
        missing.pop(album.public_id, None)
        by = "entry" if album.public_id in token.entries else "owner"
        granted = policy.abilities(token, _facts(album))
        if granted is not None:
            yield _reach(token, album, by, granted, snapshot)
    for public_id in missing:
        granted = policy.granted(token.entries[public_id])
        yield Reach(public_id, "entry", granted, "there is no such album", owned=False)


def _reach(
    token: Token, album: Row, by: str, granted: frozenset[Ability], snapshot: Snapshot
) -> Reach:
    try:
        snapshot.check_album(token, album.id)
        refused = None
    except tokens.Revoked as fault:
        refused = str(fault)
    owned = album.owner is not None and album.owner == token.user_id
    return Reach(album.public_id, by, granted, refused, owned)


def _facts(album: Row) -> AlbumFacts:
    return AlbumFacts(album.id, album.issuer, album.public_id, album.owner)


def _routes(token: Token, reached: list[Reach]) -> Iterator[Opened]:
    rules = current_app.url_map.iter_rules()
    for rule in sorted(rules, key=lambda rule: (rule.rule, sorted(rule.methods or ()))):
        wanted = policy.POLICY[rule.endpoint]
        if wanted in (Access.PUBLIC, Access.SIGNED):
            continue
        methods = sorted((rule.methods or set()) - {"OPTIONS"})
        if wanted is Access.USER:
            if token.user_id is not None:
                yield Opened(methods, path(rule), None)
        elif opened := [reach.public_id for reach in reached if _opens(reach, rule.endpoint)]:
            yield Opened(methods, path(rule), opened)


def _opens(reach: Reach, endpoint: str) -> bool:
    wanted = policy.POLICY[endpoint]
    if reach.refused or (endpoint in OWNERS_ALONE and not reach.owned):
        return False
    return isinstance(wanted, Access) or not wanted.isdisjoint(reach.abilities)
