"""The `flask` commands: thin, over the catalog.

Results go to standard output, everything else to standard error. What can be foreseen ends in one
sentence and an exit code: 0 done, 1 refused or broken, 2 the command line is not acceptable. Every
command says its own example and exit codes; `docs/cli.md` is made from them.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import json
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import rich.cells
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from imageapi.auth import guard, tokens
from imageapi.auth.policy import Ability
from imageapi.catalog import albums, library, seeding
from imageapi.catalog.seeding import Verdict
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
    """A time span such as 90s, 15m, 4h or 30d, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds that `value` says."""
        match = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII)
        if not match or not int(match[1]):
            self.fail(f"{value!r} is not a time span such as 90s, 15m, 4h or 30d.", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


_album_options = (
    click.option("--owner", required=True, metavar="USER", help="The user that owns the album."),
    click.option("--issuer", default="", help="The integrator whose album it is; none: yours."),
    click.option("--storage", metavar="NAME", help="Where its images go; none: IMAGEAPI_STORAGE."),
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")


def _with_album_options(function: Any) -> Any:
    for option in reversed(_album_options):
        function = option(function)
    return function


album_commands = Commands("albums", help="Make, list and fill albums.")
token_commands = Commands("token", help="Make tokens.")
storage_commands = Commands("storages", help="Look at the storages.")
GROUPS = (album_commands, token_commands, storage_commands)


def init_app(app: Flask) -> None:
    """Add the commands to `app`."""
    for group in GROUPS:
        app.cli.add_command(group)


@album_commands.command("create", example="flask albums create holidays --owner anna")
@click.argument("public_id", metavar="ID")
@_with_album_options
def create_album(public_id: str, owner: str, issuer: str, storage: str | None) -> None:
    """Make an album under the id ID."""
    album = albums.create(public_id, owner, issuer, storage)
    click.echo(f"Created the album {public_id!r} of {owner!r} in the storage {album.storage!r}.")


@album_commands.command("list", example="flask albums list --json")
@_json_option
def list_albums(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """List all albums."""
    rows = [
        {
            "issuer": album.issuer,
            "public_id": album.public_id,
            "owner": album.owner,
            "storage": album.storage,
            "images_count": album.images_count,
            "bytes": album.bytes,
            "created_at": _moment(album.created_ms),
        }
        for album in albums.every()
    ]
    names = ("issuer", "public_id", "owner", "storage", "images_count", "bytes", "created_at")
    _print(rows, names, as_json=as_json)


@album_commands.command(
    "seed",
    example="flask albums seed ~/Pictures --album holidays --owner anna",
    exits={
        1: "a file was refused, or the storage or the database failed",
        130: "stopped by Ctrl-C (143: by SIGTERM); run it again to go on",
    },
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--album", "public_id", required=True, metavar="ID", help="Made if there is none.")
@_with_album_options
def seed_album(folder: Path, public_id: str, owner: str, issuer: str, storage: str | None) -> None:
    """Add the pictures in FOLDER and the folders below it to an album.

    What the album has already is skipped, so the command can be stopped and run again. Hidden files
    and symbolic links are left out.
    """
    tally: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    with _signals() as stopped, _progress() as progress:
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
            click.echo(_summary(tally, time.monotonic() - started))
    if stopped or tally[Verdict.REFUSED]:
        click.get_current_context().exit(128 + stopped[0] if stopped else 1)


@token_commands.command(
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
@click.option("--issuer", default="", help="The integrator it is of; none: yours.")
def create_token(
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


@storage_commands.command("list", example="flask storages list --json")
@_json_option
def list_storages(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """List the storages: the configured ones, and any other that is in use.

    In use are the storage of new albums and those that albums or images are in.
    """
    settings, used = library().settings, _used_storages()
    rows = [
        {
            "name": name,
            "plugin": settings.storages.get(name),
            "default": name == settings.storage,
            "in_use": name in used,
        }
        for name in _storage_names(used)
    ]
    _print(rows, ("name", "plugin", "default", "in_use"), as_json=as_json)


@storage_commands.command(
    "check", example="flask storages check", exits={1: "a storage in use is not usable"}
)
def check_storages() -> None:
    """Try each storage, and say in words what is wrong.

    In use are the storage of new albums and those that albums or images are in.
    """
    storages, used = library().storages, _used_storages()
    broken = 0
    for name in _storage_names(used):
        fault = storages.check(name)
        broken += fault is not None and name in used
        remark = "" if name in used else " (not in use)"
        click.echo(_printable(f"{name}: {fault or 'usable'}{remark}"))
    if broken:
        raise click.ClickException(f"Storages in use that are not usable: {broken}.")


def _used_storages() -> set[str]:
    return albums.storages_in_use() | {library().settings.storage}


def _storage_names(used: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*library().storages.names(), *sorted(used)]))


def _issue(claims: Mapping[str, Any], issuer: str, now: int) -> str:
    """A token that counts where it is used.

    Raises:
        TokenFault: it would not, and why.
    """
    snapshot = guard.authority().latest()
    text = snapshot.keyring.issue(claims, issuer)
    snapshot.check(snapshot.keyring.verify(tokens.credential(f'Token token="{text}"'), now))
    return text


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


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that ask to stop, as they come in; a second one ends the process at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Rate(ProgressColumn):
    """Files a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f}/s")


def _progress() -> Progress:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _tell(console: Console, outcome: seeding.Outcome) -> None:
    if outcome.reason:
        line = _printable(f"{outcome.path}: {outcome.verdict}: {outcome.reason}")
        console.print(Text(line), soft_wrap=True)


def _summary(tally: Mapping[str, int], seconds: float) -> str:
    counts = ", ".join(
        f"{verdict} {tally[verdict]}"
        for verdict in (Verdict.ADDED, Verdict.SKIPPED, Verdict.REFUSED)
    )
    return f"{counts}; {tally['bytes']} bytes in {seconds:.1f} s"


def _print(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, as_json: bool) -> None:
    """A JSON array, or columns for people."""
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    lines = [list(names), *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(rich.cells.cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = map(rich.cells.set_cell_size, line, widths)
        click.echo("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else _printable(str(value))


def _printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would act on."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _moment(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds // 1000, library().settings.timezone)
    return moment.isoformat()
