"""Holds answers against an OpenAPI document: status, media type, headers, body, order of keys."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


class Undescribed(AssertionError):
    """An answer that the document does not describe."""


class Document:
    """An OpenAPI 3.1 document, its references followed."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._paths = [(re.compile(_pattern(path)), path) for path in document["paths"]]

    def operations(self):
        """Every (METHOD, path, operation)."""
        for path, item in self.document["paths"].items():
            for method in METHODS & item.keys():
                yield method.upper(), path, item[method]

    def resolve(self, found: Any) -> Any:
        """What a reference stands for, or the thing itself."""
        while isinstance(found, dict) and "$ref" in found:
            inner = self.document
            for name in found["$ref"].removeprefix("#/").split("/"):
                inner = inner[name]
            found = {**inner, **{key: value for key, value in found.items() if key != "$ref"}}
        return found

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The operation that a request to this path, without its query, asks for."""
        for pattern, template in self._paths:
            if pattern.fullmatch(path) and method.lower() in self.document["paths"][template]:
                return self.document["paths"][template][method.lower()]
        raise Undescribed(f"no {method} {path}")

    def check(self, method: str, path: str, status: int, headers: Any, body: bytes) -> None:
        """See that an answer is one that the document describes."""
        try:
            self._check(method, path, status, headers, body)
        except Undescribed as fault:
            raise Undescribed(f"{method} {path}, {status}: {fault}\n{body[:2000]!r}") from fault

    def _check(self, method, path, status, headers, body):
        answer = self.answer(method, path, status)
        for name, reference in answer.get("headers", {}).items():
            header = self.resolve(reference)
            if name in headers:
                self.validate(_as_number(headers[name], header["schema"]), header["schema"])
            elif header["required"]:
                raise Undescribed(f"{name} is missing")
        content = answer.get("content", {})
        kind = headers.get("Content-Type", "").partition(";")[0]
        if method == "HEAD" or not content:
            if body:
                raise Undescribed("has a body")
        elif kind not in content:
            raise Undescribed(f"is {kind}, not {' or '.join(content)}")
        elif kind.endswith("json"):
            schema = content[kind]["schema"]
            self.validate(json.loads(body), schema)
            self.check_order(json.loads(body), schema)

    def answer(self, method: str, path: str, status: int) -> dict[str, Any]:
        """What the document says of this status."""
        found = self.operation(method, path)["responses"]
        if str(status) not in found:
            raise Undescribed(f"{status} is none of {', '.join(found)}")
        return self.resolve(found[str(status)])

    def validate(self, value: Any, schema: dict[str, Any]) -> None:
        """See that a value is valid, formats too."""
        whole = {**schema, "components": self.document["components"]}
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        fault = jsonschema.exceptions.best_match(
            jsonschema.Draft202012Validator(whole, format_checker=checker).iter_errors(value)
        )
        if fault is not None:
            raise Undescribed(f"{fault.json_path}: {fault.message}")

    def check_order(self, value: Any, schema: dict[str, Any]) -> None:
        """See that the keys of objects, however deep, stand in the order of the properties."""
        schema = self.resolve(schema)
        if "anyOf" in schema and value is not None:
            schema = self.resolve(schema["anyOf"][0])
        if isinstance(value, list):
            for item in value:
                self.check_order(item, schema.get("items", {}))
        elif isinstance(value, dict):
            order = [name for name in schema.get("properties", {}) if name in value]
            if order != [name for name in value if name in order]:
                raise Undescribed(f"the keys are {list(value)}, not {order}")
            for name in order:
                self.check_order(value[name], schema["properties"][name])


def _pattern(path: str) -> str:
    whole = re.escape(path).replace(r"\{key\}", ".+")
    return re.sub(r"\\\{\w+\\\}", "[^/]+", whole)


def _as_number(text: str, schema: dict[str, Any]) -> Any:
    return int(text) if schema.get("type") == "integer" else text
