"""The parts of the documentation that come from the code are what the code says now."""

import importlib.util
import re

import pytest

from imageapi.auth.policy import POLICY
from imageapi.errors import ImageAPIError

from .conftest import REPOSITORY


@pytest.fixture(scope="module")
def generate():
    """`docs/generate.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_that_is_made_is_stale(app, generate):
    stale = [
        str(path.relative_to(REPOSITORY))
        for path, text in generate.pages(app).items()
        if not path.is_file() or path.read_text() != text
    ]
    assert not stale, "run `make docs`"


def test_the_readme_has_its_parts_in_order():
    text = (REPOSITORY / "README.md").read_text()
    places = [
        text.index(part)
        for part in ("# Image API", "make run", "curl -i", '{"public_id":', "IMAGEAPI_SECRET_KEYS")
    ]
    assert places == sorted(places)
    assert text.rindex("\n## ") == text.index("\n## To add a storage")


def test_the_pages_are_complete(app, generate):
    errors = generate.errors_page()
    codes = {error.code for error in generate._errors(ImageAPIError)}
    assert set(re.findall(r"^\| `(\w+)`", errors, re.MULTILINE)) == codes
    policy = generate.policy_page(app)
    assert policy.count("\n| `") == len(list(app.url_map.iter_rules())) >= len(POLICY)


def test_no_made_page_points_out_of_the_repository(app, generate):
    for path, text in generate.pages(app).items():
        assert "design §" not in text, path
