"""What the bytes say of a picture before anything is decoded: format, size, frames, EXIF block.

Every reader here goes from header to header and skips the rest, counts what it meets and stops at a
bound, so that a hostile file is refused in little time and memory whatever it claims.

Source: ITU T.81 annex B, PNG 3rd edition §5 and §11, GIF89a, RFC 9649 (WebP), TIFF 6.0.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from imageapi.errors import UndecodablePicture, UnsupportedFormat
from imageapi.geometry import Box, Size
from imageapi.imaging.limits import (
    MAX_CHUNKS,
    MAX_EXIF_BYTES,
    MAX_SCANS,
    MAX_SEGMENTS,
    MAX_SUB_BLOCKS,
    USUAL_SCANS,
    Limits,
)
from imageapi.imaging.tiff import Entry, Tiff


@dataclass(frozen=True)
class Header:
    """A picture as its container describes it.

    Attributes:
        size: of the raster as stored, in pixels.
        frames: pictures in the file, as far as they are all decoded by players.
        exif: the TIFF structure of its EXIF block; b"" when there is none.
        orientation: what the container itself says, as an EXIF value; None when EXIF decides.
        clean: the part of the stored raster that is the picture; None when all of it is.
    """

    size: Size
    frames: int = 1
    exif: bytes = b""
    orientation: int | None = None
    clean: Box | None = None


def broken(what: str) -> UndecodablePicture:
    """The error for a file that breaks its format's rules."""
    return UndecodablePicture(f"The picture is broken: {what}.")


def check_size(width: int, height: int, frames: int, limits: Limits) -> None:
    """Refuse a picture that is empty or too large.

    Raises:
        UndecodablePicture: naming the limit.
    """
    if width < 1 or height < 1:
        raise broken(f"it is {width}x{height} pixels")
    if max(width, height) > limits.max_side:
        raise UndecodablePicture(
            f"The picture is {width}x{height} pixels; no side may be longer than {limits.max_side}."
        )
    if width * height * frames > limits.max_pixels:
        times = f" in {frames} frames" if frames > 1 else ""
        raise UndecodablePicture(
            f"The picture is {width}x{height} pixels{times}; the limit is {limits.max_pixels} pixels."
        )


