"""EXIF as text, position and orientation, within bounds whatever the block holds.

Source: Exif 3.0 §4.6. A value that can not be told is left out; nothing here raises for bad EXIF.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from imageapi.imaging import exif_tags as tags
from imageapi.imaging.limits import MAX_TAGS, MAX_TEXT, MAX_VALUES
from imageapi.imaging.tiff import ASCII, UNDEFINED, UTF8, Entry, Tiff


@dataclass(frozen=True)
class Exif:
    """What an EXIF block says.

    Attributes:
        texts: tag name → readable text.
        orientation: 1 to 8; 1 when it is missing or none of these.
        gps: latitude and longitude in signed degrees.
        taken_at: `YYYY-MM-DDTHH:MM:SS`, the camera's own time.
    """

    texts: dict[str, str] = field(default_factory=dict)
    orientation: int = 1
    gps: tuple[float, float] | None = None
    taken_at: str | None = None


def parse(block: bytes) -> Exif:
    """Read an EXIF block: the TIFF structure, without the `Exif` mark before it."""
    return read(io.BytesIO(block))


def read(stream: BinaryIO) -> Exif:
    """Read the EXIF of a stream that starts with a TIFF header: a block, or a whole TIFF."""
    try:
        tiff = Tiff(stream)
    except ValueError:
        return Exif()
    image, _ = tiff.directory(tiff.first)
    photo, gps = _below(tiff, image, tags.EXIF_POINTER), _below(tiff, image, tags.GPS_POINTER)
    interop = _below(tiff, photo, tags.INTEROP_POINTER)
    texts: dict[str, str] = {}
    for names, entries in (
        (tags.IMAGE, image),
        (tags.PHOTO, photo),
        (tags.GPS, gps),
        (tags.INTEROP, interop),
    ):
        _tell(tiff, names, entries, texts)
    return Exif(texts, _orientation(tiff, image), _position(tiff, gps), _taken_at(texts))


def of_file(stream: BinaryIO) -> Exif:
    """Read the EXIF of a whole TIFF.

    Without a camera's tags its first directory only lays out pixels: no texts then.
    """
    found = read(stream)
    tiff = Tiff(stream)
    image, _ = tiff.directory(tiff.first)
    if image.keys() & {tags.MAKE, tags.MODEL, tags.EXIF_POINTER, tags.GPS_POINTER}:
        return found
    return Exif(orientation=found.orientation)


def _below(tiff: Tiff, entries: Mapping[int, Entry], pointer: int) -> dict[int, Entry]:
    """The directory that an entry points at; none when it does not or it is empty."""
    if pointer not in entries:
        return {}
    offsets = tiff.numbers(entries[pointer], 1)
    if not offsets or not isinstance(offsets[0], int) or offsets[0] <= 0:
        return {}
    return tiff.directory(offsets[0])[0]


def _tell(
    tiff: Tiff, names: Mapping[int, str], entries: Mapping[int, Entry], texts: dict[str, str]
) -> None:
    for tag, entry in entries.items():
        name = names.get(tag)
        if name and name not in texts and len(texts) < MAX_TAGS:
            text = _text(tiff, name, entry)
            if text is not None:
                texts[name] = text


def _text(tiff: Tiff, name: str, entry: Entry) -> str | None:
    if name in tags.WINDOWS_TEXT:
        return clean(tiff.raw(entry, 2 * MAX_TEXT).decode("utf-16-le", "replace"))
    if entry.kind in (ASCII, UTF8) or name in tags.PLAIN_UNDEFINED:
        text = _decoded(tiff.raw(entry, 4 * MAX_TEXT))
        if name.endswith(("Latitude", "Longitude")) and tags.spoken_numbers(text):
            return _shown(name, tags.spoken_numbers(text))
        return tags.LETTERS.get(name, {}).get(text, text)
    if name in tags.CODED_TEXT:
        return _coded(tiff.raw(entry, 4 * MAX_TEXT + 8), tiff.order)
    values = _values(tiff, name, entry)
    return _shown(name, values) if values else None


def _shown(name: str, values: tags.Values) -> str:
    try:
        return clean(tags.SHOW.get(name, tags.plain)(values))
    except ArithmeticError:  # beyond what anything is measured in
        return clean(tags.plain(values))


def _values(tiff: Tiff, name: str, entry: Entry) -> tags.Values:
    if entry.kind == UNDEFINED:
        return list(tiff.raw(entry, MAX_VALUES)) if name in tags.BYTE_NUMBERS else []
    numbers = tiff.numbers(entry, MAX_VALUES)
    return [tags.Ratio(*number) if isinstance(number, tuple) else number for number in numbers]


def _decoded(data: bytes) -> str:
    """Text up to its NUL: UTF-8 where it is that, else Windows' Latin-1."""
    data = data.split(b"\0", 1)[0]
    try:
        return clean(data.decode())
    except UnicodeDecodeError as error:
        if error.end >= len(data) > 4 * MAX_TEXT - 4:  # only our own cut went through a character
            return clean(data[: error.start].decode())
        return clean(data.decode("cp1252", "replace"))


