"""Placeholders, equal to those of npm's `thumbhash`."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageapi.geometry import Crop, Edit, Rendition
from imageapi.imaging import thumbhash
from imageapi.imaging.limits import Limits
from tests.imaging.corpus import rows
from tests.imaging.inprocess import render
from tests.imaging.pictures import CORNERS, corners, opened, saved
from tests.servers.need import lacking, need

REFERENCE = Path(__file__).with_name("thumbhash.mjs")
SMALL = Rendition("small", 40, 40, "fit")
Pixels = tuple[int, int, bytes]


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose node_modules hold npm's `thumbhash`."""
    npm = need("npm", install="apt install npm")
    folder = tmp_path_factory.mktemp("thumbhash")
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    installed = subprocess.run(
        [npm, "install", *options, "thumbhash@0.1.1"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if installed.returncode:
        lacking(f"npm can not install thumbhash: {installed.stderr[-500:]}")
    return folder


def reference(pictures: list[Pixels], modules: Path) -> list[str]:
    """npm's hashes."""
    node = need("node", install="apt install nodejs")
    lines = "\n".join(
        json.dumps({"w": w, "h": h, "rgba": base64.b64encode(rgba).decode()})
        for w, h, rgba in pictures
    )
    return subprocess.run(
        [node, str(REFERENCE), str(modules)],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def ours(pictures: list[Pixels]) -> list[str]:
    return [base64.b64encode(thumbhash.encode(*picture)).decode() for picture in pictures]


def test_plain_and_noisy_pictures_hash_as_the_reference_does(modules: Path):
    chance = random.Random(11)  # noqa: S311 (to make pictures)
    pictures = []
    for number in range(60):
        w, h = chance.randint(1, 40), chance.randint(1, 40)
        pixel = bytes([*chance.randbytes(3), 255 if number % 2 else chance.randrange(256)])
        pictures.append((w, h, pixel * (w * h) if number < 40 else chance.randbytes(4 * w * h)))
    assert ours(pictures) == reference(pictures, modules)


def test_the_corpus_hashes_as_the_reference_does(shared: Path, modules: Path):
    pictures = []
    for row in rows():
        if row.expected != "accept" or row.path.stat().st_size > 300_000:
            continue
        small = opened(render(row.path, Edit(), [SMALL], Limits()).files["small"]).convert("RGBA")
        pictures.append((*small.size, small.tobytes()))
    assert len(pictures) > 60
    assert ours(pictures) == reference(pictures, modules)


def test_the_average_colour_comes_first():
    head = thumbhash.encode(4, 4, bytes([255, 0, 0, 255]) * 16)[:3]
    bits = int.from_bytes(head, "little")
    assert bits & 63 == 21  # light: a third
    assert bits >> 6 & 63 == 47  # yellow - blue: a half
    assert bits >> 12 & 63 == 63  # red - green: all
    assert bits >> 23 == 0  # no alpha


@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_picture_has_a_short_hash(width: int, height: int, chance: random.Random):
    assert 5 < len(thumbhash.encode(width, height, chance.randbytes(4 * width * height))) <= 25


@pytest.mark.parametrize("size", [(101, 1), (1, 101), (2, 2)])
def test_what_is_no_small_picture_is_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match="no picture"):
        thumbhash.encode(*size, b"\0" * 4)


def test_renditions_come_with_a_placeholder_of_the_edited_picture(tmp_path: Path):
    path = saved(tmp_path / "x.png", corners(96, 64), "PNG")
    whole = render(path, Edit(), [], Limits()).placeholder
    field = render(path, Edit(Crop(0, 0, 40, 30)), [], Limits()).placeholder
    head = int.from_bytes(base64.b64decode(field)[:3], "little")
    red, green, blue = CORNERS[0]
    assert whole != field
    assert head & 63 == round(63 * (red + green + blue) / 3 / 255)
