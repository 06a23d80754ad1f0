"""The shared picture corpus: what its manifest says of each file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "corpus"
WORDS = {"jpeg": "jpg"}


@dataclass(frozen=True)
class Row:
    """A row of the manifest, with the product's words."""

    path: Path
    kind: str
    format: str
    orientation: int | None
    upright: tuple[int, int] | None
    has_exif: bool
    gps: tuple[float, float] | None
    expected: str
    why: str


def _number(text: str) -> int | None:
    return None if text == "-" else int(text)


def _row(row: dict[str, str]) -> Row:
    width, height = _number(row["upright_width"]), _number(row["upright_height"])
    return Row(
        path=FOLDER / row["file"],
        kind=row["kind"],
        format=WORDS.get(row["format"], row["format"]),
        orientation=_number(row["orientation"]),
        upright=None if width is None or height is None else (width, height),
        has_exif=row["has_exif"] == "yes",
        gps=None if row["gps_lat"] == "-" else (float(row["gps_lat"]), float(row["gps_lon"])),
        expected=row["expected"],
        why=row["why"],
    )


def rows() -> list[Row]:
    """All rows; none where the corpus is not."""
    if not FOLDER.is_dir():
        return []
    with (FOLDER / "MANIFEST.tsv").open(encoding="utf-8") as file:
        return [_row(row) for row in csv.DictReader(file, delimiter="\t")]


def each(*expected: str) -> pytest.MarkDecorator:
    """Parametrize a test by the files that are expected to be accepted, refused or either."""
    chosen = [row for row in rows() if row.expected in expected]
    return pytest.mark.parametrize("row", chosen, ids=[row.path.name for row in chosen])
