"""What all commands share: how they end, their options, and the types of those."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

import click
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask.cli import AppGroup

from imageapi.auth import tokens
from imageapi.errors import ImageAPIError, InvalidFields
from imageapi.extensions import db, migrate

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Command(click.Command):
    """A command that ends in one sentence where others print a traceback.

    Args:
        example: a command line that works, for `--help` and the documentation.
        exits: what its exit codes say beside 0 and 2.
    """

    def __init__(
        self, name: str, *, example: str, exits: Mapping[int, str] | None = None, **options: Any
    ) -> None:
        self.example = example
        self.exits = {
            0: "done",
            1: "not done; standard error says why",
            2: "the command line is not acceptable",
            **(exits or {}),
        }
        codes = "\n".join(f"  {code:<5}{text}" for code, text in sorted(self.exits.items()))
        epilog = f"\b\nExample:\n  {example}\n\n\b\nExit codes:\n{codes}"
        super().__init__(name, epilog=epilog, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that was foreseen becomes its sentence."""
        try:
            return super().invoke(ctx)
        except InvalidFields as error:
            faults = " ".join(f"{fault.field} {fault.message}" for fault in error.errors)
            raise click.UsageError(faults or str(error), ctx) from error
        except tokens.TokenFault as error:
            raise click.ClickException(f"The token would not count: {error}.") from error
        except ImageAPIError as error:
            raise click.ClickException(str(error)) from error
        except sa.exc.DBAPIError as error:
            raise click.ClickException(_database_fault(error)) from error


class Commands(AppGroup):
    """A group of such commands."""

    command_class = Command


class Duration(click.ParamType[int]):
    """A time span such as 90s, 15m, 4h or 30d, in seconds; 0 where `zero` allows it."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds that `value` says."""
        if self._zero and value == "0":
            return 0
        match = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII)
        if not match or not int(match[1]):
            self.fail(f"{value!r} is not a time span such as 90s, 15m, 4h or 30d.", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


class Moment(click.ParamType[datetime.datetime]):
    """`now`, or a moment of ISO 8601; without an offset, of `IMAGEAPI_TIMEZONE`."""

    name = "moment"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime.datetime:
        """The moment that `value` says."""
        if value == "now":
            return datetime.datetime.now(datetime.UTC)
        try:
            return datetime.datetime.fromisoformat(value)
        except ValueError:
            example = "2026-07-29T12:00:00+02:00"
            self.fail(f"{value!r} is neither now nor a moment such as {example}.", param, ctx)


def issuer_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """The callback of a parameter that is an issuer, "" the operator."""
    if len(value) > tokens.MAX_ID or not value.isprintable():
        raise click.BadParameter(f"must be up to {tokens.MAX_ID} characters that can be printed.")
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
issuer_option = click.option(
    "--issuer",
    default="",
    metavar="NAME",
    callback=issuer_name,
    help="The integrator it belongs to; none: yours.",
)


def _database_fault(error: sa.exc.DBAPIError) -> str:
    try:
        with db.engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_heads()
        wanted = ScriptDirectory(str(migrate.directory)).get_heads()
    except sa.exc.SQLAlchemyError:
        return f"The database does not answer: {error.orig}"
    if set(present) != set(wanted):
        return "The database is not migrated: run `flask db upgrade`."
    return f"The database refuses: {error.orig}"
