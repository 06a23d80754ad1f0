"""The OpenAPI 3.1 document, made from what the code itself runs on.

apispec and its marshmallow plugin are used as they are, without flask-smorest around them: its
decorators would load and dump each body once more, where our views splice JSON text that is stored
ready, and its errors are not RFC 9457.

Source: https://spec.openapis.org/oas/v3.1.1.html.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from werkzeug.routing import Rule

from imageapi import errors
from imageapi.auth.policy import ACCESS_HEADERS, POLICY, Access
from imageapi.blueprints import problems
from imageapi.blueprints.openapi import answers, parameters
from imageapi.blueprints.openapi.operations import (
    OPERATIONS,
    PROBLEM_HEADERS,
    Operation,
    Said,
    errors_of,
)
from imageapi.blueprints.openapi.words import ANSWER_HEADERS, PATH, REQUEST_HEADERS

Object = dict[str, Any]

VERSION = "1"
"""The version of the API, which is also in its paths."""

_INFO = """\
Images in albums: their metadata, ready-made thumbnail URLs, uploads, crops, rotations, tags.

**Tokens.** Every request but the public ones carries a JWT: `Authorization: Bearer <jwt>`, also
`Token <jwt>` and `Token token="<jwt>"`. What it may do stands in it, by album; `x-abilities` names the
abilities of which one opens an operation. An owner whose token has no entry for the album has every
ability but `image_share`. Each answer brings a fresh token in `X-token`.

**Refusals** are `application/problem+json`; `x-codes` names the `code`s of each. No token, or none that
counts: 401, before anything else. What a token does not reach is answered as what does not exist: 404.

