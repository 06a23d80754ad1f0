"""`flask integrators`: who may mint tokens beside the operator, and with which secret."""

from __future__ import annotations

import click

from imageapi.auth import integrators
from imageapi.catalog import library, now_ms
from imageapi.cli import output
from imageapi.cli.command import Commands, Duration, json_option
from imageapi.extensions import transaction

commands = Commands("integrators", help="Say who else mints tokens.")


@commands.command("add", example="flask integrators add acme")
@click.argument("name")
def add(name: str) -> None:
    """Register the integrator NAME, and print its secret, alone: it is shown this once.

    NAME is what its tokens say as `iss`.
    """
    with transaction() as session:
        secret = integrators.add(session, name, now_ms())
    click.echo(secret)


@commands.command("rotate", example="flask integrators rotate acme --grace 24h")
@click.argument("name")
@click.option(
    "--grace",
    type=Duration(zero=True),
    help="How long the older secrets still verify; 0: not at all. None: IMAGEAPI_TOKEN_MAX_AGE.",
)
def rotate(name: str, grace: int | None) -> None:
    """Give the integrator NAME a new secret, and print it, alone: it is shown this once.

    It signs at once. Tokens that an older one signed are renewed into it until the grace is over; what
    ends sooner already is not prolonged.
    """
    seconds = library().settings.token_max_age if grace is None else grace
    with transaction() as session:
        secret = integrators.rotate(session, name, now_ms(), seconds * 1000)
    click.echo(secret)


@commands.command("remove", example="flask integrators remove acme")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the integrator NAME: all its tokens are refused at once; its albums stay."""
    with transaction() as session:
        integrators.remove(session, name)
    click.echo(f"Removed the integrator {name!r}; its albums stay.")


@commands.command("list", example="flask integrators list --json", changes=False)
@json_option
def index(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """List the integrators, with how many secrets of theirs verify; never the secrets."""
    with transaction() as session:
        found = integrators.all_of_them(session, now_ms())
    rows = [
        {
            "name": integrator.name,
            "keys": integrator.keys,
            "created_at": output.moment(integrator.created_ms // 1000),
            "rotated_at": output.moment(integrator.rotated_ms // 1000),
        }
        for integrator in found
    ]
    output.table(rows, ("name", "keys", "created_at", "rotated_at"), as_json=as_json)
