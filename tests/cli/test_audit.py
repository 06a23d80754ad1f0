"""Every command that may change something leaves one audit line, with who ran it and on what."""

from __future__ import annotations

import json

import pytest

from imageapi import cli
from tests.conftest import jpeg

READING = {
    *["albums list", "integrators list", "storages list", "storages check", "token explain"],
}


@pytest.fixture
def audits(app):
    """`audits()`: the audit lines since the last time."""
    file, seen = app.extensions["library"].settings.instance / "audit.log", []

    def fresh():
        lines = file.read_text().splitlines() if file.exists() else []
        new = lines[len(seen) :]
        seen.extend(new)
        return [json.loads(line) for line in new]

    return fresh


def test_only_what_reads_is_left_out():
    reading = {
        " ".join(filter(None, (group.name, name)))
        for group in cli.GROUPS
        for name, command in group.commands.items()
        if not command.changes
    }
    assert reading == READING


def test_a_command_says_what_it_did(flask, audits, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg())
    runs = {
        "albums create": ("holidays", "--owner", "anna"),
        "albums seed": (tmp_path / "pictures", "--album", "holidays", "--owner", "anna"),
        "albums transfer": ("holidays", "--owner", "bob"),
        "integrators add": ("acme",),
        "integrators rotate": ("acme",),
        "integrators remove": ("acme",),
        "revoke user": ("anna",),
        "users erase": ("anna", "--yes"),
        "collect": (),
        "fsck": ("--repair",),
        "token create": ("--user", "bob"),
    }
    for operation, arguments in runs.items():
        done = flask(*operation.split(), *arguments)
        assert done.exit_code == 0, (operation, done.output)
        (line,) = audits()
        assert (line["operation"], line["exit"]) == (operation, 0)
        assert line["by"] == "command line"
        assert line["system_user"]
        if operation in ("integrators add", "integrators rotate", "token create"):
            assert done.stdout.strip() not in json.dumps(line)
        if operation == "albums seed":
            assert (line["added"], line["given"]["public_id"]) == (1, "holidays")


def test_a_command_that_fails_says_so(flask, audits):
    flask("albums", "transfer", "nowhere", "--owner", "anna")
    (line,) = audits()
    assert line["exit"] == 1
    flask("albums", "transfer")
    flask("albums", "list")
    assert audits() == []


def test_a_password_on_the_command_line_is_not_told(flask, audits):
    flask("database", "copy", "--to", "postgresql+psycopg://u:hunter2@127.0.0.1:1/d")
    assert "hunter2" not in json.dumps(audits())
