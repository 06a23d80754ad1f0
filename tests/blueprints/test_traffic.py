"""CORS and rate limits, as pages of other origins and busy clients meet them."""

from __future__ import annotations

import time

import pytest
import requests
import time_machine

from imageapi.errors import Busy
from tests.servers import gunicorn, redis

ORIGIN = "https://app.example.org"
LIST = "/api/v1/albums/holidays/images"


@pytest.fixture
def listed(client, album, token):
    """`listed(**headers)`: the answer of a list to a token that may see it."""
    album("holidays")

    def ask(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.get(LIST, headers={**token("holidays", "image_list"), **named})

    return ask


@pytest.mark.configure(cors_origins=(ORIGIN, "https://other.example.org"))
def test_an_allowed_origin_may_read_the_answer(listed):
    response = listed(Origin=ORIGIN)
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers.getlist("Vary") == ["Accept-Encoding", "Origin"]
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-token", "X-access-crop", "X-access-stats", "X-message", "X-duplicate", "ETag"} <= {
        *exposed
    }
    assert {"X-Request-Id", "Link", "Location", "Retry-After"} <= {*exposed}
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.configure(cors_origins=(ORIGIN,))
@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://app.example.org",
        "https://app.example.org.evil.example",
        "https://evil-app.example.org",
        "https://app.example.org:8443",
        "https://appXexample.org",
    ],
)
def test_another_origin_may_not(listed, origin):
    assert "Access-Control-Allow-Origin" not in listed(Origin=origin).headers


@pytest.mark.configure(cors_origins=("http://[::1]:3000", ORIGIN))
@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("http://[::1]:3000", True),
        ("http://1:3000", False),
        ("http://::3000", False),
        ("http://[::1]:30001", False),
        (ORIGIN, True),
        ("https://appXexample.org", False),
    ],
)
def test_an_address_in_brackets_is_an_origin_and_no_pattern(listed, origin, may):
    allowed = listed(Origin=origin).headers.get("Access-Control-Allow-Origin")
    assert (allowed == origin) == may


@pytest.mark.configure(cors_origins=("http://[fe80::a]:3000",))
def test_an_origin_is_compared_as_flask_cors_does_with_names(listed):
    response = listed(Origin="http://[FE80::A]:3000")
    assert response.headers["Access-Control-Allow-Origin"] == "http://[FE80::A]:3000"
    assert response.headers.getlist("Vary") == ["Accept-Encoding", "Origin"]


def test_without_origins_nothing_speaks_of_cors(listed):
    response = listed(Origin=ORIGIN)
    assert response.headers.getlist("Vary") == ["Accept-Encoding"]
    assert not [name for name, _value in response.headers if name.startswith("Access-Control")]


@pytest.mark.configure(cors_origins=(ORIGIN,))
def test_a_preflight_needs_no_token(client):
    response = client.options(
        "/api/v1/images/5cf8c06d-83fa-4ede-b995-5efd3133b6e5",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization, if-match",
        },
    )
    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "PUT" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, if-match"


@pytest.mark.configure(cors_origins=(ORIGIN,))
def test_a_page_may_read_why_it_was_refused(client):
    response = client.get(LIST, headers={"Origin": ORIGIN})
    assert response.status_code == 401
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_options_tells_the_methods(client):
    response = client.options("/api/v1/albums")
    assert response.status_code == 204
    assert {"GET", "POST"} <= {*response.headers["Allow"].split(", ")}


