"""What in a change of the OpenAPI document would break a client that was written for the old one.

Held against each other with references followed: how schemas are named is nobody's business but the
generators'. A client breaks when

- what it calls is gone, is called otherwise by its generator (`operationId`), or needs a token now;
- what it sends is refused: a field or parameter that went, changed its type or got narrower limits,
  a new one that must be there;
- what it reads is not there: a status of success, a media type, a header, a field that went, changed
  its type, or may be missing or null now.

New operations, parameters and fields that may be left out, new fields and headers of answers, and new
codes of problems break nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
METHODS = ("get", "head", "put", "post", "delete", "patch")
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_SAME = ("pattern", "format", "const", "contentMediaType")


def breaks(old: Schema, new: Schema) -> list[str]:
    """A sentence for every break, in the order of the old document."""
    return list(_Comparison(old, new).breaks())


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new

    def breaks(self) -> Iterator[str]:
        for path, item in self._old["paths"].items():
            for method in METHODS:
                if method not in item:
                    continue
                where = f"{method.upper()} {path}"
                now = self._new["paths"].get(path, {})
                if method in now:
                    yield from self._operation(where, (item, item[method]), (now, now[method]))
                else:
                    yield f"{where}: is gone."

    def _operation(self, where, old, new):
        (old_item, before), (new_item, after) = old, new
        if before["operationId"] != after["operationId"]:
            yield f"{where}: operationId was {before['operationId']}, is {after['operationId']}."
        if not before.get("security", [1]) and after.get("security", [1]):
            yield f"{where}: needs a token now."
        yield from self._parameters(
            where, self._named(self._old, old_item, before), self._named(self._new, new_item, after)
        )
        yield from self._body(where, before.get("requestBody"), after.get("requestBody"))
        yield from self._answers(where, before["responses"], after["responses"])

    @staticmethod
    def _named(document, item, operation):
        found = [*item.get("parameters", ()), *operation.get("parameters", ())]
        whole = [_follow(document, one) for one in found]
        return {(one["in"], one["name"]): one for one in whole}

    def _parameters(self, where, before, after):
        for key, one in before.items():
            place = f"{where}: {' '.join(key)}"
            if key not in after:
                yield f"{place}: is gone."
                continue
            if after[key].get("required") and not one.get("required"):
                yield f"{place}: must be there now."
            yield from self._sent(place, one["schema"], after[key]["schema"])
        for key, one in after.items():
            if key not in before and one.get("required"):
                yield f"{where}: {' '.join(key)}: is new and must be there."

    def _body(self, where, before, after):
        if before is None:
            if after is not None and after.get("required"):
                yield f"{where}: a body is new and must be there."
            return
        if after is None:
            yield f"{where}: takes no body now."
            return
        if after.get("required") and not before.get("required"):
            yield f"{where}: a body must be there now."
        for kind, media in before["content"].items():
            if kind in after["content"]:
                yield from self._sent(
                    f"{where}: {kind}", media["schema"], after["content"][kind]["schema"]
                )
            else:
                yield f"{where}: takes no {kind} now."

    def _answers(self, where, before, after):
        for status, reference in before.items():
            place = f"{where}: {status}"
            if status not in after:
                # A refusal that can not happen any more breaks nobody.
                if int(status) < 400:
                    yield f"{place}: is gone."
                continue
            one, now = _follow(self._old, reference), _follow(self._new, after[status])
            yield from self._headers(place, one.get("headers", {}), now.get("headers", {}))
            for kind, media in one.get("content", {}).items():
                if kind in now.get("content", {}):
                    schema = now["content"][kind]["schema"]
                    yield from self._read(f"{place}: {kind}", media["schema"], schema)
                else:
                    yield f"{place}: {kind} is gone."

    def _headers(self, where, before, after):
        for name, reference in before.items():
            if name not in after:
                yield f"{where}: header {name} is gone."
                continue
            one, now = _follow(self._old, reference), _follow(self._new, after[name])
            if one.get("required") and not now.get("required"):
                yield f"{where}: header {name} may be missing now."
            yield from self._read(f"{where}: header {name}", one["schema"], now["schema"])

    def _sent(self, where, before, after):
        """Whether all that was taken is still taken."""
        before, after = _follow(self._old, before), _follow(self._new, after)
        if lost := _types(before) - _types(after):
            yield f"{where}: {' or '.join(sorted(lost))} is refused now."
            return
        if lost := [one for one in before.get("enum", ()) if one not in after.get("enum", [one])]:
            yield f"{where}: {', '.join(map(str, lost))} refused now."
        if "enum" in after and "enum" not in before:
            yield f"{where}: only some values are taken now."
        yield from self._limits(where, before, after)
        for name, one in before.get("properties", {}).items():
            if name in after.get("properties", {}):
                yield from self._sent(f"{where}: {name}", one, after["properties"][name])
            else:
                yield f"{where}: {name}: is gone."
        for name in after.get("required", ()):
            if name not in before.get("required", ()):
                yield f"{where}: {name}: must be there now."
        if "items" in before:
            yield from self._sent(f"{where}[]", before["items"], after.get("items", {}))

    @staticmethod
    def _limits(where, before, after):
        for name in _LEAST:
            if name in after and before.get(name, after[name] - 1) < after[name]:
                yield f"{where}: {name} is {after[name]} now."
        for name in _MOST:
            if name in after and before.get(name, after[name] + 1) > after[name]:
                yield f"{where}: {name} is {after[name]} now."
        for name in _SAME:
            if name in after and before.get(name) != after[name]:
                yield f"{where}: {name} is {after[name]} now."

    def _read(self, where, before, after):
        """Whether all that may come is what could come."""
        before, after = _follow(self._old, before), _follow(self._new, after)
        if new := _types(after) - _types(before):
            yield f"{where}: may be {' or '.join(sorted(new))} now."
            return
        if "format" in before and before["format"] != after.get("format"):
            yield f"{where}: format was {before['format']}, is {after.get('format')}."
        for name, one in before.get("properties", {}).items():
            if name not in after.get("properties", {}):
                yield f"{where}: {name}: is gone."
                continue
            if name in before.get("required", ()) and name not in after.get("required", ()):
                yield f"{where}: {name}: may be missing now."
            yield from self._read(f"{where}: {name}", one, after["properties"][name])
        for key, shown in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(before.get(key), dict):
                yield from self._read(f"{where}{shown}", before[key], after.get(key) or {})


def _follow(document: Schema, found: Schema) -> Schema:
    """What a reference stands for, with what stands beside it; of `X or null`, X that may be null."""
    while "$ref" in found or "anyOf" in found:
        if "anyOf" in found:
            first, *others = found["anyOf"]
            if others != [{"type": "null"}]:
                raise NotImplementedError("an anyOf other than `X or null`")
            inner = _follow(document, first)
            inner = {**inner, "type": [*sorted(_types(inner)), "null"]}
        else:
            inner = document
            for name in found["$ref"].removeprefix("#/").split("/"):
                inner = inner[name]
        beside = {key: value for key, value in found.items() if key not in ("$ref", "anyOf")}
        both = {**inner.get("properties", {}), **beside.get("properties", {})}
        found = {**inner, **beside, **({"properties": both} if both else {})}
    return found


_ANY = {"array", "boolean", "integer", "null", "number", "object", "string"}


def _types(schema: Schema) -> set[str]:
    kinds = schema.get("type", _ANY)
    return {kinds} if isinstance(kinds, str) else set(kinds)