**Bodies** are JSON or forms; fields that are not known are refused. **HEAD** answers as GET, without
the body. **OPTIONS** needs no token. Answers with a token are `no-store`.
"""
_TAGS = {
    "images": "One image.",
    "albums": "Albums, and the images in them.",
    "tags": "Tags, and the images that carry them.",
    "shares": "Passing some of one's abilities on, for a time.",
    "files": "What `<img>` and widgets load; the URLs need no token.",
    "ops": "For operators.",
    "openapi": "This document.",
    "docs": "The page that shows it.",
}
_SCHEMAS: Sequence[type[answers.Answer]] = (
    answers.Location,
    answers.Infos,
    answers.Image,
    answers.UploadForm,
    answers.Album,
    answers.AlbumItem,
    answers.Views,
    answers.Stats,
    answers.Check,
    answers.Readiness,
    answers.Tag,
    answers.TagImage,
    answers.Share,
    answers.NewShare,
    answers.Fault,
    answers.Problem,
)
_CONVERTED = re.compile(r"<(?:(\w+):)?(\w+)>")


def make(app: Flask) -> Object:
    """The document of `app`: the same for every configuration.

    Raises:
        KeyError: a route has no row in `OPERATIONS`, or a field no words.
    """
    spec = _spec()
    for rule in sorted(app.url_map.iter_rules(), key=_place):
        view = app.view_functions[rule.endpoint]
        spec.path(path=_path(rule), parameters=_path_parameters(rule), operations={})
        spec.path(path=_path(rule), operations=dict(_operations(spec, rule, view.__doc__ or "")))
    return spec.to_dict()


def _place(rule: Rule) -> tuple[int, str, bool]:
    return list(_TAGS).index(_tag(rule)), rule.rule, "GET" not in (rule.methods or ())


def _tag(rule: Rule) -> str:
    return str(rule.endpoint).partition(".")[0]


def _path(rule: Rule) -> str:
    return _CONVERTED.sub(r"{\2}", rule.rule)


def _spec() -> APISpec:
    spec = APISpec(
        title="Image API",
        version=VERSION,
        openapi_version="3.1.1",
        plugins=[MarshmallowPlugin()],
        info={"description": _INFO},
        servers=[{"url": "/", "description": "The service that this document is from."}],
        security=[{"token": []}],
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    parameters.teach(spec)
    for schema in _SCHEMAS:
        text = inspect.getdoc(schema)
        about: Object = {
            "description": text,
            "examples": [schema.example] if schema.example else [],
        }
        spec.components.schema(
            schema.__name__, {k: v for k, v in about.items() if v}, schema=schema
        )
    code = spec.components.schemas["Problem"]["properties"]["code"]
    code["examples"] = sorted({error.code for error in _every(errors.ImageAPIError)})
    for key, (_name, text, required, more) in ANSWER_HEADERS.items():
        about = {"description": text, "required": required, "schema": {"type": "string", **more}}
        spec.components.header(key, about)
    _access_headers(spec)
    for key, (name, text, more) in REQUEST_HEADERS.items():
        about = {"name": name, "description": text, "schema": {"type": "string", **more}}
        spec.components.parameter(key, "header", about)
    spec.components.security_scheme(
        "token",
        {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "The JWT alone, as an integrator or `flask token create` gives it.",
        },
    )
    return spec


def _every(cls: type[errors.ImageAPIError]) -> Iterator[type[errors.ImageAPIError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _every(child)


def _access_headers(spec: APISpec) -> None:
    for names in ACCESS_HEADERS.values():
        for name, ability in names.items():
            if name not in spec.components.headers:
                schema = {"type": "string", "enum": ["true", "false"]}
                text = f"Whether the token has `{ability}` in this album."
                about = {"description": text, "required": True, "schema": schema}
                spec.components.header(name, about)


def _path_parameters(rule: Rule) -> list[Object]:
    return [_path_parameter(converter, name) for converter, name in _CONVERTED.findall(rule.rule)]


def _path_parameter(converter: str, name: str) -> Object:
    text, more = PATH[name]
    schema = {"type": "string", **({"format": "uuid"} if converter == "uuid" else {}), **more}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _operations(spec: APISpec, rule: Rule, docstring: str) -> Iterator[tuple[str, Object]]:
    operation = OPERATIONS[rule.endpoint]
    for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
        made = _operation(spec, rule.endpoint, operation, inspect.cleandoc(docstring))
        yield method.lower(), made
    if operation.head:
        yield "head", _head(made)


def _head(get: Object) -> Object:
    """HEAD beside its GET: no bodies of ours, and no ranges, which only GET has (RFC 9110 §14.2)."""
    bare = {
        status: {key: part for key, part in answer.items() if key != "content"}
        for status, answer in get["responses"].items()
        if status not in ("206", "416")
    }
    return {
        **get,
        "operationId": f"{get['operationId']}_head",
        "summary": "The same, without the body.",
        "parameters": [one for one in get["parameters"] if one not in ("Range", "If-Range")],
        "responses": bare,
    }


def _operation(spec: APISpec, endpoint: str, operation: Operation, docstring: str) -> Object:
    summary = " ".join(docstring.split()).replace("`", "")  # plain text, by the standard
    made: Object = {
        "tags": [endpoint.partition(".")[0]],
        "operationId": endpoint.replace(".", "_"),
        "summary": summary,
        "description": "\n\n".join(filter(None, [operation.text, _opened_by(endpoint)])),
        "parameters": [*parameters.query(spec, operation), *operation.headers],
        "responses": {
            **{str(n): _said(endpoint, n, said) for n, said in operation.answers.items()},
            **_refusals(spec, endpoint),
        },
    }
    rule = POLICY[endpoint]
    if isinstance(rule, Access):
        made["x-access"] = rule.name.lower()
    else:
        made["x-abilities"] = sorted(rule)
    if rule in (Access.PUBLIC, Access.SIGNED):
        made["security"] = []
    if operation.body is not None:
        made["requestBody"] = (parameters.upload if operation.upload else parameters.body)(
            spec, operation
        )
    return made


def _opened_by(endpoint: str) -> str:
    rule = POLICY[endpoint]
    if isinstance(rule, Access):
        return f"Opened so: {rule.value}."
    return f"Opened by {' or '.join(f'`{ability}`' for ability in sorted(rule))}."


def _said(endpoint: str, status: int, said: Said) -> Object:
    names = list(said.headers)
    if POLICY[endpoint] not in (Access.PUBLIC, Access.SIGNED):
        names.append("X-Request-Id")
        if status < 300:
            names += [*ACCESS_HEADERS.get(endpoint, ()), "X-token", "X-Runtime"]
    made: Object = {"description": said.text, **_headers(names)}
    if said.schema is not None:
        one = {"$ref": f"#/components/schemas/{said.schema.__name__}"}
        schema = {"type": "array", "items": one} if said.many else one
        made["content"] = {"application/json": {"schema": schema}}
    elif said.kinds:
        made["content"] = {kind: _bytes(kind) for kind in said.kinds}
    return made


def _bytes(kind: str) -> Object:
    if kind == "application/json":
        return {"schema": {"type": "object"}}
    if kind.startswith("text/"):
        return {"schema": {"type": "string"}}
    return {"schema": {"type": "string", "format": "binary", "contentMediaType": kind}}


def _headers(keys: Sequence[str]) -> Object:
    made = {
        ANSWER_HEADERS[key][0] if key in ANSWER_HEADERS else key: {
            "$ref": f"#/components/headers/{key}"
        }
        for key in keys
    }
    return {"headers": made} if made else {}


def _refusals(spec: APISpec, endpoint: str) -> Object:
    by_status: dict[int, list[type[errors.ImageAPIError]]] = defaultdict(list)
    for error in errors_of(endpoint):
        by_status[error.status].append(error)
    return {
        str(status): {"$ref": f"#/components/responses/{_refusal(spec, kinds)}"}
        for status, kinds in sorted(by_status.items())
    }


def _refusal(spec: APISpec, kinds: list[type[errors.ImageAPIError]]) -> str:
    """The name of the answer that says one of these errors, all of one status."""
    kinds = sorted(kinds, key=lambda kind: kind.code)
    codes = [kind.code for kind in kinds]
    name = ".".join(codes)
    if name not in spec.components.responses:
        text = "\n".join(f"- `{kind.code}`: {kind.detail}" for kind in kinds)
        # Siblings of `$ref` narrow it for validators; generators make one class, `Problem`.
        narrowed = {"status": {"const": kinds[0].status}, "code": {"enum": codes}}
        schema = {"$ref": "#/components/schemas/Problem", "properties": narrowed}
        headers = _headers(["X-Request-Id", *_refusal_headers(kinds)])["headers"]
        about = {
            "description": f"{kinds[0].title}\n\n{text}",
            "headers": headers,
            "content": {problems.PROBLEM_TYPE: {"schema": schema}},
            "x-codes": codes,
        }
        spec.components.response(name, about)
    return name


def _refusal_headers(kinds: Sequence[type[errors.ImageAPIError]]) -> list[str]:
    """Headers that each of these errors has."""
    sets = [{*kind().headers, *PROBLEM_HEADERS.get(kind, ())} for kind in kinds]
    return [name for name in ANSWER_HEADERS if name in set.intersection(*sets)]
