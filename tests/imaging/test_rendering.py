"""Renditions of pictures made here: upright, cut, coloured, and nothing but pixels."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from imageapi import geometry
from imageapi.errors import UndecodablePicture
from imageapi.geometry import Box, Crop, CropFault, Edit, Rendition, Size
from imageapi.imaging import boxes, rendering
from imageapi.imaging.limits import Limits
from tests.imaging.inprocess import pictures, probe, render
from tests.imaging.pictures import (
    ALL,
    CORNERS,
    FULL,
    LARGE,
    chunk,
    corners,
    exif,
    jpeg_with_exif,
    opened,
    png,
    profile,
    saved,
    seen_corners,
    shorts,
    stored,
    tiff,
)
from tests.servers.need import need_module

LIMITS = Limits()
WHOLE = Edit()


def full(path: Path, edit: Edit = WHOLE) -> Image.Image:
    """The decoded `full` rendition."""
    return opened(render(path, edit, [FULL], LIMITS).files["full"])


def close(one: tuple[int, ...], other: tuple[int, ...], most: int = 6) -> bool:
    return all(abs(a - b) <= most for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_format_is_upright_once(
    tmp_path: Path, form: str, orientation: int
):
    picture = stored(corners(96, 64), orientation)
    path = tmp_path / "x"
    if form == "HEIF":
        path.write_bytes(heic(picture, orientation))
    else:
        tags = Image.Exif()
        tags[0x112] = orientation
        saved(path, picture, form, exif=tags)
    told = probe(path, LIMITS)
    assert told.size == (96, 64)
    assert told.orientation == orientation
    assert seen_corners(full(path)) == [0, 1, 2, 3]
    turned = full(path, Edit(Crop(0, 0, 48, 64), 90))
    assert turned.size == (64, 48)
    assert seen_corners(turned) == [2, 0, 2, 0]


def heic(picture: Image.Image, orientation: int) -> bytes:
    """A HEIC that is turned by its container; its EXIF says something else, which does not count."""
    need_module("pillow_heif", install="pip install pillow-heif").register_heif_opener(
        thumbnails=False
    )
    output = io.BytesIO()
    tags = Image.Exif()
    tags[0x112] = 3
    picture.save(output, "HEIF", exif=tags)
    data = output.getvalue()
    turn, mirror = next(key for key, value in boxes._TURNED.items() if value == orientation)
    data = _with_property(data, b"irot", bytes([turn]))
    return data if mirror is None else _with_property(data, b"imir", bytes([mirror]))


def test_an_avif_that_is_turned_has_no_exif_for_that(tmp_path: Path):
    tags = Image.Exif()
    tags[0x112] = 6
    path = saved(tmp_path / "x", corners(), "AVIF", exif=tags)
    with Image.open(path) as picture:
        assert picture.getexif()[0x112] == 6  # which Pillow invents
    assert probe(path, LIMITS).exifs == {}


def test_a_clean_aperture_is_cut_out_before_the_turn(tmp_path: Path):
    tags = Image.Exif()
    tags[0x112] = 6
    data = bytearray(saved(tmp_path / "x", corners(96, 64), "AVIF", exif=tags).read_bytes())
    # the pasp box is of no use to anyone: its place among the properties becomes a clap's
    clap = struct.pack(">IIIIiIiI", 40, 1, 32, 1, -28, 1, -16, 1)
    data = _with_property(bytes(data), b"clap", clap)
    path = tmp_path / "clap"
    path.write_bytes(data)
    told = probe(path, LIMITS)
    assert told.size == (32, 40)
    assert seen_corners(full(path)) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("aperture", "expected"),
    [
        ((81, 2, 41, 2, 1, 2, -1, 2), (41, 21)),
        ((141, 2, 95, 2, 7, 4, 3, 4), (71, 48)),
        ((40, 1, 20, 1, 1, 2, 1, 2), (40, 20)),
        ((121, 3, 62, 3, 1, 3, 1, 3), (40, 21)),
    ],
)
def test_an_aperture_of_half_pixels_is_as_large_as_libheif_cuts_it(tmp_path, aperture, expected):
    path = tmp_path / "x"
    path.write_bytes(
        _with_property(heic(corners(), 1), b"clap", struct.pack(">IIIIiIiI", *aperture))
    )
    assert probe(path, LIMITS).size == expected
    assert full(path).size == expected


def test_an_aperture_between_two_pixels_is_where_libvips_has_it(tmp_path: Path, vips):
    noise = Image.effect_noise((96, 64), 90).convert("RGB")
    data = saved(tmp_path / "x", noise, "AVIF", quality=100).read_bytes()
    clap = struct.pack(">IIIIiIiI", 41, 1, 21, 1, 0, 1, 0, 1)
    path = tmp_path / "clap.avif"
    path.write_bytes(_with_property(data, b"clap", clap))
    theirs = vips.rendition(path, WHOLE, FULL)
    assert vips.difference(pictures(path, WHOLE, [FULL], LIMITS)["full"], theirs) < 5


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_boxes_may_come_in_any_order(tmp_path: Path, form: str):
    if form == "HEIF":
        data = heic(corners(), 6)
    else:
        data = saved(tmp_path / "x", corners(), "AVIF").read_bytes()
    start = data.index(b"meta") + 8
    end = start - 12 + int.from_bytes(data[start - 12 : start - 8], "big")
    parts = [box(kind, content) for kind, content in boxes._boxes(data[start:end])]
    parts.sort(key=lambda part: (part[4:8] != b"hdlr", part[4:8] != b"iprp"))
    path = tmp_path / "other"
    path.write_bytes(data[:start] + b"".join(parts) + data[end:])
    assert path.read_bytes().index(b"iprp") < path.read_bytes().index(b"pitm")
    assert probe(path, LIMITS).size == ((96, 64) if form == "AVIF" else (64, 96))
    assert full(path).size == probe(path, LIMITS).size


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def _with_property(data: bytes, kind: bytes, content: bytes) -> bytes:
    """An AVIF or HEIC with one more property of its primary item; offsets into the file move along."""
    more = box(kind, content)
    ipco, ipma = data.index(b"ipco") - 4, data.index(b"ipma") - 4
    ipco_length = int.from_bytes(data[ipco : ipco + 4], "big")
    count = data[ipma + 8 + 4 + 4 + 2]
    index = _count_boxes(data[ipco + 8 : ipco + ipco_length]) + 1
    grown = {b"meta": len(more) + 1, b"iprp": len(more) + 1, b"ipco": len(more), b"ipma": 1}
    place = data.index(b"iloc") + 4
    result = bytearray(data)
    for name, longer in grown.items():
        start = data.index(name) - 4
        result[start : start + 4] = (
            int.from_bytes(data[start : start + 4], "big") + longer
        ).to_bytes(4, "big")
    # iloc version 0 with one extent an item: its base of four bytes moves, or its offset if it has none
    base, items = data[place + 5] >> 4, int.from_bytes(data[place + 6 : place + 8], "big")
    for item in range(items):
        start = place + 8 + item * (14 + base) + (4 if base else 6)
        offset = int.from_bytes(data[start : start + 4], "big") + len(more) + 1
        result[start : start + 4] = offset.to_bytes(4, "big")
    end = ipma + 8 + 4 + 4 + 2 + 1 + count
    result[ipma + 18] = count + 1
    return bytes(
        result[: ipco + ipco_length]
        + more
        + result[ipco + ipco_length : end]
        + bytes([index | 0x80])
        + result[end:]
    )


def _count_boxes(data: bytes) -> int:
    count = place = 0
    while place < len(data):
        place += int.from_bytes(data[place : place + 4], "big")
        count += 1
    return count


@given(
    st.tuples(st.integers(2, 60), st.integers(2, 60)),
    st.sampled_from(list(rendering._UPRIGHT.values())),
    st.data(),
)
def test_a_box_is_traced_back_through_every_turn(size: tuple[int, int], step, data: st.DataObject):
    before = Image.new("L", size)
    before.putdata([n % 251 for n in range(size[0] * size[1])])
    after = before.transpose(step)
    left, right = sorted(
        data.draw(st.lists(st.integers(0, after.width), min_size=2, max_size=2, unique=True))
    )
    top, bottom = sorted(
        data.draw(st.lists(st.integers(0, after.height), min_size=2, max_size=2, unique=True))
    )
    span = rendering._before(rendering._Span(left, top, right, bottom), Size(*after.size), step)
    found = before.crop(tuple(map(int, span))).transpose(step)
    assert found.tobytes() == after.crop((left, top, right, bottom)).tobytes()


@pytest.mark.parametrize(
    ("orientation", "rotation"), list(itertools.product((1, 6, 7), geometry.ROTATIONS))
)
def test_crop_then_rotation_is_what_pillow_does_step_by_step(
    tmp_path: Path, orientation: int, rotation: int
):
    path = tmp_path / "x"
    noise = Image.effect_noise((90, 70), 60).convert("RGB")
    path.write_bytes(jpeg_with_exif(exif([shorts(0x112, orientation)]), noise))
    edit = Edit(Crop(3, 5, 50, 40), rotation)
    expected = ImageOps.exif_transpose(Image.open(path)).crop((3, 5, 53, 45))
    expected = expected.rotate(-rotation, expand=True)
    found = pictures(path, edit, [FULL], LIMITS)["full"]
    assert found.size == geometry.effective_size(probe(path, LIMITS).size, edit)
    assert found.tobytes() == expected.tobytes()


def test_a_crop_that_does_not_fit_is_the_callers_fault(tmp_path: Path):
    with pytest.raises(CropFault):
        render(saved(tmp_path / "x", corners(), "PNG"), Edit(Crop(0, 0, 97, 1)), ALL, LIMITS)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((48, 48), [(48, 48), (48, 48), (48, 48)]),
        ((150, 300), [(150, 300), (150, 150), (100, 100)]),
        ((2500, 1000), [(1920, 768), (200, 200), (100, 100)]),
        ((4000, 20), [(1920, 10), (20, 20), (20, 20)]),
    ],
)
def test_nothing_is_enlarged(tmp_path: Path, size: tuple[int, int], sizes: list[tuple[int, int]]):
    for form in ("JPEG", "PNG"):
        rendered = render(saved(tmp_path / "x", corners(*size), form), WHOLE, ALL, LIMITS)
        assert list(rendered.sizes.values()) == sizes
        assert [opened(data).size for data in rendered.files.values()] == sizes


def test_a_jpeg_is_decoded_at_the_least_fraction_that_is_enough(tmp_path: Path, monkeypatch):
    path = saved(tmp_path / "x", corners(1600, 1200), "JPEG")
    decoded = []
    real = rendering.decode

    def spy(*given):
        decoded.append(real(*given).size)
        return real(*given)

    monkeypatch.setattr(rendering, "decode", spy)
    box = Rendition("box", 200, 200, "fit")
    for edit in (WHOLE, Edit(Crop(0, 0, 500, 400)), Edit(Crop(0, 0, 150, 150))):
        render(path, edit, [box], LIMITS)
    assert decoded == [(200, 150), (800, 600), (1600, 1200)]


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("RGBA", "AVIF"),
        ("RGBA", "TIFF"),
    ],
)
def test_alpha_that_shows_is_kept(tmp_path: Path, mode: str, form: str):
    picture = corners(40, 40).convert("RGBA")
    picture.paste((0, 0, 0, 0), (20, 0, 40, 20))
    options = {"lossless": True} if form == "WEBP" else {}
    if mode == "P":
        picture = picture.convert("RGB").quantize(8)
        options["transparency"] = picture.getpixel((30, 10))
    elif mode == "LA":
        picture = picture.convert("LA")
    rendered = render(saved(tmp_path / "x", picture, form, **options), WHOLE, ALL, LIMITS)
    assert (rendered.extension, rendered.content_type) == ("png", "image/png")
    seen = opened(rendered.files["full"]).convert("RGBA")
    assert seen.getpixel((30, 10))[3] == 0
    assert seen.getpixel((10, 10))[3] == 255


def test_alpha_that_is_all_opaque_is_dropped(tmp_path: Path):
    path = saved(tmp_path / "x", corners().convert("RGBA"), "PNG")
    rendered = render(path, WHOLE, ALL, LIMITS)
    assert (rendered.extension, rendered.content_type) == ("jpg", "image/jpeg")


def test_the_extension_is_the_same_for_every_edit(tmp_path: Path):
    picture = corners(40, 40).convert("RGBA")
    picture.putpixel((39, 39), (0, 0, 0, 0))
    path = saved(tmp_path / "x", picture, "PNG")
    assert render(path, Edit(Crop(0, 0, 10, 10)), ALL, LIMITS).extension == "png"


def test_hidden_colours_do_not_bleed(tmp_path: Path):
    picture = Image.new("RGBA", (400, 400), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 201, 400))
    rendered = render(saved(tmp_path / "x", picture, "PNG"), WHOLE, [LARGE], LIMITS)
    shown = [
        pixel
        for pixel in opened(rendered.files["large"]).convert("RGBA").get_flattened_data()
        if pixel[3] > 8
    ]
    assert max(pixel[0] for pixel in shown) <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_averaging_by_strips_is_what_pillow_does_with_the_whole(mode: str):
    picture = Image.effect_noise((403, 281), 60).convert("RGB")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture = picture.convert(mode)
    size, box = Size(190, 133), (3, 5, 403, 280)
    found = rendering._scaled(picture, rendering._Span(*box), size)
    expected = picture.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=1.04)
    assert found.mode == mode
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_colours_come_through_the_profile(tmp_path: Path, form: str):
    options = {"icc_profile": profile("grb")}
    options |= {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    options |= {"lossless": True} if form == "WEBP" else {}
    path = saved(tmp_path / "x", Image.new("RGB", (40, 40), (250, 40, 10)), form, **options)
    pixel = full(path).getpixel((20, 20))
    assert close(pixel, (40, 250, 10), 12)


@pytest.mark.parametrize("data", [b"", b"no profile", profile("rgb")[:200], b"\0" * 5_000_000])
def test_a_profile_that_is_none_is_ignored(tmp_path: Path, data: bytes):
    path = saved(tmp_path / "x", corners(), "JPEG", icc_profile=data)
    assert seen_corners(full(path)) == [0, 1, 2, 3]


def test_a_profile_for_other_channels_is_ignored(tmp_path: Path):
    path = saved(tmp_path / "x", corners().convert("L"), "JPEG", icc_profile=profile("rgb"))
    assert full(path).size == (96, 64)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(tmp_path: Path, form: str):
    picture = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    assert close(full(saved(tmp_path / "x", picture, form)).getpixel((9, 9)), (255, 0, 0), 8)


def test_cmyk_without_adobes_mark_is_as_light_as_libvips_has_it(tmp_path: Path, vips):
    output = io.BytesIO()
    picture = Image.new("CMYK", (64, 32))
    picture.paste((0, 0, 0, 255), (32, 0, 64, 32))
    picture.save(output, "JPEG")
    data = output.getvalue()
    mark = data.index(b"\xff\xee")
    length = int.from_bytes(data[mark + 2 : mark + 4], "big")
    path = tmp_path / "x"
    path.write_bytes(data[:mark] + data[mark + 2 + length :])
    seen, theirs = full(path).convert("L"), vips.rendition(path, WHOLE, FULL).convert("L")
    for place in ((9, 9), (50, 9)):
        assert (
            abs(seen.getpixel(place) - theirs.getpixel(place)) < 50
        )  # black ink is not quite black
    assert seen.getpixel((9, 9)) > 250


@pytest.mark.parametrize(
    ("colour", "row", "expected"),
    [
        (0, struct.pack(">HH", 0x80FF, 0xFFFF), [(128,), (255,)]),
        (2, struct.pack(">6H", 0x80FF, 0, 0xFFFF, 0, 0x40FF, 0), [(128, 0, 255), (0, 64, 0)]),
        (4, struct.pack(">4H", 0x80FF, 0xFFFF, 0x20FF, 0), [(128, 255), (32, 0)]),
        (6, struct.pack(">8H", 0x80FF, 0, 0, 0xFFFF, 0, 0, 0, 0), [(128, 0, 0, 255), (0, 0, 0, 0)]),
    ],
)
def test_sixteen_bits_become_their_upper_eight(tmp_path: Path, colour: int, row: bytes, expected):
    path = tmp_path / "x.png"
    path.write_bytes(png([row], 2, colour, 16))
    found = pictures(path, WHOLE, [FULL], LIMITS)["full"]
    if found.mode == "RGBA" and len(expected[0]) == 2:
        expected = [(light, light, light, alpha) for light, alpha in expected]
    pixels = [found.getpixel((x, 0)) for x in (0, 1)]
    assert [pixel if isinstance(pixel, tuple) else (pixel,) for pixel in pixels] == expected


@pytest.mark.parametrize(
    ("colour", "depth", "row", "key"),
    [
        (0, 1, b"\x40", struct.pack(">H", 0)),
        (0, 1, b"\x80", struct.pack(">H", 1)),
        (0, 2, b"\x60", struct.pack(">H", 1)),
        (0, 4, b"\x76", struct.pack(">H", 7)),
        (0, 8, b"\x40\x80", struct.pack(">H", 0x40)),
        (0, 16, b"\x12\x34\x12\x35", struct.pack(">H", 0x1234)),
        (2, 8, b"\1\2\3\1\2\4", struct.pack(">3H", 1, 2, 3)),
        (0, 4, b"\x76", struct.pack(">H", 0x1237)),
        (0, 8, b"\x40\x80", struct.pack(">H", 0x1240)),
        (2, 8, b"\1\2\3\1\2\4", struct.pack(">3H", 0x1201, 2, 0x2303)),
        (2, 16, struct.pack(">6H", 100, 100, 100, 25600, 100, 100), struct.pack(">3H", *[100] * 3)),
        (2, 16, struct.pack(">6H", 100, 100, 100, 100, 101, 100), struct.pack(">3H", *[100] * 3)),
        (2, 16, bytes(range(12)), struct.pack(">3H", 0x0001, 0x0203, 0x0405)),
    ],
)
def test_a_transparent_colour_is_transparent(tmp_path: Path, colour, depth, row, key):
    path = tmp_path / "x.png"
    path.write_bytes(png([row], 2, colour, depth, before=chunk(b"tRNS", key)))
    seen = full(path).convert("RGBA")
    assert [seen.getpixel((x, 0))[3] for x in (0, 1)] == [0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I", "F", "CMYK", "YCbCr", "LAB", "RGBA"])
def test_every_mode_of_a_tiff_is_shown(tmp_path: Path, mode: str):
    grey = Image.linear_gradient("L").resize((64, 64))
    picture = grey.convert("RGB").convert(mode) if mode != "LAB" else Image.merge("LAB", [grey] * 3)
    if mode == "I;16":
        picture = grey.convert("I").point(lambda value: value * 257).convert("I;16")
    seen = full(saved(tmp_path / "x", picture, "TIFF")).convert("L")
    assert seen.getpixel((32, 60)) > seen.getpixel((32, 3)) + 60


@pytest.mark.parametrize(
    ("photo", "bits", "kind", "pixels"),
    [
        (1, 12, 1, bytes.fromhex("00040F80FFFF")),
        (1, 16, 1, struct.pack("<4H", 0, 0x40FF, 0x80FF, 0xFFFF)),
        (0, 16, 1, struct.pack("<4H", 0xFFFF, 0xBF00, 0x7F00, 0)),
        (0, 32, 3, struct.pack("<4f", 1.0, 1 - 64 / 255, 1 - 128 / 255, 0.0)),
    ],
)
def test_grey_of_any_depth_is_as_light_as_it_says(tmp_path: Path, photo, bits, kind, pixels):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff([pixels], (4, 1), photo, (bits,), shorts(0x153, kind)))
    found = pictures(path, WHOLE, [FULL], LIMITS)["full"]
    assert list(found.tobytes()) == [0, 64, 128, 255]


def planes(values: list[int], depth: str) -> list[bytes]:
    return [struct.pack(f"<4{depth}", *[value] * 4) for value in values]


@pytest.mark.parametrize(
    ("photo", "stored", "depth", "extra", "expected"),
    [
        (2, [0x1122, 0x80FF, 0xFFFF], "H", [], (0x11, 0x80, 0xFF)),
        (2, [0x1122, 0x80FF, 0xFFFF, 0x20FF], "H", [2], (0x11, 0x80, 0xFF, 0x20)),
        (5, [0, 0xFFFF, 0xFFFF, 0], "H", [], (255, 0, 0)),
        (2, [0x11, 0x80, 0xFF], "B", [], (0x11, 0x80, 0xFF)),
        (2, [0x11, 0x80, 0xFF, 0x20], "B", [0], (0x11, 0x80, 0xFF)),
    ],
)
def test_a_tiff_of_planes_is_put_together(tmp_path, photo, stored, depth, extra, expected):
    bits = (16 if depth == "H" else 8,) * len(stored)
    more = [shorts(0x152, *extra)] if extra else []
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(planes(stored, depth), (2, 2), photo, bits, *more))
    seen = pictures(path, WHOLE, [FULL], LIMITS)["full"]
    seen = seen.convert("RGBA" if len(expected) == 4 else "RGB")
    assert seen.getcolors() == [(4, expected)]


@pytest.mark.parametrize("compression", [1, 8])
def test_grey_and_alpha_in_planes_are_refused_rather_than_mixed_up(tmp_path: Path, compression):
    pixels = planes([0x11, 0x80], "B")
    pixels = pixels if compression == 1 else list(map(zlib.compress, pixels))
    data = tiff(pixels, (2, 2), 1, (8, 8), shorts(0x152, 2))
    packed = struct.pack("<HHIHH", 0x103, 3, 1, compression, 0)
    path = tmp_path / "x.tif"
    path.write_bytes(data.replace(struct.pack("<HHIHH", 0x103, 3, 1, 1, 0), packed))
    with pytest.raises(UndecodablePicture, match="two planes"):
        render(path, WHOLE, ALL, LIMITS)


@pytest.mark.parametrize(
    ("kind", "value", "turned"),
    [(1, b"\6", False), (3, b"\6\0", True), (4, b"\6\0\0\0", True), (8, b"\6\0", True)],
)
def test_a_tiff_is_turned_by_whole_numbers_of_two_bytes_or_more(tmp_path, kind, value, turned):
    """By those that Pillow turns it by: one byte is no number for it."""
    path = tmp_path / "x.tif"
    path.write_bytes(tiff([b"\x80" * 6], (3, 2), 1, (8,), (0x112, kind, 1, value)))
    assert probe(path, LIMITS).size == ((2, 3) if turned else (3, 2))
    assert full(path).size == probe(path, LIMITS).size


XMP = b'<rdf:Description tiff:Orientation="6"/>'


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_is_not_turned_by_its_xmp(tmp_path: Path, compression: str | None):
    path = tmp_path / "x.tif"
    corners(90, 60).save(path, "TIFF", tiffinfo={700: XMP}, compression=compression)
    with Image.open(path) as picture:
        assert picture.info["xmp"] == XMP
        assert ImageOps.exif_transpose(picture).size == (60, 90)  # unlike libvips and browsers
    assert probe(path, LIMITS).size == (90, 60)
    assert seen_corners(full(path)) == [0, 1, 2, 3]


def test_the_first_frame_stands_for_all(tmp_path: Path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in CORNERS]
    for form in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        path = saved(tmp_path / "x", frames[0], form, save_all=True, append_images=frames[1:])
        assert close(full(path).convert("RGB").getpixel((10, 10)), CORNERS[0], 12), form


def test_a_later_frame_outside_of_a_gifs_screen_does_not_shrink_the_first(tmp_path: Path):
    """The union of all frames is twice as wide as what Pillow gives for the first."""
    data = saved(tmp_path / "x", corners(100, 100).quantize(4), "GIF").read_bytes()
    frame = data.index(b",\0\0\0\0")
    later = b"," + struct.pack("<HH", 100, 0) + data[frame + 5 : -1]
    path = tmp_path / "later"
    path.write_bytes(data[:-1] + later + b";")
    assert probe(path, LIMITS).frames == 2
    seen = full(path)
    assert seen.size == (100, 100)
    assert seen_corners(seen) == [0, 1, 2, 3]


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_gif_shows_nothing_where_its_first_frame_does_not_reach(tmp_path: Path, mode: str):
    frame = corners(40, 40).quantize(4) if mode == "P" else corners(40, 40).convert("L")
    data = bytearray(saved(tmp_path / "x", frame, "GIF").read_bytes())
    data[6:10] = struct.pack("<HH", 60, 50)
    place = data.index(b",\0\0\0\0") + 1
    data[place : place + 4] = struct.pack("<HH", 20, 10)
    path = tmp_path / "small"
    path.write_bytes(data)
    seen = full(path)
    assert seen.size == (60, 50)
    alpha = seen.getchannel("A")
    assert alpha.getcolors() == [(60 * 50 - 40 * 40, 0), (40 * 40, 255)]
    assert alpha.getbbox() == (20, 10, 60, 50)
    if mode == "P":
        assert seen_corners(seen.crop(alpha.getbbox())) == [0, 1, 2, 3]


def test_a_webp_shows_nothing_where_its_first_frame_does_not_reach(tmp_path: Path):
    still = saved(tmp_path / "x", corners(40, 40), "WEBP", lossless=True).read_bytes()
    three = [n.to_bytes(3, "little") for n in (60 - 1, 50 - 1, 20 // 2, 10 // 2, 39, 39, 100)]
    parts = [
        (b"VP8X", b"\2\0\0\0" + three[0] + three[1]),  # animated, and no alpha is announced
        (b"ANIM", b"\0\0\xff\xff\0\0"),
        (b"ANMF", b"".join(three[2:]) + b"\0" + still[12:]),
    ]
    body = b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in parts)
    path = tmp_path / "small"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
    seen = full(path)
    alpha = seen.getchannel("A")
    assert alpha.getcolors() == [(60 * 50 - 40 * 40, 0), (40 * 40, 255)]
    assert seen_corners(seen.crop(alpha.getbbox())) == [0, 1, 2, 3]


def test_an_mpo_is_a_jpeg(tmp_path: Path):
    path = saved(
        tmp_path / "x", corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64))]
    )
    assert probe(path, LIMITS).format == "jpg"
    assert seen_corners(full(path)) == [0, 1, 2, 3]


def test_a_progressive_and_a_grey_jpeg(tmp_path: Path):
    assert seen_corners(full(saved(tmp_path / "x", corners(), "JPEG", progressive=True))) == [
        0,
        1,
        2,
        3,
    ]
    assert full(saved(tmp_path / "x", corners().convert("L"), "JPEG")).mode == "L"


def test_exif_after_the_pixels_of_a_png(tmp_path: Path):
    path = tmp_path / "x"
    row = bytes([*CORNERS[0], *CORNERS[1]])
    path.write_bytes(png([row], 2, 2, 8, after=chunk(b"eXIf", exif([shorts(0x112, 6)]))))
    assert probe(path, LIMITS).size == (1, 2)
    assert full(path).size == (1, 2)


def test_small_sizes_are_cut_from_what_has_their_pixels():
    whole = geometry.plan(Size(4000, 3000), FULL)
    large = geometry.plan(Size(4000, 3000), LARGE)
    assert rendering._holds(whole, large)
    assert not rendering._holds(large, whole)
    strip = Size(4000, 20)
    assert not rendering._holds(geometry.plan(strip, FULL), geometry.plan(strip, LARGE))
    assert rendering._holds(
        geometry.Plan(Box(0, 0, 10, 10), Size(5, 5)), geometry.Plan(Box(2, 2, 8, 8), Size(3, 3))
    )
