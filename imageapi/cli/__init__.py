"""The `flask` commands: thin, over the catalog; a module a group.

Results go to standard output, everything else to standard error. What can be foreseen ends in one
sentence and an exit code: 0 done, 1 refused or broken, 2 the command line is not acceptable. Every
command says its own example and exit codes; `docs/cli.md` is made from them.
"""

from __future__ import annotations

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
    """Add the commands to `app`."""
    for group in GROUPS:
        for command in [group] if group.name else group.commands.values():
            app.cli.add_command(command)
