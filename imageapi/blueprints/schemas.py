"""Fields in and out, in contract order.

Answers are spliced together from JSON text that is stored ready; nothing is parsed on the way.

Source: contract/retrieve-an-image.md; design §2.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import zoneinfo
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import marshmallow
from marshmallow import fields, validate

from imageapi import catalog
from imageapi.auth import guard
from imageapi.auth.policy import Ability
from imageapi.catalog import renditions
from imageapi.errors import FieldFault, InvalidFields
from imageapi.extensions import Row
from imageapi.geometry import ROTATIONS
from imageapi.storage.backend import UploadForm

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


FORMATS = ("jpg", "png", "gif", "webp", "avif", "tiff", "heic")
"""The formats of `infos`."""


class Text(fields.String):
    """A text that every database can keep: no NUL, no half of a surrogate pair."""

    def _deserialize(self, *args: Any, **options: Any) -> str:
        text = super()._deserialize(*args, **options)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise self.make_error("invalid_utf8")
        return text


class Number(fields.Float):
    """A finite decimal number; Python's own spellings (`1_000`, `nan`) are not."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Accuracy(Number):
    """Metres; whole when its text is."""

    def _validated(self, value: Any) -> float:
        number = super()._validated(value)
        whole = isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
        return int(number) if whole else number


class Location(marshmallow.Schema):
    """The position that the uploader's browser sent; latitude and longitude come together."""

    accuracy = Accuracy(validate=validate.Range(0, 1e9))
    latitude = Number(validate=validate.Range(-90, 90))
    longitude = Number(validate=validate.Range(-180, 180))

    @marshmallow.validates_schema
    def _together(self, data: dict[str, Any], **_options: Any) -> None:
        missing = {"latitude", "longitude"} - data.keys()
        if data and missing:
            raise marshmallow.ValidationError(
                {name: ["is required beside the others"] for name in sorted(missing)}
            )


