"""`flask storages`: which there are, and whether they work."""

import json
import re

import pytest

from tests.cli.conftest import assert_told
from tests.storages import s3_settings


def test_the_storages_are_listed(flask, album):
    album(storage="attic")
    listed = json.loads(flask("storages", "list", "--json").stdout)
    assert {"name": "local", "plugin": "local", "default": True, "in_use": True} in listed
    assert {"name": "attic", "plugin": None, "default": False, "in_use": True} in listed
    lines = flask("storages", "list").stdout.splitlines()
    assert lines[0].split() == ["name", "plugin", "default", "in_use"]
    assert "attic - no yes" in [" ".join(line.split()) for line in lines]


def test_a_usable_storage_is_said_to_be(flask):
    done = flask("storages", "check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "local: usable" in done.stdout.splitlines()


def test_a_broken_storage_counts_when_it_is_in_use(settings, flask, album):
    settings.instance.joinpath("storage").write_text("in the way")
    done = flask("storages", "check")
    assert done.exit_code == 1
    assert re.search(r"^local: (?!usable).+", done.stdout, re.MULTILINE)
    assert done.stderr == "Error: Storages in use that are not usable: 1.\n"
    album(storage="attic")
    done = flask("storages", "check")
    assert "attic: There is no storage 'attic'." in done.stdout.splitlines()
    assert done.stderr == "Error: Storages in use that are not usable: 2.\n"


@pytest.mark.configure(storage="attic")
def test_a_storage_of_new_albums_that_is_none_is_told(flask):
    listed = json.loads(flask("storages", "list", "--json").stdout)
    assert {"name": "attic", "plugin": None, "default": True, "in_use": True} in listed
    done = flask("storages", "check")
    assert done.exit_code == 1
    assert "attic: There is no storage 'attic'." in done.stdout.splitlines()


@pytest.mark.configure(storages={"local": "local", "spare": "no-such-plugin"})
def test_a_broken_storage_that_is_not_in_use_is_only_told(flask):
    done = flask("storages", "check")
    assert done.exit_code == 0
    assert re.search(
        r"^spare: .*no plugin 'no-such-plugin'.* \(not in use\)$", done.stdout, re.MULTILINE
    )


@pytest.mark.configure(
    storage="photos",
    storages={"photos": "s3", "typo": "s4", "bare": "cloudinary", "local": "local"},
)
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("BUCKET", "no-such-bucket", "The bucket does not exist."),
        ("SECRET_ACCESS_KEY", "another-secret-of-it", "refuses"),
        ("ENDPOINT_URL", "http://127.0.0.1:9", "does not answer"),
        ("BUCKET", None, "IMAGEAPI_STORAGE_PHOTOS_BUCKET is required"),
    ],
)
def test_what_is_wrong_is_said_in_words(app, flask, s3_server, monkeypatch, variable, value, words):
    given = s3_settings(s3_server)
    for name, text in given.items():
        monkeypatch.setenv(name.replace("_S3_", "_PHOTOS_"), text)
    assert "photos: usable" in flask("storages", "check").stdout.splitlines()
    app.extensions["library"].storages._loaded.clear()
    if value is None:
        monkeypatch.delenv(f"IMAGEAPI_STORAGE_PHOTOS_{variable}")
    else:
        monkeypatch.setenv(f"IMAGEAPI_STORAGE_PHOTOS_{variable}", value)
    done = flask("storages", "check")
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert done.exit_code == 1
    assert words in lines["photos"]
    assert "no plugin 's4'" in lines["typo"]
    assert "IMAGEAPI_STORAGE_BARE_CLOUD_NAME is required" in lines["bare"]
    assert lines["local"].startswith("usable")
    for secret in (given["IMAGEAPI_STORAGE_S3_SECRET_ACCESS_KEY"], "another-secret-of-it"):
        assert secret not in done.output


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--background",)])
@pytest.mark.parametrize("name", ["attic", "u\udcff"], ids=["attic", "no UTF-8"])
def test_nothing_moves_to_a_storage_that_is_none(flask, album, name, more):
    album()
    done = flask("storages", "migrate", "--album", "holidays", "--to", name, *more)
    assert_told(done, 1, f"There is no storage {name!r}.")
