"""Pages: `limit` and `cursor` in, a `Link` to the next page out.

A cursor is signed, and bound to the list it comes from: issuer, path and filters.

Source: RFC 8288 (Link); design §4.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import marshmallow
from flask import g, request
from itsdangerous import BadData, URLSafeSerializer
from marshmallow import fields, validate

from imageapi.blueprints import schemas
from imageapi.catalog import library
from imageapi.errors import FieldFault, InvalidFields
from imageapi.models import TAG_LENGTH

Place = tuple[int, Any]

KEPT = 1024
"""How many queries, cursors and links a process keeps: some pages are asked for again and again.

They are kept by the query's text, `_query`, of which `request.args` is made."""


class Page(marshmallow.Schema):
    """The part of a list that is asked for."""

    limit = schemas.Whole(load_default=100, validate=validate.Range(1, 1000))
    cursor = schemas.Text(load_default=None, validate=validate.Length(1, 1024))


class Moment(fields.Field[int]):
    """A moment or a day, ISO 8601; without an offset it is in `IMAGEAPI_TIMEZONE`. Milliseconds."""

    default_error_messages = {"invalid": "must be a date or a moment as ISO 8601 has it"}  # noqa: RUF012

    def _deserialize(self, value: Any, *_args: Any, **_options: Any) -> int:
        try:
            # In a query, an offset's plus sign means a space.
            moment = datetime.datetime.fromisoformat(str(value).replace(" ", "+"))
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=self.context_zone())
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError) as error:
            raise self.make_error("invalid") from error

    def context_zone(self) -> datetime.tzinfo:
        """The zone of a moment that names none."""
        return library().settings.timezone


class CameraMoment(Moment):
    """As `Moment`; cameras write no offset, so without one it is compared as they write it."""

    def context_zone(self) -> datetime.tzinfo:
        """The zone that a camera's moments are kept in."""
        return datetime.UTC


class BoundingBox(fields.Field[tuple[float, float, float, float]]):
    """West, south, east, north in degrees, comma-separated; west > east crosses the antimeridian."""

    default_error_messages = {  # noqa: RUF012
        "invalid": "must be west,south,east,north in degrees, within -180 to 180 and -90 to 90"
    }

    def _deserialize(
        self, value: Any, *_args: Any, **_options: Any
    ) -> tuple[float, float, float, float]:
        parts = str(value).split(",")
        if len(parts) != 4:
            raise self.make_error("invalid")
        west, south, east, north = (schemas.Number().deserialize(part) for part in parts)
        if max(abs(west), abs(east)) > 180 or not -90 <= south <= north <= 90:
            raise self.make_error("invalid")
        return west, south, east, north


class Include(fields.Field[frozenset[str]]):
    """Additions to an image block, comma-separated."""

    default_error_messages = {  # noqa: RUF012
        "invalid": f"must be of {', '.join(schemas.INCLUDES)}, comma-separated"
    }

    def _deserialize(self, value: Any, *_args: Any, **_options: Any) -> frozenset[str]:
        asked = frozenset(str(value).split(","))
        if not asked <= {*schemas.INCLUDES}:
            raise self.make_error("invalid")
        return asked


class ImageQuery(marshmallow.Schema):
    """What may be asked of one image."""

    include = Include(load_default=frozenset())

    class Meta:
        """One image is no list: what it does not know is of no harm."""

        unknown = marshmallow.EXCLUDE


class ImagesPage(Page):
    """The part of an album's images that is asked for."""

    include = Include(load_default=frozenset())

    tag = schemas.Text(validate=validate.Length(1, TAG_LENGTH))
    taken_after = CameraMoment()
    taken_before = CameraMoment()
    created_after = Moment()
    created_before = Moment()
    bbox = BoundingBox()
    format = schemas.Text(validate=validate.OneOf(schemas.FORMATS))


class TagImagesPage(Page):
    """The part of an album's tagged images that is asked for."""

    album_id = schemas.Text(required=True)
    tag_name = schemas.Text(load_default=None)
    image_id = schemas.Text(load_default=None)


def included() -> frozenset[str]:
    """What `?include=` asks for.

    Raises:
        InvalidFields: something that there is not.
    """
    found: frozenset[str] = schemas.load(ImageQuery(), request.args)["include"]
    return found


def asked(schema: type[Page] = Page) -> tuple[dict[str, Any], int, Place | None]:
    """The filters of a list, the length of its page, and where that begins.

    Raises:
        InvalidFields: a parameter breaks its limit, is unknown, or there twice; a cursor of another
            list, or that we never gave.
    """
    data = dict(_loaded(schema, request.query_string, library().settings.timezone))
    limit, cursor = data.pop("limit"), data.pop("cursor")
    if not cursor:
        return data, limit, None
    return data, limit, _place(*_asked_of(), cursor)


def _asked_of() -> tuple[tuple[str, ...], str, str, bytes]:
    """What cursors are signed with, and the list that they are of: issuer, path and query."""
    keys = library().settings.secret_keys
    return keys, g.token.issuer, request.path, request.query_string


@functools.lru_cache(maxsize=KEPT)
def _loaded(schema: type[Page], _query: bytes, _zone: datetime.tzinfo) -> Mapping[str, Any]:
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise InvalidFields(errors=[FieldFault(name, "must be there once") for name in repeated])
    return schemas.load(_made(schema), request.args)


@functools.cache
def _made(schema: type[Page]) -> Page:
    return schema()


def link(limit: int, place: Place | None) -> list[tuple[str, str]]:
    """The `Link` header to the page that begins after `place`; none at the end."""
    if place is None:
        return []
    return [("Link", _link(*_asked_of(), library().settings.public_url, limit, place))]


@functools.lru_cache(maxsize=KEPT)
def _link(
    keys: tuple[str, ...],
    issuer: str,
    path: str,
    _query: bytes,
    url: str,
    limit: int,
    place: Place,
) -> str:
    filters = _filters()
    cursor = _serializer(keys).dumps([_list(issuer, path, filters), *place])
    following = urlencode({**filters, "limit": limit, "cursor": cursor})
    return f'<{quote(f"{url}{path}", safe="/:")}?{following}>; rel="next"'


@functools.lru_cache(maxsize=KEPT)
def _place(keys: tuple[str, ...], issuer: str, path: str, _query: bytes, cursor: str) -> Place:
    try:
        of_list, moment, last = _serializer(keys).loads(cursor)
    except (BadData, ValueError) as error:
        raise _not_ours() from error
    if of_list != _list(issuer, path, _filters()):
        raise _not_ours()
    return moment, last


def _not_ours() -> InvalidFields:
    return InvalidFields(errors=[FieldFault("cursor", "is none of this list with these filters")])


def _list(issuer: str, path: str, filters: Mapping[str, str]) -> str:
    text = json.dumps([issuer, path, sorted(filters.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _filters() -> Mapping[str, str]:
    return {name: text for name, text in request.args.items() if name not in ("limit", "cursor")}


@functools.lru_cache(maxsize=16)
def _serializer(keys: tuple[str, ...]) -> URLSafeSerializer:
    options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(list(keys[::-1]), salt="imageapi.cursor", signer_kwargs=options)
