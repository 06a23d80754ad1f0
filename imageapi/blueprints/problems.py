"""The only place where an error becomes HTTP: `application/problem+json`.

Source: RFC 9457; design §3.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from imageapi import errors
from imageapi.blueprints import reports
from imageapi.blueprints.responses import P3P, SAFETY

PROBLEM_TYPE = "application/problem+json"

_DRAIN_BYTES = 128 * 1024 * 1024
_DRAIN_SECONDS = 5
_PATIENCE = (socket.SOL_SOCKET, socket.SO_RCVTIMEO)

_BY_STATUS: dict[int, type[errors.ImageAPIError]] = {
    400: errors.BadRequest,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    411: errors.LengthRequired,
    412: errors.PreconditionFailed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedFormat,
    422: errors.InvalidFields,
    429: errors.TooManyRequests,
}


def init_app(app: Flask) -> None:
    """Answer every exception of `app` as a problem."""
    app.register_error_handler(Exception, _handle)
    app.logger.disabled = True  # Flask would log some of them too, in its own words


def _handle(error: Exception) -> Response:
    cause: Exception = getattr(error, "original_exception", None) or error
    known = _known(cause)
    reports.refused(known, cause)
    _drain()
    return problem(known)


def _drain() -> None:
    """Read what is left of the body, within bounds.

    A client that sends all of it before it reads would see a broken connection, not the answer. One
    that withholds it is not waited for; what remains unread, or could not be read, gunicorn takes
    for no other request: it closes the connection.
    """
    environ = request.environ
    if not (environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ):
        return
    source = environ["wsgi.input"]
    # gunicorn says when a read has failed: another would wait as long once more.
    if not environ.get("wsgi.input_terminated") or getattr(source, "failed", False):
        return
    left, end = _DRAIN_BYTES, time.monotonic() + _DRAIN_SECONDS
    # Broken bodies are what some of the answers are about.
    with contextlib.suppress(Exception), _impatient(environ.get("gunicorn.socket")):
        while left > 0 and time.monotonic() < end:
            piece = source.read(64 * 1024)
            if not piece:
                break
            left -= len(piece)


@contextlib.contextmanager
def _impatient(connection: socket.socket | None) -> Iterator[None]:
    """Have reads from a connection fail after a second of silence; near the drain's end, at once.

    One read of ours receives many times, so that a trickle would keep it for as long as it lasts.
    """
    if connection is None:
        yield
        return
    before = connection.getsockopt(*_PATIENCE, struct.calcsize("ll"))
    connection.setsockopt(*_PATIENCE, struct.pack("ll", 1, 0))
    at_once = (*_PATIENCE, struct.pack("ll", 0, 1))
    timer = threading.Timer(_DRAIN_SECONDS - 1, connection.setsockopt, at_once)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        connection.setsockopt(*_PATIENCE, before)


def _known(cause: Exception) -> errors.ImageAPIError:
    if isinstance(cause, errors.ImageAPIError):
        return cause
    if isinstance(cause, sa.exc.OperationalError | sa.exc.TimeoutError | sa.exc.InterfaceError):
        return errors.DatabaseUnavailable()
    if isinstance(cause, sa.exc.DBAPIError) and cause.connection_invalidated:
        return errors.DatabaseUnavailable()
    if type(cause) is sa.exc.DatabaseError:
        # SQLite's word for a file that is damaged, or that the disk can not read at the moment.
        return errors.DatabaseUnavailable()
    if isinstance(cause, OSError):
        # A disk or a descriptor that something beside the storages needed.
        return errors.StorageUnavailable()
    if isinstance(cause, HTTPException) and cause.code in _BY_STATUS:
        allow = dict(cause.get_headers()).get("Allow")
        return _BY_STATUS[cause.code](headers={"Allow": allow} if allow else None)
    if isinstance(cause, HTTPException) and cause.code and 400 <= cause.code < 500:
        return errors.BadRequest()
    return errors.ImageAPIError()


def body(error: errors.ImageAPIError, request_id: str) -> bytes:
    """The problem as JSON, of the type `PROBLEM_TYPE`."""
    said: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": str(error),
        "instance": f"urn:uuid:{request_id}",
        "code": error.code,
    }
    if error.errors:
        said["errors"] = [{"field": e.field, "message": e.message} for e in error.errors]
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    # Half of a surrogate pair, in the name of a field say, is written as JSON's own escape of it.
    return text.encode("utf-8", "backslashreplace")


def problem(error: errors.ImageAPIError) -> Response:
    """The answer for `error`: all the safety headers, no X-token, no X-Runtime."""
    data = body(error, g.request_id)
    headers = [
        *SAFETY,
        *error.headers.items(),
        ("Content-Type", PROBLEM_TYPE),
        ("Vary", "Accept-Encoding"),
        P3P,
        ("X-Request-Id", g.request_id),
        ("Content-Length", str(len(data))),
    ]
    return Response(data, error.status, Headers(headers))
