"""`python -m bench [--short] [reads growth uploads startup renditions upkeep]`: the table, all or in part."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import time
from pathlib import Path

from bench import table

PARTS = ("reads", "growth", "uploads", "startup", "renditions", "upkeep")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--short", action="store_true", help="a sample: figures of little weight")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    started, missed = time.monotonic(), 0
    print(f"{table.machine()}\n")
    table.show([], heads=True)
    # What the application logs is written, which has its cost, but not shown.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        for name in given.parts or PARTS:
            for row in importlib.import_module(f"bench.{name}").rows(short=given.short):
                table.show([row])
                missed += row.reached is False
    print(f"\n{missed} goals missed; {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
