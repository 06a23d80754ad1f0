"""Counts of what a piece of work did: SQL statements, decodes, bytes written. Never times."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any
from unittest import mock

from PIL import ImageFile

from bench import processes


@contextlib.contextmanager
def statements() -> Iterator[list[str]]:
    """Every statement that SQLite runs on connections opened inside the block, whoever sends it."""
    seen: list[str] = []
    connect = sqlite3.dbapi2.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(seen.append)
        return connection

    with mock.patch.object(sqlite3.dbapi2, "connect", traced):
        yield seen


@contextlib.contextmanager
def decodes() -> Iterator[list[str]]:
    """The format of every picture whose pixels are decoded inside the block."""
    seen: list[str] = []
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> Any:
        if image.tile:
            seen.append(str(image.format))
        return load(image)

    with mock.patch.object(ImageFile.ImageFile, "load", counted):
        yield seen


class Written:
    """Bytes that this process gave to write calls since `since`."""

    def __init__(self) -> None:
        self.since = processes.written(os.getpid())

    @property
    def bytes(self) -> int:
        return processes.written(os.getpid()) - self.since
