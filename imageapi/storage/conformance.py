"""The suite that every backend must pass, shipped for plugins outside this repository.

A plugin's tests write a `Harness` for their store and subclass the suite::

    class TestMine(Conformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return MyHarness(tmp_path)

with `pytest.register_assert_rewrite("imageapi.storage.conformance")` in their `conftest.py`. After
go-cloud's `drivertest`, restic's `backend/test` and fsspec's `tests/abstract`.
"""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import random
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit, urlunsplit

import pytest

from imageapi.errors import (
    InvalidFields,
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
    UploadForm,
    original_key,
    rendition_key,
)
from imageapi.storage.signing import SignedURLs
from imageapi.storage.storages import Storage

_KIB, _MIB = 1024, 1024 * 1024
_PATIENCE = 60
_ALBUM = "an album"
_SIZES = (
    Rendition("full", 1920, 1920, "fit"),
    Rendition("large", 200, 200, "fill"),
    Rendition("mini", 100, 100, "fill"),
)
_FULL = _SIZES[0]
_OK, _ERRORS = 200, 400


class Answer(NamedTuple):
    """What a bare HTTP client got for a URL."""

    status: int
    body: bytes


class Harness(abc.ABC):
    """A plugin's side of the suite: one store of its kind, opened again and again, and its faults.

    A fault that the store can not be made to have is skipped: `pytest.skip`, with the reason.
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
        """GET the URL with no credentials, at the present time."""

    @abc.abstractmethod
    def denied(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, refusing our credentials."""

    @abc.abstractmethod
    def unavailable(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, refusing connections."""

    @abc.abstractmethod
    def hanging(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, accepting all and answering nothing; with a `context.timeout` ≤ 1 s."""

    @abc.abstractmethod
    def full(self) -> contextlib.AbstractContextManager[Backend]:
        """The store, with less than 2 MiB left."""

    def post(self, form: UploadForm, content: bytes) -> tuple[int, Mapping[str, str]]:
        """Post the content with the form as a browser would; needed where there are forms.

        Returns: the status, and what a client would hand in of the answer.
        """
        raise NotImplementedError

    def signed(self, answer: Mapping[str, str]) -> Iterable[str]:
        """The fields of such an answer that must not be altered; override it if not all."""
        return answer

    def content(self, length: int) -> bytes:
        """So many bytes, others each time; override it where the store takes pictures alone."""
        return random.randbytes(length)

    def tamper(self, url: str, chance: random.Random) -> str:
        """The URL with a character or two of path and query changed, which makes it worthless."""
        scheme, host, path, query, _ = urlsplit(url)
        signs = [*path, "?", *query]
        places = [
            at
            for at, sign in enumerate(signs)
            if sign.isalnum() and "%" not in signs[max(0, at - 2) : at]
        ]
        for place in chance.sample(places, chance.choice((1, 2))):
            others = "cdefghCDEFGH0123456789".replace(signs[place], "")
            signs[place] = chance.choice(others)
        path, _, query = "".join(signs).partition("?")
        return urlunsplit((scheme, host, path, query, ""))


@contextlib.contextmanager
def staged(storage: Storage, content: bytes) -> Iterator[Staged]:
    """The content as a staged file of a picture, 64 by 48 pixels."""
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
    return Picture(key or original_key(), str(uuid.uuid4()), revision, Size(64, 48), Edit(), "jpg")


def kept(image: Picture, name: str = "full") -> str:
    """The key of a rendition."""
    return rendition_key(image.image_id, image.revision, name, image.extension)


def served(backend: Backend, url: str) -> Answer:
    """What the application answers to a URL of `SignedURLs`: the signature first, then the bytes."""
    parts, context = urlsplit(url), backend.context
    prefix, _, path = parts.path.removeprefix("/").partition("/")
    name, _, key = path.partition("/")
    valid = SignedURLs(context.secret_keys).verify(name, key, parts.query, time.time())
    if prefix != "files" or name != context.name or not valid:
        return Answer(404, b"")
    try:
        return Answer(200, read(Storage(backend), key))
    except StorageNotFound:
        return Answer(404, b"")


def same(found: bytes, expected: bytes) -> None:
    """Assert that bytes are those expected; telling the difference would take minutes."""
    equal = found == expected
    assert equal, f"{len(found)} bytes are not the {len(expected)} expected"


def at_once(number: int, work: Callable[[int], object]) -> None:
    """Run `work(0)` … `work(number - 1)` in threads at once; the first error is raised."""
    start = threading.Barrier(number)

    def begin(place: int) -> None:
        start.wait(_PATIENCE)
        work(place)

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        for done in [pool.submit(begin, place) for place in range(number)]:
            done.result(_PATIENCE)


class Suite:
    """Fixtures of every part: `harness` is the plugin's own, the others are made from it."""

    @pytest.fixture
    def harness(self) -> Harness:
        """Override it."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, harness: Harness) -> Storage:
        """The store, behind the checks that callers have too."""
        return Storage(harness.open())

    @pytest.fixture
    def keeper(self, storage: Storage) -> Storage:
        """The store, if it is one that holds renditions."""
        if storage.renders:
            pytest.skip("this storage renders by itself")
        return storage


class BytesSuite(Suite):
    """What is put in comes out."""

    def test_what_is_put_is_read_at_any_length(self, harness: Harness, storage: Storage) -> None:
        """Whole, in pieces of 1 MiB at most, by this and by another backend; stat agrees."""
        for length in harness.lengths:
            content = harness.content(length)
            before = time.time()
            key = put(storage, content)
            for reader in (storage, Storage(harness.open())):
                digest, longest = hashlib.sha256(), 0
                with contextlib.closing(reader.open(key)) as pieces:
                    for piece in pieces:
                        digest.update(piece)
                        longest = max(longest, len(piece))
                assert digest.digest() == hashlib.sha256(content).digest()
                assert longest <= _MIB
                stored = reader.stat(key)
                assert (stored.key, stored.bytes) == (key, len(content))
                assert stored.etag in ("", hashlib.md5(content, usedforsecurity=False).hexdigest())
                assert before - 120 < stored.created < time.time() + 120
            storage.delete(key)

    def test_infos_are_those_of_the_specification(self, harness: Harness, storage: Storage) -> None:
        """Every field, in its order."""
        content = harness.content(30_000)
        with staged(storage, content) as file:
            key, infos = storage.put(file, [_ALBUM])
        created = infos["created_at"]
        assert list(infos.items()) == [
            ("bytes", len(content)),
            ("created_at", created),
            ("etag", hashlib.md5(content, usedforsecurity=False).hexdigest()),
            ("format", "jpg"),
            ("height", 48),
            ("resource_type", "image"),
            ("tags", [_ALBUM]),
            ("type", infos["type"]),
            ("width", 64),
        ]
        assert infos["type"] in ("private", "authenticated", "upload")
        assert time.strptime(created, "%Y-%m-%dT%H:%M:%SZ")
        stored = time.gmtime(storage.stat(key).created)
        assert created[:10] in (time.strftime("%Y-%m-%d", stored), time.strftime("%Y-%m-%d"))

    def test_parts(self, harness: Harness, storage: Storage) -> None:
        """Any range inside is answered exactly; one that reaches outside is no success."""
        content = harness.content(700_001)
        key, end = put(storage, content), len(content)
        for start in (0, 1, 262_143, 262_144, 700_000):
            for length in (1, 2, 262_144, 300_000, None):
                if length is None or start + length <= end:
                    stop = end if length is None else start + length
                    same(read(storage, key, start, length), content[start:stop])
        assert read(storage, key, end) == b""
        assert read(storage, key, 10, 0) == b""
        for start, length in ((0, end + 1), (end - 1, 2), (end, 1), (end + 1, None)):
            with pytest.raises(StorageCorrupt):
                read(storage, key, start, length)

    def test_nothing_is_found_under_a_new_key(self, storage: Storage) -> None:
        """Reading says so; deleting does not mind."""
        key = original_key()
        for length in (None, 0, 5):
            with pytest.raises(StorageNotFound):
                storage.open(key, 0, length)
        with pytest.raises(StorageNotFound):
            storage.stat(key)
        storage.delete(key)

    def test_delete_twice(self, harness: Harness, storage: Storage) -> None:
        """After the first time there is nothing, and the second is no error."""
        key = put(storage, harness.content(5000))
        for _ in range(2):
            storage.delete(key)
            with pytest.raises(StorageNotFound):
                storage.stat(key)
            with pytest.raises(StorageNotFound):
                storage.open(key)
            assert key not in keys(storage)

    def test_delete_takes_this_key_alone(self, harness: Harness, keeper: Storage) -> None:
        """Not those that begin with it, nor those that it begins with."""
        original = put(keeper, harness.content(5000))
        first = dataclasses.replace(picture(original), image_id=original[3:])
        tenth = dataclasses.replace(first, revision=10)
        names = ("full", "large", "mini")
        for image in (first, tenth):
            keeper.keep(image, dict.fromkeys(names, b"a rendition"))
        present = {original, *(kept(image, name) for image in (first, tenth) for name in names)}
        for key in (kept(first), original, kept(tenth, "mini")):
            keeper.delete(key)
            present.remove(key)
            assert set(keys(keeper, original)) == present

    @pytest.mark.parametrize("change", ["other", "shorter", "longer", "gone"])
    def test_what_is_not_what_was_staged_is_refused(
        self, harness: Harness, storage: Storage, change: str
    ) -> None:
        """A staged file that changed after it was hashed: nothing of it is left."""
        content = harness.content(300_000)
        with staged(storage, content) as file:
            time.sleep(0.02)  # coarse clocks of file systems
            _change(file.path, change)
            self._refused(storage, file)

    @pytest.mark.parametrize("digest", ["md5", "sha256"])
    def test_a_wrong_hash_is_refused(self, harness: Harness, storage: Storage, digest: str) -> None:
        """Digests of other bytes than the staged ones: nothing is left."""
        wrong = hashlib.new(digest, b"other bytes", usedforsecurity=False).hexdigest()
        with staged(storage, harness.content(300_000)) as file:
            rehashed = dataclasses.replace(file, changed=0)
            if digest == "md5":
                self._refused(storage, dataclasses.replace(rehashed, md5=wrong))
            else:
                self._refused(storage, dataclasses.replace(rehashed, sha256=wrong))

    def _refused(self, storage: Storage, file: Staged) -> None:
        key = original_key()
        with pytest.raises(StorageCorrupt):
            storage.put(file, [_ALBUM], key)
        with pytest.raises(StorageNotFound):
            storage.stat(key)
        with pytest.raises(StorageNotFound):
            storage.open(key)
        assert keys(storage) == []

    def test_reading_can_end_early(self, harness: Harness, storage: Storage) -> None:
        """Whoever goes away early leaves no file or connection behind."""
        content = harness.content(3 * _MIB)
        key = put(storage, content)

        def begin() -> None:
            with contextlib.closing(storage.open(key)) as pieces:
                assert content.startswith(next(pieces))

        begin()
        descriptors = Path("/proc/self/fd")
        before = len(list(descriptors.iterdir()))
        for _ in range(50):
            begin()
        assert len(list(descriptors.iterdir())) < before + 25
        same(read(storage, key), content)

    def test_staging_is_left_clean(self, harness: Harness, storage: Storage) -> None:
        """Taken in and stored, or not stored: no staged file is left, and none is listed."""
        backend = harness.open()
        with staged(storage, harness.content(5000)):
            assert keys(storage) == []
            assert len(list(backend.staging.iterdir())) == 1
        key = put(storage, harness.content(5000))
        assert list(backend.staging.iterdir()) == []
        assert keys(storage) == [key]


def _change(path: Path, change: str) -> None:
    if change == "gone":
        path.unlink()
        return
    with path.open("r+b") as file:
        if change == "shorter":
            file.truncate(299_999)
        elif change == "longer":
            file.seek(0, os.SEEK_END)
            file.write(b"\0")
        else:
            file.seek(150_000)
            sign = file.read(1)[0]
            file.seek(150_000)
            file.write(bytes([sign ^ 1]))


class RenditionsSuite(Suite):
    """Renditions are kept whole and replaced at once."""

    def test_kept_and_replaced(self, keeper: Storage) -> None:
        """The newest bytes are read, and each revision has its own."""
        image = picture()
        for content in (b"first", b"second, longer", b"3"):
            keeper.keep(image, {"full": content, "mini": content * 2})
            same(read(keeper, kept(image)), content)
            same(read(keeper, kept(image, "mini")), content * 2)
        later = dataclasses.replace(image, revision=2)
        keeper.keep(later, {"full": b"the second revision"})
        assert read(keeper, kept(image)) == b"3"
        assert read(keeper, kept(later)) == b"the second revision"

    def test_never_torn(self, keeper: Storage) -> None:
        """Readers see the old or the new while one is replaced again and again."""
        image = picture()
        contents = [bytes([sign]) * length for sign, length in ((1, 300_000), (2, 500_000))]
        keeper.keep(image, {"full": contents[0]})
        done = threading.Event()

        def work(place: int) -> None:
            if place == 0:
                for turn in range(20):
                    keeper.keep(image, {"full": contents[turn % 2]})
                done.set()
            while not done.is_set():
                assert read(keeper, kept(image)) in contents

        at_once(3, work)


class ListingSuite(Suite):
    """Listing is complete, in order, and can be taken up anywhere."""

    def test_an_empty_store_lists_nothing(self, storage: Storage) -> None:
        """No error, no key."""
        assert keys(storage) == []

    def test_more_than_a_page(self, harness: Harness, keeper: Storage) -> None:
        """All keys in the order of their characters; from any key on; below any prefix."""
        total = harness.page + 7
        images = [picture() for _ in range(total)]

        def keep(place: int) -> None:
            for image in images[place::4]:
                keeper.keep(image, {"mini": b"a rendition"})

        at_once(4, keep)
        expected = sorted(kept(image, "mini") for image in images)
        assert keys(keeper) == expected
        for place in (0, 1, total // 2, harness.page - 1, harness.page, total - 1):
            assert keys(keeper, after=expected[place]) == expected[place + 1 :]
        for prefix in (expected[5][:1], expected[5][:2], expected[5][:3], expected[5]):
            below = [key for key in expected if key.startswith(prefix)]
            assert keys(keeper, prefix) == below
            assert keys(keeper, prefix, below[0]) == below[1:]
        assert keys(keeper, "no such prefix") == []

    def test_what_is_listed_is_what_stat_says(self, harness: Harness, storage: Storage) -> None:
        """Length and age come with the key."""
        stored = [storage.stat(put(storage, harness.content(1000 + n))) for n in range(3)]
        listed = list(storage.list())
        assert [(each.key, each.bytes) for each in listed] == sorted(
            (each.key, each.bytes) for each in stored
        )
        assert all(abs(each.created - time.time()) < _PATIENCE * 2 for each in listed)


class URLSuite(Suite):
    """Rendition URLs open to whoever holds them, until they end, and to nobody else."""

    @pytest.fixture
    def image(self, harness: Harness, storage: Storage) -> Picture:
        """A stored picture with its renditions."""
        image = picture(put(storage, harness.content(30_000)))
        if not storage.renders:
            names = [rendition.name for rendition in _SIZES]
            storage.keep(image, {name: f"this is {name}".encode() for name in names})
        return image

    @pytest.fixture
    def now(self, harness: Harness) -> int:
        """The present window."""
        return int(time.time() // harness.open().context.url_window)

    def test_valid(self, harness: Harness, image: Picture, now: int) -> None:
        """This window's and the last one's are answered, each size with its own bytes."""
        backend = harness.open()
        for rendition in _SIZES:
            for window in (now, now - 1):
                answer = harness.fetch(backend.rendition_url(image, rendition, window))
                assert answer.status == _OK
                assert backend.renders or answer.body == f"this is {rendition.name}".encode()

    def test_ended(self, harness: Harness, image: Picture, now: int) -> None:
        """Those of earlier windows are refused."""
        for window in (now - 2, now - 3, now - 1000):
            url = harness.open().rendition_url(image, _FULL, window)
            assert harness.fetch(url).status >= _ERRORS

    def test_the_same_on_every_worker(self, harness: Harness, image: Picture, now: int) -> None:
        """One URL for a window, whoever makes it and when; another one in the next."""
        urls = set()
        for pause in (0, 0, 1.1):
            time.sleep(pause)
            backend = harness.open()
            urls |= {backend.rendition_url(image, _FULL, now) for _ in range(2)}
        assert len(urls) == 1
        assert harness.open().rendition_url(image, _FULL, now + 1) not in urls

    def test_each_rendition_has_its_own(self, harness: Harness, image: Picture, now: int) -> None:
        """No two sizes, revisions or images share a URL."""
        images = [image, dataclasses.replace(image, revision=2)]
        images.append(dataclasses.replace(picture(), image_id=str(uuid.uuid4())))
        backend = harness.open()
        urls = {backend.rendition_url(each, size, now) for each in images for size in _SIZES}
        assert len(urls) == len(images) * len(_SIZES)

    def test_made_without_io(
        self, harness: Harness, image: Picture, now: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also the first one of a new worker opens no connection."""
        fresh = harness.open()
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", _forbidden)
            patch.setattr(socket.socket, "connect_ex", _forbidden)
            url = fresh.rendition_url(image, _FULL, now)
        assert harness.fetch(url).status == _OK

    def test_tampered(self, harness: Harness, image: Picture, now: int) -> None:
        """Not one of many URLs with one change is answered."""
        url = harness.open().rendition_url(image, _FULL, now)
        chance = random.Random(1)
        others: set[str] = set()
        while len(others) < harness.tampered:
            others.add(harness.tamper(url, chance))
        assert [other for other in others if harness.fetch(other).status < _ERRORS] == []

    def test_one_signature_opens_one_url(self, harness: Harness, image: Picture, now: int) -> None:
        """The query of one URL is worthless on another's path; and so is none at all."""
        backend = harness.open()
        full, mini = (urlsplit(backend.rendition_url(image, _SIZES[n], now)) for n in (0, 2))
        if full.query == mini.query:
            pytest.skip("the signature is not in the query")
        assert harness.fetch(urlunsplit(full._replace(query=mini.query))).status >= _ERRORS
        assert harness.fetch(urlunsplit(full._replace(query=""))).status >= _ERRORS

    def test_nothing_there(
        self, harness: Harness, keeper: Storage, image: Picture, now: int
    ) -> None:
        """What was never rendered, or is deleted, is not answered."""
        backend = harness.open()
        other = dataclasses.replace(image, revision=7)
        assert harness.fetch(backend.rendition_url(other, _FULL, now)).status >= _ERRORS
        url = backend.rendition_url(image, _FULL, now)
        assert harness.fetch(url).status == _OK
        keeper.delete(kept(image))
        assert harness.fetch(url).status >= _ERRORS


def _forbidden(*_: object, **__: object) -> NoReturn:
    raise AssertionError("making a URL must not do I/O")


class FaultSuite(Suite):
    """A store in trouble says so in the one family of errors, and all is well when it is over."""

    def test_absent(self, harness: Harness) -> None:
        """A store that does not exist is no empty store: nothing is found missing in it."""
        backend = harness.absent()
        for error in _failures(backend, original_key()):
            assert not isinstance(error, StorageNotFound)
        with pytest.raises(StorageError):
            Storage(backend).check()

    def test_denied(self, harness: Harness, storage: Storage) -> None:
        """Refused credentials are told from an outage, in words, and tried once."""
        key = put(storage, harness.content(5000))
        attempts: list[str] = []
        with harness.denied() as backend:
            for error in _failures(backend, key):
                assert isinstance(error, StorageDenied)
            refused = Storage(backend, lambda _, operation, *__: attempts.append(operation))
            with pytest.raises(StorageDenied, match=r"\w+ \w+"):
                refused.check()
        assert attempts == ["check"]
        self._well(harness, storage, key)

    def test_unavailable(self, harness: Harness, storage: Storage) -> None:
        """No connection: worth another try, and nothing is found missing."""
        key = put(storage, harness.content(5000))
        with harness.unavailable() as backend:
            for error in _failures(backend, key):
                assert isinstance(error, StorageUnavailable)
            with pytest.raises(StorageUnavailable):
                Storage(backend).check()
        self._well(harness, storage, key)

    def test_hanging(self, harness: Harness, storage: Storage) -> None:
        """A store that answers nothing is given up within its timeout, a few times over."""
        key = put(storage, harness.content(5000))
        failures: list[StorageError] = []
        with harness.hanging() as backend:
            worker = threading.Thread(
                target=lambda: failures.extend(_failures(backend, key)), daemon=True
            )
            worker.start()
            worker.join(_PATIENCE)
            assert not worker.is_alive(), "it waits for ever"
        assert failures
        assert all(isinstance(error, StorageUnavailable) for error in failures)
        self._well(harness, storage, key)

    def test_full(self, harness: Harness, storage: Storage) -> None:
        """A write that finds no space leaves nothing; reads go on; the next write succeeds."""
        content, large = harness.content(5000), harness.content(2 * _MIB)
        key, other, image = put(storage, content), original_key(), picture()
        with harness.full() as backend:
            crowded = Storage(backend)
            with pytest.raises(StorageFull):
                put(crowded, large, other)
            if not crowded.renders:
                with pytest.raises(StorageFull):
                    crowded.keep(image, {"full": large})
            same(read(crowded, key), content)
        assert keys(storage) == [key]
        assert list(harness.open().staging.iterdir()) == []
        put(storage, large, other)
        self._well(harness, storage, key)

    def _well(self, harness: Harness, storage: Storage, key: str) -> None:
        assert len(read(storage, key)) == storage.stat(key).bytes
        assert key in keys(storage)
        assert len(read(storage, put(storage, harness.content(7000)))) == len(harness.content(7000))
        storage.check()


def _failures(backend: Backend, key: str) -> list[StorageError]:
    """The error of every call but `check`; each must fail, and no earlier one spares it a try."""
    calls: list[Callable[[Storage], object]] = [
        lambda storage: put(storage, b"some bytes", original_key()),
        lambda storage: read(storage, key),
        lambda storage: storage.stat(key),
        lambda storage: storage.delete(key),
    ]
    if not backend.renders:
        calls.append(lambda storage: storage.keep(picture(), {"full": b"some bytes"}))
    failures = []
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call(Storage(backend))
        failures.append(caught.value)
    return failures


class ProcessSuite(Suite):
    """Threads and forked workers share a backend."""

    def test_many_threads(self, harness: Harness, storage: Storage) -> None:
        """Each gets its own bytes back."""

        def work(place: int) -> None:
            content = harness.content(60_000 + place)
            for _ in range(3):
                key = put(storage, content)
                same(read(storage, key), content)
                same(read(storage, key, 100, 50), content[100:150])
                storage.delete(key)

        at_once(16, work)
        assert keys(storage) == []

    def test_racing_puts(self, harness: Harness, storage: Storage) -> None:
        """The same bytes under one key by many, as a retry would: whole at any time."""
        content, key = harness.content(400_000), original_key()
        at_once(6, lambda _: put(storage, content, key))
        same(read(storage, key), content)
        assert keys(storage) == [key]

    def test_fork_after_use(self, harness: Harness, storage: Storage) -> None:
        """A worker forked from a process that used the backend works, and so does the parent."""
        content = harness.content(300_000)
        key, other = put(storage, content), original_key()

        def child() -> None:
            same(read(storage, key), content)
            put(storage, content, other)

        for _ in range(2):
            _in_child(child)
            same(read(storage, other), content)
            storage.delete(other)
        same(read(storage, put(storage, content)), content)


def _in_child(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - it must never return into the parent's test run
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the forked process hangs")


class DirectUploadSuite(Suite):
    """What clients post to the store itself, if it takes that."""

    @pytest.fixture
    def form(self, storage: Storage) -> UploadForm:
        """A form for the album."""
        form = storage.upload_form(_ALBUM, _MIB, time.time())
        if form is None:
            pytest.skip("this storage takes no direct uploads")
        return form

    @pytest.fixture
    def content(self, harness: Harness) -> bytes:
        """What is uploaded."""
        return harness.content(40_000)

    @pytest.fixture
    def answer(self, harness: Harness, form: UploadForm, content: bytes) -> Mapping[str, str]:
        """What a client hands in that has uploaded it."""
        status, answer = harness.post(form, content)
        assert status < _ERRORS
        return answer

    @pytest.fixture
    def name(self, storage: Storage, answer: Mapping[str, str]) -> str:
        """The upload, claimed."""
        return storage.claim(_ALBUM, answer, time.time())

    def test_adopted(self, storage: Storage, name: str, content: bytes) -> None:
        """It becomes an original like any other; discarded, it can not be handed in again."""
        assert keys(storage) == []
        with contextlib.closing(storage.incoming(name)) as pieces:
            same(b"".join(pieces), content)
        with staged(storage, content) as file:
            key, infos = storage.adopt(name, file, [_ALBUM])
            assert infos["etag"] == file.md5
            same(read(storage, key), content)
            assert keys(storage) == [key]
            storage.discard(name)
            with pytest.raises(StorageNotFound):
                storage.incoming(name)
            with pytest.raises(StorageNotFound):
                storage.adopt(name, file, [_ALBUM])
        assert keys(storage) == [key]

    def test_released(self, storage: Storage, name: str, content: bytes) -> None:
        """What could not become an image can be handed in again."""
        with staged(storage, content) as file:
            key, _ = storage.adopt(name, file, [_ALBUM])
            for _ in range(2):  # a release whose answer was lost is asked for again
                storage.release(key, name)
                assert keys(storage) == []
            with contextlib.closing(storage.incoming(name)) as pieces:
                same(b"".join(pieces), content)
            key, _ = storage.adopt(name, file, [_ALBUM])
        same(read(storage, key), content)

    def test_swapped_after_it_was_read(
        self, harness: Harness, storage: Storage, form: UploadForm, name: str, content: bytes
    ) -> None:
        """Uploading again with the same form gains nothing."""
        with staged(storage, content) as file:
            harness.post(form, harness.content(40_000))
            with contextlib.closing(storage.incoming(name)) as pieces:
                swapped = b"".join(pieces) != content
            if swapped:
                with pytest.raises(StorageCorrupt):
                    storage.adopt(name, file, [_ALBUM])
                assert keys(storage) == []

    def test_handed_in_elsewhere_late_or_altered(
        self, harness: Harness, storage: Storage, answer: Mapping[str, str]
    ) -> None:
        """Only for its album, for a while, and as the store answered it."""
        now = time.time()
        with pytest.raises(InvalidFields):
            storage.claim("another album", answer, now)
        with pytest.raises(InvalidFields):
            storage.claim(_ALBUM, answer, now + 24 * 3600)
        with pytest.raises(InvalidFields):
            storage.claim(_ALBUM, {}, now)
        for field in harness.signed(answer):
            for altered in (answer[field][:-1], answer[field] + "0", answer[field].swapcase(), ""):
                with pytest.raises(InvalidFields):
                    storage.claim(_ALBUM, {**answer, field: altered}, now)
        assert Storage(harness.open()).claim(_ALBUM, answer, now)

    def test_the_store_takes_what_the_form_says_alone(
        self, harness: Harness, form: UploadForm
    ) -> None:
        """No byte more than the limit, and no field of the form altered."""
        assert harness.post(form, harness.content(_MIB + 1))[0] >= _ERRORS
        for field, value in form["params"].items():
            altered = UploadForm(url=form["url"], params={**form["params"], field: f"{value}0"})
            assert harness.post(altered, harness.content(5000))[0] >= _ERRORS, field

    def test_unwanted(self, storage: Storage, name: str) -> None:
        """Discarded, it is gone; once more is no error."""
        for _ in range(2):
            storage.discard(name)
            with pytest.raises(StorageNotFound):
                storage.incoming(name)

    def test_abandoned(self, storage: Storage, name: str) -> None:
        """What is never handed in is swept by age."""
        storage.clear_staging(3600)
        storage.incoming(name).close()
        time.sleep(1.1)  # stores keep whole seconds
        assert storage.clear_staging(0) == 1
        with pytest.raises(StorageNotFound):
            storage.incoming(name)


class Conformance(
    BytesSuite,
    RenditionsSuite,
    ListingSuite,
    URLSuite,
    FaultSuite,
    ProcessSuite,
    DirectUploadSuite,
):
    """All of it."""
