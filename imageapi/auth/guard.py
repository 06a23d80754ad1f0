"""The guard: every request passes `authenticate`, every row comes through one of the functions here.

They answer a row with its album, only for those who may; a thing out of reach and a thing that is
not there raise the same error. An answer 2xx on a route with abilities that asked no guard turns 500.

Source: design §3.
"""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from flask import Flask, Response, current_app, g, request
from sqlalchemy import orm

from imageapi import models
from imageapi.auth import policy, tokens
from imageapi.auth.policy import Ability, Access, AlbumFacts, ShareFacts
from imageapi.auth.revocation import Authority, Snapshot
from imageapi.errors import AccessDenied, NotFound, Unauthorized
from imageapi.extensions import Prepared, Row, read
from imageapi.models import Album, Image, Share, Tag, TagImage

API = "/api/"
_OPEN = (Access.PUBLIC, Access.SIGNED)

_SHARE: list[Any] = [
    Share.id.label("share_id"),
    Share.album_id.label("share_album_id"),
    Share.abilities.label("share_abilities"),
    Share.expires_at.label("share_expires_at"),
    Share.revoked_ms.label("share_revoked_ms"),
]
_OF_TOKEN = Share.id == sa.bindparam("share")
_THE_SHARE = sa.select(*_SHARE).where(_OF_TOKEN)


class _Guarded(NamedTuple):
    """One SELECT in two forms: with the row of the token's share beside it, or without."""

    plain: Prepared
    shared: Prepared

    def choose(self, share: str | None) -> Prepared:
        return self.plain if share is None else self.shared

    def rows(self, **key: Any) -> Sequence[Row]:
        share = g.token.share
        return read(self.choose(share), share=share, **key)


def _guarded(select: sa.Select[Any]) -> _Guarded:
    shared = select.add_columns(*_SHARE).outerjoin(Share, _OF_TOKEN)
    return _Guarded(Prepared(select), Prepared(shared))


@functools.cache
def _image(among: sa.Select[Any]) -> _Guarded:
    return _guarded(among.where(Image.id == sa.bindparam("image_id")))


_ALBUM = _guarded(
    models.ALBUMS.where(
        Album.issuer == sa.bindparam("issuer"), Album.public_id == sa.bindparam("public_id")
    )
)
_ALBUM_ROW = _guarded(models.ALBUMS.where(Album.id == sa.bindparam("album_id")))

_OF_ITS_ALBUM = (Album.issuer, Album.public_id, Album.owner, models.GENERATION)
_TAG = _guarded(
    sa.select(*Tag.__table__.columns, *_OF_ITS_ALBUM)
    .join(Album, Album.id == Tag.album_id)
    .where(Tag.id == sa.bindparam("tag_id"), Album.deleted_ms.is_(None))
)
_TAG_IMAGE = _guarded(
    sa.select(TagImage.id, Tag.album_id, *_OF_ITS_ALBUM)
    .join(Tag, Tag.id == TagImage.tag_id)
    .join(Album, Album.id == Tag.album_id)
    .where(TagImage.id == sa.bindparam("tag_image_id"), Album.deleted_ms.is_(None))
)
_ASKED = orm.aliased(Share)
_SHARED = _guarded(
    sa.select(_ASKED.id, _ASKED.album_id, *_OF_ITS_ALBUM)
    .join(Album, Album.id == _ASKED.album_id)
    .where(
        _ASKED.id == sa.bindparam("share_id"),
        _ASKED.revoked_ms.is_(None),
        _ASKED.expires_at > sa.bindparam("now"),
        Album.deleted_ms.is_(None),
    )
)


def init_app(app: Flask, authority: Authority) -> None:
    """Put the guard before every route of `app`.

    Raises:
        RuntimeError: a route has no entry in the policy table, or an entry no route.
    """
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    if unlisted := endpoints ^ policy.POLICY.keys():
        raise RuntimeError(f"routes and policy table differ: {', '.join(sorted(unlisted))}")
    app.extensions["authority"] = authority
    app.before_request(authenticate)
    app.after_request(_demand_decision)


def authority() -> Authority:
    """The authority of the current application."""
    found: Authority = current_app.extensions["authority"]
    return found


def held() -> Any:
    """What `g` stands for in this request: each use of the proxy itself looks it up anew."""
    return g._get_current_object()  # noqa: SLF001 - werkzeug's documented way