# JPEG ------------------------------------------------------------------------------------------

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
# No + after the first byte: a run of fill bytes that ends in 0 would be read anew from each of them.
_IN_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def jpeg(stream: BinaryIO, limits: Limits) -> Header:
    """Read a JPEG up to its first scan, and count the scans where there may be many."""
    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    with data:
        exif, size, components, progressive = b"", None, 0, False
        for marker, start, end in _segments(data):
            if marker == _APP1 and not exif and data[start : start + 6] == b"Exif\0\0":
                exif = data[start + 6 : end]
            elif marker in _SOF:
                if end - start < 6:
                    raise broken("its frame header is cut")
                _, height, width, components = struct.unpack(">BHHB", data[start : start + 6])
                check_size(width, height, 1, limits)
                size, progressive = Size(width, height), marker in _PROGRESSIVE
            elif marker == _SOS:
                if size is None:
                    break
                if progressive or data[start] < components:
                    most = max(USUAL_SCANS, USUAL_SCANS * limits.max_pixels // math.prod(size))
                    _check_scans(data, start, min(most, MAX_SCANS))
                return Header(size, exif=exif)
    raise broken("it has no frame header before its pixels")


def _segments(data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's content, up to the first scan."""
    place = 2
    for _ in range(MAX_SEGMENTS):
        match = _IN_SCAN.search(data, place)
        if not match or match[1][0] == _EOI:
            return
        start = match.end()
        length = int.from_bytes(data[start : start + 2], "big")
        if length < 2 or start + length > len(data):
            raise broken("a segment runs past the end")
        yield match[1][0], start + 2, start + length
        place = start + length
    raise broken(f"it has more than {MAX_SEGMENTS} segments")


def _check_scans(data: mmap.mmap, place: int, most: int) -> None:
    scans = 1
    for match in _IN_SCAN.finditer(data, place):
        if match[1][0] == _EOI:
            return
        scans += match[1][0] == _SOS
        if scans > most:
            raise UndecodablePicture(f"The picture has too many scans; the limit is {most}.")


# PNG -------------------------------------------------------------------------------------------


def png(stream: BinaryIO, limits: Limits) -> Header:
    """Read a PNG's chunk headers to the end; EXIF may come after the pixels."""
    size, frames, exif, pixels = None, 1, b"", 0
    stream.seek(8)
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            raise broken("it ends before its last chunk")
        length, kind = struct.unpack(">I4s", head)
        after = stream.tell() + length + 4
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise broken("it does not start with a header")
            width, height = struct.unpack(">II", _exactly(stream, stream.tell(), 8))
            check_size(width, height, 1, limits)
            size = Size(width, height)
        elif kind == b"acTL" and length == 8:
            frames = max(1, struct.unpack(">I", _exactly(stream, stream.tell(), 4))[0])
            check_size(*size, frames, limits)
        elif kind == b"eXIf" and not exif:
            exif = stream.read(min(length, MAX_EXIF_BYTES))
        elif kind == b"IDAT":
            pixels += length
        elif kind == b"IEND":
            if not pixels:
                raise broken("it has no pixels")
            return Header(size, frames, exif.removeprefix(b"Exif\0\0"))
        stream.seek(after)
    raise broken(f"it has more than {MAX_CHUNKS} chunks")


# GIF -------------------------------------------------------------------------------------------


def gif(stream: BinaryIO, limits: Limits) -> Header:
    """Count a GIF's frames block by block; a frame may reach outside the screen."""
    stream.seek(6)
    head = stream.read(7)
    if len(head) < 7:
        raise broken("its header is cut")
    width, height, flags = struct.unpack("<HHB", head[:5])
    check_size(width, height, 1, limits)
    stream.seek(_table(flags), io.SEEK_CUR)
    right, bottom, frames, blocks = width, height, 0, 0
    while (mark := stream.read(1)) not in (b"", b";"):
        if mark == b"!":
            stream.seek(1, io.SEEK_CUR)
        elif mark == b",":
            descriptor = stream.read(9)
            if len(descriptor) < 9:
                raise broken("a frame is cut")
            left, top, across, down, flags = struct.unpack("<HHHHB", descriptor)
            frames += 1
            right, bottom = max(right, left + across), max(bottom, top + down)
            check_size(right, bottom, frames, limits)
            stream.seek(_table(flags) + 1, io.SEEK_CUR)
        else:
            if frames:
                break  # rubbish after a whole frame: players stop here
            raise broken("a block is unknown")
        blocks = _skip_sub_blocks(stream, blocks)
    if not frames:
        raise broken("it has no pixels")
    clean = None if (right, bottom) == (width, height) else Box(0, 0, width, height)
    return Header(Size(right, bottom), frames, clean=clean)


def _table(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(stream: BinaryIO, blocks: int) -> int:
    while length := stream.read(1):
        if length == b"\0":
            return blocks
        stream.seek(length[0], io.SEEK_CUR)
        blocks += 1
        if blocks > MAX_SUB_BLOCKS:
            raise broken(f"it has more than {MAX_SUB_BLOCKS} blocks")
    raise broken("a block runs past the end")


# WebP ------------------------------------------------------------------------------------------


def webp(stream: BinaryIO, limits: Limits) -> Header:
    """Read a WebP's chunk headers."""
    end = 8 + struct.unpack("<I", _exactly(stream, 4, 4))[0]
    if stream.seek(0, io.SEEK_END) < end:
        raise broken("it is shorter than its header says")
    size, frames, exif, place = None, 0, b"", 12
    for _ in range(MAX_CHUNKS):
        if place + 8 > end:
            break
        kind, length = struct.unpack("<4sI", _exactly(stream, place, 8))
        if kind in _WEBP_SIZES and size is None:
            size = _WEBP_SIZES[kind](_exactly(stream, place + 8, min(length, 10)))
        if kind == b"ANMF":
            frames += 1
        if size:
            check_size(*size, max(1, frames), limits)
        if kind == b"EXIF" and not exif:
            exif = _exactly(stream, place + 8, min(length, MAX_EXIF_BYTES))
        place += 8 + length + (length & 1)
    else:
        raise broken(f"it has more than {MAX_CHUNKS} chunks")
    if size is None:
        raise broken("it has no pixels")
    return Header(size, max(1, frames), exif.removeprefix(b"Exif\0\0"))


def _exactly(stream: BinaryIO, offset: int, length: int) -> bytes:
    stream.seek(offset)
    data = stream.read(length)
    if len(data) < length:
        raise broken("it is cut")
    return data


def _canvas(data: bytes) -> Size:
    if len(data) < 10:
        raise broken("its header is cut")
    return Size(1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little"))


def _lossy(data: bytes) -> Size:
    if len(data) < 10 or data[3:6] != b"\x9d\x01\x2a":
        raise broken("its frame header is cut")
    width, height = struct.unpack("<HH", data[6:10])
    return Size(width & 0x3FFF, height & 0x3FFF)


def _lossless(data: bytes) -> Size:
    if len(data) < 5 or data[0] != 0x2F:
        raise broken("its frame header is cut")
    bits = int.from_bytes(data[1:5], "little")
    return Size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))


_WEBP_SIZES: dict[bytes, Callable[[bytes], Size]] = {
    b"VP8X": _canvas,
    b"VP8 ": _lossy,
    b"VP8L": _lossless,
}


# TIFF ------------------------------------------------------------------------------------------

_WIDTH, _LENGTH, _SUBFILE, _DNG = 0x100, 0x101, 0xFE, 0xC612


def tiff(stream: BinaryIO, limits: Limits) -> Header:
    """Read the directories of a TIFF: a page each, of which the first is the picture."""
    try:
        return _pages(Tiff(stream), limits)
    except ValueError as error:
        raise broken(str(error)) from error


def _pages(file: Tiff, limits: Limits) -> Header:
    size, pixels, frames = None, 0, 0
    for page in file.chain(MAX_SEGMENTS):
        width, height = _first(file, page, _WIDTH), _first(file, page, _LENGTH)
        if size is None:
            if _DNG in page or _first(file, page, _SUBFILE) & 1:
                raise UnsupportedFormat("Raw files of cameras are not accepted.")
            check_size(width, height, 1, limits)
            size = Size(width, height)
        frames, pixels = frames + 1, pixels + width * height
        if pixels > limits.max_pixels:
            raise UndecodablePicture(
                f"The picture has {pixels} pixels in {frames} pages or more; "
                f"the limit is {limits.max_pixels} pixels."
            )
    if size is None:
        raise broken("it has no pages")
    return Header(size, frames)


def _first(file: Tiff, page: Mapping[int, Entry], tag: int) -> int:
    numbers = file.numbers(page[tag], 1) if tag in page else []
    return numbers[0] if numbers and isinstance(numbers[0], int) else 0
