"""EXIF as text: readable, bounded, harmless whatever the block holds; positions as ExifTool's."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageapi.imaging import exif
from imageapi.imaging.limits import MAX_TAGS, MAX_TEXT
from tests.imaging.pictures import Field, ascii_field, longs, ratios, shorts
from tests.imaging.pictures import exif as block

NORTH, EAST = ascii_field(1, b"N"), ascii_field(3, b"E")
FORTY_EIGHT = ratios(2, (48, 1), (51, 1), (4327, 100))
TWO = ratios(4, (2, 1), (21, 1), (3, 1))


def position(*gps: Field) -> tuple[float, float] | None:
    return exif.parse(block([], gps=list(gps))).gps


def texts(image: list[Field] | None = None, photo: list[Field] | None = None) -> dict[str, str]:
    return exif.parse(block(image or [], photo)).texts


def harmless(found: exif.Exif) -> None:
    """What strict JSON, SQLite and PostgreSQL's jsonb take alike, in bounds."""
    text = json.dumps(found.texts, allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode()) == found.texts
    assert "\0" not in "".join(found.texts.values())
    assert len(found.texts) <= MAX_TAGS
    assert all(len(value) <= MAX_TEXT for value in found.texts.values())
    assert 1 <= found.orientation <= 8
    if found.gps:
        assert -90 <= found.gps[0] <= 90
        assert -180 <= found.gps[1] <= 180


@given(st.binary(max_size=400))
def test_no_bytes_are_harmful(data: bytes):
    harmless(exif.parse(data))
    harmless(exif.parse(b"II*\0\x08\0\0\0" + data))
    harmless(exif.parse(b"MM\0+\0\x08\0\0" + data))


FIELDS = st.tuples(
    st.sampled_from(
        sorted({*exif.tags.IMAGE, *exif.tags.PHOTO, *exif.tags.GPS, 0x8769, 0x8825, 0xA005})
    ),
    st.integers(0, 19),
    st.integers(0, 2**32 - 1) | st.integers(0, 12),
    st.binary(max_size=64),
)


@pytest.mark.parametrize(
    "cells", [(0, 0, 0, 0), (0, 1, 0, 1), (1 << 30, 0, -(1 << 30), 0), (0, -9, 0, -9)]
)
def test_a_mosaic_of_a_size_that_none_has(cells: tuple[int, ...]):
    found = texts([], [(0xA302, 9, 4, struct.pack("<4i", *cells))])
    assert found == {"CFAPattern": " ".join(map(str, cells))}


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0xA302, float("inf")), (0x829A, 5e-324), (0x9201, 1e308), (0x9204, 1.7e308), (0x920A, 1e308)],
)
def test_numbers_beyond_all_measure_are_text_all_the_same(tag: int, value: float):
    harmless(exif.parse(block([], [(tag, 12, 4, struct.pack("<4d", *[value] * 4))])))
    harmless(exif.parse(block([], [(tag, 12, 1, struct.pack("<d", value))])))
    angle = (2, 12, 3, struct.pack("<3d", *[1e308] * 3))
    harmless(exif.parse(block([], None, [NORTH, angle, EAST, (4, *angle[1:]), (7, *angle[1:])])))


def test_an_offset_that_no_file_has_is_nothing():
    head = b"II+\0\x08\0\0\0"
    assert exif.parse(head + b"\xff" * 8).texts == {}
    assert exif.parse(head + b"\xff" * 7 + b"\x7f").texts == {}


@settings(max_examples=200)
@given(st.lists(FIELDS, max_size=6), st.lists(FIELDS, max_size=6), st.lists(FIELDS, max_size=6))
def test_no_fields_are_harmful(image: list[Field], photo: list[Field], gps: list[Field]):
    harmless(exif.parse(block(image, photo, gps)))


def test_a_real_block_that_was_scratched_is_harmless():
    good = block(
        [ascii_field(0x10F, b"Maker"), shorts(0x112, 6)],
        [ratios(0x829A, (1, 60)), ascii_field(0x9003, b"2020:01:02 03:04:05")],
        [NORTH, FORTY_EIGHT, EAST, TWO],
    )
    chance = random.Random(3)  # noqa: S311 (to scratch, not to hide)
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 5)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        harmless(exif.parse(bytes(bad[: chance.randrange(8, len(bad) + 1)])))


