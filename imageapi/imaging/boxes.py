"""Reads AVIF and HEIC containers: size, turns and clean aperture of the primary item, its EXIF.

Pillow tells an `Orientation` that no EXIF block holds and leaves the clean aperture out, so the
boxes are read here. Only the `meta` box is taken in, and no more than a megabyte of it.

Source: ISO/IEC 14496-12 (boxes), 23008-12 (items and their properties), AVIF 1.1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from imageapi.geometry import Box, Size
from imageapi.imaging.headers import Header, broken, check_size
from imageapi.imaging.limits import MAX_EXIF_BYTES, MAX_META_BYTES, MAX_SEGMENTS, Limits

_TURNED = {  # quarter turns anticlockwise, then what is mirrored → EXIF orientation
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


def brands(head: bytes) -> set[bytes]:
    """The brands in a `ftyp` box, as far as the first bytes of the file show it."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12]} | {head[place : place + 4] for place in range(16, end - 3, 4)}


def isobmff(stream: BinaryIO, limits: Limits) -> Header:
    """Read an AVIF or HEIC up to its `meta` box, and the sample tables of an animated one."""
    meta, frames = _Meta(), 1
    for kind, start, end in _top_level(stream):
        if kind == b"meta" and not meta.found:
            meta = _meta(_content(stream, start, end))
        elif kind == b"moov":
            frames = max(1, _samples(_content(stream, start, end)))
    size, turn, mirror, aperture = _properties(meta)
    check_size(*size, frames, limits)
    return Header(
        size,
        frames,
        exif=_exif(stream, meta),
        orientation=_TURNED[turn, mirror],
        clean=_clean(aperture, size) if aperture else None,
    )


class _Reader:
    """Takes big-endian numbers from bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def number(self, length: int) -> int:
        """The next number, of so many bytes."""
        return int.from_bytes(self.bytes(length), "big")

    def bytes(self, length: int) -> bytes:
        """The next bytes."""
        if self.place + length > len(self.data):
            raise broken("a box is cut")
        self.place += length
        return self.data[self.place - length : self.place]


class _Item(NamedTuple):
    """Where an item's bytes are: the method (0: file, 1: idat) and its extents."""

    method: int
    extents: list[tuple[int, int]]


@dataclass
class _Meta:
    """What the `meta` box holds, as far as it matters."""

    found: bool = False
    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    items: dict[int, _Item] = field(default_factory=dict)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associations: list[bytes] = field(default_factory=list)
    data: bytes = b""


