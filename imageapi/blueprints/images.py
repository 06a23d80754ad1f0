"""Images: one function a verb."""

from __future__ import annotations

import uuid

from flask import Blueprint, Response, request, url_for

from imageapi import models
from imageapi.auth import guard
from imageapi.auth.policy import Ability
from imageapi.blueprints import (
    bodies,
    idempotency,
    originals,
    paging,
    reports,
    responses,
    schemas,
)
from imageapi.catalog import edits, images
from imageapi.errors import Conflict, PreconditionFailed
from imageapi.extensions import Row

blueprint = Blueprint("images", __name__)

TRIES = 3
"""How often an edit without `If-Match` is decided anew before it is a conflict."""


@blueprint.get("/images/<uuid:image_id>")
def show(image_id: uuid.UUID) -> Response:
    """Retrieve an image."""
    return _answer(
        guard.image(image_id), paging.included() if request.query_string else frozenset()
    )


@blueprint.put("/images/<uuid:image_id>")
def update(image_id: uuid.UUID) -> Response:
    """Rotate or crop an image: each changed field needs its ability, `If-Match` the revision."""
    values = None
    for _try in range(TRIES):
        row = guard.image(image_id)
        if values is None:
            values = schemas.edit(bodies.fields(request))
        _demand(row, values)
        _check_revision(row)
        if edits.edit(row, values, guard.confirming(row.album_id)):
            return _answer(images.get(row.id))
    raise Conflict("The image is being edited by others; nothing was changed.")


@blueprint.delete("/images/<uuid:image_id>")
def delete(image_id: uuid.UUID) -> Response:
    """Delete an image, and its bytes after it; `If-Match` names the revision."""
    row = guard.image(image_id)
    bodies.ignore(request)
    _check_revision(row)
    # With "*", or without the header, any will do; with tags, it is the one just found among them.
    named = row.revision if request.if_match.as_set() else None
    edits.delete(row, guard.confirming(row.album_id), named)
    return responses.empty()


@blueprint.post("/images/<uuid:image_id>/duplicate")
def duplicate(image_id: uuid.UUID) -> Response:
    """Make another image of the same bytes, with edits of its own."""
    row = guard.image(image_id)
    schemas.nothing(bodies.fields(request))
    with idempotency.key() as key:
        made = key.replayed({}) or edits.duplicate(row, key.confirming(row.album_id, 201))
    reports.about(made=made)
    return created(made)


@blueprint.get("/images/<uuid:image_id>/original")
def original(image_id: uuid.UUID) -> Response:
    """Download the bytes as they were uploaded, or one range of them."""
    row = guard.image(image_id, models.ORIGINALS)
    guard.demand_location(row.album)
    return originals.answer(row)


def created(image_id: str) -> Response:
    """Answer an image that was made: 201, with its place."""
    row = images.get(image_id)
    place = url_for("images.show", image_id=row.id)
    return responses.json(schemas.image(row), 201, [("Location", place), *_revision(row)])


def _answer(row: Row, include: schemas.Include = frozenset()) -> Response:
    return responses.json(schemas.image(row, include), headers=_revision(row))


def _revision(row: Row) -> list[tuple[str, str]]:
    return [("ETag", f'"{row.revision}"')]


def _demand(row: Row, values: dict[str, float]) -> None:
    for name, value in values.items():
        if value != getattr(row, name):
            guard.demand(Ability.IMAGE_ROTATE if name == "rotation" else Ability.IMAGE_CROP)


def _check_revision(row: Row) -> None:
    if not responses.matches(str(row.revision)):
        raise PreconditionFailed