def test_values_that_all_point_at_the_same_megabyte_cost_nothing():
    count = 65_535
    entries = b"".join(
        struct.pack("<HHII", 0x10E if n % 2 else 0x9286, 2, 1 << 20, 8) for n in range(count)
    )
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries
    harmless(exif.parse(data.ljust(1 << 20, b"a")))


def test_a_directory_that_points_at_itself_is_read_once():
    data = bytearray(block([longs(0x8769, 8), ascii_field(0x110, b"Loop")]))
    data[34:38] = struct.pack("<I", 8)  # and its next directory is itself
    assert exif.parse(bytes(data)).texts == {"Model": "Loop"}


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ([NORTH, FORTY_EIGHT, EAST, TWO], (48.86201944444444, 2.35083333333333)),
        (
            [ascii_field(1, b"S"), FORTY_EIGHT, ascii_field(3, b"W"), TWO],
            (-48.86201944, -2.35083333),
        ),
        ([ascii_field(1, b"n"), FORTY_EIGHT, ascii_field(3, b"e"), TWO], (48.86201944, 2.35083333)),
        (
            [NORTH, ratios(2, (0, 1), (0, 1), (0, 1)), EAST, ratios(4, (0, 1), (0, 1), (0, 1))],
            (0, 0),
        ),
        ([NORTH, ratios(2, (48, 1)), EAST, ratios(4, (2, 1))], (48, 2)),
        (
            [NORTH, ascii_field(2, b"48 51 43.27"), EAST, ascii_field(4, b"2,21,3")],
            (48.86201944, 2.35083333),
        ),
        ([NORTH, ascii_field(2, b"48.5"), EAST, ascii_field(4, b"2.25")], (48.5, 2.25)),
        ([NORTH, shorts(2, 48, 30, 36), EAST, shorts(4, 2, 15, 0)], (48.51, 2.25)),
        (
            [NORTH, ratios(2, (90, 1), (0, 1), (0, 1)), EAST, ratios(4, (180, 1), (0, 1), (0, 1))],
            (90, 180),
        ),
    ],
)
def test_a_position(gps: list[Field], expected: tuple[float, float]):
    assert position(*gps) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    "gps",
    [
        [FORTY_EIGHT, TWO],
        [NORTH, FORTY_EIGHT, TWO],
        [NORTH, FORTY_EIGHT, EAST],
        [ascii_field(1, b"X"), FORTY_EIGHT, EAST, TWO],
        [ascii_field(1, b""), FORTY_EIGHT, EAST, TWO],
        [NORTH, ratios(2, (91, 1), (0, 1), (0, 1)), EAST, TWO],
        [NORTH, FORTY_EIGHT, EAST, ratios(4, (180, 1), (0, 1), (1, 1))],
        [NORTH, ratios(2, (0, 0), (0, 0), (0, 0)), EAST, TWO],
        [NORTH, ratios(2, (48, 1), (51, 1), (0, 0)), EAST, TWO],
        [NORTH, ratios(2, (48, 0), (51, 1), (0, 1)), EAST, TWO],
        [NORTH, (2, 12, 1, struct.pack("<d", float("nan"))), EAST, TWO],
        [NORTH, (2, 12, 1, struct.pack("<d", float("inf"))), EAST, TWO],
        [NORTH, ascii_field(2, b"here"), EAST, TWO],
        [NORTH, ascii_field(2, b"-48"), EAST, TWO],
    ],
)
def test_no_position(gps: list[Field]):
    assert position(*gps) is None


def test_nothing_of_a_position_is_minus_zero():
    found = position(
        ascii_field(1, b"S"), ratios(2, (0, 1)), ascii_field(3, b"W"), ratios(4, (0, 1))
    )
    assert json.dumps(found) == "[0.0, 0.0]"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        *((shorts(0x112, value), value) for value in range(1, 9)),
        (longs(0x112, 6), 6),
        (shorts(0x112, 0), 1),
        (shorts(0x112, 9), 1),
        (shorts(0x112, 65_535), 1),
        (ascii_field(0x112, b"6"), 1),
        (ratios(0x112, (6, 1)), 1),
        ((0x112, 11, 1, struct.pack("<f", 6.0)), 1),
    ],
)
def test_orientation(field: Field, expected: int):
    assert exif.parse(block([field])).orientation == expected


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ([(0x9003, b"2022:08:22 20:30:46")], "2022-08-22T20:30:46"),
        (
            [(0x9003, b"0000:00:00 00:00:00"), (0x9004, b"2001:02:03 04:05:06")],
            "2001-02-03T04:05:06",
        ),
        ([(0x9003, b"    :  :     :  :  ")], None),
        ([(0x9003, b"2023:02:29 10:00:00")], None),
        ([(0x9003, b"2022-08-22 20:30:46+02:00")], "2022-08-22T20:30:46"),
        ([(0x9003, b"")], None),
    ],
)
def test_when_it_was_taken(photo: list[tuple[int, bytes]], expected: str | None):
    found = exif.parse(block([], [ascii_field(tag, text) for tag, text in photo]))
    assert found.taken_at == expected


