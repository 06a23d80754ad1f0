"""Tags, and the images that carry them: one function a verb."""

from __future__ import annotations

import uuid

from flask import Blueprint, Response, g, request

from imageapi.auth import guard
from imageapi.blueprints import bodies, paging, reports, responses, schemas
from imageapi.catalog import tags

blueprint = Blueprint("tags", __name__)


@blueprint.get("/albums/<album_id>/tags")
def index(album_id: str) -> Response:
    """List an album's tags; one that the token names and the album lacks is made first."""
    album = guard.album_of_list(album_id)
    if album is None:
        return responses.json("[]")
    entry = g.token.entries.get(album.public_id)
    named = entry.get("Tags") if isinstance(entry, dict) else None
    rows, made = tags.ensure(album.id, named if isinstance(named, dict) else {})
    if made:
        reports.about(tags=made)
    return responses.json(f"[{','.join(map(schemas.tag, rows))}]")


@blueprint.get("/tag_images")
def list_images() -> Response:
    """List an album's tagged images: of one tag, of one image, or all."""
    filters, limit, place = paging.asked(paging.TagImagesPage)
    album = guard.album_of_list(filters["album_id"])
    if album is None:
        return responses.json("[]")
    rows, after = tags.page(album.id, filters["tag_name"], filters["image_id"], limit, place)
    body = ",".join(map(schemas.tag_image, rows))
    return responses.json(f"[{body}]", headers=paging.link(limit, after))


@blueprint.post("/tags/<uuid:tag_id>/tag_images")
def put_on(tag_id: uuid.UUID) -> Response:
    """Put a tag on images of its album; all of them, or none."""
    tag = guard.tag(tag_id)
    image_ids = schemas.image_ids(bodies.fields(request))
    rows = tags.put_on(tag, image_ids, g.token.user_id, guard.confirming(tag.album_id))
    reports.about(images=image_ids)
    return responses.json(f"[{','.join(map(schemas.tag_image, rows))}]")


@blueprint.delete("/tag_images/<uuid:tag_image_id>")
def take_off(tag_image_id: uuid.UUID) -> Response:
    """Take a tag off an image."""
    row = guard.tag_image(tag_image_id)
    bodies.ignore(request)
    tags.take_off(row.id, guard.confirming(row.album_id))
    return responses.empty()
