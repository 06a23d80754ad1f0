"""Tokens: the header grammar, verification, renewal. Pure but for the clock.

A token is a compact JWS (RFC 7515) with the claims of a JWT (RFC 7519), HS256 alone: the server
chooses the algorithm, never the token. PyJWT does the cryptography; what it lets through and we do
not (duplicate keys, non-canonical base64, floats as dates, no bound on `exp`) is refused here.

Source: design §3; RFC 9110 §11.4 for the shape of the header.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cachetools
import jwt

MAX_CREDENTIAL = 8192
"""The most bytes that an Authorization header may have."""
MAX_DEPTH = 16
"""How deep claims may be nested."""
LEEWAY = 30
"""Seconds that clocks may differ."""
RENEWAL = 4 * 3600
"""Seconds that an X-token lives."""
MAX_ID = 128
"""The most characters of a user id or an issuer."""
_FOREVER = 1 << 62

_HEADER = {"typ": "JWT", "alg": "HS256"}
_REFUSED_PARAMETERS = frozenset(
    {"jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64", "zip"}
)

_JWT = r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_OPTION = re.compile(rf"[\t ]*,[\t ]*(?P<name>{_NAME})=(?:{_NAME}|{_QUOTED})")
_CREDENTIAL = re.compile(
    rf'(?i:token +token=|token +|bearer +)(?P<quote>"?)(?P<jwt>{_JWT})(?P=quote)(?P<options>.*)'
)
# JSON has but this one spelling of it. PostgreSQL keeps no such text, so nothing could ever match.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class TokenFault(Exception):
    """Why a token does not count: one sentence, for `token explain`; a client only sees 401."""


class UnknownKey(TokenFault):
    """No key that we know signed it; one that was made this moment may have."""


class Revoked(TokenFault):
    """It was revoked; this may have been lifted this moment."""


@dataclass(frozen=True, eq=False)
class Token:
    """A verified token.

    Attributes:
        text: as it came.
        claims: as it said, in its order.
        expires: its `exp`, seconds since 1970.
        issuer: its `iss`, "" for the operator's own.
        user_id: None when it names no user: it owns nothing then.
        issued_at: its `iat`, or None.
        entries: album id to its entry in `abilities`, whatever that is.
        share: the id of the share that it comes from, or None.
        key_ends: when the key that signed it ends, seconds since 1970.
        renewed: the X-token given last, by the second it was asked for.
        granted: what its entries were found to grant, by album id.
    """

    text: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    expires: int
    issuer: str
    user_id: str | None
    issued_at: int | None
    entries: Mapping[str, Any]
    share: str | None
    key_ends: float
    renewed: dict[int, str] = field(default_factory=dict, repr=False)
    granted: dict[str, frozenset[Any]] = field(default_factory=dict, repr=False)


def credential(header: str | None) -> str:
    """The one token in an Authorization header.

    Accepts `Token token="<jwt>"`, `Token <jwt>` and `Bearer <jwt>`: the scheme in any case, quotes
    optional, further `, key="value"` options ignored.

    Raises:
        TokenFault: none, two, too long, or of another grammar.
    """
    if not header:
        raise TokenFault("there is no Authorization header")
    if len(header) > MAX_CREDENTIAL:
        raise TokenFault(f"the Authorization header is longer than {MAX_CREDENTIAL} bytes")
    match = _CREDENTIAL.fullmatch(header)
    if match is None or not _ignorable(match["options"]):
        raise TokenFault('the header is not one credential of the form Token token="<jwt>"')
    return match["jwt"]


def _ignorable(options: str) -> bool:
    position = 0
    while position < len(options):
        option = _OPTION.match(options, position)
        if option is None or option["name"].lower() == "token":
            return False
        position = option.end()
    return True


class Key(NamedTuple):
    """A secret, and when it stops to verify, in seconds since 1970."""

    secret: str
    ends: float = math.inf

    def __repr__(self) -> str:
        """Not the secret."""
        return f"Key(ends={self.ends})"


class Keyring:
    """The keys that tokens are verified with, by issuer; the newest first.

    Verified tokens are remembered by their text; a keyring is replaced, never changed, when a key
    is, so nothing that an old key vouched for outlives it.
    """

    def __init__(
        self, keys: Mapping[str, Sequence[Key]], max_age: int, *, require_iat: bool = False
    ) -> None:
        """Keep `keys` (issuer to keys, "" is the operator) and the most seconds `exp` is ahead."""
        self._keys = keys
        self._max_age = max_age
        self._require_iat = require_iat
        self._known: cachetools.LRUCache[str, Token] = cachetools.LRUCache(4096)
        self._lock = threading.Lock()

    def verify(self, text: str, now: float) -> Token:
        """The token that `text` is, if it counts at `now` (seconds since 1970).

        Raises:
            TokenFault: it does not, and why.
        """
        with self._lock:
            token = self._known.get(text)
        if token is None:
            token = self._decode(text, now)
            with self._lock:
                self._known[text] = token
        self._check_dates(token, now)
        return token

    def renew(self, token: Token, now: float, end: int | None = None) -> str:
        """The X-token: the same claims in their order, `exp` at `now` + 4 h.

        Never past `renew_until`, nor `iat` + the greatest age, nor `end`; where nothing later may be
        given, the token itself is.
        """
        expires = int(now) + RENEWAL
        renewed = token.renewed.get(expires)
        if renewed is None:
            cap = self._cap(token.claims, end)
            at_cap = cap < expires and (cap <= now or cap == token.expires)
            renewed = token.text if at_cap else self._sign(token, min(expires, cap))
            token.renewed.clear()
            token.renewed[expires] = renewed
        return renewed

    def issue(self, claims: Mapping[str, Any], issuer: str = "") -> str:
        """A token that says `claims`, signed with the issuer's newest key.

        Raises:
            UnknownKey: the issuer is not registered.
        """
        return sign(claims, self._of(issuer)[0].secret)

    def _sign(self, token: Token, expires: int) -> str:
        return self.issue({**token.claims, "exp": expires}, token.issuer)

    def _cap(self, claims: Mapping[str, Any], end: int | None) -> int:
        aged: int = claims["iat"] + self._max_age if "iat" in claims else _FOREVER
        until: int = claims.get("renew_until", _FOREVER)
        return min(aged, until, end or _FOREVER)

    def _of(self, issuer: str) -> Sequence[Key]:
        keys = self._keys.get(issuer)
        if not keys:
            raise UnknownKey(f"its issuer {issuer!r} is not registered")
        return keys

    def _decode(self, text: str, now: float) -> Token:
        claims = _claims(text)
        issuer = _name(claims, "iss") or ""
        keys = [key for key in self._of(issuer) if key.ends > now]
        ends = [key.ends for key in keys if _signed_with(key.secret, text)]
        if not ends:
            raise UnknownKey("its signature is not of a key in use")
        entries = claims.get("abilities")
        token = Token(
            text=text,
            claims=claims,
            expires=claims["exp"],
            issuer=issuer,
            user_id=_name(claims, "user_id"),
            issued_at=claims.get("iat"),
            entries=entries if isinstance(entries, dict) else {},
            share=_name(claims, "share"),
            key_ends=ends[0],
        )
        if token.share is not None and (token.user_id is not None or len(token.entries) != 1):
            raise TokenFault("a share token has one entry and no user_id")
        return token

    def _check_dates(self, token: Token, now: float) -> None:
        if token.expires <= now - LEEWAY:
            raise TokenFault("it has expired")
        if token.expires > now + self._max_age + LEEWAY:
            raise TokenFault(f"its exp is more than {self._max_age} seconds ahead")
        if token.key_ends <= now:
            raise TokenFault("its signature is not of a key in use")
        for name in ("nbf", "iat"):
            if token.claims.get(name, 0) > now + LEEWAY:
                raise TokenFault(f"its {name} lies in the future")
        if self._require_iat and token.issued_at is None:
            raise TokenFault("it has no iat, which IMAGEAPI_REQUIRE_IAT asks for")


def sign(claims: Mapping[str, Any], key: str) -> str:
    """The token that says `claims`, in their order, as raw UTF-8, signed with `key`."""
    payload = json.dumps(claims, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return jwt.api_jws.encode(payload.encode(), key, "HS256", headers=_HEADER, sort_headers=False)


def _signed_with(key: str, text: str) -> bool:
    try:
        jwt.api_jws.decode(text, key, algorithms=["HS256"])
    except jwt.PyJWTError:
        return False
    return True


def _claims(text: str) -> dict[str, Any]:
    header, claims = (_json_object(segment) for segment in text.split(".")[:2])
    if header.get("alg") != "HS256" or header.get("typ", "JWT") != "JWT":
        raise TokenFault("its header does not say HS256 and JWT")
    if not _REFUSED_PARAMETERS.isdisjoint(header):
        raise TokenFault("its header has a parameter that is not accepted")
    for name in ("exp", "nbf", "iat", "renew_until"):
        if name == "exp" or name in claims:
            _check_date(claims, name)
    return claims


def _check_date(claims: Mapping[str, Any], name: str) -> None:
    if type(claims.get(name)) is not int:
        raise TokenFault(f"its {name} is not a whole number of seconds")


def _name(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise TokenFault(f"its {name} is not a text of 1 to {MAX_ID} characters")
    return value


def _json_object(segment: str) -> dict[str, Any]:
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        text = raw.decode()
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
        # What can not be written again (a lone surrogate) could not be renewed either.
        json.dumps(value, ensure_ascii=False).encode()
    except (binascii.Error, ValueError, RecursionError) as error:
        raise TokenFault("a segment is not JSON in base64url") from error
    if _NUL.search(text):
        raise TokenFault("a text in it has a NUL")
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise TokenFault("a segment is not in canonical base64url")
    if not isinstance(value, dict) or deeper(value, MAX_DEPTH):
        raise TokenFault(f"a segment is not a JSON object nested at most {MAX_DEPTH} deep")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def deeper(value: Any, levels: int) -> bool:
    """Whether JSON is nested deeper than so many levels.

    Looks no further than it must: what json takes may be nested deeper than Python can follow.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(deeper(inner, levels - 1) for inner in value)
