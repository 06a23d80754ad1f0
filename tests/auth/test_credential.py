"""The Authorization header: one credential, in one grammar."""

from __future__ import annotations

import http.client

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageapi.auth import tokens
from tests.auth import reference
from tests.auth.conftest import assert_refused, many, mint
from tests.conftest import sign
from tests.servers.gunicorn import gunicorn
from tests.servers.ports import HOST

JWT = mint({"exp": 1})
OTHER = mint({"exp": 2})

ACCEPTED = [
    f'Token token="{JWT}"',
    f"Token token={JWT}",
    f'token TOKEN="{JWT}"',
    f'tOKEN    token="{JWT}"',
    f"Token {JWT}",
    f'Token "{JWT}"',
    f"Bearer {JWT}",
    f'bearer "{JWT}"',
    f"BEARER  {JWT}",
    f'Token token="{JWT}", realm="Application"',
    f'Token token="{JWT}",a=b,c="d, \\"e\\" token=f"',
    f'Token token="{JWT}" \t,\t a=""',
    f"Token token={JWT}, tokens=1, xtoken=2, !#$%&'*+-.^_`|~=3",
    f"Bearer {JWT}, a=b",
]

REFUSED = [
    *["", " ", "Token", "Token ", "Token token", "Token token=", 'Token token=""', "Bearer", "."],
    *[JWT, f'"{JWT}"', f"token={JWT}", f"Basic {JWT}", f"JWT {JWT}", f"Token-token={JWT}"],
    *[f" Token {JWT}", f"Token {JWT} ", f"Token\t{JWT}", f"Token \t{JWT}", f"Token\xa0{JWT}"],
    *[f"Token{JWT}", f'Token"{JWT}"', f"Bearer token={JWT}", f'Bearer token="{JWT}"'],
    *[f'Token token ="{JWT}"', f'Token token= "{JWT}"', f"Token token=token={JWT}"],
    *[f'Token token="{JWT}', f'Token token={JWT}"', f"Token token='{JWT}'", f'Token ""{JWT}""'],
    *[f'Token token=" {JWT}"', f'Token token="{JWT} "', f"Token token=<{JWT}>"],
    # Two are none.
    *[f'Token token="{JWT}", token="{JWT}"', f'Token token="{JWT}", Token="{OTHER}"'],
    *[f'Token token="{JWT}",Token token="{JWT}"', f'Token token="{JWT}", Token token="{OTHER}"'],
    *[f"Bearer {JWT}, Bearer {OTHER}", f"Token {JWT},Bearer {OTHER}", f"Token {JWT} {OTHER}"],
    *[f"Token {JWT},{OTHER}", f"Token {JWT}, TOKEN={OTHER}", f"Basic YTpi, Token {JWT}"],
    # Options that are none.
    *[
        f"Token {JWT},",
        f"Token {JWT}, ",
        f"Token {JWT},,a=b",
        f"Token {JWT}, a",
        f"Token {JWT} a=b",
    ],
    *[f"Token {JWT}, a=", f"Token {JWT}, =b", f"Token {JWT}, a =b", f"Token {JWT};a=b"],
    *[f'Token {JWT}, a="b', f'Token {JWT}, a="b"c', f'Token {JWT}, a="\\', f'Token {JWT}, a=b"c"'],
    *[f"Token {JWT}, a=é", f'Token {JWT}, a="é"', f'Token {JWT}, a="\x7f"', f"Token {JWT}, a=(b)"],
    # Characters and parts that no token has.
    *[
        f"Token {JWT}{end}"
        for end in ("\0", "\n", "\r\n", "\r\nX: y", "\x0b", "\x7f", "=", "==", "~")
    ],
    *[f"Token {JWT[:40]}{inside}{JWT[40:]}" for inside in "\0 \t\n=+/%\xe9\x80\xff"],
    *[f"Token {JWT}.", f"Token {JWT}.e30", f"Token {JWT}.e30.e30", f"Token .{JWT}", "Token a.b"],
    *["Token ..", f"Token .{JWT.partition('.')[2]}", f"Token {JWT.rpartition('.')[0]}"],
    *[f"Token {JWT.rpartition('.')[0]}.", f"Token {JWT}A", f"Token {JWT[:-1]}"],
    # Longer than any token may be.
    *["x" * 1_000_000, f"Token {'a' * 1_000_000}.b.c", f"Token {JWT}, a={'b' * 8192}"],
    *["Token " + " " * 8192 + JWT, "Token " + " " * 100_000, f"Token {JWT}" + ", a=b" * 2000],
]


