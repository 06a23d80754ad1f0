"""Answers: JSON text with the contract's headers, in the contract's order.

Source: contract/retrieve-an-image.md.
"""

from __future__ import annotations

import functools
import re
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers

from imageapi.auth import guard
from imageapi.auth.policy import ACCESS_HEADERS, Ability

JSON_TYPE = "application/json; charset=utf-8"
SAFETY = [
    ("Cache-Control", "no-cache, no-store, must-revalidate, private, max-age=0"),
    ("Pragma", "no-cache"),
    ("Expires", "Fri, 01 Jan 1990 00:00:00 GMT"),
    ("X-Frame-Options", "DENY"),
    ("X-XSS-Protection", "1; mode=block"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Download-Options", "noopen"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
]
"""What every answer of the API carries first."""
P3P = ("P3P", 'CP="NOI ADM DEV PSAi COM NAV OUR OTRo STP IND DEM"')

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Pairs = Iterable[tuple[str, str]]


def init_app(app: Flask) -> None:
    """Give every request its id and its clock, before anything else looks at it."""
    app.before_request(_begin)


def _begin() -> None:
    state = guard.held()
    state.started = time.perf_counter()
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    state.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def json(text: str, status: int = 200, headers: Pairs = ()) -> Response:
    """An authenticated answer whose body is ready JSON text.

    Args:
        text: compact JSON; sent as raw UTF-8.
        status: a 2xx.
        headers: additions to the contract's; they follow the safety headers.
    """
    body = text.encode()
    about = [("Content-Type", JSON_TYPE), ("Vary", "Accept-Encoding")]
    return _answer([body], status, headers, about, [("Content-Length", str(len(body)))])


def empty(headers: Pairs = ()) -> Response:
    """A 204: no body, and none of the headers that speak of one."""
    response = _answer((), 204, headers, [], [])
    del response.headers["Content-Type"]
    return response


def stream(body: Iterable[bytes], kind: str, length: int, status: int, headers: Pairs) -> Response:
    """An authenticated answer of `length` bytes of the media type `kind`, in pieces."""
    about = [("Content-Type", kind), ("Vary", "Accept-Encoding")]
    return _answer(body, status, headers, about, [("Content-Length", str(length))])


def not_modified(headers: Pairs) -> Response:
    """A 304: the client has these bytes already."""
    pairs = [*SAFETY, *headers, P3P, ("X-Request-Id", g.request_id)]
    response = Response(status=304, headers=Headers(pairs))
    del response.headers["Content-Type"]
    return response


def matches(tag: str) -> bool:
    """Whether `If-Match`, where it is sent, names this tag; one that is malformed names none.

    Source: RFC 9110 §13.1.1.
    """
    return not request.headers.get("If-Match", "").strip() or request.if_match.contains(tag)


class _Answer(Response):
    """A response whose headers are complete: werkzeug need not copy and correct them."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:  # noqa: ARG002
        """The headers as they are."""
        return self.headers


def _answer(
    body: Iterable[bytes], status: int, headers: Pairs, about: Pairs, length: Pairs
) -> Response:
    state = guard.held()
    runtime = time.perf_counter() - state.started
    return _Answer(
        body,
        status,
        Headers(
            [
                *SAFETY,
                *headers,
                *_access(state),
                ("X-token", guard.renewed()),
                *about,
                P3P,
                ("X-Request-Id", state.request_id),
                ("X-Runtime", f"{runtime:.6f}"),
                *length,
            ]
        ),
    )


def _access(state: Any) -> Pairs:
    endpoint = request.endpoint
    return _access_headers(endpoint, state.abilities) if endpoint in ACCESS_HEADERS else ()


@functools.lru_cache(maxsize=1024)
def _access_headers(endpoint: str, granted: frozenset[Ability]) -> Pairs:
    names = ACCESS_HEADERS[endpoint].items()
    return [(name, "true" if ability in granted else "false") for name, ability in names]
