"""What requests carry in query and body: made from those that the views check it by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import marshmallow
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import fields

from imageapi.blueprints import paging, schemas
from imageapi.blueprints.openapi.operations import Operation
from imageapi.blueprints.openapi.words import FIELDS, HAND_IN

Object = dict[str, Any]

_MOMENT = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?$"
_BOX = r"^-?\d+(\.\d+)?(,-?\d+(\.\d+)?){3}$"


def teach(spec: APISpec) -> None:
    """Tell apispec what it can not know of the fields that are our own."""
    _converter(spec).add_attribute_function(_own)


def _converter(spec: APISpec) -> Any:
    """The part of apispec that turns fields into schemas."""
    (plugin,) = (one for one in spec.plugins if isinstance(one, MarshmallowPlugin))
    return plugin.converter


def _own(_self: object, field: fields.Field[Any], **_options: Any) -> Object:
    if isinstance(field, paging.Moment):
        return {
            "type": "string",
            "pattern": _MOMENT,
            "examples": ["2026-01-12", "2026-01-12T15:05Z"],
        }
    if isinstance(field, paging.BoundingBox):
        return {"type": "string", "pattern": _BOX, "examples": ["-5.2,47.2,-1.0,48.9"]}
    if isinstance(field, paging.Include):
        one = "|".join(schemas.INCLUDES)
        return {
            "type": "string",
            "pattern": f"^({one})(,({one}))*$",
            "examples": [",".join(schemas.INCLUDES)],
        }
    return {}


def query(spec: APISpec, operation: Operation) -> Iterator[Object]:
    """The parameters of an operation's query."""
    if operation.query is None:
        return
    for name, schema in _properties(spec, operation.query(), in_query=True).items():
        required = operation.query().fields[name].required
        about = schema.pop("description")
        yield {
            "name": name,
            "in": "query",
            "description": about,
            "required": required,
            "schema": schema,
        }


def _properties(spec: APISpec, schema: marshmallow.Schema, *, in_query: bool = False) -> Object:
    """The fields of a schema that checks what is sent, with their words."""
    converter, made = _converter(spec), {}
    for name, one in schema.fields.items():
        inner = one.schema if isinstance(one, fields.Nested) else None
        made[name] = _object(spec, inner) if inner else converter.field2property(one)
        made[name]["description"] = FIELDS[name]
        if not made[name].get("default"):  # that nothing was sent is no value to send
            made[name].pop("default", None)
        if in_query and isinstance(made[name].get("type"), list):  # null can not be sent
            made[name]["type"] = made[name]["type"][0]
    return made


def _object(spec: APISpec, schema: marshmallow.Schema) -> Object:
    required = [name for name, one in schema.fields.items() if one.required]
    return {
        "type": "object",
        "properties": _properties(spec, schema),
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def body(spec: APISpec, operation: Operation) -> Object:
    """A body that may be JSON, or a form in Rails' bracket style."""
    if operation.body is None:
        raise TypeError
    whole = _object(spec, operation.body())
    flat, example = _flat(whole), dict(_flat_values(operation.example))
    return {
        "required": "required" in whole,
        "content": {
            "application/json": {"schema": whole, "example": operation.example},
            "application/x-www-form-urlencoded": {"schema": flat, "example": example},
        },
    }


def _flat(schema: Object) -> Object:
    """An object's fields as a form in Rails' bracket style names them."""
    required = set(schema.get("required", ()))
    flat: Object = {}
    names: list[str] = []
    for name, one in schema["properties"].items():
        if one["type"] == "object":
            inner = {f"{name}[{key}]": value for key, value in one["properties"].items()}
        else:
            kinds = one["type"] if isinstance(one["type"], list) else [one["type"]]
            inner = {f"{name}[]" if "array" in kinds else name: {**one, "type": kinds[0]}}
        flat.update(inner)
        names += inner if name in required else ()
    return {
        "type": "object",
        "properties": flat,
        **({"required": names} if names else {}),
        "additionalProperties": False,
    }


def _flat_values(example: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in example.items():
        if isinstance(value, dict):
            yield from ((f"{name}[{key}]", inner) for key, inner in value.items())
        else:
            yield (f"{name}[]" if isinstance(value, list) else name), value


def upload(spec: APISpec, operation: Operation) -> Object:
    """A body of a file and fields, or of what a storage answered to a direct upload."""
    if operation.body is None:
        raise TypeError
    # `format` is what generators look for, `contentMediaType` what OpenAPI 3.1 says.
    file = {
        "type": "string",
        "format": "binary",
        "contentMediaType": "application/octet-stream",
        "description": FIELDS["file"],
    }
    schema = _object(spec, operation.body())
    for name, value in operation.example.items():
        schema["properties"][name]["examples"] = [value]
    position = schema["properties"]
    form = {**schema, "properties": {"file": file, **position}, "required": ["file"]}
    answer = {
        "type": "object",
        "description": "A direct upload, with all that the storage answered.",
        "properties": {**{name: _told(name) for name in HAND_IN}, **position},
        "additionalProperties": True,
    }
    kinds = ("application/json", "application/x-www-form-urlencoded")
    content = {"multipart/form-data": {"schema": form}, **{k: {"schema": answer} for k in kinds}}
    return {"required": True, "content": content}


def _told(name: str) -> Object:
    # Cloudinary's answer has a number, a form made of it a text.
    kind = ["string", "integer"] if name == "version" else "string"
    return {"type": kind, "description": HAND_IN[name]}
