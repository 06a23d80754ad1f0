"""What answers look like, for the OpenAPI document: fields in contract order, with examples.

Nothing is dumped through these: `schemas` and the views splice ready JSON text, and a dump of a list
would cost more than all the rest of the request. The tests hold every answer against them, and the
order of its keys.

Source: contract/retrieve-an-image.md; design §2, §3 and §4.
"""

from __future__ import annotations

from typing import Any

import marshmallow
from marshmallow import fields, validate

from imageapi.auth.policy import Ability
from imageapi.blueprints.schemas import FORMATS
from imageapi.geometry import ROTATIONS

UUID = "5cf8c06d-83fa-4ede-b995-5efd3133b6e5"
"""The image of the examples."""


class Answer(marshmallow.Schema):
    """An object of an answer: fields may come, none goes."""

    example: Any = None

    class Meta:
        """Said of every answer."""

        unknown = marshmallow.EXCLUDE


def _said(description: str, **more: Any) -> dict[str, Any]:
    """The options of a field that is always there."""
    return {"required": True, "metadata": {"description": description, **more}}


def _uuid(description: str) -> fields.UUID:
    return fields.UUID(**_said(description))


def _position(description: str) -> fields.List[float]:
    return fields.List(
        fields.Float(), allow_none=True, validate=validate.Length(equal=2), **_said(description)
    )


_POSITION = "`[latitude, longitude]` in degrees, or null: "


class Location(Answer):
    """The position that the uploader's browser sent."""

    accuracy = fields.Float(metadata={"description": "Metres."})
    latitude = fields.Float(**_said("Degrees north."))
    longitude = fields.Float(**_said("Degrees east."))


class Infos(Answer):
    """What the storage said of the bytes when they were stored; it never changes."""

    bytes = fields.Integer(**_said("The length of the stored bytes."))
    created_at = fields.DateTime(**_said("When they were stored, in UTC."))
    etag = fields.String(**_said("The MD5 of the stored bytes, in hex."))
    format = fields.String(
        validate=validate.OneOf(FORMATS), **_said("By their content, not by their name.")
    )
    height = fields.Integer(**_said("Pixels of the upright picture, before any edit."))
    resource_type = fields.String(**_said("Always `image`."))
    tags = fields.List(fields.String(), **_said("The id of the album it was stored into."))
    type = fields.String(
        validate=validate.OneOf(["private", "authenticated", "upload"]),
        **_said("How the storage delivers it."),
    )
    width = fields.Integer(**_said("Pixels of the upright picture, before any edit."))
    location = fields.Nested(Location, metadata={"description": "Only where the browser sent one."})


