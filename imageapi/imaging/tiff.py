"""Reads TIFF directories, the structure of TIFF files and of EXIF blocks, within bounds.

Nothing is read but what is asked for, so a directory whose entries all point at the same megabyte
costs nothing. Pillow's reader takes every value in at once, which is why EXIF is not left to it.

Source: TIFF 6.0 §2, BigTIFF, Exif 3.0 §4.6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from imageapi.imaging.limits import MAX_ENTRIES, MAX_SEGMENTS

ASCII, UNDEFINED, UTF8 = 2, 7, 129
_RATIONALS = (5, 10)
_FORMATS = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f",
    12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q", 129: "s",
}  # fmt: skip

Number = int | float | tuple[int, int]
"""A value of a numeric entry; a rational is its (numerator, denominator)."""


class Entry(NamedTuple):
    """One tag of a directory: its type, how many values, and where in the stream they are."""

    kind: int
    number: int
    offset: int

    @property
    def length(self) -> int:
        """Bytes of all values; 0 for an unknown type."""
        return self.number * _width(self.kind)


def _width(kind: int) -> int:
    return struct.calcsize("=" + _FORMATS[kind]) if kind in _FORMATS else 0


class Tiff:
    """A stream that starts with a TIFF header.

    Args:
        stream: seekable; offset 0 is the header.

    Raises:
        ValueError: it does not start with one; for people, as the others here.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._read = stream, 0
        header = self._at(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
        if not self.order or len(header) < 8:
            raise ValueError("its header is cut")
        magic = self._unpack("H", header[2:4])[0]
        if magic not in (42, 43) or (magic == 43 and len(header) < 16):
            raise ValueError("its header is cut")
        self.big = magic == 43
        self.first: int = (
            self._unpack("Q", header[8:])[0] if self.big else self._unpack("I", header[4:8])[0]
        )

    def _at(self, offset: int, length: int) -> bytes:
        try:
            self._stream.seek(offset)
            return self._stream.read(length)
        except (OverflowError, ValueError, OSError):  # an offset that no file has
            return b""

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + form, data)

    def directory(self, offset: int) -> tuple[dict[int, Entry], int]:
        """The tags of the directory at `offset`, first of each, and the next one's offset (0: none).

        A directory that runs out of the stream ends there.
        """
        count_form, entry_form, inline = ("Q", "HHQ", 8) if self.big else ("H", "HHI", 4)
        head = struct.calcsize("=" + count_form)
        data = self._at(offset, head)
        if len(data) < head:
            return {}, 0
        count = self._unpack(count_form, data)[0]
        step = struct.calcsize("=" + entry_form) + inline
        data = self._at(offset + head, min(count, MAX_SEGMENTS) * step + inline)
        entries: dict[int, Entry] = {}
        whole = min(count, len(data) // step)
        self._read += whole
        for index in range(whole):
            place = index * step
            tag, kind, number = self._unpack(entry_form, data[place : place + step - inline])
            where = offset + head + place + step - inline
            if number * _width(kind) > inline:
                where = self._unpack(
                    "Q" if self.big else "I", data[place + step - inline : place + step]
                )[0]
            entries.setdefault(tag, Entry(kind, number, where))
        tail = data[count * step : count * step + inline]
        return entries, self._unpack("Q" if self.big else "I", tail)[0] if len(
            tail
        ) == inline else 0

    def chain(self, most: int) -> Iterator[dict[int, Entry]]:
        """The directories one after the other, at most so many, none twice.

        Raises:
            ValueError: they have more than `MAX_ENTRIES` tags.
        """
        offset, seen = self.first, set[int]()
        while offset and offset not in seen and len(seen) < most:
            seen.add(offset)
            entries, offset = self.directory(offset)
            if self._read > MAX_ENTRIES:
                raise ValueError(f"it has more than {MAX_ENTRIES} tags")
            yield entries

    def raw(self, entry: Entry, most: int) -> bytes:
        """The bytes of a value, at most so many; fewer where the stream ends."""
        return self._at(entry.offset, min(entry.length, most))

    def numbers(self, entry: Entry, most: int) -> list[Number]:
        """The numbers of a value, at most so many; none for text and unknown types."""
        form = _FORMATS.get(entry.kind, "s")
        if form == "s":
            return []
        width = _width(entry.kind)
        data = self.raw(entry, most * width)
        values = self._unpack(form * (len(data) // width), data[: len(data) // width * width])
        if entry.kind in _RATIONALS:
            return list(zip(values[::2], values[1::2], strict=True))
        return list(values)
