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


NAMED = re.compile(r"`(?:(tests/[\w/]+\.py))?(?:::(\w+))?`")


@pytest.mark.parametrize("page", sorted(path.name for path in (REPOSITORY / "docs").glob("*.md")))
def test_every_test_that_a_page_names_is_there(page):
    path = None
    for file, name in NAMED.findall((REPOSITORY / "docs" / page).read_text()):
        path = REPOSITORY / file if file else path
        if file:
            assert path.is_file(), file
        if name:
            found = re.search(rf"^ *def {name}\(", path.read_text(), re.MULTILINE)
            assert found, f"{path.name} has no {name}"


def test_make_faults_runs_all_that_has_full_figures():
    makefile = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
    [command] = re.findall(r"FAULTS=full \S+/pytest (.*)", makefile)
    folders = command.split()
    for path in (REPOSITORY / "tests").rglob("*.py"):
        if re.search(r"environ.*\bFAULTS\b", path.read_text()):
            assert any(path.is_relative_to(REPOSITORY / folder) for folder in folders), path
