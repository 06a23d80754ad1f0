"""Logs: one JSON object a line on standard error, with the request id, without any secret.

Source: docs/observability.md for the fields; threats of logs: injected lines, secrets, personal data.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, MutableMapping
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

import structlog
from flask import g, has_request_context

REDACTED = "[redacted]"
MIN_HIDDEN = 6
"""A shorter secret would blank ordinary words."""
MAX_PATH = 1024
"""The most characters of a path that are logged."""

_SECRET_NAMES = re.compile(
    r"token|secret|authorization|cookie|password|signature|credential|api_key|access_key",
    re.IGNORECASE,
)
_JWT = r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*"
_SHAPES = (
    _JWT,
    r"(?<=://)[^/@\s]+(?=@)",  # user and password of a URL
    r"(?<=[Bb]earer )\S{8,}",
    r"""(?<=[Tt]oken token=)\\*["']?[^\s"']+""",
    r"""(?i:(?<=[?&; ])(?:[\w-]*(?:signature|credential|token|secret|password|api_key)|sig)=[^&\s"']+)""",
)


class _Hidden:
    """What no line may show: the shapes of secrets, and the secrets that this process knows."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self.add(())

    def add(self, secrets: Iterable[str]) -> None:
        self._known.update(secret for secret in secrets if len(secret) >= MIN_HIDDEN)
        # The longest first: one may begin another.
        known = [re.escape(secret) for secret in sorted(self._known, key=len, reverse=True)]
        self._anywhere = re.compile("|".join([*known, *_SHAPES]))
        self._in_path = re.compile("|".join([*known, _JWT]))

    def blank(self, text: str) -> str:
        return self._anywhere.sub(REDACTED, text)

    def blank_path(self, path: str) -> str:
        return self._in_path.sub(REDACTED, path)


class _Output:
    """Where lines go, as `configure` was told."""

    requests = True
    audit: Path | None = None


_hidden = _Hidden()
_output = _Output()


def hide(secrets: Iterable[str]) -> None:
    """Never log these texts, wherever they turn up."""
    _hidden.add(secrets)


def blanked(path: str) -> str:
    """A path without what no line may show."""
    return _hidden.blank_path(path[:MAX_PATH])


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Blank what is named like a secret, is one or looks like one, in every value of a log event."""
    for name, value in event.items():
        event[name] = REDACTED if _SECRET_NAMES.search(name) else _redacted(value)
    return event


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return _hidden.blank(value)
    if isinstance(value, Mapping):
        return redact(None, "", dict(value))
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return (
        value if value is None or isinstance(value, bool | int | float) else _redacted(str(value))
    )


def _with_request(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    # Looked up when something is logged: most requests log nothing.
    if has_request_context() and "request_id" in g:
        event.setdefault("request_id", g.request_id)
    return event


def request_id() -> str | None:
    """The id of the request that this is done for, directly or later."""
    if has_request_context() and "request_id" in g:
        return str(g.request_id)
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


def configure(level: str, *, requests: bool = True, audit: Path | None = None) -> None:
    """Set up the logs of this process.

    Args:
        level: the least that is logged, a name such as INFO.
        requests: whether a request that was answered leaves a line; refused ones always do.
        audit: a file that audit lines are appended to; None: standard error.
    """
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
    _output.requests = requests and level in ("DEBUG", "INFO")
    _output.audit = audit
    root = logging.getLogger()
    if not any(isinstance(handler, _FromLibraries) for handler in root.handlers):
        root.addHandler(_FromLibraries(logging.WARNING))


class _FromLibraries(logging.Handler):
    """What libraries have to say, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log it."""
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say(record.getMessage(), logger=record.name, exc_info=record.exc_info)


class _StandardError:
    """Where all lines go; its faults are its own: no request fails for a log on a full disk."""

    # Looked up at each use: a test, or a daemon that reopens its files, may have replaced it.
    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


_STANDARD_ERROR: Any = _StandardError()


def _logger(*_names: object) -> Any:
    return structlog.WriteLogger(_STANDARD_ERROR)


log: Any = structlog.get_logger()


def answered(
    request_id: str,
    method: str,
    endpoint: str,
    path: str,
    status: int,
    seconds: float,
    length: str,
    address: str,
) -> None:
    """Log a request that was answered; written by hand, as every one is.

    Args:
        request_id, endpoint, length: texts of ours; what others have sent is written as JSON strings.
        seconds: until the answer was ready; it may still be on its way.
        length: of the body, in bytes.
    """
    if _output.requests:
        path = quoted(blanked(path))
        _STANDARD_ERROR.write(
            f'{{"request_id": "{request_id}", "method": {quoted(method)}, '
            f'"endpoint": "{endpoint}", "path": {path}, "status": {status}, '
            f'"ms": {seconds * 1000:.3f}, "bytes": {length}, "address": {quoted(address)}, '
            f'"event": "answered", "level": "info", "timestamp": "{_now()}"}}\n'
        )


def audit(otherwise: Path | None = None, /, **facts: Any) -> None:
    """Leave an audit line, whatever the level is: in the file that is for them.

    Args:
        otherwise: the file where `configure` named none; None: standard error.
        facts: what was done, by whom, on what.
    """
    target = _output.audit or otherwise
    event = {**facts, "event": "audit", "timestamp": _now()}
    line = json.dumps(redact(None, "", event), ensure_ascii=True) + "\n"
    if target is None:
        _STANDARD_ERROR.write(line)
        return
    try:
        # Opened each time, so that it may be moved away; one write, so that lines stay whole.
        file = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
    except OSError as error:
        _STANDARD_ERROR.write(line)
        log.error("the audit log can not be written", why=str(error))  # noqa: TRY400 - why is enough


_second: tuple[int, str] = (0, "")


def _now() -> str:
    global _second  # noqa: PLW0603 - the text of the present second, made once
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    known, text = _second
    if known != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = (seconds, text)
    return f"{text}.{rest // 1000:06d}Z"
