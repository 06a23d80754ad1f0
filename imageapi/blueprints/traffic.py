"""Who asks, which pages may call the API, and how often anyone may: proxies, CORS and rate limits.

Both libraries are imported only when a setting asks for them.

Source: the Fetch standard (CORS); RFC 7239 §5.2 and §8.1 (forwarded addresses);
draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import math
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g, request

from imageapi.auth import tokens
from imageapi.auth.policy import ACCESS_HEADERS
from imageapi.blueprints.responses import P3P, SAFETY
from imageapi.settings import Network, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask_limiter import RequestLimit

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
_PROXIED = "imageapi.proxied"
"""In the environment of a request that came through the proxies that are trusted."""

_PATIENCE: dict[str, Any] = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}
"""Seconds that a request waits for Redis; then each process counts its own for a while."""


def init_app(app: Flask, settings: Settings) -> None:
    """Answer OPTIONS without a token; allow the origins and count the requests that settings say."""
    app.before_request(_options)
    if settings.cors_origins:
        _allow(app, settings.cors_origins)
    if settings.rate_limit:
        _limit(app, settings.rate_limit, settings.redis_url)


def behind_proxies(app: WSGIApplication, number: int) -> WSGIApplication:
    """The application as it is behind so many proxies: the client is whom the outermost of them saw.

    Each proxy appends an address to X-Forwarded-For; what stands before theirs the client may have
    written. It is read from the right, and not as a list with quotes: one quote that the client sends
    would take in all that the proxies append. What is no address leaves the peer's.
    """

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[_PROXIED] = True
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "").rsplit(",", number)
        if len(forwarded) >= number:
            with contextlib.suppress(ValueError):
                environ["REMOTE_ADDR"] = str(ipaddress.ip_address(forwarded[-number].strip()))
        return app(environ, start_response)

    return wrapped


def from_operator(networks: Iterable[Network]) -> bool:
    """Whether the request comes from one of these networks, and not through a proxy unknown to us."""
    proxied = "HTTP_X_FORWARDED_FOR" in request.environ or "HTTP_FORWARDED" in request.environ
    if proxied and _PROXIED not in request.environ:
        return False
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in network for network in networks)


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
        resources={rf"{API}.*": {"origins": [_itself(origin) for origin in origins]}},
        expose_headers=list(EXPOSED),
        max_age=600,
        send_wildcard=False,
        supports_credentials=False,
    )


def _itself(origin: str) -> str | re.Pattern[str]:
    # flask-cors compares a name as it is, in any case, and takes brackets for a regular expression.
    return re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE) if "[" in origin else origin


def _limit(app: Flask, rate: str, redis_url: str) -> None:
    from flask_limiter import ApplicationLimit, Limiter  # noqa: PLC0415

    limiter = Limiter(
        _address,
        app=app,
        application_limits=[
            ApplicationLimit(rate, key_function=_token),
            ApplicationLimit(rate, key_function=_address),
        ],
        # Its own ones tell of a moment, not of seconds, and give every answer a Retry-After.
        headers_enabled=False,
        storage_uri=redis_url or "memory://",
        storage_options=_PATIENCE if redis_url else {},
        in_memory_fallback_enabled=bool(redis_url),
        swallow_errors=True,
    )
    limiter.request_filter(_free)

    def tell(response: Response) -> Response:
        # A Redis that has gone since it counted: this answer then says nothing of the rate.
        with contextlib.suppress(Exception):
            if limit := limiter.current_limit:
                _tell(response, limit)
        return response

    app.after_request(tell)


def _tell(response: Response, limit: RequestLimit) -> None:
    """Write the rate's headers, and when to come again for who is refused; errors know their own."""
    ends, remaining = limit.window
    seconds = str(max(0, math.ceil(ends - time.time())))
    response.headers["RateLimit-Limit"] = str(limit.limit.amount)
    response.headers["RateLimit-Remaining"] = str(remaining)
    response.headers["RateLimit-Reset"] = seconds
    if limit.breached:
        response.headers["Retry-After"] = seconds


def _free() -> bool:
    return request.method == "OPTIONS" or not request.path.startswith(API)


def _token() -> str:
    """What stands for the request's token: not the token itself, which a Redis may show to others."""
    try:
        given = tokens.credential(request.headers.get("Authorization"))
    except tokens.TokenFault:
        given = _address()
    return hashlib.sha256(given.encode()).hexdigest()


def _address() -> str:
    return request.remote_addr or "unknown"
