"""`flask storages`: which there are, whether they work, and albums from one to another."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable

import click
from rich.console import Console
from rich.text import Text

from imageapi.catalog import albums, library, moving
from imageapi.catalog.moving import Verdict
from imageapi.cli import output
from imageapi.cli.command import (
    Commands,
    Duration,
    about,
    background_option,
    issuer_option,
    json_option,
)
from imageapi.cli.progress import bar, signals
from imageapi.errors import NotFound
from imageapi.extensions import Row

commands = Commands("storages", help="Look at the storages, move albums between them.")


@commands.command("list", example="flask storages list --json", changes=False)
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
    "check",
    example="flask storages check",
    exits={1: "a storage in use is not usable"},
    changes=False,
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


@commands.command(
    "migrate",
    example="flask storages migrate --album holidays --to s3",
    exits={
        1: "originals are left where they were, or a storage or the database failed",
        130: "stopped by Ctrl-C (143: by SIGTERM); run it again to go on",
    },
)
@click.option("--album", "public_id", required=True, metavar="ID", help="The album to move.")
@click.option("--to", required=True, metavar="NAME", help="The storage it is to be in.")
@issuer_option
@click.option(
    "--keep",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the bytes stay where they were; at least as long as URLs last.",
)
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@background_option
def migrate(
    public_id: str,
    to: str,
    issuer: str,
    keep: int,
    dry_run: bool,  # noqa: FBT001 - click passes it by name
    background: bool,  # noqa: FBT001 - click passes it by name
) -> None:
    """Move an album to another storage while it is served.

    New pictures go there at once, then original by original: copied, read back, compared. Nobody sees an
    error meanwhile. It can be stopped, killed and run again; moving back is the same with the storage
    before as NAME. What it counts as left is what is missing or damaged, or was being uploaded when it began:
    run it again for the latter.
    """
    album = albums.find(public_id, issuer)
    if album is None:
        raise NotFound(f"There is no album {public_id!r}.")
    # A name that is none is told before the database sees it, which does not take every text.
    objects, size = moving.left(album, library().storages[to].name)
    if dry_run:
        fault = library().storages.check(to)
        click.echo(f"Would move {objects} originals, {size} bytes, to {to!r}.")
        if fault:
            raise click.ClickException(f"{to!r} is not usable: {fault}")
        return
    moving.begin(album, to, leave=keep if background else None)
    if background:
        click.echo(f"{objects} originals, {size} bytes, are left to be moved to {to!r}.")
        return
    _move(album, to, keep, objects)


def _move(album: Row, to: str, keep: int, objects: int) -> None:
    tally: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    with signals() as stopped, bar() as progress:
        task = progress.add_task("", total=objects)
        try:
            for outcome in moving.move(album, to, keep):
                tally[outcome.verdict] += 1
                tally["bytes"] += outcome.bytes
                progress.advance(task)
                if outcome.reason:
                    _tell(progress.console, f"{outcome.key}: {outcome.reason}")
                if stopped:
                    break
        finally:
            progress.stop()
            about(moved=tally[Verdict.MOVED], failed=tally[Verdict.FAILED], bytes=tally["bytes"])
            left, _ = moving.left(album, to)
            counts = f"moved {tally[Verdict.MOVED]}, failed {tally[Verdict.FAILED]}, left {left}"
            click.echo(f"{counts}; {output.rate(tally['bytes'], time.monotonic() - started)}")
    if stopped or left:
        click.get_current_context().exit(128 + stopped[0] if stopped else 1)


def _tell(console: Console, line: str) -> None:
    console.print(Text(output.printable(line)), soft_wrap=True)


def _used() -> set[str]:
    return albums.storages_in_use() | {library().settings.storage}


def _names(used: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*library().storages.names(), *sorted(used)]))