def _coded(data: bytes, order: str) -> str | None:
    """Text behind eight bytes that name its character set."""
    mark, text = data[:8], data[8:]
    if mark.startswith(b"UNICODE"):
        first = text[:2]
        little = order == "<" if 0 not in first else first[1] == 0
        return clean(text.decode("utf-16-le" if little else "utf-16-be", "replace"))
    if mark.startswith(b"JIS"):
        return clean(text.decode("iso2022_jp", "replace"))
    if mark.startswith(b"ASCII") or not mark.strip(b"\0 "):
        return _decoded(text)
    return _decoded(data)


_UNTOLD = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """A text that every JSON and every database takes: no control characters, no lone surrogates."""
    return _UNTOLD.sub("", text.split("\0", 1)[0])[:MAX_TEXT].rstrip()


_TURNING = {3, 4, 8, 9}
"""Types of an orientation that counts: numbers of two or four bytes, as for Pillow, which turns TIFFs."""


def _orientation(tiff: Tiff, image: Mapping[int, Entry]) -> int:
    if tags.ORIENTATION not in image:
        return 1
    entry = image[tags.ORIENTATION]
    numbers = tiff.numbers(entry, 1) if entry.kind in _TURNING else []
    return numbers[0] if numbers and isinstance(numbers[0], int) and 1 <= numbers[0] <= 8 else 1


def _position(tiff: Tiff, gps: Mapping[int, Entry]) -> tuple[float, float] | None:
    latitude = _angle(tiff, gps, 1, {"N": 1, "S": -1}, 90)
    longitude = _angle(tiff, gps, 3, {"E": 1, "W": -1}, 180)
    return None if latitude is None or longitude is None else (latitude, longitude)


def _angle(
    tiff: Tiff, gps: Mapping[int, Entry], ref: int, signs: Mapping[str, int], most: float
) -> float | None:
    """Signed degrees from a reference and the angle in the tag after it; None when undefined."""
    if ref not in gps or ref + 1 not in gps:
        return None
    sign = signs.get(_decoded(tiff.raw(gps[ref], 8))[:1].upper())
    entry = gps[ref + 1]
    if entry.kind in (ASCII, UTF8):
        values = tags.spoken_numbers(_decoded(tiff.raw(entry, MAX_TEXT)))
    else:
        values = _values(tiff, tags.GPS[ref + 1], entry)
    angle = tags.degrees(values)
    if sign is None or angle is None or not math.isfinite(angle) or not 0 <= angle <= most:
        return None
    return sign * angle or 0.0


_DATE = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def _taken_at(texts: Mapping[str, str]) -> str | None:
    for name in ("DateTimeOriginal", "CreateDate", "ModifyDate"):
        match = _DATE.match(texts.get(name, ""))
        if match:
            try:
                return dt.datetime(*map(int, match.groups())).isoformat()  # type: ignore[arg-type] # noqa: DTZ001 (the camera's own time)
            except ValueError:
                continue
    return None
