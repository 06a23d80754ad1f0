"""The tables that clients and other tables are made from: errors, rules, headers."""

from __future__ import annotations

import pytest

from imageapi import create_app, errors
from imageapi.auth.policy import ACCESS_HEADERS, POLICY, Access
from imageapi.blueprints import problems
from imageapi.errors import ImageAPIError

PUBLIC_API: set[str] = set()
"""Endpoints under /api/ that need no token: none."""


def tree(root=ImageAPIError):
    """Every class of errors."""
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


def test_a_code_says_one_thing():
    codes = {}
    for kind in tree():
        if "code" in vars(kind):
            assert codes.setdefault(kind.code, kind) is kind
    assert set(codes) >= {"internal_error", "bad_request", "unauthorized", "not_found"}


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_an_error_is_whole(kind):
    error = kind()
    assert kind.code.replace("_", "").isalpha()
    assert kind.code == kind.code.lower()
    assert 400 <= kind.status < 600
    assert kind.title[0].isupper()
    assert str(error).endswith(".")
    assert kind.__doc__
    assert kind.__module__ == errors.__name__


def test_one_status_has_one_title():
    titles = {}
    for kind in tree():
        assert titles.setdefault(kind.status, kind.title) == kind.title


def test_what_can_be_tried_again_says_when():
    for kind in tree():
        if kind.code.endswith("_unavailable"):
            assert kind.status == 503
            assert int(kind().headers["Retry-After"]) > 0


def test_the_statuses_of_others_become_ours():
    assert all(kind.status == status for status, kind in problems._BY_STATUS.items())


def test_every_route_of_the_api_has_abilities_or_a_user(settings):
    app = create_app(settings)
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/") and rule.endpoint not in PUBLIC_API:
            assert POLICY[rule.endpoint] is not Access.PUBLIC, rule
            assert POLICY[rule.endpoint] is not Access.SIGNED, rule


def test_the_access_headers_are_of_routes_that_there_are():
    assert ACCESS_HEADERS.keys() <= POLICY.keys()
    for names in ACCESS_HEADERS.values():
        for name, ability in names.items():
            assert name == f"X-access-{ability.removeprefix('image_')}" or name == (
                f"X-access-{ability}"
            )
