"""Albums and the images in them: one function a verb."""

from __future__ import annotations

import uuid

from flask import Blueprint, Response, g, request

from imageapi import catalog
from imageapi.auth import guard
from imageapi.auth.policy import Ability, granted
from imageapi.blueprints import bodies, idempotency, paging, reports, responses, schemas, uploads
from imageapi.blueprints.images import created
from imageapi.catalog import albums, direct, images, listing, views
from imageapi.errors import Conflict, NotFound
from imageapi.extensions import Row

blueprint = Blueprint("albums", __name__)

_HAND_INS = ("application/json", "application/x-www-form-urlencoded")
"""Bodies that hand a direct upload in; a file comes as multipart/form-data."""


@blueprint.post("/albums")
def create() -> Response:
    """Make an album of the token's user."""
    owner = guard.user()
    public_id = schemas.album_id(bodies.fields(request))
    with idempotency.key() as key:
        made = key.replayed({"public_id": public_id})
        if made is None:
            made = str(uuid.uuid4()) if public_id is None else public_id
            albums.create(made, owner, g.token.issuer, confirm=key.confirming_user(200))
    return _answer(guard.album_made(made))


@blueprint.get("/albums")
def index() -> Response:
    """List the albums that the token's user owns, and those that it has `see` for, newest first."""
    owner = guard.user()
    _none, limit, place = paging.asked()
    entries = g.token.entries
    seen = [name for name, entry in entries.items() if Ability.SEE in granted(entry)]
    rows, after = albums.opened_by(g.token.issuer, owner, entries, seen, limit, place)
    rows = guard.reached(rows)
    shown = listing.newest([row.id for row in rows])
    body = ",".join(schemas.album_item(row, shown[row.id]) for row in rows)
    return responses.json(f"[{body}]", headers=paging.link(limit, after))


@blueprint.get("/albums/<album_id>")
def show(album_id: str) -> Response:
    """Retrieve an album, with its four newest images."""
    return _answer(guard.album(album_id))


@blueprint.put("/albums/<album_id>")
def update(album_id: str) -> Response:
    """Rename an album: its old id is unknown at once."""
    album = guard.album(album_id)
    public_id = schemas.album_id(bodies.fields(request))
    if public_id is not None:
        albums.rename(album, public_id, guard.confirming_rename(album.id))
        guard.renamed(album.public_id, public_id)
        reports.about(renamed=public_id)
    return _answer(albums.get(album.id))


@blueprint.delete("/albums/<album_id>")
def delete(album_id: str) -> Response:
    """Delete an album: gone at once, its images and their bytes soon after."""
    album = guard.album(album_id)
    guard.demand_owner(album)
    schemas.nothing(bodies.fields(request))
    albums.delete(album, guard.confirming_owner(album.id))
    return responses.empty()


@blueprint.get("/albums/<album_id>/images")
def list_images(album_id: str) -> Response:
    """List the images of an album, newest first; none when the token does not reach it."""
    return _images(album_id, untagged=False)


@blueprint.get("/albums/<album_id>/images/untag")
def list_untagged(album_id: str) -> Response:
    """List the images of an album that carry no tag, newest first."""
    return _images(album_id, untagged=True)


@blueprint.post("/albums/<album_id>/images")
def upload_image(album_id: str) -> Response:
    """Take in an image: 201, or 200 with `X-duplicate` when the album has these bytes already."""
    album = guard.album(album_id)
    if request.mimetype in _HAND_INS:
        return _hand_in(album)
    shelf = catalog.library()
    limit = shelf.settings.max_upload_bytes
    with idempotency.key() as key, shelf.storages[album.storage].stage(limit) as staging:
        form = uploads.receive(request, staging.write, limit)
        upload = images.Upload(
            uploader=g.token.user_id,
            file_name=form.file_name or "",
            location=schemas.location(form.fields),
            address=request.remote_addr,
        )
        staged = staging.finish()
        made = key.replayed(form.fields, staged.sha256)
        if made is not None:
            return _uploaded(made, new=key.status == 201)
        made, new = images.add(album, staged, upload, key.confirming(album.id, 201))
        if not new:
            key.record(made, 200)
    return _uploaded(made, new=new)


@blueprint.get("/albums/<album_id>/stats")
def stats(album_id: str) -> Response:
    """Count an album's images, bytes, formats, and its views of the last 30 days."""
    album = guard.album(album_id)
    body = {
        "images": album.images_count,
        "bytes": album.bytes,
        "formats": albums.formats(album.id),
        "views": [{"day": day, "count": count} for day, count in views.by_day(album.id)],
    }
    return responses.json(schemas.dump(body))


def _hand_in(album: Row) -> Response:
    values = bodies.fields(request)
    position = {name: values[name] for name in schemas.Location().fields if name in values}
    answer = {name: str(value) for name, value in values.items() if isinstance(value, str | int)}
    upload = images.Upload(
        uploader=g.token.user_id,
        file_name=answer.get("original_filename", ""),
        location=schemas.location(position),
        address=request.remote_addr,
    )
    with idempotency.key() as key:
        made = key.replayed(values)
        if made is not None:
            return _uploaded(made, new=key.status == 201)
        made, new = direct.hand_in(album, answer, upload, key.confirming(album.id, 201))
        if not new:
            key.record(made, 200)
    return _uploaded(made, new=new)


def _answer(album: Row) -> Response:
    form = direct.form(album) if Ability.IMAGE_UPLOAD in g.abilities else None
    newest = listing.newest([album.id])[album.id]
    return responses.json(schemas.album(album, form, newest))


def _images(album_id: str, *, untagged: bool) -> Response:
    album = guard.album_of_list(album_id)
    filters, limit, place = paging.asked(paging.ImagesPage)
    include = filters.pop("include")
    if album is None:
        return responses.json("[]")
    if "bbox" in filters:
        guard.demand_location(album.public_id)
    wanted = listing.Filters(**filters, untagged=untagged)
    rows, after = listing.page(album, limit, place, wanted)
    if album.owner is None or g.token.user_id != album.owner:
        catalog.library().views.count(album.id)
    body = schemas.images(rows, include)
    return responses.json(f"[{body}]", headers=paging.link(limit, after))


def _uploaded(image_id: str, *, new: bool) -> Response:
    reports.about(image=image_id)
    try:
        if new:
            return created(image_id)
        body = schemas.image(images.get(image_id))
    except NotFound as error:  # which would be said of the album
        raise Conflict("The image was deleted meanwhile.") from error
    return responses.json(body, headers=[("X-duplicate", "true")])
