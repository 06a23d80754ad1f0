"""The guard: every request passes `authenticate`, every row comes through one of the functions here.

They answer a row with its album, only for those who may; a thing out of reach and a thing that is
not there raise the same error. An answer 2xx on a route with abilities that asked no guard turns 500.

Source: design §3.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, current_app, g, request
from sqlalchemy import orm

from imageapi import models
from imageapi.auth import policy, tokens
from imageapi.auth.policy import Access
from imageapi.errors import AccessDenied, NotFound, Unauthorized
from imageapi.extensions import read

API = "/api/"

_IMAGE = models.IMAGES.where(models.Image.id == sa.bindparam("image_id"))
_ALBUM = models.ALBUMS.where(
    models.Album.issuer == sa.bindparam("issuer"),
    models.Album.public_id == sa.bindparam("public_id"),
)


def init_app(app: Flask, keyring: tokens.Keyring) -> None:
    """Put the guard before every route of `app`.

    Raises:
        RuntimeError: a route has no entry in the policy table, or an entry no route.
    """
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    if unlisted := endpoints ^ policy.POLICY.keys():
        raise RuntimeError(f"routes and policy table differ: {', '.join(sorted(unlisted))}")
    app.extensions["keyring"] = keyring
    app.before_request(authenticate)
    app.after_request(_demand_decision)


def authenticate() -> None:
    """Verify the request's token, unless its route needs none; before 404 and 405.

    Raises:
        Unauthorized: no token, or none that counts.
    """
    endpoint = request.endpoint
    rule = policy.POLICY[endpoint] if endpoint else None
    if isinstance(rule, Access) or (rule is None and not request.path.startswith(API)):
        return
    try:
        text = tokens.credential(request.environ.get("HTTP_AUTHORIZATION"))
        g.token = _keyring().verify(text, time.time())
    except tokens.TokenFault as fault:
        raise Unauthorized from fault


def renewed() -> str:
    """The X-token of this request."""
    return _keyring().renew(g.token, time.time())


def image(image_id: uuid.UUID) -> sa.Row[Any]:
    """The image with its album, a row of `models.IMAGES`.

    Raises:
        NotFound: it is not there, or the token does not reach its album.
        AccessDenied: the token reaches the album, but lacks the route's abilities.
    """
    rows = read(_IMAGE, image_id=str(image_id))
    if not rows or not _permitted(rows[0].issuer, rows[0].album, rows[0].owner):
        raise NotFound
    return rows[0]


def album(public_id: str) -> sa.Row[Any]:
    """The album of the token's issuer, a row of `models.ALBUMS`. Raises as `image`."""
    row = album_of_list(public_id)
    if row is None:
        raise NotFound
    return row


def album_of_list(public_id: str) -> sa.Row[Any] | None:
    """As `album`, for lists: None, not an error, where the album is out of reach.

    Raises:
        AccessDenied: as `image`.
    """
    g.decided = True
    if "\0" in public_id:
        return None
    rows = read(_ALBUM, issuer=g.token.issuer, public_id=public_id)
    if rows and _permitted(rows[0].issuer, public_id, rows[0].owner):
        return rows[0]
    return None


def confirm(album_id: int, session: orm.Session) -> None:
    """Decide about an album again, inside the transaction that is about to write to it.

    Raises:
        NotFound, AccessDenied: as `album`; it may have gone or changed hands meanwhile.
    """
    row = session.execute(models.ALBUMS.where(models.Album.id == album_id)).one_or_none()
    if row is None or not _permitted(row.issuer, row.public_id, row.owner):
        raise NotFound


def _permitted(issuer: str, public_id: str, owner: str | None) -> bool:
    granted = policy.abilities(g.token, issuer, public_id, owner)
    if granted is None:
        return False
    rule = policy.POLICY[request.endpoint or ""]
    if isinstance(rule, Access) or rule.isdisjoint(granted):
        raise AccessDenied
    g.abilities = granted
    g.decided = True
    return True


def _demand_decision(response: Response) -> Response:
    rule = policy.POLICY.get(request.endpoint or "")
    if response.status_code < 300 and isinstance(rule, frozenset) and "decided" not in g:
        raise RuntimeError(f"{request.endpoint} answered without a decision of the guard")
    return response


def _keyring() -> tokens.Keyring:
    keyring: tokens.Keyring = current_app.extensions["keyring"]
    return keyring
