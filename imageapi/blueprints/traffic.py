"""Which pages may call the API, and how often anyone may: CORS and rate limits.

Both libraries are imported only when a setting asks for them.

Source: the Fetch standard (CORS); draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import hashlib

from flask import Flask, Response, current_app, g, request

from imageapi.auth.policy import ACCESS_HEADERS
from imageapi.blueprints.responses import P3P, SAFETY
from imageapi.settings import Settings

API = "/api/"
EXPOSED = (
    "X-token",
    *dict.fromkeys(name for names in ACCESS_HEADERS.values() for name in names),
    "X-message",
    "X-duplicate",
    "X-Request-Id",
    "ETag",
    "Link",
    "Location",
    "Retry-After",
)
"""The headers that a page of another origin may read."""


def init_app(app: Flask, settings: Settings) -> None:
    """Answer OPTIONS without a token; allow the origins and count the requests that settings say."""
    app.before_request(_options)
    if settings.cors_origins:
        _allow(app, settings.cors_origins)
    if settings.rate_limit:
        _limit(app, settings.rate_limit, settings.redis_url)


def _options() -> Response | None:
    if request.method != "OPTIONS" or request.routing_exception is not None:
        return None
    response = current_app.make_default_options_response()
    allow = response.headers["Allow"]
    answer = Response(status=204, headers=[*SAFETY, ("Allow", allow), P3P])
    answer.headers["X-Request-Id"] = g.request_id
    del answer.headers["Content-Type"]
    # Says nothing of any album, so there is nothing to decide.
    g.decided = True
    return answer


def _allow(app: Flask, origins: tuple[str, ...]) -> None:
    from flask_cors import CORS  # noqa: PLC0415

    CORS(
        app,
        resources={rf"{API}.*": {"origins": list(origins)}},
        expose_headers=list(EXPOSED),
        max_age=600,
        send_wildcard=False,
        supports_credentials=False,
    )


def _limit(app: Flask, rate: str, redis_url: str) -> None:
    from flask_limiter import ApplicationLimit, HeaderNames, Limiter  # noqa: PLC0415

    limiter = Limiter(
        _address,
        app=app,
        application_limits=[
            ApplicationLimit(rate, key_function=_token),
            ApplicationLimit(rate, key_function=_address),
        ],
        headers_enabled=True,
        header_name_mapping={
            HeaderNames.LIMIT: "RateLimit-Limit",
            HeaderNames.REMAINING: "RateLimit-Remaining",
            HeaderNames.RESET: "RateLimit-Reset",
        },
        retry_after="delta-seconds",
        storage_uri=redis_url or "memory://",
        in_memory_fallback_enabled=bool(redis_url),
        swallow_errors=True,
    )
    limiter.request_filter(_free)


def _free() -> bool:
    return request.method == "OPTIONS" or not request.path.startswith(API)


def _token() -> str:
    """What stands for the request's token: not the token itself, which a Redis may show to others."""
    given = request.headers.get("Authorization") or _address()
    return hashlib.sha256(given.encode()).hexdigest()


def _address() -> str:
    return request.remote_addr or "unknown"