@pytest.mark.parametrize(
    ("field", "name", "expected"),
    [
        (ratios(0x829A, (1, 75)), "ExposureTime", "1/75"),
        (ratios(0x829A, (30, 1)), "ExposureTime", "30"),
        (ratios(0x829D, (28, 10)), "FNumber", "2.8"),
        (ratios(0x920A, (135, 1)), "FocalLength", "135.0 mm"),
        (shorts(0x8827, 100), "ISO", "100"),
        (shorts(0x9209, 16), "Flash", "Off, Did not fire"),
        (shorts(0x9209, 77), "Flash", "On, Red-eye reduction, Return not detected"),
        (shorts(0x9207, 99), "MeteringMode", "Unknown (99)"),
        ((0x9204, 10, 1, struct.pack("<ii", -1, 3)), "ExposureCompensation", "-1/3"),
        ((0x9204, 10, 1, struct.pack("<ii", 0, 0)), "ExposureCompensation", "undef"),
        ((0x9000, 7, 4, b"0232"), "ExifVersion", "0232"),
        ((0x9101, 7, 4, b"\1\2\3\0"), "ComponentsConfiguration", "Y, Cb, Cr, -"),
        ((0xA300, 7, 1, b"\3"), "FileSource", "Digital Camera"),
        ((0x9286, 7, 14, b"ASCII\0\0\0Hello\0"), "UserComment", "Hello"),
        ((0x9286, 7, 12, b"UNICODE\0\x17\x01h\x00"), "UserComment", "ėh"),
        (ratios(0xA432, (24, 1), (70, 1), (0, 0), (0, 0)), "LensInfo", "24-70mm f/?"),
    ],
)
def test_values_read_as_people_write_them(field: Field, name: str, expected: str):
    assert texts([], [field]) == {name: expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Žluťoučký kůň — 写真家".encode(), "Žluťoučký kůň — 写真家"),
        ("Göteborg".encode("latin-1"), "Göteborg"),
        (b"before\0after", "before"),
        (b"trailing   ", "trailing"),
        (b"a\x07b\x1b[31mc", "ab[31mc"),
        (b"\xed\xa0\x80", "í\xa0€"[0] + "\xa0€"),
        (("é" * 3000).encode(), "é" * MAX_TEXT),
        (b"x" * 3999 + "é".encode(), "x" * MAX_TEXT),
    ],
)
def test_text(text: bytes, expected: str):
    assert texts([ascii_field(0x10E, text)]) == {"ImageDescription": expected}


def test_windows_text_is_utf_16():
    data = "Žluť\ud800x".encode("utf-16-le", "surrogatepass") + b"\0\0"
    assert texts([(0x9C9B, 1, len(data), data)])["XPTitle"] == "Žluť\ufffdx"


def test_maker_notes_and_thumbnails_are_left_out():
    found = texts([ascii_field(0x10F, b"Maker"), longs(0x201, 99)], [(0x927C, 7, 8, b"private!")])
    assert found == {"Make": "Maker"}


def test_a_tiff_without_a_camera_has_no_exif(tmp_path: Path):
    path = tmp_path / "x.tif"
    for fields, expected in (
        ([ascii_field(0x131, b"Scanner"), shorts(0x112, 6)], {}),
        (
            [ascii_field(0x131, b"Scanner"), ascii_field(0x110, b"Camera"), shorts(0x112, 6)],
            {"Software": "Scanner", "Model": "Camera", "Orientation": "Rotate 90 CW"},
        ),
    ):
        path.write_bytes(block(fields))
        with path.open("rb") as stream:
            found = exif.of_file(stream)
        assert found.texts == expected
        assert found.orientation == 6
