"""One album of anna's, pictures in it, and requests about them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import requests

from imageapi.catalog import library
from tests.conftest import jpeg, part


class Api:
    """Requests of one token; `headers` say which."""

    def __init__(self, client, headers):
        self.client = client
        self.headers = headers

    def __call__(self, method, path, **options):
        headers = {**self.headers, **options.pop("headers", {})}
        return self.client.open(f"/api/v1{path}", method=method, headers=headers, **options)

    def get(self, path, **options):
        return self("GET", path, **options)

    def put(self, path, **options):
        return self("PUT", path, **options)

    def post(self, path, **options):
        return self("POST", path, **options)

    def delete(self, path, **options):
        return self("DELETE", path, **options)

    def upload(self, album="holidays", data=None, name="picture.jpg", **fields):
        """The image block of a picture that was taken in."""
        data = jpeg() if data is None else data
        response = self.post(f"/albums/{album}/images", data={**fields, "file": part(data, name)})
        assert response.status_code in (200, 201), response.text
        return response.json


@pytest.fixture
def api(client, token):
    """`api(album, *abilities, **claims)`: requests of such a token."""

    def make(album=None, *abilities, **claims):
        return Api(client, token(album, *abilities, **claims))

    return make


@pytest.fixture
def settings(settings, storage):
    return dataclasses.replace(settings, storage=storage)


@pytest.fixture
def anna(api, album, storage):
    """Requests of the owner of the album `holidays`."""
    album("holidays", owner="anna", storage=storage)
    return api(user_id="anna")


@pytest.fixture
def fetch(client):
    """`fetch(url)`: what a browser gets, whether from us or from the storage."""

    def get(url):
        if url.startswith("/"):
            return client.get(url)
        answer = requests.get(url, timeout=10)
        return SimpleNamespace(status_code=answer.status_code, data=answer.content)

    return get


@pytest.fixture
def stored(app, storage):
    """`stored()`: the keys of what the storage holds, originals and renditions."""

    def keys():
        with app.app_context():
            return [found.key for found in library().storages[storage].list()]

    return keys
