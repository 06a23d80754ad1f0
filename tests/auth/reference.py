"""A second opinion on tokens, written apart from `imageapi.auth`: no PyJWT, no regular expression.

Source: design §3, RFC 9110 §5.6 and §11.4, RFC 7515, RFC 7519, RFC 8259.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import string

LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
TOKEN_CHARACTERS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
QUOTABLE = "\t !" + "".join(map(chr, range(0x23, 0x5C))) + "".join(map(chr, range(0x5D, 0x7F)))
ESCAPABLE = "\t" + "".join(map(chr, range(0x20, 0x7F)))

ABILITIES = {
    *["see", "image_list", "image_upload", "image_download", "image_delete", "image_rotate"],
    *["image_crop", "image_tag", "image_duplicate", "image_share", "rename", "stats"],
}
SECONDS_30_DAYS = 30 * 24 * 3600


# the header ---------------------------------------------------------------------------------


def credential(header):
    """The token in an Authorization header, or None.

    scheme 1*SP [ "token=" ] ( jwt / DQUOTE jwt DQUOTE ) *( OWS "," OWS name "=" ( name / quoted ) )

    `token=` only after the scheme Token; no further option is named token.
    """
    if header is None or len(header) > 8192:
        return None
    scheme, space, rest = header.partition(" ")
    if not space or _lower(scheme) not in ("token", "bearer"):
        return None
    rest = rest.lstrip(" ")
    if _lower(scheme) == "token" and _lower(rest[:6]) == "token=":
        rest = rest[6:]
    if rest.startswith('"'):
        token, quote, rest = rest[1:].partition('"')
        if not quote:
            return None
    else:
        end = next((at for at, letter in enumerate(rest) if letter in " \t,"), len(rest))
        token, rest = rest[:end], rest[end:]
    return token if _is_jwt(token) and _are_options(rest) else None


def _lower(text):
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def _is_jwt(token):
    parts = token.split(".")
    return (
        len(parts) == 3
        and all(parts)
        and all(letter in LETTERS for part in parts for letter in part)
        and len(parts[2]) == 43
    )


def _are_options(rest):
    while rest:
        rest = rest.lstrip(" \t")
        if not rest.startswith(","):
            return False
        rest = rest[1:].lstrip(" \t")
        name, equals, rest = rest.partition("=")
        if not equals or not _is_name(name) or _lower(name) == "token":
            return False
        if rest.startswith('"'):
            rest = _after_quoted(rest)
            if rest is None:
                return False
        else:
            end = next((at for at, c in enumerate(rest) if c not in TOKEN_CHARACTERS), len(rest))
            if end == 0:
                return False
            rest = rest[end:]
    return True


def _is_name(text):
    return text != "" and all(letter in TOKEN_CHARACTERS for letter in text)


def _after_quoted(rest):
    at = 1
    while at < len(rest):
        if rest[at] == '"':
            return rest[at + 1 :]
        if rest[at] == "\\":
            at += 1
            if at == len(rest) or rest[at] not in ESCAPABLE:
                return None
        elif rest[at] not in QUOTABLE:
            return None
        at += 1
    return None


# the token ----------------------------------------------------------------------------------


class Pairs(list):
    """A JSON object as it stands: its pairs in order."""


def claims(token, keys, now, *, max_age=SECONDS_30_DAYS, require_iat=False):
    """The claims of a token that counts at `now`, else None. `keys`: issuer ("" is ours) to secrets."""
    parts = token.split(".")
    header, said = _json(parts[0]), _json(parts[1])
    if header is None or said is None or not _header_counts(header):
        return None
    issuer = said.get("iss")
    secrets = keys.get("" if issuer is None else issuer, []) if _is_text(issuer) else []
    if issuer == "" or not any(_signature(token, secret) == parts[2] for secret in secrets):
        return None
    for name in ("user_id", "share"):
        if said.get(name) == "" or not _is_text(said.get(name)):
            return None
    return said if _dates_count(said, now, max_age, require_iat) and _share_counts(said) else None


def _signature(token, secret):
    signed = token.rpartition(".")[0].encode()
    return encode(hmac.digest(secret.encode(), signed, hashlib.sha256))


def encode(data):
    """base64url without padding."""
    return base64.b64encode(data, altchars=b"-_").rstrip(b"=").decode()


def decode(segment):
    """The bytes of a segment, or ValueError."""
    return base64.b64decode(segment + "===", altchars=b"-_")


def _json(segment):
    try:
        data = decode(segment)
        pairs = json.loads(data.decode("utf-8", "strict"), object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return None
    if encode(data) != segment or not isinstance(pairs, Pairs) or not _is_plain(pairs):
        return None
    return _plain(pairs)


def _is_plain(value):
    """At most 16 levels, no key twice, no NaN, no infinity, no NUL, no lone surrogate."""
    left = [(value, 1)]
    while left:
        value, level = left.pop()
        if isinstance(value, list) and level > 16:
            return False
        if isinstance(value, Pairs):
            names = [name for name, _value in value]
            if len(names) != len(set(names)):
                return False
            left += [(inner, level + 1) for pair in value for inner in pair]
        elif isinstance(value, list):
            left += [(inner, level + 1) for inner in value]
        elif not _is_scalar(value):
            return False
    return True


def _is_scalar(value):
    if isinstance(value, str):
        return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    return not isinstance(value, float) or math.isfinite(value)


def _plain(value):
    if isinstance(value, Pairs):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _header_counts(header):
    return (
        header.get("alg") == "HS256"
        and header.get("typ", "JWT") == "JWT"
        and isinstance(header.get("kid", ""), str)
        and not {"jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64", "zip"} & set(header)
    )


def _is_text(value):
    return value is None or (isinstance(value, str) and len(value) <= 128)


def _is_whole(value):
    return isinstance(value, int) and value is not True and value is not False


def _dates_count(said, now, max_age, require_iat):
    dates = {name: said[name] for name in ("exp", "nbf", "iat", "renew_until") if name in said}
    if "exp" not in dates or not all(map(_is_whole, dates.values())):
        return False
    if require_iat and "iat" not in dates:
        return False
    begun = all(dates.get(name, now) <= now + 30 for name in ("nbf", "iat"))
    return begun and dates["exp"] + 30 > now and dates["exp"] <= now + max_age + 30


def _share_counts(said):
    if said.get("share") is None:
        return True
    entries = said.get("abilities")
    return said.get("user_id") is None and isinstance(entries, dict) and len(entries) == 1


# the decision -------------------------------------------------------------------------------


def decide(said, album, share=None):
    """What a token that says `said` may do in `album`; None: it does not reach it.

    Args:
        said: claims that count.
        album: `(row, issuer, public_id, owner)`.
        share: `(row of its album, abilities)` of the live share that it comes from.
    """
    row, issuer, public_id, owner = album
    entries = said.get("abilities") if isinstance(said.get("abilities"), dict) else {}
    if (said.get("iss") or "") != issuer:
        return None
    if said.get("share") is not None:
        only = {a for entry in entries.values() for a in ABILITIES if _flag(entry, a)}
        return (only & share[1]) - {"image_share"} if share and share[0] == row else None
    if public_id in entries:
        return {a for a in ABILITIES if _flag(entries[public_id], a)}
    return ABILITIES - {"image_share"} if owner and said.get("user_id") == owner else None


def _flag(entry, ability):
    try:
        return entry["Access"][ability] is True
    except (TypeError, KeyError, IndexError):
        return False