def _top_level(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    place, length = 0, stream.seek(0, 2)
    for _ in range(MAX_SEGMENTS):
        if place + 8 > length:
            return
        stream.seek(place)
        size, kind = struct.unpack(">I4s", stream.read(8))
        start = place + 8
        if size == 1:
            size = int.from_bytes(stream.read(8), "big")
            start += 8
        end = place + size if size else length
        if end < start or end > length:
            raise broken("a box runs past the end")
        yield kind, start, end
        place = end
    raise broken(f"it has more than {MAX_SEGMENTS} boxes")


def _content(stream: BinaryIO, start: int, end: int) -> bytes:
    if end - start > MAX_META_BYTES:
        raise broken(f"its description is longer than {MAX_META_BYTES} bytes")
    stream.seek(start)
    return stream.read(end - start)


def _boxes(data: bytes, place: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes that lie in another."""
    while place + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        size = size or len(data) - place
        if size < 8 or place + size > len(data):
            raise broken("a box runs past its own")
        yield kind, data[place + 8 : place + size]
        place += size


def _meta(data: bytes) -> _Meta:
    meta = _Meta(found=True)
    for kind, content in _boxes(data, 4):
        box = _Reader(content)
        if kind == b"idat":
            meta.data = content
        elif kind == b"iprp":
            _take_properties(content, meta)
        elif kind == b"pitm":
            version = box.number(4) >> 24
            meta.primary = box.number(4 if version else 2)
        elif kind == b"iinf":
            version = box.number(4) >> 24
            box.number(4 if version else 2)
            _take_kinds(content[box.place :], meta)
        elif kind == b"iloc":
            _take_places(box, meta)
    return meta


def _take_kinds(data: bytes, meta: _Meta) -> None:
    for kind, content in _boxes(data):
        box = _Reader(content)
        version = box.number(4) >> 24
        if kind == b"infe" and version >= 2:
            item = box.number(2 if version == 2 else 4)
            box.number(2)
            meta.kinds.setdefault(item, box.bytes(4))


def _take_places(box: _Reader, meta: _Meta) -> None:
    version = box.number(4) >> 24
    sizes = box.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    count = box.number(4 if version == 2 else 2)
    for _ in range(count):
        item = box.number(4 if version == 2 else 2)
        method = box.number(2) & 15 if version else 0
        box.number(2)
        base = box.number(base_size)
        extents = []
        for _ in range(box.number(2)):
            box.number(index_size)
            offset = box.number(offset_size)
            extents.append((base + offset, box.number(length_size)))
            if not offset_size + length_size + index_size:
                break  # extents without any bytes of their own could be counted for ever
        meta.items.setdefault(item, _Item(method, extents))


def _take_properties(data: bytes, meta: _Meta) -> None:
    for kind, content in _boxes(data):
        if kind == b"ipco":
            meta.properties = list(_boxes(content))
        elif kind == b"ipma":
            meta.associations.append(content)  # told apart when the primary item is known


def _of_primary(meta: _Meta) -> list[int]:
    """Which properties are the primary item's, counted from 1."""
    for content in meta.associations:
        box = _Reader(content)
        head = box.number(4)
        version, wide = head >> 24, head & 1
        for _ in range(box.number(4)):
            item = box.number(4 if version else 2)
            indices = [
                box.number(2) & 0x7FFF if wide else box.number(1) & 0x7F
                for _ in range(box.number(1))
            ]
            if item == meta.primary and indices:
                return indices
    return []


def _properties(meta: _Meta) -> tuple[Size, int, int | None, bytes]:
    """Size, quarter turns, mirror axis and clean aperture of the primary item."""
    size, turn, mirror, aperture = None, 0, None, b""
    for index in _of_primary(meta):
        if not 1 <= index <= len(meta.properties):
            continue
        kind, content = meta.properties[index - 1]
        if kind == b"ispe" and len(content) >= 12:
            size = Size(*struct.unpack(">II", content[4:12]))
        elif kind == b"irot" and content:
            turn = content[0] & 3
        elif kind == b"imir" and content:
            mirror = content[0] & 1
        elif kind == b"clap":
            aperture = content
    if size is None:
        raise broken("it does not say how large it is")
    return size, turn, mirror, aperture


def _clean(aperture: bytes, size: Size) -> Box | None:
    """The clean aperture: width, height, then the offsets of its centre from the picture's."""
    if len(aperture) < 32:
        raise broken("its clean aperture is cut")
    numbers = struct.unpack(">IIIIiIiI", aperture[:32])
    if not all(numbers[1::2]):
        raise broken("its clean aperture is divided by 0")
    width, height, across, down = (Fraction(*numbers[i : i + 2]) for i in range(0, 8, 2))
    half = Fraction(1, 2)  # what is rounded down or up is as in libheif, which cuts a HEIC itself
    left = math.floor((size.width - width) / 2 + across)
    top = math.floor((size.height - height) / 2 + down + half)
    box = Box(left, top, left + math.floor(width + half), top + math.floor(height + half))
    if (
        left < 0
        or top < 0
        or box.right > size.width
        or box.bottom > size.height
        or min(box.size) < 1
    ):
        raise broken("its clean aperture is not inside it")
    return None if box == Box(0, 0, *size) else box


def _exif(stream: BinaryIO, meta: _Meta) -> bytes:
    """The TIFF structure of the first EXIF item; b"" when there is none that can be read."""
    item = next((n for n, kind in meta.kinds.items() if kind == b"Exif" and n in meta.items), None)
    if item is None:
        return b""
    data = b""
    for offset, length in meta.items[item].extents[:16]:
        wanted = min(length, MAX_EXIF_BYTES - len(data))
        if meta.items[item].method == 1:
            data += meta.data[offset : offset + wanted]
        elif meta.items[item].method == 0:
            try:
                stream.seek(offset)
            except (OverflowError, ValueError, OSError):
                return b""
            data += stream.read(wanted)
    return data[4 + int.from_bytes(data[:4], "big") :]


def _samples(data: bytes) -> int:
    """The samples of the track that has most."""
    most = 0
    for kind, content in _boxes(data):
        if kind in (b"trak", b"mdia", b"minf", b"stbl"):
            most = max(most, _samples(content))
        elif kind == b"stsz" and len(content) >= 12:
            most = max(most, int.from_bytes(content[8:12], "big"))
    return most
