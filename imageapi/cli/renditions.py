"""`flask renditions`: render them anew."""

from __future__ import annotations

import collections
import time

import click
from rich.text import Text

from imageapi.catalog import albums, rebuilding
from imageapi.cli import output
from imageapi.cli.command import Commands, about, background_option, issuer_option
from imageapi.cli.progress import bar, signals
from imageapi.errors import NotFound
from imageapi.extensions import Row

commands = Commands("renditions", help="Render thumbnails anew.")


@commands.command(
    "rebuild",
    example="flask renditions rebuild --album holidays",
    exits={
        1: "an image could not be rendered, or a storage or the database failed",
        130: "stopped by Ctrl-C (143: by SIGTERM); run it again to go on",
    },
)
@click.option("--album", "public_id", metavar="ID", help="Only this album's; none: all albums'.")
@issuer_option
@click.option("--restart", is_flag=True, help="Begin anew, where an earlier run was stopped.")
@background_option
def rebuild(public_id: str | None, issuer: str, restart: bool, background: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Render the renditions of all images anew, as after their sizes have changed.

    It can be stopped, killed and run again, and goes on where it was. Storages that render by themselves
    have nothing to do.
    """
    album = albums.find(public_id, issuer) if public_id is not None else None
    if album is None and public_id is not None:
        raise NotFound(f"There is no album {public_id!r}.")
    place = rebuilding.place(album, restart=restart)
    if background:
        rebuilding.leave(album, place)
        click.echo(f"{rebuilding.left(album, place)} images are left to be rendered.")
        return
    _rebuild(album, place)


def _rebuild(album: Row | None, place: str) -> None:
    tally: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    with signals() as stopped, bar() as progress:
        task = progress.add_task("", total=rebuilding.left(album, place))
        try:
            for outcome in rebuilding.rebuild(album, place):
                word = "skipped" if outcome.skipped else "failed" if outcome.reason else "rendered"
                tally[word] += 1
                progress.advance(task)
                if outcome.reason:
                    line = output.printable(f"{outcome.image}: {outcome.reason}")
                    progress.console.print(Text(line), soft_wrap=True)
                if stopped:
                    break
        finally:
            progress.stop()
            about(**tally)
            counts = ", ".join(
                f"{word} {tally[word]}" for word in ("rendered", "skipped", "failed")
            )
            click.echo(f"{counts} in {time.monotonic() - started:.1f} s")
    if stopped or tally["failed"]:
        click.get_current_context().exit(128 + stopped[0] if stopped else 1)