@pytest.mark.parametrize("header", ACCEPTED)
def test_one_credential_is_read(header):
    assert tokens.credential(header) == reference.credential(header) == JWT


@pytest.mark.parametrize("header", REFUSED, ids=lambda header: ascii(header[:9] + header[-9:]))
def test_anything_else_is_refused(header):
    assert reference.credential(header) is None
    with pytest.raises(tokens.TokenFault):
        tokens.credential(header)


def test_the_longest_header():
    longest = f"Token {JWT}, a="
    longest += "b" * (8192 - len(longest))
    assert tokens.credential(longest) == JWT
    with pytest.raises(tokens.TokenFault):
        tokens.credential(longest + "b")


PIECES = st.sampled_from(
    [
        *[
            "Token",
            "token",
            "Bearer",
            "bEARER",
            "Basic",
            "token=",
            "Token=",
            "tokens=",
            "a=",
            "=",
            "b",
        ],
        *[
            " ",
            "  ",
            "\t",
            ",",
            ", ",
            " ,",
            ";",
            '"',
            '"c"',
            '"d, e"',
            '"\\""',
            "\\",
            "'",
            "\0",
            "é",
        ],
        *[JWT, OTHER, f'"{JWT}"', JWT[:-1], f"{JWT}A", JWT.rpartition(".")[0], ".", "x"],
    ]
)
HEADERS = st.one_of(
    st.lists(PIECES, max_size=9).map("".join),
    st.builds(
        lambda header, at, piece, cut: (
            header[: at % len(header)] + piece + header[at % len(header) + cut :]
        ),
        st.sampled_from(ACCEPTED),
        st.integers(min_value=0),
        PIECES,
        st.integers(0, 2),
    ),
    st.text(st.characters(max_codepoint=255), max_size=40),
)


@settings(max_examples=many(1000, 20_000), deadline=None)
@given(HEADERS)
def test_a_second_parser_reads_the_same(header):
    try:
        read = tokens.credential(header)
    except tokens.TokenFault:
        read = None
    assert read == reference.credential(header)


def test_accepted_and_refused_through_the_application(ask):
    token = sign({"user_id": "anna"})
    for header in ACCEPTED:
        assert ask(header.replace(JWT, token)).status_code == 200, header
    assert_refused(ask())
    for header in REFUSED:
        if not {"\r", "\n"} & set(header):  # no client can send those, nor a server take them
            assert_refused(ask(header.replace(JWT, token)))


@settings(
    max_examples=many(100, 5000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=300))
def test_no_bytes_are_more_than_a_401(ask, data):
    header = data.decode("latin-1").replace("\r", "").replace("\n", "")
    assert_refused(ask(header))


@pytest.mark.parametrize("name", ["token", "access_token", "jwt", "authorization", "Authorization"])
def test_a_token_in_query_cookie_or_form_is_never_read(client, image, name):
    token = sign({"user_id": "anna"})
    path = f"/api/v1/images/{image}"
    for value in (token, f'Token token="{token}"'):
        assert_refused(client.get(path, query_string={name: value}))
        client.set_cookie(name, value)
        assert_refused(client.get(path))
        assert_refused(client.post("/api/v1/albums/holidays/shares", data={name: value}))
    for header in ("X-token", "Proxy-Authorization", "X-Authorization"):
        assert_refused(client.get(path, headers={header: token}))


def test_headers_on_the_wire():
    """Through gunicorn: two headers are two credentials, 8 KiB comes in, what is too long does not."""

    def status(application, *values):
        connection = http.client.HTTPConnection(HOST, application.port, timeout=10)
        connection.putrequest("GET", "/api/v1/albums/none/images")
        for value in values:
            connection.putheader("Authorization", value)
        connection.endheaders()
        answered = connection.getresponse().status
        connection.close()
        return answered

    with gunicorn(None, "--workers", "1") as application:
        secret = application.env["IMAGEAPI_SECRET_KEYS"]
        token = sign({"user_id": "anna"}, secret)
        long = sign({"user_id": "anna", "x": "y" * 6000}, secret)
        assert 8000 < len(f"Bearer {long}") <= 8192
        assert status(application, f"Bearer {token}") == 200
        assert status(application, f"Bearer {long}") == 200
        for pair in ([token, token], [token, "x"], ["x", token], [token, ""]):
            assert status(application, *(f"Bearer {text}".strip() for text in pair)) == 401, pair
        assert status(application, f"Bearer {token}", f'Token token="{token}"') == 401
        assert status(application, f"Bearer {'x' * 15_000}") == 401
        assert status(application, f"Bearer {'x' * 1_000_000}") in (400, 431)
        assert status(application, f"Bearer {token}") == 200
