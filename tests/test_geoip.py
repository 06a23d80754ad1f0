"""`gps_ip`: from a MaxMind database, of the client that the outermost trusted proxy saw."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from imageapi.geoip import GeoIP
from tests.conftest import jpeg, part
from tests.servers.need import need_module

PLACES: dict[str, Any] = {
    "81.2.69.0/24": {"location": {"latitude": 51.5142, "longitude": -0.0931}},
    "89.160.20.0/24": {"location": {"latitude": 58.4167, "longitude": 15.6167}},
    "2001:218::/32": {"location": {"latitude": 35.68536, "longitude": 139.75309}},
    "203.0.113.1/32": {"location": {"latitude": 91.0, "longitude": 0.0}},
    "203.0.113.2/32": {"location": {"latitude": 0.0, "longitude": -180.5}},
    "203.0.113.3/32": {"location": {"latitude": float("nan"), "longitude": 0.0}},
    "203.0.113.4/32": {"location": {"latitude": "51", "longitude": "0"}},
    "203.0.113.5/32": {"location": {"latitude": 51.5}},
    "203.0.113.6/32": {"location": "London"},
    "203.0.113.7/32": {"country": {"iso_code": "GB"}},
    "203.0.113.8/32": {"location": {"latitude": 10, "longitude": 20}},
}
LONDON, LINKOPING, TOKYO = [51.5142, -0.0931], [58.4167, 15.6167], [35.68536, 139.75309]
PROXY = "10.0.0.1"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """A database of cities, written by a library that has nothing to do with the one that reads it."""
    writer = need_module("mmdb_writer", install="pip install mmdb-writer").MMDBWriter(
        ip_version=6, ipv4_compatible=True, database_type="Test-City", float_type="f64"
    )
    netaddr = need_module("netaddr", install="pip install netaddr")
    for network, entry in PLACES.items():
        writer.insert_network(netaddr.IPSet([network]), entry)
    path = tmp_path_factory.mktemp("geoip") / "cities.mmdb"
    writer.to_db_file(str(path))
    return path


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("81.2.69.160", tuple(LONDON)),
        ("::ffff:81.2.69.160", tuple(LONDON)),
        ("2001:218::1", tuple(TOKYO)),
        ("203.0.113.8", (10.0, 20.0)),
        *((f"203.0.113.{number}", None) for number in range(1, 8)),
        *((address, None) for address in ("127.0.0.1", "10.0.0.1", "192.0.2.1", "::1", "fe80::1")),
        *((text, None) for text in ("", "unknown", "81.2.69.160:443", "81.2.69", "[2001:218::1]")),
        *((text, None) for text in ("81.2.69.160/24", " 81.2.69.160", "81.2.69.160\n", "\0", "é")),
        (None, None),
    ],
)
def test_an_address_has_a_position_or_none(database: Path, address, expected):
    assert GeoIP(database).position(address) == expected


@given(st.text(max_size=60))
def test_no_text_is_harmful(database: Path, text: str):
    GeoIP(database).position(text)


def test_without_a_database_nothing_is_known():
    assert GeoIP(None).position("81.2.69.160") is None


@pytest.fixture
def settings(request, settings, database):
    return dataclasses.replace(settings, geoip_database=database)


@pytest.fixture
def gps_ip(client, token, album):
    """`gps_ip(forwarded, **headers)`: what an upload through a proxy is told; the proxy asks."""
    album()

    def upload(forwarded: str | None, peer: str = PROXY, **headers: str) -> Any:
        given = {"X-Forwarded-For": forwarded} if forwarded is not None else {}
        response = client.post(
            "/api/v1/albums/holidays/images",
            data={"file": part(jpeg(seed=next(_numbers)))},
            headers={**token("holidays", "image_upload"), **given, **headers},
            environ_overrides={"REMOTE_ADDR": peer},
        )
        assert response.status_code == 201
        return response.get_json()["gps_ip"]

    return upload


def test_without_a_trusted_proxy_it_is_the_peers(gps_ip):
    assert gps_ip(None, peer="81.2.69.160") == LONDON
    assert gps_ip("81.2.69.160", peer="89.160.20.112") == LINKOPING
    assert gps_ip("81.2.69.160") is None


@pytest.mark.configure(trusted_proxies=1)
@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("81.2.69.160", LONDON),
        ("2001:218::1", TOKYO),
        ("89.160.20.112, 81.2.69.160", LONDON),
        ("89.160.20.112,81.2.69.160", LONDON),
        ("81.2.69.160, 10.1.1.1", None),
        ("81.2.69.160, unknown", None),
        ("81.2.69.160,", None),
        ("", None),
        (None, None),
    ],
)
def test_behind_one_proxy_it_is_the_last_that_was_forwarded(gps_ip, forwarded, expected):
    assert gps_ip(forwarded) == expected


@pytest.mark.configure(trusted_proxies=2)
def test_behind_two_proxies_it_is_the_last_but_one(gps_ip):
    assert gps_ip("89.160.20.112, 81.2.69.160, 10.0.0.2") == LONDON
    assert gps_ip("81.2.69.160") is None  # fewer than there are proxies: nobody vouches for it


SPOOFED = st.lists(
    st.sampled_from(
        [
            *("89.160.20.112", "2001:218::1", "127.0.0.1", "unknown", "_hidden", "", "é", '"'),
            *("89.160.20.112:80", "[2001:218::1]", "for=89.160.20.112", "a" * 600, "\t", "::"),
        ]
    ),
    max_size=5,
)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "X-Real-IP": st.just("89.160.20.112"),
        "Forwarded": st.just("for=89.160.20.112"),
        "X-Client-IP": st.just("89.160.20.112"),
        "CF-Connecting-IP": st.just("89.160.20.112"),
        "X-Forwarded-Host": st.just("elsewhere.test"),
    },
)


@pytest.mark.configure(trusted_proxies=1)
@hypothesis_settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(spoofed=SPOOFED, others=OTHERS, glue=st.sampled_from([",", ", ", " , "]))
def test_whatever_a_client_says_its_proxy_is_believed(gps_ip, spoofed, others, glue):
    said = glue.join([*spoofed, "81.2.69.160"]).encode().decode("latin-1")
    assert gps_ip(said, **others) == LONDON
