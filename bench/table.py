"""The table that every part prints, and the machine that it was made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEADS = ("what", "ours", "peer or limit", "ratio", "goal", "ok?")
PACKAGES = ("flask", "werkzeug", "sqlalchemy", "gunicorn", "pyjwt", "pillow", "pyvips")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: is measured, with its unit.
        ours: the figure, None for a row that only says something.
        beside: the peer's figure or the limit's, in the same unit.
        peer: what that is; or what is to be said.
        most: the greatest ratio that is good; None: not a goal.
        absolute: `most` is of `ours` itself, not of the ratio.
    """

    what: str
    ours: float | None = None
    beside: float | None = None
    peer: str = ""
    most: float | None = None
    absolute: bool = False

    @property
    def ratio(self) -> float | None:
        return self.ours / self.beside if self.ours is not None and self.beside else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None where there is none."""
        figure = self.ours if self.absolute else self.ratio
        return None if figure is None or self.most is None else figure <= self.most

    def cells(self) -> tuple[str, ...]:
        beside = " ".join(part for part in (_number(self.beside), self.peer) if part)
        ratio = "" if self.ratio is None or self.absolute else f"{self.ratio:.2f}"
        goal = "" if self.most is None else f"≤ {self.most:g}{'' if self.absolute else ' ×'}"
        verdict = {None: "", True: "yes", False: "NO"}[self.reached]
        return (self.what, _number(self.ours), beside, ratio, goal, verdict)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def show(rows: Iterable[Row], *, heads: bool = False) -> None:
    """Print rows as a Markdown table with aligned columns."""
    lines = [row.cells() for row in rows]
    widths = (66, 6, 42, 6, 8, 3)
    if heads:
        lines[:0] = [HEADS, tuple("-" * width for width in widths)]
    for cells in lines:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"| {' | '.join(padded)} |", flush=True)


def machine() -> str:
    """Cores, processor, memory, system and versions, in one line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _installed(name)]
    return (
        f"{os.cpu_count()} cores ({names[0] if names else platform.processor()}), "
        f"{memory:.0f} GiB; {_system()}, {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; {', '.join(found)}"
    )


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
