"""Small bodies: JSON, or a form in Rails' bracket style, as one nested dict.

`album[public_id]=x` is `{"album": {"public_id": "x"}}`, `image_ids[]=a&image_ids[]=b` is
`{"image_ids": ["a", "b"]}`. An absent body is `{}`. Werkzeug's own parsers are not asked: a form that
is malformed is to them a form without fields.

Source: design §4; https://guides.rubyonrails.org/action_controller_overview.html (parameters).
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

import multipart
from flask import Request

from imageapi.auth.tokens import deeper
from imageapi.blueprints import raw
from imageapi.errors import (
    BadRequest,
    FieldFault,
    InvalidFields,
    PayloadTooLarge,
    UnsupportedFormat,
)

MAX_BODY = 1024 * 1024
"""The most bytes of a body that is no picture."""
MAX_PAIRS = 10_000
"""The most fields of a form."""
MAX_DEPTH = 16
"""How deep JSON may be nested."""

_NAME = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_LATIN = dict.fromkeys(("iso-8859-1", "ISO-8859-1"), "latin-1")
_TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} deep."
_TOO_MANY = f"The form has more than {MAX_PAIRS} fields."


def fields(request: Request) -> dict[str, Any]:
    """The fields of a request's body.

    Raises:
        UnsupportedFormat: neither JSON nor a form.
        LengthRequired: nobody announced its end.
        PayloadTooLarge: more than `MAX_BODY` bytes or `MAX_PAIRS` fields.
        BadRequest, IncompleteBody: malformed, or shorter than it said.
        InvalidFields: a field stands twice, or as two different things, or is a file.
    """
    data = _whole(request)
    if not data:
        return {}
    if request.mimetype == "application/json":
        return _json(data)
    if request.mimetype == "application/x-www-form-urlencoded":
        return _form(_urlencoded(data))
    if request.mimetype == "multipart/form-data":
        return _form(_multipart(data, request.mimetype_params.get("boundary", "")))
    raise UnsupportedFormat("The body must be JSON or a form.")


def ignore(request: Request) -> None:
    """Read a body that says nothing here: a request that is cut changes nothing.

    Raises:
        LengthRequired, PayloadTooLarge, IncompleteBody: as for `fields`.
    """
    _whole(request)


def _whole(request: Request) -> bytes:
    announced = request.headers.get("Transfer-Encoding") or raw.length(request) is not None
    if not announced and not request.environ.get("wsgi.input_terminated"):
        return b""
    return b"".join(raw.pieces(request, MAX_BODY))


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data, parse_constant=_refuse, object_pairs_hook=_once)
    except ValueError as error:
        raise BadRequest("The body is not JSON.") from error
    except RecursionError as error:
        raise BadRequest(_TOO_DEEP) from error
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    if deeper(value, MAX_DEPTH):
        raise BadRequest(_TOO_DEEP)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, field in pairs:
        _set(value, name, field, name)
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _urlencoded(data: bytes) -> list[tuple[str, str]]:
    if data.count(b"&") >= MAX_PAIRS:
        raise PayloadTooLarge(_TOO_MANY)
    try:
        return urllib.parse.parse_qsl(data.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("The form is not UTF-8.") from error


def _multipart(data: bytes, boundary: str) -> Iterator[tuple[str, str]]:
    try:
        parser = multipart.PushMultipartParser(boundary, max_segment_count=MAX_PAIRS)
        for event in parser.parse(data):
            if isinstance(event, multipart.MultipartSegment):
                part, text = event, bytearray()
                if part.filename is not None:
                    raise InvalidFields(errors=[FieldFault(part.name, "must not be a file")])
            elif event is not None:
                text += event
            else:
                yield part.name, text.decode(_LATIN.get(part.charset, "utf-8"))
        parser.close()
    except multipart.ParserLimitReached as error:
        raise PayloadTooLarge(f"{_TOO_MANY[:-1]}, or one has too long headers.") from error
    except (multipart.MultipartError, UnicodeDecodeError) as error:
        raise BadRequest("The multipart body is malformed, ends early or is not UTF-8.") from error


def _form(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, text in pairs:
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidFields(errors=[FieldFault(name, "is not a field")])
        outer, inner = match.groups()
        if inner == "":
            _within(value, outer, list, name).append(text)
        elif inner is None:
            _set(value, outer, text, name)
        else:
            _set(_within(value, outer, dict, name), inner, text, name)
    return value


def _within(value: dict[str, Any], outer: str, kind: type, name: str) -> Any:
    inside = value.setdefault(outer, kind())
    if not isinstance(inside, kind):
        raise InvalidFields(errors=[FieldFault(name, "is there in two forms")])
    return inside


def _set(value: dict[str, Any], key: str, field: Any, name: str) -> None:
    if key in value:
        raise InvalidFields(errors=[FieldFault(name, "must be there once")])
    value[key] = field
