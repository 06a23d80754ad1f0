"""How commands print: columns or JSON, one line each, nothing that a terminal would act on."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
import rich.cells

from imageapi.catalog import library


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, as_json: bool) -> None:
    """Print a JSON array, or columns for people."""
    if as_json:
        dump(rows)
        return
    lines = [list(names), *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(rich.cells.cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = map(rich.cells.set_cell_size, line, widths)
        click.echo("  ".join(cells).rstrip())


def dump(value: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=1))


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would act on."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def rate(length: int, seconds: float) -> str:
    """So many bytes in so many seconds, and how many that are in one."""
    megabytes = length / max(seconds, 0.001) / 1e6
    return f"{length} bytes in {seconds:.1f} s ({megabytes:.1f} MB/s)"


def moment(seconds: int) -> str:
    """Seconds since 1970 as ISO 8601, in `IMAGEAPI_TIMEZONE`."""
    try:
        there = datetime.datetime.fromtimestamp(seconds, library().settings.timezone)
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds since 1970"  # a token or a command line may say any number
    return there.isoformat()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        value = ", ".join(value)
    return "-" if value in (None, "") else printable(str(value))
