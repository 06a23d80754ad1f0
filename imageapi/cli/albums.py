"""`flask albums`: make, list, fill, and give to another user."""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from imageapi.catalog import albums, seeding
from imageapi.catalog.seeding import Verdict
from imageapi.cli import output
from imageapi.cli.command import Commands, about, issuer_option, json_option
from imageapi.cli.progress import bar, signals
from imageapi.errors import NotFound

commands = Commands("albums", help="Make, list and fill albums.")

_album_options = (
    click.option("--owner", required=True, metavar="USER", help="The user that owns the album."),
    issuer_option,
    click.option("--storage", metavar="NAME", help="Where its images go; none: IMAGEAPI_STORAGE."),
)


def _with_album_options(function: Any) -> Any:
    for option in reversed(_album_options):
        function = option(function)
    return function


@commands.command("create", example="flask albums create holidays --owner anna")
@click.argument("public_id", metavar="ID")
@_with_album_options
def create(public_id: str, owner: str, issuer: str, storage: str | None) -> None:
    """Make an album under the id ID."""
    album = albums.create(public_id, owner, issuer, storage)
    click.echo(f"Created the album {public_id!r} of {owner!r} in the storage {album.storage!r}.")


@commands.command("list", example="flask albums list --json", changes=False)
@json_option
def index(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """List all albums."""
    rows = [
        {
            "issuer": album.issuer,
            "public_id": album.public_id,
            "owner": album.owner,
            "storage": album.storage,
            "images_count": album.images_count,
            "bytes": album.bytes,
            "created_at": output.moment(album.created_ms // 1000),
        }
        for album in albums.every()
    ]
    names = ("issuer", "public_id", "owner", "storage", "images_count", "bytes", "created_at")
    output.table(rows, names, as_json=as_json)


@commands.command("transfer", example="flask albums transfer holidays --owner bob")
@click.argument("public_id", metavar="ID")
@click.option("--owner", required=True, metavar="USER", help="The user that is to own it.")
@issuer_option
def transfer(public_id: str, owner: str, issuer: str) -> None:
    """Give the album ID to another user of the same issuer.

    What the owner before could do as its owner ends at once. Tokens that name the album in an entry
    of theirs, and its shares, still open it: `flask revoke album` ends them.
    """
    album = albums.find(public_id, issuer)
    if album is None:
        raise NotFound(f"There is no album {public_id!r}.")
    albums.transfer(album, owner)
    click.echo(f"Gave the album {public_id!r} of {album.owner!r} to {owner!r}.")


@commands.command(
    "seed",
    example="flask albums seed ~/Pictures --album holidays --owner anna",
    exits={
        1: "a file or folder was refused, or the storage or the database failed",
        130: "stopped by Ctrl-C (143: by SIGTERM); run it again to go on",
    },
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--album", "public_id", required=True, metavar="ID", help="Made if there is none.")
@_with_album_options
def seed(folder: Path, public_id: str, owner: str, issuer: str, storage: str | None) -> None:
    """Add the pictures in FOLDER and the folders below it to an album.

    What the album has already is skipped, so the command can be stopped and run again. Hidden files
    and symbolic links are left out; folders more than 100 levels below FOLDER are refused.
    """
    tally: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    with signals() as stopped, bar() as progress:
        album = albums.ensure(public_id, owner, issuer, storage)
        task = progress.add_task("", total=None)
        progress.update(task, total=seeding.count(folder))
        try:
            for outcome in seeding.seed(album, folder, owner):
                tally[outcome.verdict] += 1
                tally["bytes"] += outcome.bytes
                progress.advance(task)
                _tell(progress.console, outcome)
                if stopped:
                    break
        finally:
            progress.stop()
            about(**tally)
            click.echo(_summary(tally, time.monotonic() - started))
    if stopped or tally[Verdict.REFUSED]:
        click.get_current_context().exit(128 + stopped[0] if stopped else 1)


def _tell(console: Console, outcome: seeding.Outcome) -> None:
    if outcome.reason:
        line = output.printable(f"{outcome.path}: {outcome.verdict}: {outcome.reason}")
        console.print(Text(line), soft_wrap=True)


def _summary(tally: Mapping[str, int], seconds: float) -> str:
    counts = ", ".join(
        f"{verdict} {tally[verdict]}"
        for verdict in (Verdict.ADDED, Verdict.SKIPPED, Verdict.REFUSED)
    )
    return f"{counts}; {tally['bytes']} bytes in {seconds:.1f} s"
