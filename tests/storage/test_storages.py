import contextlib
import dataclasses
import hashlib
import os
import sys
import threading
import time

import pytest

from imageapi.errors import (
    PayloadTooLarge,
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.geometry import Rendition
from imageapi.storage.backend import Context, check_key, original_key
from imageapi.storage.conformance import kept, keys, picture, put, read
from imageapi.storage.local import LocalBackend, LocalOptions
from imageapi.storage.storages import Storage, Storages

SECRET = "a secret of at least thirty-two bytes"
FULL = Rendition("full", 1920, 1920, "fit")


@pytest.fixture
def context(tmp_path):
    return Context("disk", tmp_path, (SECRET,), timeout=1)


@pytest.fixture
def backend(context):
    return LocalBackend(LocalOptions(), context)


@pytest.fixture
def told():
    return []


@pytest.fixture
def storage(backend, told):
    return Storage(backend, lambda *call: told.append(call))


def failing(call, error, times):
    """The call, after it has failed so often."""
    left = [error] * times

    def instead(*args):
        if left:
            raise left.pop()
        return call(*args)

    return instead


class TestStaging:
    def test_what_comes_in_is_hashed(self, storage):
        content = os.urandom(700_000)
        with storage.stage() as staging:
            for start in range(0, len(content), 65_536):
                staging.write(content[start : start + 65_536])
            file = staging.finish()
            assert file.path.read_bytes() == content
            assert file.length == len(content)
            assert file.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
            assert file.sha256 == hashlib.sha256(content).hexdigest()
            assert file.path.stat().st_mode & 0o777 == 0o600
        assert not file.path.exists()

    def test_the_thread_that_hashes_keeps_off_the_core_of_the_one_that_writes(self, storage):
        cores = os.sched_getaffinity(0)
        with storage.stage() as staging:
            staging.write(b"one")
            staging.write(b"two")
            (thread,) = (thread for thread in threading.enumerate() if thread.name == "md5")
            deadline = time.monotonic() + 5
            while len(left := os.sched_getaffinity(thread.native_id)) == len(cores) > 1:
                assert time.monotonic() < deadline
            assert left <= cores
        assert os.sched_getaffinity(0) == cores

    def test_one_core_is_enough(self, storage):
        content = os.urandom(700_000)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            with storage.stage() as staging:
                for start in range(0, len(content), 65_536):
                    staging.write(content[start : start + 65_536])
                assert staging.finish().sha256 == hashlib.sha256(content).hexdigest()
        finally:
            os.sched_setaffinity(0, cores)

    def test_the_limit_is_named_and_nothing_is_left(self, storage, backend):
        with storage.stage(10) as staging:
            staging.write(b"123456789")
            staging.write(b"0")
            assert staging.finish().length == 10
            with pytest.raises(PayloadTooLarge, match="10 bytes"):
                staging.write(b"!")
        assert list(backend.staging.iterdir()) == []

    def test_an_error_in_the_block_leaves_nothing(self, storage, backend):
        with contextlib.suppress(ZeroDivisionError), storage.stage() as staging:
            staging.write(b"bytes")
            raise ZeroDivisionError
        assert list(backend.staging.iterdir()) == []

    def test_another_hand_wrote_to_the_file(self, storage):
        with storage.stage() as staging:
            staging.write(b"bytes")
            with staging.finish().path.open("ab") as file:
                file.write(b"!")
            with pytest.raises(StorageCorrupt):
                staging.finish()

    def test_killed_uploads_are_swept_by_age(self, storage, backend):
        left = [backend.staging / f"left {number}" for number in range(3)]
        for number, path in enumerate(left):
            path.write_bytes(b"bytes")
            os.utime(path, (0, time.time() - 100 * number))
        assert storage.clear_staging(150) == 1
        assert sorted(backend.staging.iterdir()) == left[:2]


class TestRetries:
    def test_unavailable_is_tried_three_times(self, storage, backend, told, monkeypatch):
        monkeypatch.setattr(backend, "put", failing(backend.put, StorageUnavailable(), 2))
        key = put(storage, b"bytes")
        assert read(storage, key) == b"bytes"
        assert [call[3] for call in told if call[1] == "put"] == [
            "storage_unavailable",
            "storage_unavailable",
            "ok",
        ]
        assert all(call[0] == "disk" and call[2] >= 0 for call in told)

    def test_then_it_is_an_error_and_nothing_is_left(self, storage, backend, told, monkeypatch):
        monkeypatch.setattr(backend, "put", failing(backend.put, StorageUnavailable("why"), 3))
        with pytest.raises(StorageUnavailable, match="why"):
            put(storage, b"bytes")
        assert len([call for call in told if call[1] == "put"]) == 3
        assert list(backend.staging.iterdir()) == []

    def test_not_when_the_first_try_took_the_whole_timeout(self, backend, told, monkeypatch):
        slow = dataclasses.replace(backend.context, timeout=0)
        backend.context = slow
        storage = Storage(backend, lambda *call: told.append(call))
        monkeypatch.setattr(backend, "stat", failing(backend.stat, StorageUnavailable(), 3))
        with pytest.raises(StorageUnavailable):
            storage.stat(original_key())
        assert len(told) == 1

    @pytest.mark.parametrize("error", [StorageDenied, StorageFull, StorageCorrupt, StorageError])
    def test_nothing_else_is_tried_again(self, storage, backend, told, monkeypatch, error):
        monkeypatch.setattr(backend, "delete", failing(backend.delete, error(), 1))
        with pytest.raises(error):
            storage.delete(original_key())
        assert [call[3] for call in told] == [error.code]

    def test_reading_is_tried_again_before_the_first_byte(self, storage, backend, monkeypatch):
        key = put(storage, b"bytes")
        monkeypatch.setattr(backend, "open", failing(backend.open, StorageUnavailable(), 2))
        assert read(storage, key) == b"bytes"

    def test_a_stray_exception_is_the_storages_own(self, storage, backend, monkeypatch):
        monkeypatch.setattr(backend, "stat", failing(backend.stat, KeyError("x"), 1))
        with pytest.raises(StorageError, match="'disk' failed") as caught:
            storage.stat(original_key())
        assert isinstance(caught.value.__cause__, KeyError)


class TestBreaker:
    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr("imageapi.storage.breaker.time.monotonic", lambda: now[0])
        monkeypatch.setattr("imageapi.storage.storages.time.sleep", lambda _: None)
        return now

    @pytest.fixture
    def calls(self, backend, monkeypatch):
        """How often the storage was asked; it does not answer."""
        calls = []

        def down(key):
            calls.append(key)
            raise StorageUnavailable

        monkeypatch.setattr(backend, "stat", down)
        return calls

    def ask(self, storage, times=1):
        for _ in range(times):
            with pytest.raises(StorageUnavailable):
                storage.stat(original_key())

    def test_after_five_failures_nobody_waits(self, storage, calls):
        self.ask(storage, 10)
        assert len(calls) == 5
        with pytest.raises(StorageUnavailable):
            storage.stage()

    def test_one_call_tries_every_two_seconds(self, storage, calls, clock):
        self.ask(storage, 3)
        for _ in range(3):
            clock[0] += 2.01
            calls.clear()
            self.ask(storage, 5)
            assert len(calls) == 1

    def test_others_wait_for_the_one_that_tries(self, storage, backend, clock, monkeypatch, calls):
        self.ask(storage, 2)
        clock[0] += 2.01
        others = []

        def slow(key):
            others.append(key)
            self.ask(storage, 3)
            raise StorageDenied  # an answer

        monkeypatch.setattr(backend, "stat", slow)
        with pytest.raises(StorageDenied):
            storage.stat(original_key())
        assert len(others) == 1

    def test_all_is_well_by_itself(self, storage, backend, calls, clock, monkeypatch):
        self.ask(storage, 10)
        monkeypatch.undo()
        monkeypatch.setattr("imageapi.storage.breaker.time.monotonic", lambda: 1002.01)
        key = put(storage, b"bytes")
        assert read(storage, key) == b"bytes"

    def test_errors_that_are_answers_count_for_nothing(self, storage):
        put(storage, b"bytes")
        for _ in range(20):
            with pytest.raises(StorageNotFound):
                storage.stat(original_key())
        put(storage, b"bytes")


class TestPieces:
    @pytest.mark.parametrize("pieces", [[], [b"12"], [b"", b"1", b"", b"2"], [b"12", b"34"]])
    def test_fewer_or_more_bytes_than_asked_for(self, storage, backend, monkeypatch, pieces):
        monkeypatch.setattr(backend, "open", lambda *_: iter(pieces))
        with pytest.raises(StorageCorrupt):
            read(storage, original_key(), 0, 3)

    def test_empty_pieces_end_nothing(self, storage, backend, monkeypatch):
        monkeypatch.setattr(backend, "open", lambda *_: iter([b"", b"1", b"", b"2"]))
        assert list(storage.open(original_key())) == [b"1", b"2"]

    def test_what_breaks_later_is_the_storages_own(self, storage, backend, monkeypatch):
        def broken(*_):
            yield b"1"
            raise KeyError

        monkeypatch.setattr(backend, "open", broken)
        pieces = storage.open(original_key())
        assert next(pieces) == b"1"
        with pytest.raises(StorageError):
            next(pieces)


class TestStorage:
    def test_what_is_no_key_never_reaches_the_backend(self, storage, told):
        image = dataclasses.replace(picture(), image_id="../../etc/passwd")
        calls = [
            lambda: storage.open("../x"),
            lambda: storage.stat("ab"),
            lambda: storage.delete("*"),
            lambda: put(storage, b"bytes", "staging/x"),
            lambda: storage.keep(image, {"full": b"bytes"}),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="storage key"):
                call()
        assert {call[1] for call in told} <= {"stage"}
        check_key(original_key())
        check_key(kept(picture()))

    def test_urls_are_made_once_a_window(self, storage, backend, monkeypatch):
        made = []
        make = backend.rendition_url
        monkeypatch.setattr(
            backend, "rendition_url", lambda *args: made.append(args[2]) or make(*args)
        )
        image = picture()
        now = 3600 * 1000
        urls = {storage.rendition_url(image, FULL, now + second) for second in range(0, 3600, 60)}
        assert len(urls) == 1
        assert storage.rendition_url(image, FULL, now + 3600) not in urls
        later = dataclasses.replace(image, revision=2)
        assert storage.rendition_url(later, FULL, now) not in urls
        assert made == [1000, 1001, 1000]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Installs a distribution with one storage plugin."""

    def install(name, source, attribute="Plugin"):
        folder = tmp_path / name
        info = folder / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        entry = f"[imageapi.storage]\n{name} = {name}_module:{attribute}\n"
        (info / "entry_points.txt").write_text(entry)
        (folder / f"{name}_module.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)

    return install


GOOD = """
from dataclasses import dataclass
from imageapi.settings import setting
from imageapi.storage.local import LocalBackend, LocalOptions

@dataclass(frozen=True, kw_only=True)
class Options(LocalOptions):
    root: object = setting("a folder", kind="path", required=True)

class Plugin(LocalBackend):
    Options = Options
"""


class TestStorages:
    def test_each_under_its_own_settings(self, plugin, context, tmp_path, monkeypatch):
        plugin("good", GOOD)
        for name in ("one", "two"):
            monkeypatch.setenv(f"IMAGEAPI_STORAGE_{name.upper()}_ROOT", str(tmp_path / name))
        storages = Storages({"one": "good", "two": "good"}, context)
        assert storages.names() == ("one", "two")
        assert storages["one"] is storages["one"]
        key = put(storages["one"], b"bytes")
        assert keys(storages["one"]) == [key]
        assert keys(storages["two"]) == []
        assert (tmp_path / "one" / key).exists()
        assert [storages.check(name) for name in storages.names()] == [None, None]
        url = storages["two"].rendition_url(picture(), FULL, 0)
        path, _, query = url.partition("?")
        assert storages.urls.verify("two", path.removeprefix("/files/two/"), query, 0)

    def test_variables(self, plugin, context):
        plugin("good", GOOD)
        storages = Storages({"one": "good", "two": "good", "three": "missing"}, context)
        assert storages.variables() == [
            "IMAGEAPI_STORAGE_ONE_ROOT",
            "IMAGEAPI_STORAGE_ONE_GROUP",
            "IMAGEAPI_STORAGE_ONE_X_ACCEL_PREFIX",
            "IMAGEAPI_STORAGE_TWO_ROOT",
            "IMAGEAPI_STORAGE_TWO_GROUP",
            "IMAGEAPI_STORAGE_TWO_X_ACCEL_PREFIX",
        ]

    def test_bad_ones_trouble_nobody_else(self, plugin, context, tmp_path, monkeypatch):
        plugin("good", GOOD)
        plugin("broken", "1 / 0")
        plugin("absent", GOOD, attribute="Other")
        plugin("nothing", "Plugin = 5")
        plugin("loud", GOOD + "    def __init__(self, *_): raise KeyError('secret')\n")
        monkeypatch.setenv("IMAGEAPI_STORAGE_FINE_ROOT", str(tmp_path / "fine"))
        monkeypatch.setenv("IMAGEAPI_STORAGE_LOUD_ROOT", str(tmp_path / "loud"))
        monkeypatch.setenv("IMAGEAPI_STORAGE_WRONG_ROOT", str(tmp_path / "wrong"))
        monkeypatch.setenv("IMAGEAPI_STORAGE_WRONG_GROUP", "perhaps")
        names = {"fine": "good", "bare": "good", "wrong": "good", "gone": "notinstalled"}
        names |= {name: name for name in ("broken", "absent", "nothing", "loud")}
        storages = Storages(names, context)
        reasons = {name: storages.check(name) for name in storages.names()}
        assert reasons.pop("fine") is None
        for name, words in {
            "bare": "IMAGEAPI_STORAGE_BARE_ROOT is required",
            "wrong": "IMAGEAPI_STORAGE_WRONG_GROUP",
            "gone": "no plugin 'notinstalled' is installed",
            "broken": "the plugin 'broken' is broken (ZeroDivisionError)",
            "absent": "the plugin 'absent' is broken (AttributeError)",
            "nothing": "the plugin 'nothing' is no Backend",
            "loud": "does not start",
            "never": "There is no storage 'never'",
        }.items():
            with pytest.raises(StorageUnavailable) as caught:
                storages[name]
            assert words in str(caught.value)
            assert f"'{name}'" in str(caught.value)
            assert reasons.pop(name, str(caught.value)) == str(caught.value)
            assert "secret" not in str(caught.value)
        assert reasons == {}
        put(storages["fine"], b"bytes")
