"""Every file of the corpus: accepted or refused, upright, positioned and rendered as known."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from imageapi.errors import UndecodablePicture, UnsupportedFormat
from imageapi.geometry import Crop, Edit
from imageapi.imaging.limits import Limits
from tests.imaging.corpus import Row, each, rows
from tests.imaging.inprocess import pictures, probe, render
from tests.imaging.pictures import ALL, FULL, opened

LIMITS = Limits()
UNSUPPORTED = {"bmp", "ico", "empty", "text", "html", "svg", "eps", "pdf"}


@each("accept", "either")
def test_what_is_accepted_is_told_as_the_manifest_says(row: Row):
    try:
        probed = probe(row.path, LIMITS)
        rendered = render(row.path, Edit(), ALL, LIMITS)
    except UndecodablePicture:
        assert row.expected == "either"
        return
    assert probed.format == row.format
    assert tuple(probed.size) == row.upright
    if row.orientation in range(1, 9):
        assert probed.orientation == row.orientation
    if row.kind != "broken":
        assert bool(probed.exifs) == row.has_exif
    assert (probed.gps is None) == (row.gps is None)
    if row.gps:
        assert probed.gps == pytest.approx(row.gps, abs=1e-7)
    for rendition in ALL:
        assert opened(rendered.files[rendition.name]).size == rendered.sizes[rendition.name]
    json.dumps(probed.exifs, allow_nan=False).encode("ascii")


@each("refuse")
def test_what_is_refused_says_why(row: Row):
    error = UnsupportedFormat if row.format in UNSUPPORTED else UndecodablePicture
    with pytest.raises(error) as caught:
        render(row.path, Edit(), ALL, LIMITS)
    assert str(row.path) not in str(caught.value)
    if error is UnsupportedFormat:
        assert "JPEG, PNG, GIF, WebP, AVIF, TIFF" in str(caught.value)


COMPARABLE = [
    row
    for row in rows()
    if row.expected == "accept"
    and row.format != "heic"  # libvips' wheel has no HEVC decoder
    and row.path.name
    not in {
        "animated-alpha-exif.avif",  # libvips opens no image sequence
        "cmyk-ycck-seine.jpg",  # libvips takes a press profile where there is none, we take none
        "gen-jpeg-cmyk-plain.jpg",
    }
]


def most(row: Row) -> float:
    """Levels of 255 that a rendition may be off in the mean."""
    if row.path.name == "cmyk-fogra.tif":
        return (
            30.0  # libvips' red lies within the profile's table, LittleCMS gives the usual #E30613
        )
    return 3.0 if row.format == "avif" else 2.0  # libheif and libavif scale chroma differently


@pytest.mark.parametrize("row", COMPARABLE, ids=[row.path.name for row in COMPARABLE])
def test_renditions_look_as_libvips_renders_them(row: Row, vips):
    ours = pictures(row.path, Edit(), ALL, LIMITS)
    for rendition in ALL:
        other = vips.rendition(row.path, Edit(), rendition)
        assert ours[rendition.name].size == other.size
        off = vips.difference(ours[rendition.name], other)
        assert off <= most(row), rendition.name


EDITED = [
    row
    for row in COMPARABLE
    if row.path.name.startswith("orientation-")
    or row.path.name in {"samsung-s7-long.jpg", "alpha-irot.avif", "kimono-mirror-rotate-crop.avif"}
]
EDITS = (
    Edit(Crop(10, 3, 30, 40), 90),
    Edit(Crop(0, 0, 0, 0), 180),
    Edit(Crop(7.5, 20.25, 75, 60.5), 270),
)


@pytest.mark.parametrize("row", EDITED, ids=[row.path.name for row in EDITED])
def test_edits_cut_what_libvips_cuts(row: Row, vips):
    for edit in EDITS:
        picture = pictures(row.path, edit, [FULL], LIMITS)["full"]
        other = vips.rendition(row.path, edit, FULL)
        assert picture.size == other.size
        assert vips.difference(picture, other) <= most(row), edit


PRIVATE = [row for row in rows() if row.expected == "accept"]


def test_no_rendition_holds_anything_but_pixels(shared: Path, tmp_path: Path, exiftool: str):
    for number, row in enumerate(PRIVATE):
        rendered = render(row.path, Edit(), ALL, LIMITS)
        for name, data in rendered.files.items():
            (tmp_path / f"{number}.{name}.{rendered.extension}").write_bytes(data)
            assert data.endswith(b"\xff\xd9" if rendered.extension == "jpg" else b"IEND\xaeB`\x82")
    told = subprocess.run(
        [exiftool, "-j", "-G1", "-n", str(tmp_path)], capture_output=True, check=True
    ).stdout
    groups = {key.split(":")[0] for file in json.loads(told) for key in file} - {"SourceFile"}
    assert len(json.loads(told)) == 3 * len(PRIVATE)
    assert groups <= {"ExifTool", "System", "File", "JFIF", "PNG", "Composite"}
