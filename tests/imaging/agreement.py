"""ExifTool's tags against ours, over the corpus: the table in docs/pictures.md.

`python -m tests.imaging.agreement` writes it anew.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from imageapi.errors import ImageAPIError
from imageapi.imaging.limits import Limits
from tests.imaging.corpus import FOLDER
from tests.imaging.inprocess import probe

PAGE = Path(__file__).parents[2] / "docs" / "pictures.md"
MARKS = ("<!-- made: agreement -->\n", "<!-- /made: agreement -->\n")
DIRECTORIES = ("IFD0", "ExifIFD", "GPS", "InteropIFD")

LAYOUT = {
    "BitsPerSample", "Compression", "ImageHeight", "ImageWidth", "PhotometricInterpretation",
    "PlanarConfiguration", "SamplesPerPixel",
}  # fmt: skip
FOREIGN = {"ColorMatrix1", "ColorMatrix2", "OffsetSchema"}


@dataclass
class Agreement:
    """What was compared: tags that both tell, and where they differ."""

    files: int = 0
    told: int = 0
    equal: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


def compared() -> Agreement:
    """Compare every file of the corpus that is accepted and has EXIF."""
    found = Agreement()
    for theirs in json.loads((FOLDER / "EXIFTOOL-print.json").read_text(encoding="utf-8")):
        path = FOLDER / theirs["SourceFile"]
        tags: dict[str, str] = {}
        for key, value in theirs.items():
            directory, _, name = key.partition(":")
            if directory in DIRECTORIES:
                tags.setdefault(name, str(value))
        try:
            probed = probe(path, Limits())
        except ImageAPIError:
            continue
        if (tags and probed.format != "tiff") or probed.exifs:
            _compare(path.name, tags, probed.exifs, found)
    return found


def _compare(file: str, theirs: dict[str, str], ours: dict[str, str], found: Agreement) -> None:
    found.files += 1
    for name in sorted(theirs | ours):
        their, our = theirs.get(name), ours.get(name)
        found.told += their is not None
        if their == our:
            found.equal += 1
        elif reason := _reason(file, name, their, our):
            found.reasons[reason] += 1
        else:
            found.unexplained.append(f"{file}: {name} is {our!r}, ExifTool says {their!r}")


def _reason(file: str, name: str, their: str | None, our: str | None) -> str | None:
    if their is None:
        return "read from a block that is cut, where ExifTool gives up" if "trunc" in file else None
    if our is None and name in LAYOUT:
        return "left out: tells how pixels are laid out, not about the photo"
    if our is None and name in FOREIGN:
        return "left out: not a tag of EXIF (DNG, Microsoft)"
    if our is None:
        return None
    if their.isprintable() is False and _printable(their) == our:
        return "control characters are left out"
    if their.rstrip() == our:
        return "blanks at the end are cut"
    if "?" in their:
        return "text that is no UTF-8 is read as Windows-1252, where ExifTool writes `?`"
    if our == "inf":
        return "infinite: `inf`, where ExifTool writes `+Inf`"
    if not our and their == "Unknown ()":
        return "an empty letter is empty, where ExifTool writes `Unknown ()`"
    return None


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def table(found: Agreement) -> str:
    """The made section of the page."""
    lines = [
        (
            f"{found.files} files of the corpus have EXIF. ExifTool tells {found.told} tags of it, and "
            f"{found.equal} of them ({found.equal / found.told:.1%}) are told here with the same name "
            "and the same text, letter by letter. The others:"
        ),
        "",
        "| difference | tags |",
        "| --- | --- |",
        *(
            f"| {reason} | {count} |"
            for reason, count in sorted(found.reasons.items(), key=lambda item: (-item[1], item[0]))
        ),
    ]
    return "\n".join(lines) + "\n"


def renewed(page: str, made: str) -> str:
    """The page with its made section replaced."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return before + MARKS[0] + made + MARKS[1] + after


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), table(compared())), encoding="utf-8")
