"""What reached a disk and when: the log of `logged_disk`, in the order of the kernel's requests."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<cQI")


@dataclass(frozen=True)
class Write:
    """Bytes that reached the disk's cache."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Flush:
    """What was written before is on the medium."""


@dataclass(frozen=True)
class Ack:
    """The workload promised something to somebody."""

    text: str


Event = Write | Flush | Ack


def packed(kind: bytes, offset: int, data: bytes) -> bytes:
    """One event as it stands in a log; `kind` is W, F or A."""
    return _HEADER.pack(kind, offset, len(data)) + data


def read(log: Path) -> Iterator[Event]:
    """The events of a log, in order."""
    with log.open("rb") as file:
        while header := file.read(_HEADER.size):
            kind, offset, length = _HEADER.unpack(header)
            data = file.read(length)
            if kind == b"W":
                yield Write(offset, data)
            elif kind == b"F":
                yield Flush()
            else:
                yield Ack(data.decode())