def authenticate() -> None:
    """Verify the request's token, unless its route needs none; before 404 and 405.

    Raises:
        Unauthorized: no token, or none that counts.
    """
    environ, endpoint = request.environ, request.endpoint
    if environ["REQUEST_METHOD"] == "OPTIONS":
        g.decided = True  # it says what the route takes, nothing of what is behind it
        return
    rule = policy.POLICY[endpoint] if endpoint else None
    if rule in _OPEN or (rule is None and not request.path.startswith(API)):
        return
    try:
        text = tokens.credential(environ.get("HTTP_AUTHORIZATION"))
        try:
            _stand(text, authority().snapshot)
        except (tokens.UnknownKey, tokens.Revoked):
            _stand(text, authority().latest())
    except tokens.TokenFault as fault:
        raise Unauthorized from fault
    if rule is None:
        _stand_again(authority().latest())


def renewed() -> str:
    """The X-token of this request."""
    state = held()
    snapshot: Snapshot = state.snapshot
    return snapshot.keyring.renew(state.token, time.time(), state.get("share_ends"))


def image(image_id: uuid.UUID, among: sa.Select[Any] = models.IMAGES) -> Row:
    """The image with its album, a row of `models.IMAGES` or of another select `among` images.

    Raises:
        NotFound: it is not there, or the token does not reach its album.
        AccessDenied: the token reaches the album, but lacks the route's abilities.
    """
    rows = _image(among).rows(image_id=str(image_id))
    if not _present(rows):
        raise NotFound
    row = rows[0]
    if not _permitted(row, AlbumFacts(row.album_id, row.issuer, row.album, row.owner)):
        raise NotFound
    return row


def album(public_id: str) -> Row:
    """The album of the token's issuer, a row of `models.ALBUMS`. Raises as `image`."""
    row = album_of_list(public_id)
    if row is None:
        raise NotFound
    return row


def album_of_list(public_id: str) -> Row | None:
    """As `album`, for lists: None, not an error, where the album is out of reach.

    Raises:
        AccessDenied: as `image`.
    """
    g.decided = True
    named = "\0" not in public_id  # which PostgreSQL takes for no text
    rows = _ALBUM.rows(issuer=g.token.issuer, public_id=public_id) if named else []
    return rows[0] if _present(rows) and _permitted(rows[0], _facts(rows[0])) else None


def share(share_id: uuid.UUID) -> Row:
    """The live share with its album: `id`, `album_id`, and what was decided by. Raises as `image`."""
    return _inside(_SHARED, {"share_id": str(share_id), "now": int(time.time())})


def tag(tag_id: uuid.UUID) -> Row:
    """The tag, with what its album was decided by. Raises as `image`."""
    return _inside(_TAG, {"tag_id": str(tag_id)})


def tag_image(tag_image_id: uuid.UUID) -> Row:
    """The tag image: `id` and `album_id`, and what its album was decided by. Raises as `image`."""
    return _inside(_TAG_IMAGE, {"tag_image_id": str(tag_image_id)})


def _inside(guarded: _Guarded, key: Mapping[str, str | int]) -> Row:
    rows = guarded.rows(**key)
    if not _present(rows):
        raise NotFound
    row = rows[0]
    if not _permitted(row, AlbumFacts(row.album_id, row.issuer, row.public_id, row.owner)):
        raise NotFound
    return row


def user() -> str:
    """The user that the token names.

    Raises:
        AccessDenied: it names none.
        Unauthorized: neither does it count any more.
    """
    user_id: str | None = g.token.user_id
    if user_id is None:
        _stand_again(authority().latest())  # no row is asked: a revoked token gets 401, not 403
        raise AccessDenied
    return user_id


def reached(albums: Sequence[Row]) -> list[Row]:
    """Those of the albums that the token's user lists that no revocation keeps from the token.

    Args:
        albums: rows of `models.ALBUMS` that the token opens by its entries or as their owner.
    """
    if _present(albums) and albums[0].generation != g.snapshot.generation:
        _stand_again(authority().at(albums[0].generation))
    g.decided = True
    return [row for row in albums if not g.snapshot.revoked_for_album(g.token, row.id)]


def album_made(public_id: str) -> Row:
    """The album that the token's user has made, whatever the route's rule; sets what it may do there.

    Raises:
        NotFound: it is gone, or the token does not reach it.
    """
    rows = _ALBUM.rows(issuer=g.token.issuer, public_id=public_id)
    granted = _granted(rows[0], _facts(rows[0])) if _present(rows) else None
    if granted is None:
        raise NotFound
    g.abilities = granted
    g.decided = True
    g.album = public_id
    return rows[0]


def confirm_user(session: orm.Session) -> None:
    """See that the token still counts, inside the transaction that is about to write for its user."""
    _stand_again(authority().at(session.scalars(sa.select(models.Generation.value)).one()))
    g.decided = True


def demand_owner(album: Row) -> None:
    """See that the token's user owns the album just decided about.

    Raises:
        AccessDenied: another does.
    """
    if album.owner is None or g.token.user_id != album.owner:
        raise AccessDenied


