"""`flask revoke`: refuse tokens that are out, and take that back."""

from __future__ import annotations

import datetime
import math
import time
import uuid
from typing import Any

import click

from imageapi.auth import integrators, revocation, shares
from imageapi.catalog import albums, library
from imageapi.cli import output
from imageapi.cli.command import Commands, Moment, issuer_name, issuer_option
from imageapi.errors import NotFound
from imageapi.extensions import transaction

commands = Commands("revoke", help="Refuse tokens that are out.")

_NOTHING = {1: "not done, or there was nothing to lift; standard error says why"}
_at_option = click.option(
    "--at",
    type=Moment(),
    metavar="now|ISO",
    help="Refuse what was not issued after this moment; none: now.",
)
_lift_option = click.option("--lift", is_flag=True, help="Take the revocation back.")


def _with_options(function: Any) -> Any:
    return _at_option(_lift_option(function))


@commands.command("user", example="flask revoke user anna", exits=_NOTHING)
@click.argument("user_id", metavar="ID")
@issuer_option
@_with_options
def user(user_id: str, issuer: str, at: datetime.datetime | None, lift: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Refuse the tokens of a user that are out; shares that the user made go on.

    Tokens that are issued later pass. Those without `iat` are refused until it is lifted.
    """
    albums.check_name("ID", user_id)
    what = f"the tokens of the user {user_id!r}" + (f" of {issuer!r}" if issuer else "")
    _change(("user", issuer, user_id), what, at, lift=lift)


@commands.command("album", example="flask revoke album holidays", exits=_NOTHING)
@click.argument("public_id", metavar="ID")
@issuer_option
@_with_options
def album(public_id: str, issuer: str, at: datetime.datetime | None, lift: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Refuse the tokens that are out for the album that has the id ID now.

    It holds for that album under whatever id it has later. Its shares are among them. Tokens that are
    issued later pass. Those without `iat` are refused until it is lifted.
    """
    found = albums.find(public_id, issuer)
    if found is None:
        raise NotFound(f"There is no album {public_id!r}.")
    _change(
        ("album", issuer, str(found.id)), f"the tokens of the album {public_id!r}", at, lift=lift
    )


@commands.command("issuer", example="flask revoke issuer acme", exits=_NOTHING)
@click.argument("name", callback=issuer_name)
@_with_options
def issuer(name: str, at: datetime.datetime | None, lift: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Refuse the tokens of the integrator NAME that are out; '' is you.

    Tokens that are issued later pass. Those without `iat` are refused until it is lifted.
    """
    what = f"the tokens of the integrator {name!r}" if name else "the operator's tokens"
    _change(("issuer", name, ""), what, at, lift=lift)


@commands.command("all", example="flask revoke all", exits=_NOTHING)
@_with_options
def everybody(at: datetime.datetime | None, lift: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Refuse all tokens that are out.

    Tokens that are issued later pass. Those without `iat` are refused until it is lifted.
    """
    _change(("all", "", ""), "all tokens", at, lift=lift)


@commands.command(
    "share", example="flask revoke share 6f0d2a52-5f5b-4c1e-9c43-0d7b6f4f3c11", exits=_NOTHING
)
@click.argument("share_id", metavar="ID", type=click.UUID)
@click.option("--lift", is_flag=True, help="Give it back, if it has not expired.")
def share(share_id: uuid.UUID, lift: bool) -> None:  # noqa: FBT001 - click passes it by name
    """End a share."""
    known = revocation.share(str(share_id))
    if known is None:
        raise NotFound(f"There is no share {share_id}.")
    with transaction() as session:
        if lift:
            revocation.lift_share(session, known)
        else:
            shares.revoke(session, known.id)
    click.echo(f"Gave the share {share_id} back." if lift else f"Ended the share {share_id}.")


def _change(
    subject: revocation.Subject, what: str, at: datetime.datetime | None, *, lift: bool
) -> None:
    if lift and at is not None:
        raise click.UsageError("--lift takes no --at.")
    with transaction() as session:
        if lift:
            if not revocation.lift(session, *subject):
                raise NotFound(f"No revocation of {what} is in force.")
            done = f"Lifted the revocation of {what}."
        else:
            integrators.demand(session, subject[1])
            last = revocation.revoke(session, *subject, _seconds(at))
            done = f"Revoked {what} that were issued up to {output.moment(last)}."
    click.echo(done)


def _seconds(at: datetime.datetime | None) -> int:
    if at is None:
        return int(time.time())
    if at.tzinfo is None:
        at = at.replace(tzinfo=library().settings.timezone)
    return math.floor(at.timestamp())
