"""Images: one function a verb."""

from __future__ import annotations

import uuid

from flask import Blueprint, Response

from imageapi.auth import guard
from imageapi.blueprints import responses, schemas

blueprint = Blueprint("images", __name__)


@blueprint.get("/images/<uuid:image_id>")
def show(image_id: uuid.UUID) -> Response:
    """Retrieve an image."""
    row = guard.image(image_id)
    return responses.json(schemas.image(row), headers=[("ETag", f'"{row.revision}"')])
