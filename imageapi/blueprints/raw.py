"""The bytes of a request's body: all of them, or an error.

Werkzeug's own stream takes a body that ends early for one that is whole where the server says that it
knows the end (`wsgi.input_terminated`), as gunicorn always does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from flask import Request

from imageapi.errors import IncompleteBody, LengthRequired, PayloadTooLarge

PIECE = 256 * 1024
"""Bytes read at a time."""


def length(request: Request) -> int | None:
    """The length that a body announces, or None."""
    # Some servers give an empty length for none, which Werkzeug takes for 0.
    return request.content_length if request.environ.get("CONTENT_LENGTH") else None


def pieces(request: Request, most: int) -> Iterator[bytes]:
    """The body, piece by piece; it must not have been touched.

    Raises:
        LengthRequired: nobody announced its end.
        PayloadTooLarge: it is longer than `most` bytes, announced or not.
        IncompleteBody: malformed, or shorter than it said.
    """
    announced = length(request)
    if announced is None and not request.environ.get("wsgi.input_terminated"):
        raise LengthRequired
    if announced is not None and announced > most:
        raise PayloadTooLarge(f"The body is larger than {most} bytes.")
    source: IO[bytes] = request.environ["wsgi.input"]
    left = most + 1 if announced is None else announced
    while left > 0 and (piece := _read(source, min(PIECE, left))):
        left -= len(piece)
        yield piece
    if announced is None and left <= 0:
        raise PayloadTooLarge(f"The body is larger than {most} bytes.")
    if announced is not None and left > 0:
        raise IncompleteBody


def _read(source: IO[bytes], size: int) -> bytes:
    try:
        return source.read(size)
    except Exception as error:
        # A server's word for a connection that is gone, or a chunked body that is malformed or ends
        # early; gunicorn has an OSError for some of these, errors of its own for others.
        raise IncompleteBody from error
