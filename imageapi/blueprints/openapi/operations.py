"""What each route takes, answers and refuses, for the OpenAPI document: one row a route.

What the code knows already is not repeated here: paths and methods are those of the URL map, the
summary is the view's docstring, who may is the policy table, fields are those of the schemas that
check them, codes and statuses those of `errors`. To add a route: one row in `OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import marshmallow

from imageapi.auth.policy import POLICY, Access
from imageapi.blueprints import originals, paging, schemas
from imageapi.blueprints.openapi import answers
from imageapi.errors import (
    AccessDenied,
    AlbumFull,
    BadRequest,
    Busy,
    Conflict,
    DatabaseUnavailable,
    DigestMismatch,
    IdempotencyMismatch,
    ImageAPIError,
    IncompleteBody,
    InvalidFields,
    LengthRequired,
    NotFound,
    PayloadTooLarge,
    PreconditionFailed,
    RangeNotSatisfiable,
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
    TooManyRequests,
    Unauthorized,
    UndecodablePicture,
    UnsupportedFormat,
)

Errors = tuple[type[ImageAPIError], ...]


@dataclass(frozen=True)
class Said:
    """One way in which a request succeeds.

    Attributes:
        text: what it means.
        schema: of the JSON body, or None.
        many: whether the body is an array of it.
        kinds: media types of a body that is no JSON of ours.
        headers: names in `words.ANSWER_HEADERS`; those that every answer has are not repeated here.
    """

    text: str
    schema: type[answers.Answer] | None = None
    many: bool = False
    kinds: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    Attributes:
        answers: status to what it says.
        text: what the view's docstring leaves to be said.
        query: the schema that its query is checked by.
        body: the schema that its body, JSON or a form, is checked by; `example` shows one.
        upload: whether its body is a file, multipart, or the hand-in of one.
        headers: names in `words.REQUEST_HEADERS`.
        refuses: the errors that it has beyond those of every route like it.
        head: whether HEAD is worth a mention of its own.
    """

    answers: Mapping[int, Said]
    text: str = ""
    query: type[marshmallow.Schema] | None = None
    body: type[marshmallow.Schema] | None = None
    example: Mapping[str, Any] = field(default_factory=dict)
    upload: bool = False
    headers: tuple[str, ...] = ()
    refuses: Errors = ()
    head: bool = False


TOKEN: Errors = (Unauthorized, AccessDenied, TooManyRequests, DatabaseUnavailable, ImageAPIError)
"""The errors of every route that needs a token."""
ANY: Errors = (ImageAPIError,)
"""The errors of every other route."""
_WHOLE: Errors = (IncompleteBody, LengthRequired, PayloadTooLarge)
_BODY: Errors = (BadRequest, *_WHOLE, UnsupportedFormat, InvalidFields)
_ONCE: Errors = (InvalidFields, IdempotencyMismatch, Conflict)
_STORAGE: Errors = (StorageDenied, StorageUnavailable, StorageCorrupt, StorageError)
_IMAGE_TYPES = tuple(originals.TYPES.values())


def _image(text: str, *headers: str) -> Said:
    return Said(text, answers.Image, headers=headers)


def _many(text: str, schema: type[answers.Answer], *headers: str) -> Said:
    return Said(text, schema, many=True, headers=headers)


_GONE = {204: Said("Done; no body.")}
_PAGED = "Newest first. `Link` leads to the next page; without one, this is the last."

