"""Small bodies: JSON, or a form in Rails' bracket style, as one nested dict.

`album[public_id]=x` is `{"album": {"public_id": "x"}}`, `image_ids[]=a&image_ids[]=b` is
`{"image_ids": ["a", "b"]}`. An absent body is `{}`.

Source: design §4; https://guides.rubyonrails.org/action_controller_overview.html (parameters).
"""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

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

_NAME = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")


def fields(request: Request) -> dict[str, Any]:
    """The fields of a request's body.

    Raises:
        UnsupportedFormat: neither JSON nor a form.
        PayloadTooLarge: more than `MAX_BODY` bytes.
        BadRequest: malformed.
        InvalidFields: a field stands twice, or as two different things.
    """
    request.max_content_length = request.max_form_memory_size = MAX_BODY
    try:
        if request.mimetype == "application/json":
            return _json(request.get_data(cache=False))
        if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
            return _form(request.form.items(multi=True))
        if request.get_data(cache=False):
            raise UnsupportedFormat("The body must be JSON or a form.")
    except RequestEntityTooLarge as error:
        raise PayloadTooLarge(f"The body is larger than {MAX_BODY} bytes.") from error
    return {}


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}", parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _form(pairs: Any) -> dict[str, Any]:
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


def _set(value: dict[str, Any], key: str, text: str, name: str) -> None:
    if key in value:
        raise InvalidFields(errors=[FieldFault(name, "must be there once")])
    value[key] = text