@pytest.mark.configure(rate_limit="3/minute")
def test_a_token_has_its_rate(listed, client, token):
    answers = [listed() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Limit"] == "3"
    assert answers[0].headers["RateLimit-Remaining"] == "2"
    refused = answers[3]
    assert refused.mimetype == "application/problem+json"
    assert refused.json["code"] == "too_many_requests"
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert "X-token" not in refused.headers
    # The address has made as many requests by now, whatever token the next one has.
    assert client.get(LIST, headers=token("holidays", "image_list", user_id="b")).status_code == 429


@pytest.mark.configure(rate_limit="5/hour")
def test_only_who_is_refused_is_told_to_come_again(listed, client, token):
    missing = client.get("/api/v1/albums/none", headers=token("none", "see"))
    answers = [listed(), missing, client.get(LIST), listed(), listed()]
    assert [answer.status_code for answer in answers] == [200, 404, 401, 200, 200]
    for answer in answers:
        assert "Retry-After" not in answer.headers
        assert 0 < int(answer.headers["RateLimit-Reset"]) <= 3600
    refused = listed()
    assert refused.status_code == 429
    assert refused.headers.getlist("Retry-After") == [refused.headers["RateLimit-Reset"]]
    assert refused.headers["RateLimit-Remaining"] == "0"


@pytest.mark.configure(rate_limit="500/hour")
def test_an_error_keeps_its_own_time_to_come_again(listed, monkeypatch):
    def busy(*_arguments, **_options):
        raise Busy

    monkeypatch.setattr("imageapi.catalog.listing.page", busy)
    answer = listed()
    assert answer.status_code == 503
    assert answer.headers.getlist("Retry-After") == ["2"]
    assert answer.headers["RateLimit-Remaining"] == "499"


@pytest.mark.configure(rate_limit="2/minute")
def test_a_window_that_is_over_is_a_new_one(listed):
    with time_machine.travel(time.time(), tick=False) as clock:
        waits = []
        for _ in range(2):
            assert [listed().status_code for _ in range(3)] == [200, 200, 429]
            waits.append(int(listed().headers["Retry-After"]))
            clock.shift(waits[-1])
        assert waits == [60, 60]


@pytest.mark.configure(rate_limit="5/hour")
def test_a_token_is_the_same_however_it_is_written(client, token):
    text = token("holidays", "image_list", user_id="anna")["Authorization"].split('"')[1]
    spelled = [f"Bearer {text}, n={n}" for n in range(4)]
    spelled += [f"Token {text}", f'Token token="{text}"']
    statuses = [
        client.get(
            LIST,
            headers={"Authorization": header},
            environ_base={"REMOTE_ADDR": f"192.0.2.{n}"},
        ).status_code
        for n, header in enumerate(spelled)
    ]
    assert statuses == [200] * 5 + [429]


@pytest.mark.configure(rate_limit="3/hour")
def test_what_is_no_token_counts_for_its_address(client):
    statuses = [
        client.get(LIST, headers={"Authorization": f"Bearer {n}"}).status_code for n in range(4)
    ]
    assert statuses == [401] * 3 + [429]


@pytest.mark.configure(rate_limit="2/minute")
def test_one_token_from_many_addresses_is_one_token(client, token):
    headers = token("holidays", "image_list")
    statuses = [
        client.get(LIST, headers=headers, environ_base={"REMOTE_ADDR": f"192.0.2.{n}"}).status_code
        for n in range(3)
    ]
    assert statuses == [200, 200, 429]


@pytest.mark.configure(rate_limit="1/minute")
def test_public_routes_are_not_counted(client):
    assert {client.get("/healthz").status_code for _ in range(5)} == {200}


def test_all_processes_count_together_in_redis():
    with redis.redis() as server:
        settings = {
            "IMAGEAPI_RATE_LIMIT": "10/minute",
            "IMAGEAPI_REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
        }
        with gunicorn.gunicorn(settings, "--workers=2", "--threads=2") as app:
            statuses = [requests.get(f"{app.url}{LIST}", timeout=5).status_code for _ in range(12)]
            server.kill()
            after = requests.get(f"{app.url}{LIST}", timeout=5).status_code
    assert statuses == [401] * 10 + [429] * 2
    assert after == 401


def test_a_redis_that_hangs_or_is_emptied_is_not_waited_for():
    """Threats F26: no 5xx; each process counts its own until Redis answers again."""
    with redis.redis() as server:
        settings = {"IMAGEAPI_RATE_LIMIT": "1000/minute", "IMAGEAPI_REDIS_URL": server.url}
        with gunicorn.gunicorn(settings, "--workers=2", "--threads=2") as app:

            def ask(times=20):
                for _ in range(times):
                    answer = requests.get(f"{app.url}{LIST}", timeout=30)
                    assert answer.status_code == 401
                    assert answer.elapsed.total_seconds() < 2
                return answer

            assert ask().headers["RateLimit-Limit"] == "1000"
            server.pause()
            ask()
            server.resume()
            server.kill()
            assert ask().headers["RateLimit-Limit"] == "1000"
            server.start()  # and knows nothing
            assert ask().headers["RateLimit-Limit"] == "1000"
