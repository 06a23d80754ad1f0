"""The document, as an application makes it."""

from __future__ import annotations

import pytest

from imageapi import create_app
from imageapi.blueprints.openapi import document
from imageapi.settings import Settings
from tests.conftest import SECRET
from tests.openapi.described import Document


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The document that the code makes now."""
    instance = tmp_path_factory.mktemp("document")
    return document.make(create_app(Settings(secret_keys=(SECRET,), instance=instance)))


@pytest.fixture(scope="session")
def described(made):
    """The same, ready to hold answers against."""
    return Document(made)