OPERATIONS: Mapping[str, Operation] = {
    "images.show": Operation(
        {200: _image("The image.", "ETag")},
        query=paging.ImageQuery,
        refuses=(NotFound, InvalidFields),
        head=True,
    ),
    "images.update": Operation(
        {200: _image("The image as it is now.", "ETag")},
        text=(
            "Fields that are not sent keep their values. The crop is in pixels of the upright, "
            "unrotated original and is applied before the rotation; `crop_w` and `crop_h` both 0 "
            "mean no crop. A field that changes needs its ability: `image_rotate` for `rotation`, "
            "`image_crop` for the others."
        ),
        body=schemas.ImageEdit,
        example={"rotation": 90, "crop_x": 8, "crop_y": 0, "crop_w": 24, "crop_h": 32.5},
        headers=("If-Match",),
        refuses=(NotFound, Conflict, PreconditionFailed, *_BODY),
    ),
    "images.delete": Operation(
        _GONE, headers=("If-Match",), refuses=(NotFound, PreconditionFailed, *_WHOLE)
    ),
    "images.duplicate": Operation(
        {201: _image("The new image.", "ETag", "Location")},
        headers=("Idempotency-Key",),
        refuses=(NotFound, AlbumFull, *_BODY, *_ONCE),
    ),
    "images.original": Operation(
        {
            200: Said(
                "The bytes.",
                kinds=_IMAGE_TYPES,
                headers=(
                    *("Accept-Ranges", "Content-Disposition", "Content-Security-Policy"),
                    *("OriginalETag", "Repr-Digest"),
                ),
            ),
            206: Said(
                "The one range that was asked for.",
                kinds=_IMAGE_TYPES,
                headers=(
                    *("Accept-Ranges", "Content-Disposition", "Content-Security-Policy"),
                    *("OriginalETag", "Repr-Digest", "Content-Range"),
                ),
            ),
            304: Said("`If-None-Match` names these bytes.", headers=("OriginalETag",)),
        },
        text="The file name is the one of the upload, made safe. More than one range is answered whole.",
        headers=("Range", "If-Range", "If-None-Match", "If-Match-Original"),
        refuses=(NotFound, PreconditionFailed, RangeNotSatisfiable, StorageNotFound, *_STORAGE),
        head=True,
    ),
    "albums.create": Operation(
        {200: Said("The album.", answers.Album)},
        text=(
            "Its owner is the token's user. Without an id it gets a UUID. An id has 1 to 128 "
            "characters (NFC), no control character, none of `/ \\ ? # % ,`, no space at its ends, "
            "and is not `.` or `..`."
        ),
        body=schemas.AlbumBody,
        example={"album": {"public_id": "holidays"}},
        headers=("Idempotency-Key",),
        refuses=(NotFound, StorageUnavailable, *_BODY, *_ONCE),
    ),
    "albums.index": Operation(
        {200: _many("The albums.", answers.AlbumItem, "Link")},
        text=_PAGED,
        query=paging.Page,
        refuses=(InvalidFields,),
    ),
    "albums.show": Operation({200: Said("The album.", answers.Album)}, refuses=(NotFound,)),
    "albums.update": Operation(
        {200: Said("The album under its new id.", answers.Album)},
        text=(
            "The rule for ids is that of `POST /albums`. Without one, nothing changes. Nobody gains "
            "rights by it: an id that the token has another entry for is refused (403)."
        ),
        body=schemas.AlbumBody,
        example={"album": {"public_id": "holidays 2026"}},
        refuses=(NotFound, Conflict, *_BODY),
    ),
    "albums.delete": Operation(
        _GONE,
        text="Only for the album's owner.",
        refuses=(NotFound, *_BODY),
    ),
    "albums.list_images": Operation(
        {200: _many("The images.", answers.Image, "Link")},
        text=f"{_PAGED} An album out of reach has none.",
        query=paging.ImagesPage,
        refuses=(InvalidFields,),
    ),
    "albums.list_untagged": Operation(
        {200: _many("The images.", answers.Image, "Link")},
        text=f"{_PAGED} An album out of reach has none.",
        query=paging.ImagesPage,
        refuses=(InvalidFields,),
    ),
    "albums.upload_image": Operation(
        {
            201: _image("The new image.", "ETag", "Location"),
            200: _image("The image that has these bytes already.", "X-duplicate"),
        },
        text=(
            "One part `file`, and the browser's position where it is known. JPEG, PNG, GIF, WebP, "
            "AVIF, TIFF and, where the service has it, HEIC: what counts are the bytes, not the name. "
            "A body of another type hands in what was uploaded to the storage by the album's "
            "`upload_form`."
        ),
        upload=True,
        body=schemas.Location,
        example={"accuracy": 36, "latitude": 48.861934, "longitude": 2.348967},
        headers=("Idempotency-Key", "Content-Digest", "Repr-Digest"),
        refuses=(
            *(NotFound, AlbumFull, UndecodablePicture, DigestMismatch, Busy),
            *(*_BODY, *_ONCE, *_STORAGE, StorageFull),
        ),
    ),
    "albums.stats": Operation({200: Said("The numbers.", answers.Stats)}, refuses=(NotFound,)),
    "tags.index": Operation(
        {200: _many("The tags.", answers.Tag)},
        text="Tags come from the `Tags` of the token's entry. An album out of reach has none.",
    ),
    "tags.list_images": Operation(
        {200: _many("The tags on the images, oldest first.", answers.TagImage, "Link")},
        text="An album out of reach has none. `Link` leads to the next page.",
        query=paging.TagImagesPage,
        refuses=(InvalidFields,),
    ),
    "tags.put_on": Operation(
        {200: _many("One for each image, in the order sent.", answers.TagImage)},
        text="An image that carries the tag already keeps it as it is.",
        body=schemas.TagImagesBody,
        example={"image_ids": [answers.UUID]},
        refuses=(NotFound, *_BODY),
    ),
    "tags.take_off": Operation(_GONE, refuses=(NotFound, *_WHOLE)),
    "shares.create": Operation(
        {201: Said("The share, with its token.", answers.NewShare)},
        text="The abilities are at most one's own, and never `image_share`.",
        body=schemas.ShareRequest,
        example={
            "abilities": ["see", "image_list"],
            "expires_in": 3600,
            "label": "For grandmother",
        },
        refuses=(NotFound, *_BODY),
    ),
    "shares.index": Operation(
        {200: _many("The shares.", answers.Share)},
        text="An album out of reach has none.",
    ),
    "shares.delete": Operation(_GONE, refuses=(NotFound, *_WHOLE)),
    "files.rendition": Operation(
        {200: Said("The rendition, or the blank picture.", kinds=("image/jpeg", "image/png"))},
        text=(
            "The URLs stand in `thumbnails`, whole: use them as they are, until they end. `key` has a "
            "slash in it."
        ),
        refuses=(NotFound, DatabaseUnavailable),
    ),
    "files.blank": Operation({200: Said("The picture.", kinds=("image/jpeg",))}),
    "files.cloudinary_cors": Operation({200: Said("The page.", kinds=("text/html",))}),
    "ops.healthz": Operation({200: Said("It does.", kinds=("text/plain",))}),
    "ops.readyz": Operation(
        {
            200: Said("It can.", answers.Readiness),
            503: Said("It can not.", answers.Readiness),
        },
        text=(
            "Ready means that the database answers, that the storage of new albums is usable and "
            "that the process is not about to end. Anything else makes it degraded. Only the "
            "operator's networks see reasons."
        ),
    ),
    "ops.metrics": Operation(
        {200: Said("The metrics.", kinds=("text/plain",))},
        text="Only for the operator's networks; there is nothing here for others.",
        refuses=(NotFound,),
    ),
    "openapi.show": Operation(
        {
            200: Said("The document.", kinds=("application/json",), headers=("DocumentETag",)),
            304: Said("`If-None-Match` names it.", headers=("DocumentETag",)),
        },
        headers=("If-None-Match",),
    ),
    "docs.page": Operation({200: Said("The page.", kinds=("text/html",))}),
    "docs.asset": Operation(
        {
            200: Said("The file.", kinds=("text/javascript", "text/css", "image/png")),
            304: Said("`If-None-Match` names it.", headers=("DocumentETag",)),
        },
        headers=("If-None-Match",),
        refuses=(NotFound,),
    ),
}
"""Endpoint to its row."""


def errors_of(endpoint: str) -> Errors:
    """Every error that a route answers, each once."""
    public = isinstance(rule := POLICY[endpoint], Access) and rule in (Access.PUBLIC, Access.SIGNED)
    return tuple(dict.fromkeys([*(ANY if public else TOKEN), *OPERATIONS[endpoint].refuses]))


PROBLEM_HEADERS: Mapping[type[ImageAPIError], tuple[str, ...]] = {
    RangeNotSatisfiable: ("Content-Range",),
    TooManyRequests: ("Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
}
"""Headers that an error gets where it is raised, beyond those that it has of itself."""
