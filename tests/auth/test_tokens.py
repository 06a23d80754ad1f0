"""What makes a token count, beside a second opinion; and the X-token."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageapi.auth import tokens
from imageapi.auth.tokens import Key, Keyring, TokenFault
from imageapi.extensions import transaction
from imageapi.settings import SettingsError, load
from tests.auth import reference
from tests.auth.conftest import (
    HEADER,
    NOW,
    assert_refused,
    dump,
    insert_integrator,
    many,
    mint,
    seal,
)
from tests.auth.reference import encode
from tests.conftest import SECRET, bearing, sign
from tests.servers.gunicorn import ROOT, environment

ACME = "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c"
KEYS = {"": [SECRET], "acme": [ACME]}
MAX_AGE = reference.SECONDS_30_DAYS
GOOD = {"exp": NOW + 3600, "user_id": "anna"}


def keyring(keys=KEYS, **options):
    known = {issuer: [Key(secret) for secret in secrets] for issuer, secrets in keys.items()}
    return Keyring(known, MAX_AGE, **options)


def verdict(token, now=NOW, **options):
    """The claims of a token of the grammar that counts, else None."""
    try:
        text = tokens.credential(f"Bearer {token}")
        return dict(keyring(**options).verify(text, now).claims)
    except TokenFault:
        return None


def with_payload(payload: str | bytes) -> str:
    return mint(payload if isinstance(payload, bytes) else payload.encode())


def object_of(more: str) -> str:
    return with_payload(f'{{"exp":{NOW + 3600},"user_id":"anna",{more}}}')


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


# the tables ---------------------------------------------------------------------------------

ACCEPTED = {
    "plain": mint(GOOD),
    "another order": mint({"user_id": "anna", "exp": NOW + 3600}),
    "no typ": mint(GOOD, {"alg": "HS256"}),
    "alg first": mint(GOOD, {"alg": "HS256", "typ": "JWT"}),
    "a kid, which is not looked at": mint(GOOD, {"alg": "HS256", "kid": "../../etc/passwd"}),
    "spaces in the JSON": object_of(' "a" : [ 1 , 2 ]'),
    "all dates": mint({**GOOD, "iat": NOW, "nbf": NOW, "renew_until": NOW + 7200}),
    "iat within the leeway": mint({**GOOD, "iat": NOW + 30, "nbf": NOW + 30}),
    "as far ahead as may be": mint({**GOOD, "exp": NOW + MAX_AGE}),
    "claims of null": mint({**GOOD, "iss": None, "share": None, "abilities": None}),
    "16 deep": object_of(f'"a":{nested(15)}'),
    "not ASCII": mint({**GOOD, "name": "Zoë 图 🜨"}),
    "a surrogate pair, escaped": object_of(r'"name":"\ud83d\udf28"'),
    "what looks like a NUL": object_of(r'"a\\u0000":"\\\\u0000 \\\\\\u0000"'),
    "a big number": object_of(f'"a":{"9" * 4000}'),
    "an issuer's": mint({**GOOD, "iss": "acme"}, secret=ACME),
    "128 characters": mint({**GOOD, "user_id": "ü" * 128}),
}

NO_ALG = [
    None,
    [],
    {},
    ["HS256"],
    {"HS256": 1},
    "none",
    "None",
    "NONE",
    "nOnE",
    "",
    " HS256",
    1,
    True,
]
OTHER_ALG = [
    "hs256",
    "Hs256",
    "HS384",
    "HS512",
    "RS256",
    "RS512",
    "ES256",
    "PS256",
    "EdDSA",
    "HS256\0",
]
PARAMETERS = {
    "jku": "https://attacker.example/keys",
    "jwk": {"kty": "oct", "k": encode(SECRET.encode())},
    "x5u": "https://attacker.example/cert",
    "x5c": ["MII="],
    "x5t": "AA",
    "x5t#S256": "AA",
    "crit": [],
    "b64": True,
    "zip": "DEF",
}
NO_DATE = [
    *["true", "false", "null", '""', '"1800003600"', "[1800003600]", '{"a":1800003600}'],
    *["1800003600.0", "1.8e9", "1e30", "NaN", "Infinity", "-Infinity", "1e999", "-1e999"],
]
NO_NAME = [
    '""',
    f'"{"a" * 129}"',
    "1",
    "1.5",
    "true",
    "false",
    "[]",
    '["anna"]',
    "{}",
    r'"a\u0000b"',
]


def _headers():
    yield "unsigned", f"{encode(HEADER)}.{encode(dump(GOOD))}."
    for alg in [*NO_ALG, *OTHER_ALG]:
        header = {"typ": "JWT", "alg": alg}
        yield f"alg {alg!r}", mint(GOOD, header)
        yield f"alg {alg!r}, unsigned", mint(GOOD, header).rpartition(".")[0] + "."
        yield f"alg {alg!r}, zeros", mint(GOOD, header).rpartition(".")[0] + "." + "A" * 43
    yield "alg missing", mint(GOOD, {"typ": "JWT"})
    yield "alg twice", mint(GOOD, b'{"alg":"none","alg":"HS256"}')
    yield "HS384 in fact", mint(GOOD, digest=hashlib.sha384)
    yield "HS512 in fact", mint(GOOD, {"alg": "HS512"}, digest=hashlib.sha512)
    yield "HS512, cut", mint(GOOD, {"alg": "HS512"}, digest=hashlib.sha512)[:-43]
    for typ in (None, "jwt", "JWE", "at+jwt", 1, ["JWT"]):
        yield f"typ {typ!r}", mint(GOOD, {"alg": "HS256", "typ": typ})
    for kid in (None, 1, ["a"], {"a": 1}):
        yield f"kid {kid!r}", mint(GOOD, {"alg": "HS256", "kid": kid})
    for name, value in PARAMETERS.items():
        yield name, mint(GOOD, {"alg": "HS256", name: value})
        yield f"{name} null", mint(GOOD, {"alg": "HS256", name: None})
    yield (
        "its own jwk",
        mint(GOOD, {"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}, secret="\0" * 3),
    )


def _signatures():
    for secret in ("", "secret", SECRET[:-1], SECRET + " ", ACME, "your-256-bit-secret"):
        yield f"signed with {secret!r}", mint(GOOD, secret=secret)
    yield "another's claims", mint(GOOD).replace(encode(dump(GOOD)), encode(dump({**GOOD, "a": 1})))
    yield "acme's, signed by us", mint({**GOOD, "iss": "acme"})
    yield "ours, signed by acme", mint(GOOD, secret=ACME)
    for issuer in ("Acme", "acme ", "ACME", "nobody", "acme\0"):
        yield f"iss {issuer!r}", mint({**GOOD, "iss": issuer}, secret=ACME)
    yield "iss empty", mint({**GOOD, "iss": ""})


def _dates():
    yield "exp missing", mint({"user_id": "anna"})
    yield "exp in capitals", mint({"user_id": "anna", "EXP": NOW + 3600})
    for value in NO_DATE:
        yield f"exp {value}", with_payload(f'{{"exp":{value}}}')
        for name in ("nbf", "iat", "renew_until"):
            yield f"{name} {value}", object_of(f'"{name}":{value}')
    for value in ("9" * 400, "9" * 4000, "9" * 5000, NOW + MAX_AGE + 31, 10**30):
        yield f"exp far ahead: {str(value)[:12]}", with_payload(f'{{"exp":{value}}}')
        for name in ("nbf", "iat"):
            yield f"{name} far ahead: {str(value)[:12]}", object_of(f'"{name}":{value}')
    for value in (0, -1, NOW - 31, -(10**30), f"-{'9' * 4000}"):
        yield f"exp over: {str(value)[:12]}", with_payload(f'{{"exp":{value}}}')
    for name in ("nbf", "iat"):
        yield f"{name} in the future", mint({**GOOD, name: NOW + 31})


def _names():
    for value in NO_NAME:
        yield f"user_id {value[:9]}", with_payload(f'{{"exp":{NOW + 3600},"user_id":{value}}}')
        yield f"iss {value[:9]}", object_of(f'"iss":{value}')
        yield (
            f"share {value[:9]}",
            with_payload(f'{{"exp":{NOW + 3600},"share":{value},"abilities":{{"a":{{}}}}}}'),
        )
    share = {"exp": NOW + 3600, "share": "x"}
    yield "a share with a user", mint({**share, "user_id": "anna", "abilities": {"a": {}}})
    for entries in (None, [], {}, {"a": {}, "b": {}}, "a"):
        yield f"a share with entries {entries!r}", mint({**share, "abilities": entries})
    yield "a share without entries", mint(share)


def _json():
    for payload in ("", "null", "1", '"a"', "[]", f"[{dump(GOOD).decode()}]", "{", "{}{}", "e30"):
        yield f"payload {payload[:9]!r}", with_payload(payload)
        yield f"header {payload[:9]!r}", mint(GOOD, payload.encode())
    yield "payload with a byte order mark", with_payload(b"\xef\xbb\xbf" + dump(GOOD))
    yield "payload in UTF-16", with_payload(dump(GOOD).decode().encode("utf-16"))
    yield (
        "payload in Latin-1",
        with_payload(json.dumps({**GOOD, "n": "é"}, ensure_ascii=False).encode("latin-1")),
    )
    yield "a comment", object_of("/**/")
    yield "a comma too many", with_payload(f'{{"exp":{NOW + 3600},}}')
    yield "a NUL after it", with_payload(dump(GOOD) + b"\0")
    yield "a lone surrogate", object_of(r'"name":"\ud800"')
    yield "a lone surrogate as a key", object_of(r'"\udfff":1')
    yield "a lone surrogate in the header", mint(GOOD, rb'{"alg":"HS256","a":"\ud800"}')
    yield "a surrogate in UTF-8", with_payload(b'{"exp":1800003600,"a":"\xed\xa0\x80"}')
    yield "a NUL", object_of(r'"name":"\u0000"')
    yield "a NUL in a key", object_of(r'"abilities":{"a\u0000":{}}')
    yield "a NUL in a list", object_of(r'"a":[["\u0000"]]')
    yield "a NUL after backslashes", object_of(r'"a":"\\\\\u0000"')
    yield "a NUL in the header", mint(GOOD, rb'{"alg":"HS256","a":"\u0000"}')
    yield "a key twice", object_of('"user_id":"bob"')
    yield "exp twice", object_of(f'"exp":{NOW + 3600}')
    yield "a key twice, once escaped", object_of(r'"\u0075ser_id":"bob"')
    yield "a key twice, inside", object_of('"abilities":{"a":{},"a":{"Access":{"see":true}}}')
    yield "NaN inside", object_of('"a":[NaN]')
    yield "infinite inside", object_of('"a":{"b":1e999}')


def _depths():
    for depth in (16, 17, 64, 300, 480, 500, 600, 800, 900, 940, 960, 990, 1000, 2000, 2900):
        yield f"{depth} lists deep", object_of(f'"a":{nested(depth)}')
        yield f"{depth} lists deep, open", with_payload("[" * depth)
        yield (
            f"{depth} lists deep in the header",
            mint(GOOD, f'{{"alg":"HS256","a":{nested(depth)}}}'.encode()),
        )
        within = min(depth, 950)  # 8 KiB hold no more
        yield f"{depth} objects deep", object_of('"a":' + '{"a":' * within + "1" + "}" * within)


def _text():
    good = mint(GOOD)
    for at, part in enumerate(good.split(".")):
        for change in (part + "=", part + "==", part + " ", "\n" + part, part + "A", part[:-1], ""):
            parts = good.split(".")
            parts[at] = change
            yield f"part {at}: {change[-9:]!r}", ".".join(parts)
    for number in (1, 2, 4, 5, 6):
        yield f"{number} parts", ".".join((good.split(".") * 2)[:number])
    for letter in reference.LETTERS:
        if letter != good[-1]:
            yield f"a signature that ends in {letter}", good[:-1] + letter
    header, payload, _signature = good.split(".")
    for loose in _stray_bits(encode(HEADER + b" ")):
        yield f"a header that ends in {loose[-1]}", seal(f"{loose}.{payload}")
    for loose in _stray_bits(encode(dump(GOOD) + b" " * (len(dump(GOOD)) % 3 == 0))):
        yield f"a payload that ends in {loose[-1]}", seal(f"{header}.{loose}")
    yield "standard base64", mint({**GOOD, "a": "???>>>"}).replace("_", "/").replace("-", "+")
    yield "another letter case", good.swapcase()
    yield "1 MB", mint({**GOOD, "a": "a" * 1_000_000})
    yield "200 kB of [", with_payload("[" * 200_000)


def _stray_bits(segment):
    """The other spellings that a lax decoder reads as the same bytes."""
    last = reference.LETTERS.index(segment[-1])
    loose = {2: 16, 3: 4}[len(segment) % 4]
    return [segment[:-1] + reference.LETTERS[last + bits] for bits in range(1, loose)]


REFUSED = {
    name: token
    for table in (_headers, _signatures, _dates, _names, _json, _depths, _text)
    for name, token in table()
}


def refers(token, now=NOW, **options):
    """What the second opinion says of a token."""
    text = reference.credential(f"Bearer {token}")
    return None if text is None else reference.claims(text, KEYS, now, **options)


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_what_counts(token):
    assert verdict(token) == refers(token) is not None


@pytest.mark.parametrize("token", REFUSED.values(), ids=map(ascii, REFUSED))
def test_what_does_not_count(token):
    assert refers(token) is None
    assert verdict(token) is None


@pytest.fixture
def clock():
    """A clock that stands at `NOW`, and can be moved."""
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def acme(app):
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)


@pytest.mark.usefixtures("clock", "acme")
def test_every_refusal_is_a_401_through_the_application(ask):
    for name, token in REFUSED.items():
        for form in (f"Bearer {token}", f'Token token="{token}"'):
            if "\n" not in form:  # no client can send that
                response = ask(form)
                assert response.status_code == 401, name
                assert_refused(response)
    for name, token in ACCEPTED.items():
        reached = name not in ("an issuer's", "128 characters")
        assert ask(f"Bearer {token}").status_code == (200 if reached else 404), name


# generated ----------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(["HS256", "JWT", "none", "acme", "anna", "\0", "\ud800", "a" * 129]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
DATES = st.one_of(
    st.integers(NOW - 33, NOW + 33),
    st.integers(NOW + MAX_AGE - 3, NOW + MAX_AGE + 33),
    VALUES,
)
NAMES = st.one_of(st.sampled_from(["anna", "acme", "", None, "a" * 128, "a" * 129]), VALUES)
CLAIMS = st.fixed_dictionaries(
    {"exp": DATES},
    optional={
        "nbf": DATES,
        "iat": DATES,
        "renew_until": DATES,
        "iss": NAMES,
        "user_id": NAMES,
        "share": NAMES,
        "abilities": st.dictionaries(st.text(max_size=3), VALUES, max_size=2) | VALUES,
        "more": VALUES,
    },
)
JOSE = st.fixed_dictionaries(
    {"alg": st.just("HS256") | VALUES},
    optional={
        **dict.fromkeys(("typ", "cty", "kid"), VALUES | st.just("JWT")),
        **dict.fromkeys(PARAMETERS, VALUES),
    },
)


def escaped(value) -> bytes:
    """JSON in ASCII: what is no Unicode is still there, escaped."""
    return json.dumps(value).encode()


@settings(max_examples=many(300, 10_000), deadline=None)
@given(JOSE)
def test_a_generated_header(header):
    token = mint(dump(GOOD), escaped(header))
    assert verdict(token) == refers(token)
    if header["alg"] != "HS256":
        assert verdict(token) is None


@settings(max_examples=many(600, 50_000), deadline=None)
@given(CLAIMS, st.sampled_from([SECRET, SECRET, ACME]), st.booleans())
def test_generated_claims(claims, secret, require_iat):
    token = mint(escaped(claims), secret=secret)
    assert verdict(token, require_iat=require_iat) == refers(token, require_iat=require_iat)


MUTATED = st.builds(
    lambda token, at, cut, piece: token[: at % len(token)] + piece + token[at % len(token) + cut :],
    st.sampled_from([dump(GOOD), HEADER, dump({**GOOD, "iat": NOW, "a": [{"b": "é"}, 1.5]})]),
    st.integers(min_value=0),
    st.integers(0, 3),
    st.sampled_from(
        [
            *[
                b'"',
                b",",
                b":",
                b"{",
                b"}",
                b"[",
                b"]",
                b"\\",
                b"1",
                b"-",
                b".",
                b"e9",
                b" ",
                b"\t",
            ],
            *[
                b"\n",
                b"\0",
                b"null",
                b"NaN",
                b"\\u0000",
                b"\\ud83d",
                b"\xff",
                b"\xc3",
                b'"exp":',
                b'"exp":1,',
                b"",
            ],
        ]
    ),
)


@settings(max_examples=many(800, 50_000), deadline=None)
@given(MUTATED, st.booleans())
def test_mutated_bytes_honestly_signed(data, in_header):
    token = mint(dump(GOOD), data) if in_header else mint(data)
    assert verdict(token) == refers(token)


@settings(max_examples=many(1500, 100_000), deadline=None)
@given(
    st.sampled_from(sorted(ACCEPTED.values(), key=len)[:12]),
    st.integers(min_value=0),
    st.integers(0, 2),
    st.sampled_from([*"AQgw4-_.= \0\x7f+/", "", "\xe9", "\ud800", "e30.", "=="]),
)
def test_mutated_text(token, at, cut, piece):
    at %= len(token) + 1
    changed = token[:at] + piece + token[at + cut :]
    assert verdict(changed) == refers(changed)
    if changed.strip(" ") != token:
        assert verdict(changed) is None


@settings(
    max_examples=many(150, 20_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(CLAIMS, JOSE)
def test_generated_tokens_through_the_application(ask, clock, claims, header):
    token = mint(escaped(claims), escaped(header))
    response = ask(f"Bearer {token}")
    if reference.claims(token, {"": [SECRET]}, NOW) is None:
        assert_refused(response)
    else:
        assert response.status_code in (200, 404) or (
            response.status_code == 401 and claims.get("share") is not None
        )


# dates --------------------------------------------------------------------------------------

BORDERS = {
    # claims, the first second at which they no longer count, and whether they count before it
    "exp": ({"exp": NOW}, NOW + 30, True),
    "exp too far ahead": ({"exp": NOW + MAX_AGE + 30}, NOW, False),
    "nbf": ({"exp": NOW + 999, "nbf": NOW + 30}, NOW, False),
    "iat": ({"exp": NOW + 999, "iat": NOW + 30}, NOW, False),
}


@pytest.mark.parametrize("name", BORDERS)
def test_a_border_is_exact_also_for_a_remembered_token(name, ask, clock):
    claims, border, before = BORDERS[name]
    header = f"Bearer {mint({**claims, 'user_id': 'anna'})}"
    for quarters in [*range(-8, 9), *range(8, -9, -1)]:
        clock.move_to(border + quarters / 4)
        counts = before if quarters < 0 else not before
        assert ask(header).status_code == (200 if counts else 401), quarters / 4


@pytest.mark.configure(token_max_age=4 * 3600)
@pytest.mark.usefixtures("clock")
def test_the_greatest_age_is_a_setting(ask):
    assert ask(f"Bearer {mint({**GOOD, 'exp': NOW + 4 * 3600 + 30})}").status_code == 200
    assert_refused(ask(f"Bearer {mint({**GOOD, 'exp': NOW + 4 * 3600 + 31})}"))


@pytest.mark.configure(require_iat=True)
@pytest.mark.usefixtures("clock")
def test_iat_may_be_required(ask):
    assert_refused(ask(f"Bearer {mint(GOOD)}"))
    response = ask(f"Bearer {mint({**GOOD, 'iat': NOW})}")
    assert response.status_code == 200
    assert ask(f"Bearer {response.headers['X-token']}").status_code == 200


# the X-token --------------------------------------------------------------------------------


def read(token):
    """The header and payload of a token, as bytes, its signature proven."""
    header, payload, _signature = token.split(".")
    assert token == seal(f"{header}.{payload}")
    return reference.decode(header), reference.decode(payload)


@pytest.mark.usefixtures("clock")
def test_the_x_token_says_the_same_in_the_same_order(ask):
    claims = {
        "z": [1, 1.5, -0.0, 12345678901234567890, True, None, {"b": 1, "a": "\u2028</script>"}],
        "name": "Zoë 图 🜨",
        "exp": NOW + 60,
        "abilities": {"été": {"Tags": {"Mer": "Sée"}}, "b": {}},
        "user_id": "anna",
        "": "",
    }
    for header in (HEADER, b'{"alg":"HS256"}', b'{"kid":"1","alg":"HS256","typ":"JWT"}'):
        renewed = ask(f"Bearer {mint(json.dumps(claims).encode(), header)}").headers["X-token"]
        assert renewed.startswith("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.")
        assert read(renewed) == (HEADER, dump({**claims, "exp": NOW + 4 * 3600}))


HOURS_4 = 4 * 3600
ECHO = "the token itself"
RENEWALS = [
    ({"exp": NOW + 1}, NOW + HOURS_4),
    ({"exp": NOW - 29}, NOW + HOURS_4),
    ({"exp": NOW + MAX_AGE}, NOW + HOURS_4),
    ({"exp": NOW + 60, "renew_until": NOW + HOURS_4 + 1}, NOW + HOURS_4),
    ({"exp": NOW + 60, "renew_until": NOW + HOURS_4}, NOW + HOURS_4),
    ({"exp": NOW + 60, "renew_until": NOW + HOURS_4 - 1}, NOW + HOURS_4 - 1),
    ({"exp": NOW + 60, "renew_until": NOW + 61}, NOW + 61),
    ({"exp": NOW + 60, "renew_until": NOW + 60}, ECHO),
    ({"exp": NOW + 60, "renew_until": NOW}, ECHO),
    ({"exp": NOW + 60, "renew_until": 0}, ECHO),
    ({"exp": NOW + 60, "renew_until": -(10**400)}, ECHO),
    ({"exp": NOW + 60, "renew_until": 10**400}, NOW + HOURS_4),
    ({"exp": NOW + 60, "iat": NOW}, NOW + HOURS_4),
    ({"exp": NOW + 60, "iat": NOW - MAX_AGE + 60}, ECHO),
    ({"exp": NOW + 60, "iat": NOW - MAX_AGE + 61}, NOW + 61),
    ({"exp": NOW + 60, "iat": NOW - MAX_AGE + HOURS_4 + 1}, NOW + HOURS_4),
    ({"exp": NOW + 60, "iat": NOW - MAX_AGE}, ECHO),
    ({"exp": NOW + 60, "iat": 0}, ECHO),
    ({"exp": NOW + 60, "iat": NOW, "renew_until": NOW + 90}, NOW + 90),
    ({"exp": NOW + 60, "iat": NOW - MAX_AGE + 80, "renew_until": NOW + 90}, NOW + 80),
]


@pytest.mark.parametrize(("claims", "expected"), RENEWALS, ids=str)
@pytest.mark.usefixtures("clock")
def test_the_x_tokens_end(claims, expected, ask):
    sent = mint({**claims, "user_id": "anna"}, b'{"alg":"HS256"}')
    renewed = ask(f"Bearer {sent}").headers["X-token"]
    if expected is ECHO:
        assert renewed == sent
    else:
        assert json.loads(read(renewed)[1]) == {**claims, "exp": expected, "user_id": "anna"}


def test_a_chain_of_renewals_ends_at_the_cap(ask, clock):
    token = mint({**GOOD, "iat": NOW, "renew_until": NOW + 10 * 3600})
    for _hour in range(12):
        response = ask(f"Bearer {token}")
        if response.status_code == 401:
            break
        token = response.headers["X-token"]
        assert json.loads(read(token)[1])["exp"] <= NOW + 10 * 3600
        clock.shift(3600)
    assert json.loads(read(token)[1])["exp"] == NOW + 10 * 3600
    assert response.status_code == 401


def test_the_x_token_is_signed_once_a_second(ask, clock, monkeypatch):
    signed = []
    plain = tokens.sign
    monkeypatch.setattr(tokens, "sign", lambda *args: signed.append(args) or plain(*args))
    header = f"Bearer {mint(GOOD)}"

    for second in range(3):
        clock.move_to(NOW + second)
        given = {ask(header).headers["X-token"] for _again in range(5)}
        assert len(given) == 1
        assert len(signed) == second + 1
        clock.move_to(NOW + second + 0.99)
        assert {ask(header).headers["X-token"]} == given
    ask(f"Bearer {mint({**GOOD, 'a': 1})}")
    assert len(signed) == 4


NEWER = "a-newer-key-of-the-tests-9a8b7c6d5e4f"


@pytest.mark.configure(secret_keys=(NEWER, SECRET))
@pytest.mark.usefixtures("clock")
def test_the_newest_key_signs_and_older_ones_verify(ask):
    for secret in (NEWER, SECRET):
        renewed = ask(f"Bearer {mint(GOOD, secret=secret)}").headers["X-token"]
        assert renewed == mint({**GOOD, "exp": NOW + HOURS_4}, secret=NEWER)


@pytest.mark.configure(secret_keys=(NEWER,))
@pytest.mark.usefixtures("clock")
def test_a_key_that_was_taken_away_verifies_nothing(ask):
    assert_refused(ask(f"Bearer {mint(GOOD)}"))


@pytest.mark.usefixtures("clock")
def test_the_x_token_is_of_2xx_answers_alone(client, image, ask):
    header = bearing(sign({**GOOD, "abilities": {"holidays": {}}}))
    assert "X-token" not in client.get(f"/api/v1/images/{image}", headers=header).headers
    assert "X-token" not in client.get("/api/v1/nothing", headers=header).headers
    assert "X-token" not in client.put("/assets/blank.jpg", headers=header).headers
    assert "X-token" in client.get("/api/v1/albums/other/images", headers=header).headers


# other kinds of signatures ------------------------------------------------------------------


def test_a_signed_url_is_no_token_and_a_token_no_signature(app, client, ask, image):
    urls = app.extensions["library"].storages.urls
    url = urls.url("local", f"r/{image}/1/mini.jpg", 1 << 20)
    signature = url.rpartition("=")[2]
    good = mint(GOOD)
    for text in (signature, url, f"{good.rpartition('.')[0]}.{signature}"):
        assert_refused(ask(f"Bearer {text}"))
    for text in (good, good.rpartition(".")[2], seal(url.partition("&")[0]).rpartition(".")[2]):
        assert client.get(url.replace(signature, text)).status_code == 404


# secrets ------------------------------------------------------------------------------------

WEAK = [
    *["", " ", ",", ",,", "a", "secret", "changeme", "x" * 31, SECRET[:31], "é" * 15],
    *["a" * 32, "a" * 64, "ab" * 20, "abc" * 20, "0" * 64, "password" * 4, "passwordpassword" * 3],
    *["your-256-bit-secret", "your-256-bit-secret-your-256-bit-secret"],
    *["a-string-secret-at-least-256-bits-long", "A-STRING-SECRET-AT-LEAST-256-BITS-LONG"],
    *["0123456789abcdef0123456789abcdef", "abcdefghijklmnopqrstuvwxyz0123456789"],
    *["qwertyuiopasdfghjklzxcvbnm1234567890", "QWERTYUIOPASDFGHJKLzxcvbnmqwertyui"],
    *["1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,", "zyxwvutsrqponmlkjihgfedcba987654321"],
    *["correct horse battery staple, and a bit more", "this-is-a-secret-this-is-a-secret-x"],
    *["django-insecure-9f8e7d6c5b4a39281706f5e4d3c2b1a0", "changeme-changeme-changeme-changeme"],
    *[
        f"{SECRET},short",
        f"short,{SECRET}",
        f"{SECRET},{'a' * 40}",
        f"{SECRET},changeme-changeme-{'b' * 20}",
    ],
]


@pytest.mark.parametrize("value", WEAK)
def test_a_weak_secret_is_refused_and_not_shown(value, monkeypatch):
    monkeypatch.setenv("IMAGEAPI_SECRET_KEYS", value)
    with pytest.raises(SettingsError) as refused:
        load()
    said = str(refused.value) + repr(refused.value)
    assert "IMAGEAPI_SECRET_KEYS" in said
    assert not any(len(key) > 6 and key in said for key in value.split(","))


def test_the_server_does_not_start_with_a_weak_secret(tmp_path):
    instance = tmp_path / "instance"
    env = environment(instance, {"IMAGEAPI_SECRET_KEYS": "changeme-changeme-changeme-!"})
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "IMAGEAPI_SECRET_KEYS" in ended.stderr
    assert "changeme" not in ended.stderr + ended.stdout
    assert not instance.exists()