def load(schema: marshmallow.Schema, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a client sent, checked.

    Raises:
        InvalidFields: naming every field at fault, unknown ones too.
    """
    try:
        data: dict[str, Any] = schema.load(values)
    except marshmallow.ValidationError as error:
        faults: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
        raise InvalidFields(errors=list(_faults(faults, ""))) from error
    return data


def _faults(messages: Mapping[str, Any], outer: str) -> Iterator[FieldFault]:
    for name, texts in messages.items():
        inner = "" if name == "_schema" else name
        field = f"{outer}[{inner}]" if outer and inner else outer or str(name)
        if isinstance(texts, dict):
            yield from _faults(texts, field)
        else:
            yield FieldFault(field, " ".join(map(str, texts)))


class Whole(fields.Integer):
    """A whole number, as JSON or as decimal text."""

    def _validated(self, value: Any) -> int:
        if type(value) not in (int, str) or not str(value).removeprefix("-").isdecimal():
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Pixels(Number):
    """A number whose zero has no sign: SQLite does not keep it, PostgreSQL does."""

    def _validated(self, value: Any) -> float:
        return super()._validated(value) + 0.0


class ImageEdit(marshmallow.Schema):
    """The edit of an image; a field that is not sent keeps its value."""

    rotation = Whole(validate=validate.OneOf(ROTATIONS))
    crop_x = Pixels()
    crop_y = Pixels()
    crop_w = Pixels()
    crop_h = Pixels()


class AlbumFields(marshmallow.Schema):
    """What may be said of an album."""

    public_id = Text()


class AlbumBody(marshmallow.Schema):
    """The body that makes or renames an album: `album[public_id]`."""

    album = fields.Nested(AlbumFields)


class TagImagesBody(marshmallow.Schema):
    """The images that a tag is put on."""

    image_ids = fields.List(Text(), required=True, validate=validate.Length(1, 1000))


class Nothing(marshmallow.Schema):
    """No field at all."""


def edit(values: Mapping[str, Any]) -> dict[str, float]:
    """The fields of an edit that were sent; their bounds are the picture's, not ours."""
    return load(ImageEdit(), values)


def album_id(values: Mapping[str, Any]) -> str | None:
    """The album id that a body asks for, None where it asks for none; its rule is the catalog's."""
    public_id: str | None = load(AlbumBody(), values).get("album", {}).get("public_id")
    return public_id


def image_ids(values: Mapping[str, Any]) -> list[str]:
    """The images that a tag is put on, in the order sent."""
    found: list[str] = load(TagImagesBody(), values)["image_ids"]
    return found


def nothing(values: Mapping[str, Any]) -> None:
    """Refuse every field."""
    load(Nothing(), values)


class ShareRequest(marshmallow.Schema):
    """What a share is asked to be."""

    abilities = fields.List(
        Text(validate=validate.OneOf([*Ability])),
        required=True,
        validate=validate.Length(1),
    )
    expires_in = Whole(required=True)
    label = Text(load_default=None, allow_none=True, validate=validate.Length(max=128))


def share(values: Mapping[str, Any], own: Collection[Ability]) -> dict[str, Any]:
    """The share that a body asks for; at most the maker's own abilities, never sharing itself.

    Raises:
        InvalidFields: naming the fields at fault.
    """
    data = load(ShareRequest(), values)
    longest = catalog.library().settings.token_max_age
    if not 1 <= data["expires_in"] <= longest:
        raise InvalidFields(errors=[FieldFault("expires_in", f"must be 1 to {longest} seconds")])
    if beyond := set(data["abilities"]) - (set(own) - {Ability.IMAGE_SHARE}):
        text = f"must be of your own, without image_share: not {', '.join(sorted(beyond))}"
        raise InvalidFields(errors=[FieldFault("abilities", text)])
    return data


def location(values: Mapping[str, Any]) -> dict[str, float | int] | None:
    """The browser's position as `infos` shows it, or None where none was sent."""
    data = load(Location(), values) if values else {}
    return {name: data[name] for name in sorted(data)} or None


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dump(value: Any) -> str:
    """Compact JSON, raw UTF-8, keys in their order."""
    return _ENCODER.encode(value)


Include = frozenset[str]
INCLUDES = ("placeholder", "srcset")
"""What an image block has more of when `?include=` asks for it."""


def image(row: Row, include: Include = frozenset()) -> str:
    """The image block as JSON text, from a row of `models.IMAGES`, as the token may see it."""
    return images([row], include)


def images(rows: Sequence[Row], include: Include = frozenset()) -> str:
    """The blocks of images as JSON text, comma-separated."""
    hidden = {album for album in {row.album for row in rows} if guard.hides_location(album)}
    if hidden:
        rows = [_without_location(row) if row.album in hidden else row for row in rows]
    ends = renditions.thumbnails(rows, _end)
    if include:
        ends = [end + _included(row, include) for row, end in zip(rows, ends, strict=True)]
    return ",".join([_image(row, end) for row, end in zip(rows, ends, strict=True)])


def _image(row: Row, end: str) -> str:
    by_exifs, by_html, by_ip = row.gps_exifs, row.gps_html, row.gps_ip
    return (
        f'{{"public_id":"{row.id}","infos":{row.infos},"exifs":{row.exifs}'
        f',"gps":{by_exifs or by_html or by_ip or "null"},"gps_ip":{by_ip or "null"}'
        f',"gps_exifs":{by_exifs or "null"},"gps_html":{by_html or "null"}{end}}}'
    )


def _end(row: Row, thumbnails: str) -> str:
    return (
        f',"created_at":"{moment(row.created_ms)}"'
        f',"width":{row.width},"height":{row.height},"rotation":{row.rotation}'
        f',"crop_x":{row.crop_x!r},"crop_y":{row.crop_y!r}'
        f',"crop_w":{row.crop_w!r},"crop_h":{row.crop_h!r}'
        f',"album_id":{dump(row.album)},"thumbnails":{thumbnails}'
    )


def _included(row: Row, include: Include) -> str:
    if not include:
        return ""
    asked = ""
    if "placeholder" in include:
        asked += f',"placeholder":{dump(row.placeholder)}'
    if "srcset" in include:
        asked += f',"srcset":{dump(renditions.widths(row))}'
    return asked


def _without_location(row: Row) -> Any:
    infos, exifs = json.loads(row.infos), json.loads(row.exifs)
    infos.pop("location", None)
    kept = {name: text for name, text in exifs.items() if not name.startswith("GPS")}
    nowhere = dict.fromkeys(("gps_exifs", "gps_html", "gps_ip"))
    return row._replace(infos=dump(infos), exifs=dump(kept), **nowhere)


def album(row: Row, form: UploadForm | None, newest: Sequence[Row]) -> str:
    """The album block as JSON text, from a row of `models.ALBUMS` and its newest images."""
    return (
        f'{{"public_id":{dump(row.public_id)},"upload_form":{dump(form)}'
        f',"images_count":{row.images_count},"views_count":{row.views_count}'
        f',"thumbnails":[{images(newest)}]}}'
    )


def album_item(row: Row, newest: Sequence[Row]) -> str:
    """An album of a list as JSON text."""
    return (
        f'{{"public_id":{dump(row.public_id)},"images_count":{row.images_count}'
        f',"thumbnails":[{images(newest)}]}}'
    )


def tag(row: Row) -> str:
    """The tag block as JSON text, from a row of `tag`."""
    return _tag(row.id, row.created_ms, row.name, row.label)


def tag_image(row: Row) -> str:
    """An image with a tag that it carries, as JSON text; see `catalog.tags.images`."""
    tag_text = _tag(row.tag_id, row.tag_created_ms, row.tag_name, row.tag_label)
    return (
        f'{{"id":"{row.tag_image_id}","created_at":"{moment(row.tagged_ms)}","user":{dump(row.user)}'
        f',"image":{image(row)},"tag":{tag_text}}}'
    )


def _tag(tag_id: str, created_ms: int, name: str, label: str) -> str:
    return (
        f'{{"id":"{tag_id}","created_at":"{moment(created_ms)}"'
        f',"name":{dump(name)},"label":{dump(label)}}}'
    )


def moment(milliseconds: int) -> str:
    """A time in milliseconds since 1970 as the contract writes it, with the offset of `IMAGEAPI_TIMEZONE`."""
    minute, rest = divmod(milliseconds, 60_000)
    head, offset = _minute(minute, catalog.library().settings.timezone)
    return f"{head}{rest // 1000:02d}.{rest % 1000:03d}{offset}"


@functools.lru_cache(maxsize=4096)
def _minute(minute: int, zone: zoneinfo.ZoneInfo) -> tuple[str, str]:
    text = datetime.datetime.fromtimestamp(minute * 60, zone).isoformat(timespec="minutes")
    return f"{text[:16]}:", text[16:]
