"""Requests and commands of the tests of upkeep."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api


@pytest.fixture
def anna(client, token, album):
    """Requests of the owner of the album `holidays`."""
    album("holidays", owner="anna")
    return Api(client, token(user_id="anna"))


@pytest.fixture
def flask(app):
    """`flask(*arguments)`: run a command in this process."""

    def run(*arguments):
        return app.test_cli_runner().invoke(args=list(map(str, arguments)))

    return run
