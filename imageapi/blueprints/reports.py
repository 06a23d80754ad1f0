"""What is told of every request once it is answered: counted, logged, and audited if it changed things.

One place, after everything else: whatever happened to a request, it leaves one line.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Response, request

from imageapi import metrics, telemetry
from imageapi.auth import guard
from imageapi.errors import ImageAPIError

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def about(**facts: Any) -> None:
    """Say what the request changes, for its audit line: ids of what is made or touched."""
    state = guard.held()
    state.about = {**state.get("about", {}), **facts}


def refused(error: ImageAPIError, cause: Exception) -> None:
    """Say why the request is refused, for its line.

    Args:
        error: what the client is told.
        cause: what was raised.
    """
    guard.held().refusal = (error, cause)


def finish(response: Response) -> None:
    """Count the request that `response` answers, and leave its line in the log."""
    # Each use of a proxy looks it up anew.
    asked, state = request._get_current_object(), guard.held()  # type: ignore[attr-defined]  # noqa: SLF001
    seconds = time.perf_counter() - state.started
    endpoint, method, status = asked.endpoint or "none", asked.method, response.status_code
    metrics.request(endpoint, method, status, seconds)
    name, length = response.headers[-1]
    if name != "Content-Length":
        length = response.headers.get("Content-Length", "0")
    address = asked.remote_addr or ""
    if status >= 400 and "refusal" in state:
        told = {"method": method, "endpoint": endpoint, "address": address, "status": status}
        ms = round(seconds * 1000, 3)
        _refused(*state.refusal, path=asked.path, ms=ms, bytes=int(length), **told)
        return
    telemetry.answered(
        state.request_id, method, endpoint, asked.path, status, seconds, length, address
    )
    if status < 300 and (method not in _READING or "about" in state):
        _audit(state, asked.view_args or {}, endpoint, status)


def _refused(error: ImageAPIError, cause: Exception, **told: Any) -> None:
    metrics.refusal(told["endpoint"], error.code)
    ours = error.status >= 500
    say = telemetry.log.error if ours else telemetry.log.info
    told["path"] = told["path"][: telemetry.MAX_PATH]
    say(
        "refused",
        code=error.code,
        detail=str(error),
        why=str(cause.__cause__) if cause.__cause__ else None,
        exc_info=cause if ours and error is not cause else None,
        **told,
    )


def _audit(state: Any, view_args: dict[str, Any], endpoint: str, status: int) -> None:
    token = state.token
    ids = {name.removesuffix("_id"): str(value) for name, value in view_args.items()}
    telemetry.audit(
        operation=endpoint,
        issuer=token.issuer,
        user=token.user_id,
        by_share=token.share,
        request_id=state.request_id,
        status=status,
        **{"album": state.get("album"), **ids, **state.get("about", {})},
    )
