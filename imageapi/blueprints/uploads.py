"""Multipart bodies, streamed: fields are kept, the one file goes on piece by piece.

Werkzeug's own parser adds a byte to a file whose end falls between the two dashes of the last
boundary in a read (pallets/werkzeug issue 3285), so it never sees these bodies.

Source: RFC 7578; RFC 9530 for the digests.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import multipart
from flask import Request
from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

from imageapi.blueprints import raw
from imageapi.errors import (
    BadRequest,
    DigestMismatch,
    FieldFault,
    IncompleteBody,
    InvalidFields,
    PayloadTooLarge,
    UnsupportedFormat,
)

OVERHEAD = 64 * 1024
"""The most bytes of a body that are not the file: boundaries, part headers, fields."""
MAX_PARTS = 16
MAX_FIELD = 4096
"""The most bytes of one field."""

_DIGEST = re.compile(r"\s*([a-z0-9*_.-]+)=:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?")
_ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}


@dataclass
class Form:
    """What a multipart body held beside the bytes of its file."""

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None


class _Digests:
    """The digests that the request announces, checked against the body and against the file."""

    def __init__(self, headers: Headers) -> None:
        self._wanted = [
            *_announced(headers.get("Content-Digest")),
            *_announced(headers.get("Repr-Digest")),
        ]
        names = {name for name, _digest in self._wanted}
        self._body = {name: hashlib.new(name) for name in names}
        self._file = {name: hashlib.new(name) for name in names}

    def body(self, piece: bytes) -> None:
        for digest in self._body.values():
            digest.update(piece)

    def file(self, piece: bytes) -> None:
        for digest in self._file.values():
            digest.update(piece)

    def check(self) -> None:
        for name, announced in self._wanted:
            if announced not in (self._body[name].digest(), self._file[name].digest()):
                raise DigestMismatch


def receive(request: Request, sink: Callable[[bytes], Any], limit: int) -> Form:
    """Read a multipart body to its end; give the pieces of its one `file` to `sink`.

    A digest in `Content-Digest` or `Repr-Digest` may be that of the whole body, as RFC 9530 has it,
    or that of the file: either proves that nothing changed on the way.

    Args:
        request: its body must not have been touched.
        sink: takes the file's bytes in order; what it raises passes through.
        limit: the most bytes of the file.
    Raises:
        UnsupportedFormat: the body is not multipart/form-data.
        LengthRequired: nobody announced its end.
        PayloadTooLarge: it is longer than `limit` and the form around it may be, announced or not.
        BadRequest, IncompleteBody: malformed, or shorter than it said.
        InvalidFields: no file, two files, a field twice or too long.
        DigestMismatch: other bytes than announced.
    """
    digests = _Digests(request.headers)
    form = Form()
    try:
        for part, pieces in _parts(_events(request, limit, digests)):
            if part.name == "file" and part.filename is not None:
                _take_file(form, part, _tee(pieces, digests.file), sink)
            elif part.filename is not None:
                raise InvalidFields(errors=[FieldFault(part.name, "must not be a file")])
            else:
                _take_field(form, part, pieces)
    except multipart.ParserLimitReached as error:
        message = f"The form has more than {MAX_PARTS} parts, or a part has too long headers."
        raise PayloadTooLarge(message) from error
    except multipart.MultipartError as error:
        raise IncompleteBody("The multipart body is malformed or ends early.") from error
    if form.file_name is None:
        raise InvalidFields(errors=[FieldFault("file", "is required, as a part with a file name")])
    digests.check()
    return form


def _events(request: Request, limit: int, digests: _Digests) -> Iterator[Any]:
    kind, options = parse_options_header(request.content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise UnsupportedFormat("The body must be multipart/form-data with one file.")
    if (raw.length(request) or 0) > limit + OVERHEAD:
        raise PayloadTooLarge(f"The file is larger than {limit} bytes.")
    parser = multipart.PushMultipartParser(options["boundary"], max_segment_count=MAX_PARTS)
    for piece in raw.pieces(request, limit + OVERHEAD):
        digests.body(piece)
        # What follows the last boundary is read, so that the length is known to be true.
        if not parser.closed:
            yield from parser.parse(piece)
    parser.close()


def _parts(events: Iterator[Any]) -> Iterator[tuple[multipart.MultipartSegment, Iterator[bytes]]]:
    for part in events:
        yield part, iter(lambda: next(events), None)


def _tee(pieces: Iterator[bytes], also: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        also(piece)
        yield piece


def _take_file(
    form: Form,
    part: multipart.MultipartSegment,
    pieces: Iterator[bytes],
    sink: Callable[[bytes], Any],
) -> None:
    if form.file_name is not None:
        raise InvalidFields(errors=[FieldFault("file", "must be there once")])
    form.file_name = part.filename or ""
    for piece in pieces:
        sink(piece)


def _take_field(form: Form, part: multipart.MultipartSegment, pieces: Iterator[bytes]) -> None:
    if part.name in form.fields:
        raise InvalidFields(errors=[FieldFault(part.name, "must be there once")])
    value = bytearray()
    for piece in pieces:
        value += piece
        if len(value) > MAX_FIELD:
            raise InvalidFields(
                errors=[FieldFault(part.name, f"must be at most {MAX_FIELD} bytes")]
            )
    try:
        form.fields[part.name] = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidFields(errors=[FieldFault(part.name, "must be UTF-8")]) from error


def _announced(header: str | None) -> list[tuple[str, bytes]]:
    wanted = []
    for member in header.split(",") if header else ():
        match = _DIGEST.fullmatch(member)
        if match is None:
            raise BadRequest("Content-Digest or Repr-Digest is malformed.")
        if match[1] in _ALGORITHMS:
            wanted.append((_ALGORITHMS[match[1]], _decode(match[2])))
    return wanted


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadRequest("Content-Digest or Repr-Digest is malformed.") from error