class Image(Answer):
    """An image."""

    public_id = _uuid("The image's id.")
    infos = fields.Nested(Infos, **_said("What the storage said of the bytes."))
    exifs = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        **_said("Name of an EXIF tag to its text; `{}` when there are none."),
    )
    gps = _position(f"{_POSITION}the first that is known of exifs, html, ip.")
    gps_ip = _position(f"{_POSITION}that of the uploader's internet address.")
    gps_exifs = _position(f"{_POSITION}that of the EXIF tags.")
    gps_html = _position(f"{_POSITION}that of the uploader's browser.")
    created_at = fields.DateTime(**_said("When the image was made, with milliseconds and offset."))
    width = fields.Integer(**_said("Pixels after crop and rotation."))
    height = fields.Integer(**_said("Pixels after crop and rotation."))
    rotation = fields.Integer(
        validate=validate.OneOf(ROTATIONS), **_said("Degrees clockwise, applied after the crop.")
    )
    crop_x = fields.Float(**_said("Pixels from the left of the upright, unrotated original."))
    crop_y = fields.Float(**_said("Pixels from its top."))
    crop_w = fields.Float(**_said("Pixels; 0, as `crop_h`, when there is no crop."))
    crop_h = fields.Float(**_said("Pixels."))
    album_id = fields.String(**_said("The album that it is in."))
    thumbnails = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        **_said(
            "Name of a rendition (`full`, `large`, `mini`) to its URL, ready for an `<img>`. URLs end; "
            "what can not be had is `/assets/blank.jpg`."
        ),
    )
    placeholder = fields.String(
        allow_none=True,
        metadata={
            "description": (
                "With `include=placeholder`: the ThumbHash in base64, to show until the picture is "
                "there; null while there is none."
            )
        },
    )
    srcset = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={
            "description": "With `include=srcset`: name of a rendition to its width in pixels."
        },
    )

    example = {  # noqa: RUF012
        "public_id": UUID,
        "infos": {
            "bytes": 3604,
            "created_at": "2015-09-25T13:32:55Z",
            "etag": "5a98d4d3e5d39024abf237be55e99b15",
            "format": "png",
            "height": 48,
            "resource_type": "image",
            "tags": ["6bfb864c-8927-48d4-a286-97ba8583f7ae"],
            "type": "private",
            "width": 48,
            "location": {"accuracy": 36, "latitude": 48.8619344, "longitude": 2.348967},
        },
        "exifs": {},
        "gps": [48.8619344, 2.348967],
        "gps_ip": None,
        "gps_exifs": None,
        "gps_html": [48.8619344, 2.348967],
        "created_at": "2016-01-12T15:05:15.692+01:00",
        "width": 48,
        "height": 48,
        "rotation": 0,
        "crop_x": 0.0,
        "crop_y": 0.0,
        "crop_w": 0.0,
        "crop_h": 0.0,
        "album_id": "6bfb864c-8927-48d4-a286-97ba8583f7ae",
        "thumbnails": dict.fromkeys(("full", "large", "mini"), "/assets/blank.jpg"),
    }


_NEWEST = "The four newest images, newest first."


class UploadForm(Answer):
    """A form that a client posts, with the file, to the storage itself."""

    url = fields.String(**_said("Where to."))
    params = fields.Dict(keys=fields.String(), **_said("Its fields: texts and numbers."))

    example = {  # noqa: RUF012
        "url": "https://storage.example/incoming",
        "params": {"key": "incoming/…", "signature": "…"},
    }


class Album(Answer):
    """An album."""

    public_id = fields.String(**_said("The album's id."))
    upload_form = fields.Nested(
        UploadForm,
        allow_none=True,
        **_said("null without `image_upload`, and where the storage takes no direct uploads."),
    )
    images_count = fields.Integer(**_said("How many images are in it."))
    views_count = fields.Integer(
        **_said("How often others than the owner listed its images; a few seconds late.")
    )
    thumbnails = fields.List(fields.Nested(Image), **_said(_NEWEST))

    example = {  # noqa: RUF012
        "public_id": "holidays",
        "upload_form": None,
        "images_count": 0,
        "views_count": 0,
        "thumbnails": [],
    }


class AlbumItem(Answer):
    """An album, as lists show it."""

    public_id = fields.String(**_said("The album's id."))
    images_count = fields.Integer(**_said("How many images are in it."))
    thumbnails = fields.List(fields.Nested(Image), **_said(_NEWEST))

    example = {"public_id": "holidays", "images_count": 0, "thumbnails": []}  # noqa: RUF012


class Check(Answer):
    """One thing that the service needs."""

    ok = fields.Boolean(**_said("Whether it is well."))
    needed = fields.Boolean(**_said("Whether the service is not ready without."))
    reason = fields.String(metadata={"description": "What is wrong; only for operators."})


class Readiness(Answer):
    """Whether the service can do its work."""

    status = fields.String(
        **_said("The whole."),
        validate=validate.OneOf(["ready", "degraded", "unavailable", "stopping"]),
    )
    checks = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(Check),
        **_said("By name: `database`, `storage <name>`, `rate limits`, `broker`."),
    )

    example = {  # noqa: RUF012
        "status": "ready",
        "checks": {"database": {"ok": True, "needed": True}},
    }


