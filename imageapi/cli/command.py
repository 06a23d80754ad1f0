"""What all commands share: how they end, their options, and the types of those."""

from __future__ import annotations

import datetime
import getpass
import os
import re
from collections.abc import Mapping
from typing import Any

import click
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask.cli import AppGroup

from imageapi import telemetry
from imageapi.auth import tokens
from imageapi.catalog import library
from imageapi.errors import ImageAPIError, InvalidFields
from imageapi.extensions import db, migrate

_ABOUT = "imageapi.about"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Command(click.Command):
    """A command that ends in one sentence where others print a traceback.

    Args:
        example: a command line that works, for `--help` and the documentation.
        exits: what its exit codes say beside 0 and 2.
        changes: whether it may change anything, and leaves an audit line.
    """

    def __init__(
        self,
        name: str,
        *,
        example: str,
        exits: Mapping[int, str] | None = None,
        changes: bool = True,
        **options: Any,
    ) -> None:
        self.example = example
        self.changes = changes
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
        """Run the command, and leave an audit line; a foreseen error becomes its sentence."""
        code: int | None = 1
        try:
            done = self._invoke(ctx)
            code = 0
        except click.exceptions.Exit as end:
            code = end.exit_code
            raise
        except click.UsageError:  # nothing was begun
            code = None
            raise
        finally:
            if self.changes and code is not None:
                _audit(ctx, code)
        return done

    def _invoke(self, ctx: click.Context) -> Any:
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
        except sa.exc.TimeoutError as error:  # of one that was silent a moment ago
            raise click.ClickException("The database does not answer.") from error


def about(**facts: Any) -> None:
    """Say what the command has changed, for its audit line."""
    click.get_current_context().meta.setdefault(_ABOUT, {}).update(facts)


def _audit(ctx: click.Context, code: int) -> None:
    """Tell who ran what on what; a command that failed half-way may have changed things too."""
    names: list[str] = []
    level = ctx
    while level.parent is not None:  # all but `flask` itself
        names.insert(0, level.info_name or "")
        level = level.parent
    given = {
        name: value if isinstance(value, bool | int) else str(value)
        for name, value in ctx.params.items()
        if value is not None and value is not False
    }
    telemetry.audit(
        library().settings.instance / "audit.log",
        operation=" ".join(names),
        by="command line",
        system_user=_system_user(),
        exit=code,
        given=given,
        **ctx.meta.get(_ABOUT, {}),
    )


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # as in a container, whose user has no name


class Commands(AppGroup):
    """A group of such commands."""

    command_class = Command


class Migrations(click.Group):
    """Flask-Migrate's group, where a database that fails ends in one sentence as well."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command of the group."""
        try:
            return super().invoke(ctx)
        except sa.exc.DBAPIError as error:
            raise click.ClickException(_database_fault(error, migrating=True)) from error


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
background_option = click.option(
    "--background",
    is_flag=True,
    help="Leave it to the workers; without a broker, to the servers.",
)


def _database_fault(error: sa.exc.DBAPIError, *, migrating: bool = False) -> str:
    reason = " ".join(str(error.orig).split())  # PostgreSQL's has several lines
    try:
        with db.engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_heads()
        wanted = ScriptDirectory(str(migrate.directory)).get_heads()
    except sa.exc.SQLAlchemyError:
        return f"The database does not answer: {reason}"
    if set(present) != set(wanted) and not migrating:
        return "The database is not migrated: run `flask db upgrade`."
    return f"The database refuses: {reason}"