def hides_location(public_id: str) -> bool:
    """Whether the token may not see where the images of an album were taken."""
    state = held()
    old, new = state.get("renamed", (None, None))
    return policy.hides_location(state.token, old if public_id == new else public_id)


def renamed(old: str, new: str) -> None:
    """Say that the album just decided about has another id; the token's entry has the old one."""
    g.renamed = old, new


def demand_location(public_id: str) -> None:
    """See that the token may see where the images of an album were taken.

    Raises:
        AccessDenied: it may not.
    """
    if hides_location(public_id):
        raise AccessDenied


def demand(ability: Ability) -> None:
    """See that the token has this ability too, in the album just decided about.

    Raises:
        AccessDenied: it has not.
    """
    if ability not in g.abilities:
        raise AccessDenied


def confirming(album_id: int) -> Callable[[orm.Session, str], None]:
    """`confirm`, as a write of the catalog asks it."""

    def ask(session: orm.Session, _made: str) -> None:
        confirm(album_id, session)

    return ask


def confirming_owner(album_id: int) -> Callable[[orm.Session, str], None]:
    """As `confirming`, for what only the album's owner may do."""
    return lambda session, _made: demand_owner(confirm(album_id, session))


def confirming_rename(album_id: int) -> Callable[[orm.Session, str], None]:
    """As `confirming`, with the new id: AccessDenied where the token would gain by it."""

    def ask(session: orm.Session, public_id: str) -> None:
        confirm(album_id, session)
        if not policy.gains_nothing(g.token, public_id):
            raise AccessDenied

    return ask


def confirm(album_id: int, session: orm.Session) -> Row:
    """Decide about an album again, inside the transaction that is about to write to it.

    Returns: its row, of `models.ALBUMS`.
    Raises:
        NotFound, AccessDenied, Unauthorized: as `album`; it may have gone, changed hands or been
            revoked meanwhile.
    """
    share = g.token.share
    parameters = {"album_id": album_id, "share": share}
    select = _ALBUM_ROW.choose(share).statement
    row = session.connection().execute(select, parameters).one_or_none()
    if row is None or not _permitted(row, _facts(row)):
        raise NotFound
    return row


def _present(rows: Any) -> bool:
    if not rows:
        # No row told us the generation, so ask: a revoked token gets 401, not 404.
        _stand_again(authority().latest())
    return bool(rows)


def _facts(row: Any) -> AlbumFacts:
    return AlbumFacts(row.id, row.issuer, row.public_id, row.owner)


def _permitted(row: Any, album: AlbumFacts) -> bool:
    granted = _granted(row, album)
    if granted is None:
        return False
    rule = policy.POLICY[request.endpoint or ""]
    if rule is not Access.ENTRY and (isinstance(rule, Access) or rule.isdisjoint(granted)):
        raise AccessDenied
    state = held()
    state.abilities = granted
    state.decided = True
    state.album = album.public_id
    return True


def _granted(row: Any, album: AlbumFacts) -> frozenset[Ability] | None:
    state = held()
    if row.generation != state.snapshot.generation:
        _stand_again(authority().at(row.generation))
    token = state.token
    share = None if token.share is None else _live_share(row)
    granted = policy.abilities(token, album, share)
    try:
        if granted is not None:
            state.snapshot.check_album(token, album.id)
    except tokens.TokenFault as fault:
        raise Unauthorized from fault
    return granted


def _stand(text: str, snapshot: Snapshot) -> None:
    token = snapshot.keyring.verify(text, time.time())
    snapshot.check(token)
    state = held()
    state.token, state.snapshot = token, snapshot


def _stand_again(snapshot: Snapshot) -> None:
    try:
        if snapshot is not g.snapshot:
            _stand(g.token.text, snapshot)
    except tokens.TokenFault as fault:
        raise Unauthorized from fault
    if g.token.share is not None:
        rows = read(_THE_SHARE, share=g.token.share)
        if not rows:
            raise Unauthorized
        _live_share(rows[0])


def _live_share(row: Any) -> ShareFacts:
    dead = row.share_id is None or row.share_revoked_ms is not None
    if dead or row.share_expires_at <= time.time():
        raise Unauthorized
    g.share_ends = row.share_expires_at
    return ShareFacts(row.share_album_id, frozenset(json.loads(row.share_abilities)))


def _demand_decision(response: Response) -> Response:
    rule = policy.POLICY.get(request.endpoint or "")
    guarded = rule is not None and rule not in _OPEN
    if guarded and response.status_code < 300 and "decided" not in g:
        raise RuntimeError(f"{request.endpoint} answered without a decision of the guard")
    return response