class Views(Answer):
    """The views of one day."""

    day = fields.Date(**_said("The day."))
    count = fields.Integer(**_said("How often others than the owner listed the album's images."))


class Stats(Answer):
    """An album in numbers."""

    images = fields.Integer(**_said("How many images are in it."))
    bytes = fields.Integer(**_said("How many bytes are stored for it."))
    formats = fields.Dict(
        keys=fields.String(), values=fields.Integer(), **_said("Format to its number of images.")
    )
    views = fields.List(fields.Nested(Views), **_said("The last 30 days."))

    example = {  # noqa: RUF012
        "images": 3,
        "bytes": 180442,
        "formats": {"jpg": 2, "png": 1},
        "views": [{"day": "2026-01-12", "count": 7}],
    }


class Tag(Answer):
    """A tag of an album."""

    id = _uuid("The tag's id.")
    created_at = fields.DateTime(**_said("When it was made."))
    name = fields.String(**_said("Its name, as the token's `Tags` had it."))
    label = fields.String(**_said("What to show; JSON text where the token had more than a text."))

    example = {  # noqa: RUF012
        "id": "9126e145-f1cc-494a-b66d-86eca0bfa47a",
        "created_at": "2016-01-12T15:05:13.752+01:00",
        "name": "tag",
        "label": '{"en":"Cartoons","fr":"Déssin animé"}',
    }


class TagImage(Answer):
    """A tag on an image."""

    id = _uuid("The id of the tag's being on the image.")
    created_at = fields.DateTime(**_said("When the tag was put on."))
    user = fields.String(
        allow_none=True, **_said("Who put it on; null where the token named none.")
    )
    image = fields.Nested(Image, **_said("The image."))
    tag = fields.Nested(Tag, **_said("The tag."))


class Share(Answer):
    """Some of one's own abilities in an album, passed on for a time."""

    id = _uuid("The share's id.")
    created_at = fields.DateTime(**_said("When it was made."))
    expires_at = fields.DateTime(**_said("When it ends."))
    abilities = fields.List(
        fields.String(validate=validate.OneOf([*Ability])), **_said("What it allows.")
    )
    label = fields.String(allow_none=True, **_said("The maker's own note."))

    example = {  # noqa: RUF012
        "id": "0b2d6a5e-7c0f-4b9e-9a56-3f1f1d4c8b7a",
        "created_at": "2026-01-12T15:05:18.000+01:00",
        "expires_at": "2026-01-12T16:05:18.000+01:00",
        "abilities": ["see", "image_list"],
        "label": "For grandmother",
    }


class NewShare(Share):
    """A share that was just made, with its token: the only time that it is shown."""

    token = fields.String(**_said("The token to hand on; it is a credential."))

    example = {**Share.example, "token": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.c2ln"}  # noqa: RUF012


class Fault(Answer):
    """A refused field."""

    field = fields.String(**_said("Its name, as it was sent."))
    message = fields.String(**_said("The limit that it broke, in words."))


class Problem(Answer):
    """Why a request was refused (RFC 9457). Branch on `code`, and be ready for one you do not know."""

    type = fields.String(**_said("Always `about:blank`."))
    title = fields.String(**_said("The status in words."))
    status = fields.Integer(**_said("The HTTP status."))
    detail = fields.String(**_said("One sentence for a person."))
    instance = fields.String(**_said("`urn:uuid:` and the `X-Request-Id` of this answer."))
    code = fields.String(**_said("What happened, in a word that stays."))
    errors = fields.List(
        fields.Nested(Fault),
        metadata={"description": "The fields at fault, where it is about any."},
    )

    example = {  # noqa: RUF012
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "A field is not acceptable.",
        "instance": "urn:uuid:0157b7b3-564c-4dce-916c-bbb5c05b77ce",
        "code": "invalid_fields",
        "errors": [{"field": "limit", "message": "Must be at most 1000."}],
    }
