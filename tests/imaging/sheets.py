"""`make contact-sheets`: our `full` of many pictures beside libvips', to be looked at.

A PNG a group in build/contact-sheets/: ours, libvips', and their difference four times as strong; the
mean difference in levels of 255 is printed. Groups are made of the shared corpus where it is there, and
of pictures that are made here.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyvips
from PIL import Image, ImageChops, ImageDraw

from imageapi.geometry import Edit, Rendition
from imageapi.imaging import Limits
from tests.imaging import vips
from tests.imaging.corpus import rows
from tests.imaging.inprocess import pictures
from tests.imaging.pictures import corners, exif, jpeg_with_exif, profile, saved, shorts, stored

FOLDER = Path(__file__).parents[2] / "build" / "contact-sheets"
CELL = Rendition("cell", 200, 150, "fit")
MARGIN, CAPTION, ACROSS = 6, 14, 2
GROUPS = {
    "orientations": ("orientation", "irot", "clap", "null-island"),
    "profiles": ("icc-swap", "p3", "prophoto", "adobergb", "cmyk", "grey", "gainmap"),
    "alpha": ("alpha", "palette", "transparent", "animated"),
    "formats": (
        *("progressive", "interlaced", "1bit", "16bit", "10bit", "arithmetic", "lzw", "multipage"),
        *("bigtiff", "mpo", "heic", "exif", "tiny", "filename"),
    ),
}


def made(folder: Path) -> Iterator[tuple[str, Path]]:
    """Group and file of the pictures that are made here."""
    for orientation in range(1, 9):
        path = folder / f"made-orientation-{orientation}.jpg"
        block = exif([shorts(0x112, orientation)])
        path.write_bytes(jpeg_with_exif(block, stored(corners(), orientation)))
        yield "orientations", path
    path = folder / "made-swapped.png"
    yield "profiles", saved(path, corners(), "PNG", icc_profile=profile("grb"))
    yield "profiles", saved(folder / "made-cmyk.tif", corners().convert("CMYK"), "TIFF")
    clear = corners().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    for form in ("PNG", "WEBP", "AVIF", "TIFF"):
        yield "alpha", saved(folder / f"made-alpha.{form.lower()}", clear, form)
    for form in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF"):
        yield "formats", saved(folder / f"made.{form.lower()}", corners(), form)


def shared() -> Iterator[tuple[str, Path]]:
    """Group and file of the corpus' accepted pictures."""
    for row in rows():
        for group, reasons in GROUPS.items():
            if row.expected == "accept" and row.why in reasons:
                yield group, row.path


def sheet(files: list[Path]) -> Image.Image:
    """Ours, libvips' and their difference, a line of captions under each."""
    width, height = 3 * (CELL.width + MARGIN), CELL.height + CAPTION + MARGIN
    lines = -(-len(files) // ACROSS)
    result = Image.new("RGB", (ACROSS * (width + 3 * MARGIN), lines * height), (90, 90, 90))
    for index, path in enumerate(files):
        place = index % ACROSS * (width + 3 * MARGIN) + MARGIN, index // ACROSS * height + MARGIN
        ours = pictures(path, Edit(), [CELL], Limits())["cell"]
        cells, told = [ours], "libvips does not open it"
        try:
            theirs = vips.rendition(path, Edit(), CELL)
        except pyvips.Error:
            pass
        else:
            shown = [vips.flat(picture) for picture in (ours, theirs)]
            difference = ImageChops.difference(*shown).point(lambda level: min(255, 4 * level))
            cells += [theirs, difference]
            told = f"{vips.difference(ours, theirs):.2f}"
        for column, cell in enumerate(cells):
            left = place[0] + column * (CELL.width + MARGIN)
            result.paste(_chequered(cell), (left, place[1]))
        ImageDraw.Draw(result).text(
            (place[0], place[1] + CELL.height + 1), f"{path.name}: {told}", fill=(255, 255, 255)
        )
        sys.stdout.write(f"  {path.name:36} {told}\n")
    return result


def _chequered(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    draw = ImageDraw.Draw(ground)
    for x in range(0, picture.width, 10):
        for y in range(x // 10 % 2 * 10, picture.height, 20):
            draw.rectangle((x, y, x + 9, y + 9), fill=(200, 200, 200, 255))
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = [*made(Path(folder)), *shared()]
        for group in GROUPS:
            path = FOLDER / f"{group}.png"
            sys.stdout.write(f"{path}\n")
            sheet([file for name, file in found if name == group]).save(path)


if __name__ == "__main__":
    main()
