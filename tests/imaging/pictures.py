"""Makes pictures and EXIF blocks, good and bad, and reads renditions."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms
from PIL.Image import Transpose

from imageapi.geometry import Rendition

FULL = Rendition("full", 1920, 1920, "fit")
LARGE = Rendition("large", 200, 200, "fill")
MINI = Rendition("mini", 100, 100, "fill")
ALL = (FULL, LARGE, MINI)

CORNERS = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 220, 30))
"""Colours of a test picture: top left, top right, bottom left, bottom right."""


def corners(width: int = 96, height: int = 64) -> Image.Image:
    """A picture of four fields; where up is can be told from it."""
    picture = Image.new("RGB", (width, height))
    half = (width // 2, height // 2)
    for index, colour in enumerate(CORNERS):
        place = (index % 2 * half[0], index // 2 * half[1])
        picture.paste(colour, (*place, place[0] + half[0], place[1] + half[1]))
    return picture


_STORED = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """How a picture must be stored so that this orientation stands it upright."""
    return upright.transpose(_STORED[orientation]) if orientation > 1 else upright


def profile(colorants: str) -> bytes:
    """An sRGB profile with its primaries in another order, such as `rGB` to `GRB`."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    places = {}
    for entry in range(132, 132 + 12 * count, 12):
        places[bytes(data[entry : entry + 4])] = bytes(data[entry + 4 : entry + 12])
        if bytes(data[entry : entry + 4]) in {b"rXYZ", b"gXYZ", b"bXYZ"}:
            data[entry] = ord(dict(zip("rgb", colorants, strict=True))[chr(data[entry])])
    return bytes(data)


def seen_corners(picture: Image.Image) -> list[int]:
    """Which field's colour is nearest in each quarter of a picture."""
    rgb = picture.convert("RGB")
    width, height = rgb.size
    places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return [_nearest(rgb.getpixel(place)) for place in places]


def _nearest(pixel: Any) -> int:
    distances = [sum((a - b) ** 2 for a, b in zip(pixel, c, strict=True)) for c in CORNERS]
    return distances.index(min(distances))


def opened(data: bytes) -> Image.Image:
    """A rendition, decoded."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def saved(path: Path, picture: Image.Image, form: str, **options: Any) -> Path:
    """A picture as a file."""
    picture.save(path, form, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG_MARK = b"\x89PNG\r\n\x1a\n"


def png(
    rows: list[bytes], width: int, colour: int, depth: int, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of raw rows, with more chunks before and after its pixels."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        PNG_MARK
        + chunk(b"IHDR", head)
        + before
        + chunk(b"IDAT", pixels)
        + after
        + chunk(b"IEND", b"")
    )


Field = tuple[int, int, int, bytes]
"""Tag, type, count, bytes of the values."""


def ascii_field(tag: int, text: bytes) -> Field:
    return tag, 2, len(text) + 1, text + b"\0"


def shorts(tag: int, *values: int) -> Field:
    return tag, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def longs(tag: int, *values: int) -> Field:
    return tag, 4, len(values), struct.pack(f"<{len(values)}I", *values)


def ratios(tag: int, *values: tuple[int, int]) -> Field:
    return tag, 5, len(values), b"".join(struct.pack("<II", *value) for value in values)


def exif(
    image: list[Field], photo: list[Field] | None = None, gps: list[Field] | None = None
) -> bytes:
    """An EXIF block, little-endian, of up to three directories."""
    block = b"II*\0\x08\0\0\0"
    pointers = [(tag, part) for tag, part in ((0x8769, photo), (0x8825, gps)) if part is not None]
    first = image + [longs(tag, 0) for tag, _ in pointers]
    start = 8 + _length(first)
    for index, (tag, part) in enumerate(pointers):
        first[len(image) + index] = longs(tag, start)
        start += _length(part)
    for part in (first, *(part for _, part in pointers)):
        block += _directory(part, len(block))
    return block


def _length(fields: list[Field]) -> int:
    return (
        6
        + 12 * len(fields)
        + sum(len(data) + len(data) % 2 for *_, data in fields if len(data) > 4)
    )


def _directory(fields: list[Field], start: int) -> bytes:
    entries, values = b"", b""
    place = start + 6 + 12 * len(fields)
    for tag, kind, count, data in fields:
        entries += struct.pack("<HHI", tag, kind, count)
        if len(data) > 4:
            entries += struct.pack("<I", place + len(values))
            values += data + b"\0" * (len(data) % 2)
        else:
            entries += data.ljust(4, b"\0")
    return struct.pack("<H", len(fields)) + entries + b"\0\0\0\0" + values


def tiff(
    planes: list[bytes], size: tuple[int, int], photo: int, bits: tuple[int, ...], *more: Field
) -> bytes:
    """A TIFF of raw pixels, little-endian: one strip, or one for each plane."""
    starts = [sum(map(len, planes[:index])) for index in range(len(planes))]

    def block(start: int) -> bytes:
        return exif(
            sorted(
                [
                    *(shorts(tag, side) for tag, side in zip((0x100, 0x101), size, strict=True)),
                    shorts(0x102, *bits),
                    shorts(0x103, 1),
                    shorts(0x106, photo),
                    longs(0x111, *(start + place for place in starts)),
                    shorts(0x115, len(bits)),
                    longs(0x117, *map(len, planes)),
                    shorts(0x11C, min(len(planes), 2)),
                    *more,
                ]
            )
        )

    return block(len(block(0))) + b"".join(planes)


def jpeg_with_exif(block: bytes, picture: Image.Image | None = None) -> bytes:
    """A JPEG whose EXIF segment holds exactly these bytes."""
    output = io.BytesIO()
    (picture or corners()).save(output, "JPEG", quality=90)
    data = output.getvalue()
    segment = b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
