"""`flask database`: all rows into another database."""

from __future__ import annotations

import click
import sqlalchemy as sa

from imageapi.catalog import copying
from imageapi.cli.command import Commands
from imageapi.cli.progress import bar

commands = Commands("database", help="The database as a whole.")


def _engine(_ctx: click.Context, _param: click.Parameter, value: str) -> sa.Engine:
    try:
        value.encode()  # else not even the audit line could hold it
        return sa.create_engine(value, hide_parameters=True)
    except (sa.exc.ArgumentError, ValueError, ImportError):
        # The message would show the URL or a part of it, maybe of its password.
        raise click.BadParameter("is no SQLAlchemy URL of a database that is installed.") from None


@commands.command(
    "copy",
    example="flask database copy --to postgresql+psycopg://imageapi@127.0.0.1/imageapi",
    exits={1: "the other database is of another version, has rows, or failed: nothing is in it"},
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="URL",
    callback=_engine,
    help="The other database; migrated, and empty.",
)
def copy(target: sa.Engine) -> None:
    """Copy all rows into another database, as from SQLite to PostgreSQL.

    Stop the service first: what is written meanwhile is not copied. All of it is one transaction: it is
    there as a whole or not at all. Bytes stay where they are.
    """
    with bar() as progress:
        task = progress.add_task("", total=copying.count())
        rows = copying.copy_rows(target, lambda number: progress.advance(task, number))
    target.dispose()
    click.echo(f"{rows} rows copied.")
