"""What holds for every command: its help, its example, and a database that is not there."""

import shlex

import click
import pytest
import sqlalchemy as sa

from imageapi import cli, create_app
from imageapi.extensions import db
from imageapi.settings import Settings
from tests.cli.conftest import assert_told
from tests.conftest import SECRET, close

COMMANDS = [
    pytest.param([*filter(None, [group.name]), command.name], command, id=command.name)
    for group in cli.GROUPS
    for command in group.commands.values()
]


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_the_help_has_an_example_that_the_command_accepts(flask, tmp_path, path, command):
    done = flask(*path, "--help")
    assert done.exit_code == 0
    assert f"  Example:\n    {command.example}\n" in done.stdout
    assert "  Exit codes:\n    0" in done.stdout
    words = shlex.split(command.example.replace("~/Pictures", str(tmp_path)).rpartition(" | ")[2])
    assert words[: len(path) + 1] == ["flask", *path]
    with click.Context(command) as parent:
        command.make_context(command.name, words[len(path) + 1 :], parent)


@pytest.mark.parametrize(
    "arguments",
    [
        ("albums", "list"),
        ("albums", "create", "a", "--owner", "anna"),
        ("albums", "seed", "/", "--album", "a", "--owner", "anna"),
        ("token", "create", "--user", "anna"),
        ("storages", "check"),
        ("integrators", "list"),
        ("revoke", "all"),
        ("token", "explain"),
        ("users", "erase", "anna", "--yes"),
        ("fsck",),
        ("collect",),
        ("renditions", "rebuild"),
        ("storages", "migrate", "--album", "a", "--to", "local"),
    ],
)
def test_a_database_that_was_not_migrated_is_said_to_be(settings, arguments):
    app = create_app(settings)
    with app.app_context(), db.engine.begin() as connection:
        db.metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
    done = app.test_cli_runner().invoke(args=arguments)
    assert_told(done, 1, "The database is not migrated: run `flask db upgrade`.")
    close(app)


@pytest.mark.parametrize("arguments", [("albums", "list"), ("db", "upgrade"), ("db", "current")])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////proc/none/imageapi.sqlite", "unable to open database file"),
        ("postgresql+psycopg://u:w0rd@127.0.0.1:9/images", "connection failed: "),
    ],
    ids=["sqlite", "postgresql"],
)
def test_a_database_that_does_not_answer_is_said_to(tmp_path, arguments, url, words):
    app = create_app(Settings(secret_keys=(SECRET,), instance=tmp_path, database_url=url))
    done = app.test_cli_runner().invoke(args=arguments)
    assert_told(done, 1, f"The database does not answer: {words}")
    assert done.stderr.count("\n") == 1


def test_a_database_that_can_not_be_migrated_says_why(settings):
    app = create_app(settings)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    done = app.test_cli_runner().invoke(args=["db", "upgrade"])
    assert_told(done, 1, "The database refuses: ")
    close(app)


def test_the_help_of_flask_db_is_still_flask_migrates(flask):
    assert "upgrade " in flask("db", "--help").stdout
    assert "--sql" in flask("db", "upgrade", "--help").stdout
    assert_told(flask("db", "upgrade", "--no"), 2, "No such option")
