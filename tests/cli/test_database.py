"""All rows into another database, and on with it there."""

from __future__ import annotations

import dataclasses

import flask_migrate
import pytest
import sqlalchemy as sa

from imageapi import create_app
from imageapi.extensions import Base, db, read
from tests.api.conftest import Api
from tests.cli.conftest import assert_told
from tests.conftest import bearing, jpeg, sign
from tests.servers.postgres import postgres


def rows(app):
    with app.app_context():
        return {
            table.name: sorted(map(tuple, read(sa.select(table))), key=str)
            for table in Base.metadata.sorted_tables
        }


def closed(app):
    app.extensions["background"].stop()
    app.extensions["reader"].close()
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def elsewhere(settings, tmp_path):
    """`elsewhere(url)`: an application on that database, migrated, with the same instance folder."""
    made = []

    def make(url):
        app = create_app(dataclasses.replace(settings, database_url=url))
        with app.app_context():
            flask_migrate.upgrade()
        made.append(app)
        return app

    yield make
    for app in made:
        closed(app)


@pytest.fixture
def server():
    with postgres() as running, running.database() as url:
        yield url.replace("postgresql:", "postgresql+psycopg:")


def fill(client, album):
    album("holidays", owner="anna")
    entry = {"holidays": {"Access": {"see": True, "image_tag": True}, "Tags": {"sea": {"a": "é"}}}}
    anna = Api(client, bearing(sign({"user_id": "anna"})))
    images = [anna.upload(data=jpeg(seed=number)) for number in range(3)]
    anna.put(f"/images/{images[0]['public_id']}", json={"rotation": 90})
    anna.post(f"/images/{images[1]['public_id']}/duplicate")
    tagger = Api(client, bearing(sign({"user_id": "anna", "abilities": entry})))
    tag = tagger.get("/albums/holidays/tags").json[0]
    ids = {"image_ids": [images[2]["public_id"]]}
    assert tagger.post(f"/tags/{tag['id']}/tag_images", json=ids).status_code == 200
    return images


def test_from_sqlite_to_postgresql_and_back(app, client, flask, album, elsewhere, server, tmp_path):
    images = fill(client, album)
    other = elsewhere(server)
    before = rows(app)
    done = flask("database", "copy", "--to", server)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{sum(map(len, before.values()))} rows copied.\n"
    assert rows(other) == before

    anna = Api(other.test_client(), bearing(sign({"user_id": "anna"})))
    assert anna.get(f"/images/{images[0]['public_id']}").json["rotation"] == 90
    assert anna.get(f"/images/{images[2]['public_id']}/original").data == jpeg(seed=2)
    assert anna.upload(data=jpeg(seed=9))["public_id"]
    assert anna.post("/albums", json={}).status_code == 200

    url = f"sqlite:///{tmp_path / 'back.sqlite3'}"
    third = elsewhere(url)
    done = other.test_cli_runner().invoke(args=["database", "copy", "--to", url])
    assert done.exit_code == 0, done.output
    assert rows(third) == rows(other)


def test_what_is_refused_changes_nothing(app, client, flask, album, elsewhere, tmp_path):
    fill(client, album)
    empty = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    done = flask("database", "copy", "--to", empty)
    assert_told(done, 1, "not of one version")
    other = elsewhere(empty)
    assert flask("database", "copy", "--to", empty).exit_code == 0
    before = rows(other)
    assert_told(flask("database", "copy", "--to", empty), 1, "has rows already, in ")
    assert rows(other) == before
    itself = f"sqlite:///{app.extensions['library'].settings.instance / 'imageapi.sqlite3'}"
    assert flask("database", "copy", "--to", itself).exit_code == 1
    assert rows(app) == before


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "oracle17+x://anna:pass-7c1d@h/d",
        "://pass-7c1d",
        "postgresql+psycopg://anna:p@ss:pass-7c1d@h/d",
        "postgresql+psycopg://anna:pass-7c1d/d",
        "postgresql+psycopg://anna:pass-7c1d\udcff@h/d",
    ],
)
def test_a_url_that_is_none_is_not_shown(flask, url):
    done = flask("database", "copy", "--to", url)
    assert_told(done, 2, "is no SQLAlchemy URL")
    assert "pass-7c1d" not in done.output
