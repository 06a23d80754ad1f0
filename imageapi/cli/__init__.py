"""The `flask` commands: thin, over the catalog; a module a group.

Results go to standard output, everything else to standard error. What can be foreseen ends in one
sentence and an exit code: 0 done, 1 refused or broken, 2 the command line is not acceptable. Every
command says its own example and exit codes; `docs/cli.md` is made from them.
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from imageapi.cli import (
    albums,
    database,
    integrators,
    renditions,
    revoke,
    storages,
    token,
    upkeep,
    users,
)
from imageapi.cli.command import Migrations

GROUPS = tuple(
    module.commands
    for module in (
        albums,
        database,
        integrators,
        renditions,
        revoke,
        storages,
        token,
        upkeep,
        users,
    )
)
"""A group without a name has commands that stand on their own: `flask fsck`."""


def init_app(app: Flask) -> None:
    """Add the commands to `app`, which has those of Flask-Migrate."""
    theirs: Any = app.cli.commands["db"]
    app.cli.add_command(
        Migrations(
            "db", theirs.commands, params=theirs.params, callback=theirs.callback, help=theirs.help
        )
    )
    for group in GROUPS:
        for command in [group] if group.name else group.commands.values():
            app.cli.add_command(command)
