"""Shares: one function a verb."""

from __future__ import annotations

import json
import uuid
from typing import Any

from flask import Blueprint, Response, g, request

from imageapi.auth import guard, shares
from imageapi.blueprints import bodies, reports, responses, schemas
from imageapi.extensions import transaction

blueprint = Blueprint("shares", __name__)


@blueprint.post("/albums/<album_id>/shares")
def create(album_id: str) -> Response:
    """Share an album: some of one's own abilities, for a time."""
    album = guard.album(album_id)
    asked = schemas.share(bodies.fields(request), g.abilities)
    with transaction() as session:
        guard.confirm(album.id, session)
        made = shares.add(session, album, maker=g.token.user_id, **asked)
    reports.about(made=made.id)
    hidden = guard.hides_location(album.public_id)
    token = shares.token(made, album, g.snapshot.keyring, hide_location=hidden)
    return responses.json(schemas.dump({**_shown(made), "token": token}), 201)


@blueprint.get("/albums/<album_id>/shares")
def index(album_id: str) -> Response:
    """List the shares of an album that are live, newest first, without their tokens."""
    album = guard.album_of_list(album_id)
    rows = shares.live(album.id) if album else []
    return responses.json(schemas.dump([_shown(row) for row in rows]))


@blueprint.delete("/shares/<uuid:share_id>")
def delete(share_id: uuid.UUID) -> Response:
    """End a share now."""
    share = guard.share(share_id)
    bodies.ignore(request)
    with transaction() as session:
        guard.confirm(share.album_id, session)
        shares.revoke(session, share.id)
    return responses.empty()


def _shown(share: Any) -> dict[str, Any]:
    return {
        "id": share.id,
        "created_at": schemas.moment(share.created_ms),
        "expires_at": schemas.moment(share.expires_at * 1000),
        "abilities": json.loads(share.abilities),
        "label": share.label,
    }
