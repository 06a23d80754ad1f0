"""What a picture is: format, upright size, EXIF, position. Reads headers; decodes nothing.

Source: design §2 (formats, upright), §6 (limits before any decode).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import BinaryIO

from imageapi.errors import UnsupportedFormat
from imageapi.geometry import Size
from imageapi.imaging import boxes, exif, headers
from imageapi.imaging.headers import Header
from imageapi.imaging.limits import Limits
from imageapi.imaging.values import Probe

_NAMES = {
    "jpg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "webp": "WebP",
    "avif": "AVIF",
    "tiff": "TIFF",
    "heic": "HEIC",
}
_READERS: dict[str, Callable[[BinaryIO, Limits], Header]] = {
    "jpg": headers.jpeg,
    "png": headers.png,
    "gif": headers.gif,
    "webp": headers.webp,
    "avif": boxes.isobmff,
    "tiff": headers.tiff,
    "heic": boxes.isobmff,
}


def inspect(stream: BinaryIO, limits: Limits) -> tuple[Probe, Header]:
    """Find out what a file is, from its headers; with the header for the decoder.

    Raises:
        UnsupportedFormat: not a picture of an accepted format; names those.
        UndecodablePicture: broken, or over a limit, which it names.
    """
    kind = sniff(stream.read(64))
    header = _READERS[kind](stream, limits)
    found = exif.of_file(stream) if kind == "tiff" else exif.parse(header.exif)
    orientation = header.orientation or found.orientation
    width, height = header.clean.size if header.clean else header.size
    size = Size(height, width) if orientation >= 5 else Size(width, height)
    return Probe(
        format=kind,
        size=size,
        orientation=orientation,
        exifs=found.texts,
        gps=found.gps,
        taken_at=found.taken_at,
        frames=header.frames,
    ), header


_MARKS = {
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "tiff": re.compile(rb"(II[*+]\0|MM\0[*+]).{4}(?!CR)", re.DOTALL),  # CR: raw files of Canon
}
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def sniff(head: bytes) -> str:
    """The format that the first bytes tell.

    Raises:
        UnsupportedFormat: none that is accepted.
    """
    for kind, mark in _MARKS.items():
        if mark.match(head):
            return kind
    brands = boxes.brands(head)
    if brands & _AVIF:
        return "avif"
    if brands & _HEIC and _heif():
        return "heic"
    raise UnsupportedFormat(f"The file is not a picture of an accepted format: {accepted()}.")


def accepted() -> str:
    """The accepted formats, for people."""
    return ", ".join(name for kind, name in _NAMES.items() if kind != "heic" or _heif())


def _heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None
