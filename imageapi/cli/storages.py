"""`flask storages`: which there are, and whether they work."""

from __future__ import annotations

from collections.abc import Iterable

import click

from imageapi.catalog import albums, library
from imageapi.cli import output
from imageapi.cli.command import Commands, json_option

commands = Commands("storages", help="Look at the storages.")


@commands.command("list", example="flask storages list --json")
@json_option
def index(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """List the storages: the configured ones, and any other that is in use.

    In use are the storage of new albums and those that albums or images are in.
    """
    settings, used = library().settings, _used()
    rows = [
        {
            "name": name,
            "plugin": settings.storages.get(name),
            "default": name == settings.storage,
            "in_use": name in used,
        }
        for name in _names(used)
    ]
    output.table(rows, ("name", "plugin", "default", "in_use"), as_json=as_json)


@commands.command(
    "check", example="flask storages check", exits={1: "a storage in use is not usable"}
)
def check() -> None:
    """Try each storage, and say in words what is wrong.

    In use are the storage of new albums and those that albums or images are in.
    """
    storages, used = library().storages, _used()
    broken = 0
    for name in _names(used):
        fault = storages.check(name)
        broken += fault is not None and name in used
        remark = "" if name in used else " (not in use)"
        click.echo(output.printable(f"{name}: {fault or 'usable'}{remark}"))
    if broken:
        raise click.ClickException(f"Storages in use that are not usable: {broken}.")


def _used() -> set[str]:
    return albums.storages_in_use() | {library().settings.storage}


def _names(used: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*library().storages.names(), *sorted(used)]))
