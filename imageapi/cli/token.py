"""`flask token`: make one, and say what one opens or why it is refused."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from imageapi.auth import guard, tokens
from imageapi.auth.policy import Ability
from imageapi.catalog import albums, library
from imageapi.cli import output
from imageapi.cli.command import Commands, Duration, issuer_option
from imageapi.cli.explain import Explanation, explain

commands = Commands("token", help="Make tokens, and say what they open.")


@commands.command(
    "create",
    example="flask token create --user anna --album holidays --ability see --ttl 15m",
)
@click.option("--user", required=True, help="The user id that the token speaks for.")
@click.option(
    "--album",
    "public_ids",
    multiple=True,
    metavar="ID",
    help="An album that the token opens; may be repeated. None: the user's own albums.",
)
@click.option(
    "--ability",
    "abilities",
    multiple=True,
    type=click.Choice([str(ability) for ability in Ability]),
    help="What it allows in these albums; may be repeated. None: everything.",
)
@click.option("--ttl", type=Duration(), default="4h", show_default=True, help="How long it lives.")
@issuer_option
def create(
    user: str, public_ids: Sequence[str], abilities: Sequence[str], ttl: int, issuer: str
) -> None:
    """Print a new token, alone."""
    settings = library().settings
    if abilities and not public_ids:
        raise click.UsageError("--ability needs an --album that it is for.")
    if ttl > settings.token_max_age:
        limit = f"at most {settings.token_max_age}s (IMAGEAPI_TOKEN_MAX_AGE)"
        raise click.BadParameter(f"must be {limit}.", param_hint="--ttl")
    albums.check_name("--user", user)
    for public_id in public_ids:
        albums.check_id(public_id)
    granted = dict.fromkeys(abilities or map(str, Ability), True)
    entries = {public_id: {"Access": granted} for public_id in public_ids}
    now = int(time.time())
    claims = {
        "exp": now + ttl,
        "iat": now,
        **({"abilities": entries} if entries else {}),
        "user_id": user,
        **({"iss": issuer} if issuer else {}),
    }
    click.echo(_issue(claims, issuer, now))


@commands.command(
    "explain",
    example='echo "$TOKEN" | flask token explain',
    exits={0: "the token is valid", 1: "it is refused; the answer says why"},
    changes=False,
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def explain_token(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Read a token from standard input, and say what it opens, or why it is refused.

    A whole Authorization header is read as well. What it opens are albums, with what it may do there,
    and routes; routes that need no token are left out. Never prints the token.
    """
    text = sys.stdin.buffer.read(2 * tokens.MAX_CREDENTIAL).decode(errors="replace").strip()
    try:
        found = explain(text)
    except tokens.TokenFault as fault:
        _refuse(str(fault), as_json=as_json)
        click.get_current_context().exit(1)
    (_print_json if as_json else _print_text)(found)


def _issue(claims: Mapping[str, Any], issuer: str, now: int) -> str:
    """A token that counts where it is used.

    Raises:
        TokenFault: it would not, and why.
    """
    snapshot = guard.authority().latest()
    text = snapshot.keyring.issue(claims, issuer)
    snapshot.check(snapshot.keyring.verify(tokens.credential(f'Token token="{text}"'), now))
    return text


def _refuse(why: str, *, as_json: bool) -> None:
    if as_json:
        output.dump({"valid": False, "refused": why, "albums": [], "routes": []})
    else:
        click.echo(output.printable(f"Refused: {why}."))


def _print_json(found: Explanation) -> None:
    claims = {**_claims(found), "albums": _albums(found), "routes": _routes(found)}
    output.dump({"valid": True, "refused": None, **claims})


def _print_text(found: Explanation) -> None:
    claims = _claims(found)
    click.echo(f"Valid until {claims.pop('ends_at')}.\n")
    lines = [{"claim": name, "value": value} for name, value in claims.items()]
    output.table(lines, ("claim", "value"), as_json=False)
    if found.albums:
        click.echo()
        output.table(_albums(found), ("public_id", "by", "abilities", "refused"), as_json=False)
    if found.routes:
        click.echo()
        output.table(_routes(found), ("methods", "route", "albums"), as_json=False)
    else:
        click.echo("\nIt opens nothing.")


def _claims(found: Explanation) -> dict[str, Any]:
    token = found.token
    issued_at = None if token.issued_at is None else output.moment(token.issued_at)
    return {
        "ends_at": output.moment(found.ends),
        "issuer": token.issuer,
        "user": token.user_id,
        "share": token.share,
        "issued_at": issued_at,
    }


def _albums(found: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "public_id": reach.public_id,
            "by": reach.by,
            "abilities": _in_order(reach.abilities),
            "refused": reach.refused,
        }
        for reach in found.albums
    ]


def _in_order(abilities: Iterable[Ability]) -> list[str]:
    return [str(ability) for ability in Ability if ability in abilities]


def _routes(found: Explanation) -> list[dict[str, Any]]:
    return [route._asdict() for route in found.routes]
