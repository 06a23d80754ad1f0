"""EXIF that was generated, told and kept: what both databases give back is what was told.

A sample, or with FAULTS=full a hundred thousand blocks.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from imageapi.imaging import exif
from tests.imaging.pictures import Field
from tests.imaging.pictures import exif as block
from tests.servers.need import need_module
from tests.servers.postgres import postgres

BLOCKS = 100_000 if os.environ.get("FAULTS") == "full" else 2000
LONGEST = 64 * 1024
TAGS = sorted({*exif.tags.IMAGE, *exif.tags.PHOTO, *exif.tags.GPS})
SPICE = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\\u0000",
        b'"',
        b"0000:00:00 00:00:00",
    ),
    *(b"UNICODE\0\xd8\x00", b"JIS\0\0\0\0\0\x1b$B", b"\xc3\x28", "é\u2028\ufeff".encode()),
    *(struct.pack("<d", float(text)) for text in ("nan", "inf", "-inf", "1e308", "-0", "5e-324")),
    struct.pack("<II", 0, 0),
    struct.pack("<II", 1, 0),
    struct.pack("<ii", -(1 << 31), -1),
)


def blocks() -> Iterator[bytes]:
    chance = random.Random(26)  # noqa: S311 (to vary, not to hide)

    def field() -> Field:
        data = b"".join(chance.choice(SPICE) for _ in range(chance.randrange(6)))
        data += chance.randbytes(chance.randrange(12))
        number = chance.choice([len(data), 1, 2, 3, 4, chance.randrange(1 << 32)])
        return chance.choice(TAGS), chance.randrange(14), number, data

    for _ in range(BLOCKS):
        made = block(*([field() for _ in range(chance.randrange(6))] for _ in range(3)))
        if chance.random() < 0.3:
            made = bytearray(made)
            made[chance.randrange(8, len(made))] = chance.randrange(256)
        yield bytes(made)


def strictly(text: str) -> object:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def told() -> list[str]:
    found = []
    for made in blocks():
        read = exif.parse(made)
        text = json.dumps(
            [read.texts, read.gps, read.taken_at], ensure_ascii=False, allow_nan=False
        )
        assert len(text.encode()) <= LONGEST
        assert strictly(text) == [read.texts, list(read.gps) if read.gps else None, read.taken_at]
        found.append(text)
    assert sum("{}" not in text for text in found) > BLOCKS / 2  # most have something to tell
    return found


def test_sqlite_gives_back_what_was_told(told):
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO kept VALUES (?, ?)", enumerate(told))
        kept = database.execute("SELECT text, json_valid(text) FROM kept ORDER BY number")
        assert all((text, valid) == (one, 1) for one, (text, valid) in zip(told, kept, strict=True))


def test_postgresqls_jsonb_gives_back_what_was_told(told):
    psycopg = need_module("psycopg", "pip install psycopg[binary]")
    with postgres() as server, psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept (number int PRIMARY KEY, body jsonb)")
        with connection.cursor().copy("COPY kept FROM STDIN") as copy:
            for row in enumerate(told):
                copy.write_row(row)
        kept = connection.execute("SELECT body::text FROM kept ORDER BY number").fetchall()
        for one, (text,) in zip(told, kept, strict=True):
            assert strictly(text) == strictly(one)
