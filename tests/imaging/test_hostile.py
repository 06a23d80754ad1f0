"""Files that were made to hurt: each is refused, or harmless, in little time and memory."""

from __future__ import annotations

import io
import os
import random
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imageapi.errors import ImageAPIError, UndecodablePicture, UnsupportedFormat
from imageapi.geometry import Edit
from imageapi.imaging import limits
from imageapi.imaging.decode import decoding
from imageapi.imaging.limits import Limits
from imageapi.imaging.probing import accepted
from tests.imaging.inprocess import probe, render
from tests.imaging.pictures import (
    ALL,
    PNG_MARK,
    chunk,
    corners,
    exif,
    jpeg_with_exif,
    longs,
    png,
    saved,
    shorts,
)

LIMITS = Limits(max_pixels=1_000_000)


@contextmanager
def in_little_time(seconds: float = 5.0) -> Iterator[None]:
    """Of the processor: far more than any refusal takes, far less than a decoder may have."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """`refused(data, error)`: probed and refused by its headers alone; answers the message."""

    def check(data: bytes, error: type[ImageAPIError] = UndecodablePicture) -> str:
        path = tmp_path / "file"
        path.write_bytes(data)
        tracemalloc.start()
        try:
            with in_little_time(), pytest.raises(error) as caught:
                probe(path, LIMITS)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        return str(caught.value)

    return check


@pytest.fixture
def undecodable(tmp_path: Path) -> Callable[[bytes], str]:
    """`undecodable(data)`: passes the headers, and is refused when it is decoded."""

    def check(data: bytes) -> str:
        path = tmp_path / "file"
        path.write_bytes(data)
        with pytest.raises(UndecodablePicture) as caught:
            render(path, Edit(), ALL, LIMITS)
        return str(caught.value)

    return check


def encoded(form: str, picture: Image.Image | None = None, **options: object) -> bytes:
    output = io.BytesIO()
    (picture or corners()).save(output, form, **options)
    return output.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"hello, world",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html><script>alert(1)</script></html>",
        b"BM" + b"\0" * 60,
        b"\0\0\1\0\1\0" + b"\0" * 60,
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
        b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 60,
    ],
)
def test_what_is_no_accepted_picture_names_those_that_are(refused, data: bytes):
    assert accepted() in refused(data, UnsupportedFormat)


def test_without_the_extra_a_heic_is_not_accepted(refused, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", UnsupportedFormat)
    assert "AVIF" in said
    assert "HEIC" not in said


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03" + b"\0" * 50,
        PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)),
        b"GIF89a" + struct.pack("<HHBBB", 65_000, 65_000, 0, 0, 0) + b"\x2c",
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x7f\x00" * 2 + b"\0" * 8,
        b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, 40_000, 257, 4, 1, 40_000),
    ],
)
def test_a_size_that_lies_or_not_is_refused_by_its_header(refused, data: bytes):
    assert "limit is 1000000 pixels" in refused(data)


BOMBS = 2000 if os.environ.get("FAULTS") == "full" else 200


def test_bombs_are_refused_by_their_headers(refused):
    """Of any size that is too large and any format; not a pixel of them is there."""
    chance = random.Random(22)  # noqa: S311 (to vary, not to hide)
    slowest = 0.0
    for number in range(BOMBS):
        width, height = chance.randrange(1001, 65_000), chance.randrange(1001, 65_000)
        data = BOMB_HEADS[number % len(BOMB_HEADS)](width, height)
        start = time.process_time()
        assert "limit is" in refused(data + chance.randbytes(chance.randrange(2000)))
        slowest = max(slowest, time.process_time() - start)
    sys.stdout.write(f"{BOMBS} bombs, the slowest refused in {slowest * 1000:.1f} ms\n")


BOMB_HEADS = [
    lambda w, h: b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", h, w) + b"\3" + b"\0" * 9,
    lambda w, h: PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)),
    lambda w, h: b"GIF89a" + struct.pack("<HHBBB", w, h, 0, 0, 0) + b"\x2c",
    lambda w, h: b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + canvas(w) + canvas(h),
    lambda w, h: b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, w, 257, 4, 1, h),
    lambda w, h: (
        b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"
        + struct.pack("<QHHQQHHQQ", 2, 256, 4, 1, w, 257, 4, 1, h)
    ),
]


def canvas(side: int) -> bytes:
    return (side - 1).to_bytes(3, "little")


@pytest.mark.parametrize("bomb", [Image.DecompressionBombError, Image.DecompressionBombWarning])
def test_what_pillow_calls_a_bomb_is_refused(bomb: type[Exception]):
    with pytest.raises(UndecodablePicture, match="too large"), decoding(LIMITS):
        raise bomb


@pytest.mark.parametrize("error", [EOFError, struct.error, KeyError, ZeroDivisionError])
def test_what_pillow_stumbles_over_is_broken(error: type[Exception]):
    with pytest.raises(UndecodablePicture, match="broken or cut short"), decoding(LIMITS):
        raise error


def test_pillow_turns_a_tiffs_size_before_it_is_loaded_and_keeps_the_tag(tmp_path: Path):
    """Why the size comes from our own reader: applying the tag once more would lay it down again."""
    path = tmp_path / "x.tif"
    tags = Image.Exif()
    tags[0x112] = 6
    saved(path, corners(96, 64), "TIFF", exif=tags)
    with Image.open(path) as picture:
        assert picture.size == (64, 96)
        assert picture.getexif()[0x112] == 6
    assert probe(path, LIMITS).size == (64, 96)
    assert render(path, Edit(), ALL, LIMITS).sizes["full"] == (64, 96)


def test_no_side_may_be_too_long(refused):
    head = struct.pack(">IIBBBBB", 100_000, 1, 8, 2, 0, 0, 0)
    assert "no side may be longer than 65500" in refused(PNG_MARK + chunk(b"IHDR", head))


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_an_empty_picture_is_broken(refused, size: tuple[int, int]):
    refused(PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_frames_count(tmp_path: Path, form: str):
    frames = [Image.new("RGB", (64, 48), (n * 30, 0, 0)) for n in range(7)]
    path = saved(tmp_path / "x", frames[0], form, save_all=True, append_images=frames[1:])
    assert probe(path, Limits(max_pixels=64 * 48 * 7)).frames == 7
    with pytest.raises(UndecodablePicture, match="limit is 21503 pixels"):
        probe(path, Limits(max_pixels=64 * 48 * 7 - 1))


def test_a_frame_outside_of_a_gifs_screen_counts_and_is_cut(tmp_path: Path, refused):
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 5000, 5000, 0) + b"\x02\x00\x3b"
    refused(b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0, 0, 0) + image)
    data = bytearray(encoded("GIF", Image.new("P", (8, 8), 1)))
    data[6:10] = struct.pack("<HH", 3, 2)
    path = tmp_path / "x.gif"
    path.write_bytes(data)
    assert probe(path, LIMITS).size == (3, 2)
    assert render(path, Edit(), ALL, LIMITS).sizes["full"] == (3, 2)


def test_hundreds_of_scans_are_refused_and_ten_are_not(tmp_path: Path, refused):
    data = encoded("JPEG", progressive=True)
    (tmp_path / "good").write_bytes(data)
    assert probe(tmp_path / "good", LIMITS).format == "jpg"
    start = data.index(b"\xff\xda")
    end = data.index(b"\xff\xda", start + 2)
    many = data[:end] + data[start:end] * limits.MAX_SCANS + data[end:]
    assert f"limit is {limits.MAX_SCANS}" in refused(many)


@pytest.mark.parametrize("start", [b"\xff\xd8", encoded("JPEG", progressive=True)[:-2]])
def test_fill_bytes_before_no_marker_are_read_once(refused, start: bytes):
    refused(start + b"\xff" * 200_000 + b"\0" + b"\xff\xda" * 100)


BOMB = zlib.compress(b"\0" * (8 << 20))


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
        chunk(b"iCCP", b"profile\0\0" + BOMB),
    ],
)
def test_text_and_profiles_that_swell_are_refused(undecodable, more: bytes):
    data = png([b"\0\0\0"], 1, 2, 8, before=more)
    with pytest.raises(ValueError, match=r"[Tt]oo large"):
        Image.open(io.BytesIO(data))
    undecodable(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF"])
def test_no_picture_is_taken_in_that_is_cut(tmp_path: Path, form: str):
    data = encoded(form, Image.effect_noise((60, 40), 90).convert("RGB"))
    path = tmp_path / "x"
    for length in range(0, len(data) - 2, max(1, len(data) // 40)):
        path.write_bytes(data[:length])
        with pytest.raises((UndecodablePicture, UnsupportedFormat)):
            render(path, Edit(), ALL, LIMITS)


@pytest.mark.parametrize("length", range(8, 8 + 25 + 20))
def test_a_png_may_be_cut_anywhere_in_its_first_chunks(refused, length: int):
    animated = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert "broken" in refused(png([b"\0\0\0"], 1, 2, 8, before=animated)[:length])


def test_a_jpeg_without_its_end_mark_is_cut(undecodable):
    assert "cut short" in undecodable(encoded("JPEG")[:-2])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF"])
@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    scratches=st.lists(
        st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=6
    )
)
def test_a_scratched_picture_is_decoded_or_refused(tmp_path: Path, form: str, scratches):
    data = bytearray(encoded(form, corners(30, 20)))
    for place, value in scratches:
        data[place % len(data)] = value
    path = tmp_path / "x"
    path.write_bytes(data)
    try:
        rendered = render(path, Edit(), ALL, LIMITS)
    except (UndecodablePicture, UnsupportedFormat):
        return
    assert set(rendered.files) == {"full", "large", "mini"}


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.sampled_from(
        [
            b"\xff\xd8\xff",
            PNG_MARK,
            b"GIF89a",
            b"RIFF\x90\1\0\0WEBP",
            b"II*\0\x08\0\0\0",
            b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10",
            b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
        ]
    ),
    st.binary(max_size=400),
)
def test_any_bytes_behind_a_mark_are_told_or_refused(tmp_path: Path, mark: bytes, data: bytes):
    path = tmp_path / "x"
    path.write_bytes(mark + data)
    try:
        found = probe(path, LIMITS)
    except (UndecodablePicture, UnsupportedFormat):
        return
    assert found.size.width * found.size.height * found.frames <= LIMITS.max_pixels


@pytest.mark.parametrize(
    ("start", "unit", "count"),
    [
        (b"\xff\xd8", b"\xff\xe5\0\2", limits.MAX_SEGMENTS + 1),
        (
            PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
            chunk(b"aaAa", b""),
            limits.MAX_CHUNKS,
        ),
        (b"GIF89a\1\0\1\0\0\0\0!\xfe", b"\1a", limits.MAX_SUB_BLOCKS + 1),
        (b"", b"\0\0\0\x10ftypavif\0\0\0\0", limits.MAX_SEGMENTS + 1),
    ],
)
def test_small_parts_without_end_are_refused(refused, start: bytes, unit: bytes, count: int):
    assert "more than" in refused(start + unit * count)


def test_directories_that_share_their_tags_are_counted(refused):
    """Each of 8192 pages has 8192 tags; all lie on one another in 230 kB."""
    pages, tags = limits.MAX_SEGMENTS, limits.MAX_SEGMENTS
    data = bytearray(8 + 16 * pages + 12 * tags)
    first = b"\2\0" + struct.pack("<HHIIHHII", 256, 4, 1, 1, 257, 4, 1, 1) + struct.pack("<I", 8)
    data[:8] = b"II*\0" + struct.pack("<I", len(data))
    for page in range(pages):
        start = 8 + 16 * page
        data[start : start + 2] = struct.pack("<H", tags)
        after = start + 2 + 12 * tags
        data[after : after + 4] = struct.pack("<I", start + 16)
    assert f"more than {limits.MAX_ENTRIES}" in refused(bytes(data) + first)


def test_pages_that_go_round_are_counted_once(tmp_path: Path):
    data = bytearray(encoded("TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[first : first + 2])[0]
    data[first + 2 + 12 * count :][:4] = struct.pack("<I", first)
    place = first + 2 + 12 * count
    data[place : place + 4] = struct.pack("<I", first)
    (tmp_path / "x").write_bytes(data)
    assert probe(tmp_path / "x", LIMITS).frames == 1


def test_a_raw_file_of_a_camera_is_no_tiff(refused):
    for field in (shorts(0xFE, 1), longs(0xC612, 1)):
        block = exif([field, shorts(0x100, 4), shorts(0x101, 4)])
        assert "Raw" in refused(block, UnsupportedFormat)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_what_hangs_on_a_picture_is_not_in_its_renditions(tmp_path: Path, form: str):
    payload = b"PK\3\4<?php system('id'); ?><script>alert(1)</script>"
    path = tmp_path / "x"
    path.write_bytes(encoded(form) + payload)
    for data in render(path, Edit(), ALL, LIMITS).files.values():
        assert b"php" not in data
        assert b"script" not in data
        assert data.endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))


def test_a_jpegs_comment_and_thumbnail_are_not_in_its_renditions(tmp_path: Path):
    data = jpeg_with_exif(exif([(0x10F, 2, 8, b"Private\0")]))
    data = data[:2] + b"\xff\xfe\0\x09Private" + data[2:]
    path = tmp_path / "x"
    path.write_bytes(data)
    for rendition in render(path, Edit(), ALL, LIMITS).files.values():
        assert b"Private" not in rendition
        assert b"Exif" not in rendition


def test_importing_decodes_no_heic_yet():
    script = (
        "import sys, types\n"
        "for name in ('imageapi', 'imageapi.imaging'):\n"
        "    package = sys.modules[name] = types.ModuleType(name)\n"
        "    package.__path__ = [name.replace('.', '/')]\n"
        "import imageapi.imaging.decoder\n"
        "sys.exit('pillow_heif' in sys.modules or 'PIL.EpsImagePlugin' in sys.modules)"
    )
    repository = Path(__file__).parents[2]
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=repository, check=False).returncode == 0
    )
