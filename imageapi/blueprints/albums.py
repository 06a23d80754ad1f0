"""Albums and the images in them: one function a verb."""

from __future__ import annotations

import functools

from flask import Blueprint, Response, g, request, url_for

from imageapi import catalog
from imageapi.auth import guard
from imageapi.blueprints import responses, schemas, uploads
from imageapi.catalog import images

blueprint = Blueprint("albums", __name__)

PAGE = 100


@blueprint.get("/albums/<album_id>/images")
def list_images(album_id: str) -> Response:
    """List the images of an album, newest first; none when the token does not reach it."""
    album = guard.album_of_list(album_id)
    rows = images.newest(album.id, PAGE) if album else []
    return responses.json(f"[{','.join(map(schemas.image, rows))}]")


@blueprint.post("/albums/<album_id>/images")
def upload_image(album_id: str) -> Response:
    """Take in an image: 201, or 200 with `X-duplicate` when the album has these bytes already."""
    album = guard.album(album_id)
    shelf = catalog.library()
    limit = shelf.settings.max_upload_bytes
    with shelf.storages[album.storage].stage(limit) as staging:
        form = uploads.receive(request, staging.write, limit)
        upload = images.Upload(
            uploader=g.token.user_id,
            file_name=form.file_name or "",
            location=schemas.location(form.fields),
            address=request.remote_addr,
        )
        confirm = functools.partial(guard.confirm, album.id)
        image_id, new = images.add(album, staging.finish(), upload, confirm)
    body = schemas.image(images.get(image_id))
    if not new:
        return responses.json(body, headers=[("X-duplicate", "true")])
    place = url_for("images.show", image_id=image_id)
    return responses.json(body, 201, headers=[("Location", place)])
