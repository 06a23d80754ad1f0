"""Logs: one JSON object a line on standard error, with the request id, without any secret."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from flask import g, has_request_context

_SECRET_NAMES = re.compile(r"token|secret|authorization|password|signature|api_key", re.IGNORECASE)
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*")
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Blank what is named like a secret or looks like a token, in every value of a log event."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "[redacted]"
        elif isinstance(value, str):
            event[name] = _CREDENTIALS_IN_URL.sub("[redacted]", _JWT.sub("[redacted]", value))
    return event


def _with_request(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    # Looked up when something is logged: most requests log nothing.
    if has_request_context() and "request_id" in g:
        event.setdefault("request_id", g.request_id)
    return event


def configure(level: str) -> None:
    """Set up structlog for this process; `level` is a name such as INFO."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _with_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_logger,
        cache_logger_on_first_use=False,
    )


def _logger(*_names: object) -> Any:
    # Looked up at each use: a test, or a daemon that reopens its files, may have replaced it.
    return structlog.WriteLogger(sys.stderr)


log: Any = structlog.get_logger()
