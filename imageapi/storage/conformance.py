"""The suite that every backend must pass, shipped for plugins outside this repository.

A plugin's tests write a `Harness` for their store and subclass the suite::

    pytest.register_assert_rewrite("imageapi.storage.conformance")   # in conftest.py

    class TestMine(Conformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return MyHarness(tmp_path)

After go-cloud's `drivertest`, restic's `backend/test` and fsspec's `tests/abstract`.
"""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import random
import re
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pytest

from imageapi.errors import (
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.geometry import Edit, Rendition, Size
from imageapi.storage.backend import (
    Backend,
    Picture,
    Staged,
    original_key,
    rendition_key,
)
from imageapi.storage.storages import Storage

_KIB, _MIB = 1024, 1024 * 1024
_PATIENCE = 60
_ALBUM = "an album"
_FULL = Rendition("full", 1920, 1920, "fit")
_SHARED = frozenset("/?&=%.-_")


class Answer(NamedTuple):
    """What a bare HTTP client got for a URL."""

    status: int
    body: bytes


class Harness(abc.ABC):
    """A plugin's side of the suite: one store of its kind, opened again and again, and its faults.

    A fault that the store can not be made to have is skipped by `pytest.skip` with the reason.
    """

    lengths: tuple[int, ...] = (0, 1, 4095, 256 * _KIB, _MIB + 1, 9 * _MIB + 1, 64 * _MIB)
    """Files of so many bytes are stored."""

    page: int = 1000
    """How many keys the store lists at a time; a few more are listed."""

    tampered: int = 10_000
    """How many tampered URLs are tried."""

    @abc.abstractmethod
    def open(self) -> Backend:
        """A new backend on the one store of this harness, as another worker would make it."""

    @abc.abstractmethod
    def absent(self) -> Backend:
        """A backend on a store that does not exist and can not be made."""

    @abc.abstractmethod
    def fetch(self, url: str) -> Answer:
        """GET the URL with no credentials."""

    @abc.abstractmethod
    def denied(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, refusing our credentials."""

    @abc.abstractmethod
    def unavailable(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, refusing connections."""

    @abc.abstractmethod
    def hanging(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, accepting all and answering nothing; with a short `context.timeout`."""

    @abc.abstractmethod
    def full(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, with less than 2 MiB left."""

    def content(self, length: int) -> bytes:
        """Different bytes every time; override where the store takes pictures alone."""
        return random.randbytes(length)

    def tamper(self, url: str, chance: random.Random) -> str:
        """The URL with one change that must make it worthless."""
        scheme, host, path, query, _ = urlsplit(url)
        text = f"{path}?{query}"
        place = chance.choice([at for at, sign in enumerate(text) if _plain(text, at, sign)])
        other = chance.choice([sign for sign in "abcdefABCDEF0123456789" if sign != text[place]])
        path, _, query = f"{text[:place]}{other}{text[place + 1 :]}".partition("?")
        return urlunsplit((scheme, host, path, query, ""))


def _plain(text: str, at: int, sign: str) -> bool:
    return sign not in _SHARED and "%" not in text[max(0, at - 2) : at]


def stage(storage: Storage, content: bytes) -> contextlib.ExitStack:
    """The content as a staged file; see `staged`."""
    raise NotImplementedError


@contextlib.contextmanager
def staged(storage: Storage, content: bytes) -> Iterator[Staged]:
    """The content as a staged file of a picture of 64 by 48 pixels."""
    with storage.stage() as staging:
        for start in range(0, len(content), 256 * _KIB):
            staging.write(content[start : start + 256 * _KIB])
        yield dataclasses.replace(staging.finish(), format="jpg", size=Size(64, 48))


def put(storage: Storage, content: bytes, key: str | None = None) -> str:
    """Store the content; its key."""
    with staged(storage, content) as file:
        return storage.put(file, [_ALBUM], key)[0]


def read(storage: Storage, key: str, start: int = 0, length: int | None = None) -> bytes:
    """What is stored under the key, or a part of it."""
    with contextlib.closing(storage.open(key, start, length)) as pieces:
        return b"".join(pieces)


def keys(storage: Storage, prefix: str = "", after: str = "") -> list[str]:
    """The keys that the store lists."""
    return [stored.key for stored in storage.list(prefix, after)]


def picture(key: str | None = None, revision: int = 1) -> Picture:
    """A picture of 64 by 48 pixels, unedited."""
    key = key or original_key()
    return Picture(key, str(uuid.uuid4()), revision, Size(64, 48), Edit(), "jpg")


def kept(image: Picture, name: str = "full") -> str:
    """The key of a rendition."""
    return rendition_key(image.image_id, image.revision, name, image.extension)


def window(storage: Storage) -> int:
    """The present one; should it end soon, wait for the next."""
    seconds = storage.window
    if time.time() % seconds > seconds - 30 > 0:
        time.sleep(30)
    return int(time.time() // seconds)


def all_threads(number: int, work: Callable[[int], object]) -> None:
    """Run `work(0)` … `work(number - 1)` at once; the first error is raised."""
    start = threading.Barrier(number)

    def begin(place: int) -> None:
        start.wait(_PATIENCE)
        work(place)

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        for done in [pool.submit(begin, place) for place in range(number)]:
            done.result(_PATIENCE)


class Suite:
    """Fixtures of all parts: `harness` is the plugin's, the others are made from it."""

    @pytest.fixture
    def harness(self) -> Harness:
        """Override it."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, harness: Harness) -> Storage:
        """The store behind all checks."""
        return Storage(harness.open())

    @pytest.fixture
    def keeper(self, storage: Storage) -> Storage:
        """The store, if it holds renditions that we make."""
        if storage.renders:
            pytest.skip("the storage renders by itself")
        return storage
