"""`flask fsck`, `flask collect`: whether all bytes are there, and what is not needed any more."""

from __future__ import annotations

import json
import time
from collections import Counter

import click

from imageapi.catalog import collecting, survey, upkeep
from imageapi.catalog.collecting import Collected
from imageapi.catalog.upkeep import Fault, Finding
from imageapi.cli import output
from imageapi.cli.command import Commands, Duration, about, json_option
from imageapi.cli.progress import bar

commands = Commands("")
"""These stand on their own, beside the groups."""

_older_than = click.option(
    "--older-than",
    type=Duration(),
    default="24h",
    show_default=True,
    help="Leave alone what is younger; no less than an upload takes.",
)


@commands.command(
    "fsck",
    example="flask fsck --repair",
    exits={
        0: "every original is as it was stored; orphans and missing renditions are no more than told",
        1: "an original is missing or damaged, or a storage or the database failed",
    },
)
@click.option(
    "--quick",
    is_flag=True,
    help="Do not read the originals: see that they are there, and how long.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Render missing renditions, and take lost originals from a second copy, if there is one.",
)
@_older_than
@json_option
def fsck(quick: bool, repair: bool, older_than: int, as_json: bool) -> None:  # noqa: FBT001 - click passes them by name
    """Hold all stored bytes against what the database says of them.

    Every original is read and its SHA-256 compared. Each line tells one thing that is wrong: `missing` or
    `wrong` bytes, `renditions` that are missing, an `orphan` (bytes without a row). Nothing is deleted, and
    the service may run meanwhile.
    """
    tally: Counter[str] = Counter()
    started = time.monotonic()
    printed = _Lines(as_json=as_json)
    with bar() as progress:
        task = progress.add_task("", total=upkeep.count())

        def checked(length: int) -> None:
            tally.update(originals=1, bytes=length)
            progress.advance(task)

        scope = upkeep.Scope(deep=not quick, repair=repair, orphans=older_than, checked=checked)
        for finding in upkeep.fsck(scope):
            tally[finding.fault] += 1
            tally["harmful"] += finding.harmful
            printed.add(finding)
    printed.end()
    about(**tally)
    seconds = time.monotonic() - started
    click.echo(_summary(tally, seconds), err=as_json)
    if tally["harmful"]:
        click.get_current_context().exit(1)


class _Lines:
    """Findings as they come: lines for people, or one JSON array."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._before = "["

    def add(self, finding: Finding) -> None:
        if self._json:
            value = {
                "fault": finding.fault,
                "storage": finding.storage,
                "key": finding.key,
                "images": finding.images,
                "reason": finding.reason,
                "repaired": finding.repaired,
            }
            click.echo(f"{self._before}\n {json.dumps(value, ensure_ascii=False)}", nl=False)
            self._before = ","
            return
        where = f"{finding.storage} {finding.key}".rstrip()
        images = f" (image {', '.join(finding.images)})" if finding.images else ""
        repaired = " Repaired." if finding.repaired else ""
        line = f"{finding.fault}: {where}: {finding.reason}{repaired}{images}"
        click.echo(output.printable(line))

    def end(self) -> None:
        if self._json:
            click.echo("[]" if self._before == "[" else "\n]")


def _summary(tally: Counter[str], seconds: float) -> str:
    faults = ", ".join(f"{fault} {tally[fault]}" for fault in Fault)
    return f"{tally['originals']} originals, {output.rate(tally['bytes'], seconds)}; {faults}"


@commands.command(
    "collect",
    example="flask collect --older-than 48h",
    exits={1: "a storage has too many bytes without a row, or failed; the others are done"},
)
@_older_than
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option(
    "--force",
    is_flag=True,
    help="Remove bytes without a row although they are many, and at once.",
)
def collect(older_than: int, dry_run: bool, force: bool) -> None:  # noqa: FBT001 - click passes them by name
    """Remove what nobody needs any more.

    These are abandoned uploads, bytes without a row, renditions of former edits, and rows that have
    expired. Bytes are noted first and go in a later run, when they were of no use for as long as the limit
    says. If more than 5 % of what a storage holds has no row, as after a restored database, none of it is
    removed. What has a row is never removed.
    """
    with bar() as progress:
        task = progress.add_task("", total=None)
        rule = collecting.Rule(older_than, force, dry_run, lambda: progress.advance(task))
        progress.update(task, total=len(survey.FOLDERS) * len(list(survey.storages())))
        collected = collecting.collect(rule)
    about(**collected.tally)
    tally, word = collected.tally, "Would remove" if dry_run else "Removed"
    names = ("staged", "orphans", "old", "rows")
    counts = ", ".join(f"{name} {tally[name]}" for name in names if not dry_run or name != "staged")
    click.echo(f"{word}: {counts}; noted {tally['noted']}.")
    _tell(collected)


def _tell(collected: Collected) -> None:
    for name, part in collected.stopped.items():
        text = f"{name}: {part:.1%} of what it holds has no row. Were rows restored from an older copy?"
        click.echo(output.printable(f"{text} Nothing of it was removed; --force does."), err=True)
    for name, reason in collected.faults.items():
        click.echo(output.printable(f"{name}: {reason}"), err=True)
    if collected.stopped or collected.faults:
        click.get_current_context().exit(1)
