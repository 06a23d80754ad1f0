"""`flask users`: forget one."""

from __future__ import annotations

import collections

import click

from imageapi.catalog import albums, users
from imageapi.cli.command import Commands, about, issuer_option

commands = Commands("users", help="Forget users.")


@commands.command("erase", example="flask users erase anna --yes")
@click.argument("user_id", metavar="ID")
@issuer_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(user_id: str, issuer: str, yes: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Take out what is kept about a user.

    These are the shares that the user made, that the user uploaded images or put tags on them, and where
    the user was when uploading, by browser and by address. Pictures stay as they are, with the positions
    in their EXIF; albums stay the user's until they are transferred or deleted. Revoke the user's tokens
    first, or they bring in more. It can be stopped and run again.
    """
    albums.check_name("ID", user_id)
    if not yes:
        question = f"Erase what is kept about the user {user_id!r}? It can not be brought back."
        click.confirm(question, abort=True, err=True)
    tally: collections.Counter[str] = collections.Counter()
    try:
        for done in users.erase(user_id, issuer):
            tally.update(done)
    finally:
        about(**tally)
        if tally:
            counts = [f"{name} {tally[name]}" for name in ("shares", "images", "positions", "tags")]
            click.echo(f"Erased: {', '.join(counts)}.")
    if left := users.owned(user_id, issuer):
        click.echo(f"Albums that stay the user's until transferred or deleted: {left}.")
