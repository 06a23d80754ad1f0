"""What callers hold: `Storage`, a named backend with every check that all share, and `Storages`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import cachetools

from imageapi import settings
from imageapi.errors import InvalidFields, StorageCorrupt, StorageError, StorageUnavailable
from imageapi.geometry import Rendition
from imageapi.storage.backend import (
    Backend,
    Context,
    DirectUpload,
    Infos,
    Picture,
    Staged,
    Stored,
    UploadForm,
    check_key,
    original_key,
    rendition_key,
)
from imageapi.storage.breaker import Breaker
from imageapi.storage.disk import disk_errors, opened
from imageapi.storage.signing import SignedURLs
from imageapi.storage.staging import Staging

GROUP = "imageapi.storage"
"""The entry-point group of storage plugins."""

_ATTEMPTS = 3
_URLS_KEPT = 8192
_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png"}

T = TypeVar("T")


class Observe(Protocol):
    """Is told of every attempt of every call: its seconds, and `ok`, the error's code, or `not_tried`."""

    def __call__(self, storage: str, operation: str, seconds: float, outcome: str) -> None: ...


def _unobserved(storage: str, operation: str, seconds: float, outcome: str) -> None:
    pass


class Pieces:
    """The bytes of one stored file, in pieces; a WSGI server closes it.

    Raises, while it is read:
        StorageCorrupt: fewer bytes came than were asked for.
        StorageError: as `Backend.open`.
    """

    def __init__(self, pieces: Iterator[bytes], length: int | None, name: str) -> None:
        self._pieces = pieces
        self._missing = length
        self._name = name
        self._first: bytes | None = self._piece()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece, self._first = self._first, None
        piece = piece or self._piece()
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Free what the backend holds for it."""
        close = getattr(self._pieces, "close", None)
        if close:
            close()

    def _piece(self) -> bytes:
        with _only_storage_errors(self._name):
            piece = next(filter(None, self._pieces), b"")
        if self._missing is not None:
            self._missing -= len(piece)
            if self._missing < 0 or (self._missing and not piece):
                raise StorageCorrupt
        return piece


class Storage:
    """A named, checked backend. Safe to share between threads.

    Every method may raise StorageErrors; of these, StorageUnavailable was tried up to three times,
    as long as the first try was not longer ago than `context.timeout`, and is told at once while
    the storage is known not to answer (`breaker.py`).
    """

    def __init__(self, backend: Backend, observe: Observe | None = None) -> None:
        self.name = backend.context.name
        self.renders = backend.renders
        self.sent_from = backend.sent_from
        self._backend = backend
        self._timeout = backend.context.timeout
        self._window = backend.context.url_window
        self._observe = observe or _unobserved
        self._breaker = Breaker()
        self._urls: cachetools.LRUCache[tuple[Any, ...], str] = cachetools.LRUCache(_URLS_KEPT)
        self._urls_lock = threading.Lock()

    def stage(self, limit: int | None = None) -> Staging:
        """A place for one incoming file of at most `limit` bytes, to be used as a context manager.

        Raises, while it is written: PayloadTooLarge.
        """
        # Before the client sends what none could store.
        self._refuse_if_open("stage", trying=False)
        return self._attempt("stage", lambda: Staging(self._backend.staging, limit))

    def put(self, staged: Staged, tags: Sequence[str], key: str | None = None) -> tuple[str, Infos]:
        """Make the staged bytes durable under `key`, or under a new key; see `Backend.put`.

        Returns: the key, and the `infos` block.
        """
        key = key or original_key()
        check_key(key)
        return key, self._call("put", lambda: self._backend.put(key, staged, tags))

    def keep(self, picture: Picture, renditions: Mapping[str, bytes]) -> None:
        """Keep renditions of one revision of a picture, by name; see `Backend.keep`."""
        for name, data in renditions.items():
            key = rendition_key(picture.image_id, picture.revision, name, picture.extension)
            self._keep(key, data, _CONTENT_TYPES[picture.extension])

    def open(self, key: str, start: int = 0, length: int | None = None) -> Pieces:
        """The bytes under `key` from `start`, `length` of them (None: to the end).

        Errors that are known before the first piece are raised here. Close what is returned.

        Raises:
            StorageNotFound: nothing under `key`.
            StorageCorrupt: fewer bytes than were asked for.
        """
        check_key(key)
        return self._call(
            "open", lambda: Pieces(self._backend.open(key, start, length), length, self.name)
        )

    def stat(self, key: str) -> Stored:
        """What is stored under `key`, or StorageNotFound."""
        check_key(key)
        return self._call("stat", lambda: self._backend.stat(key))

    def delete(self, key: str) -> None:
        """Remove exactly this key; it may be absent already."""
        check_key(key)
        self._call("delete", lambda: self._backend.delete(key))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """All stored files whose key begins with `prefix` and sorts after `after`, by key.

        After StorageUnavailable, go on with the last key as `after`.
        """
        with _only_storage_errors(self.name):
            yield from self._backend.list(prefix, after)

    def rendition_url(self, picture: Picture, rendition: Rendition, now: float) -> str:
        """The URL of one rendition at `now` (seconds since 1970); no I/O, equal in a window."""
        window = int(now // self._window)
        known = (picture.image_id, picture.revision, rendition.name, window)
        with self._urls_lock:
            url = self._urls.get(known)
        if url is None:
            with _only_storage_errors(self.name):
                url = self._backend.rendition_url(picture, rendition, window)
            with self._urls_lock:
                self._urls[known] = url
        return url

    def upload_form(self, album: str, limit: int, now: float) -> UploadForm | None:
        """The form of a direct upload, or None; see `Backend.upload_form`."""
        with _only_storage_errors(self.name):
            return self._backend.upload_form(album, limit, now)

    def claim(self, album: str, answer: Mapping[str, str], now: float) -> str:
        """The name of a direct upload that a client hands in; see `DirectUpload.claim`.

        Raises:
            InvalidFields: not of a form of this album, altered or ended; or there are no forms.
        """
        with _only_storage_errors(self.name):
            return self._direct.claim(album, answer, now)

    def incoming(self, name: str) -> Pieces:
        """The bytes of a direct upload, to be staged; or StorageNotFound."""
        return self._call("open", lambda: Pieces(self._direct.incoming(name), None, self.name))

    def adopt(
        self, name: str, staged: Staged, tags: Sequence[str], key: str | None = None
    ) -> tuple[str, Infos]:
        """Store a direct upload as the staged file, as `put` would; see `DirectUpload.adopt`."""
        key = key or original_key()
        check_key(key)
        return key, self._call("adopt", lambda: self._direct.adopt(name, key, staged, tags))

    def release(self, key: str, name: str) -> None:
        """Undo `adopt`, so that it can be handed in again; see `DirectUpload.release`."""
        check_key(key)
        self._call("adopt", lambda: self._direct.release(key, name))

    def discard(self, name: str) -> None:
        """Remove a direct upload; it may be gone already."""
        self._call("delete", lambda: self._direct.discard(name))

    @property
    def given_up(self) -> bool:
        """Whether the storage is known not to answer, so that most calls are refused at once."""
        return self._breaker.is_open

    @property
    def _direct(self) -> DirectUpload:
        if not isinstance(self._backend, DirectUpload):
            raise InvalidFields("The album's storage takes no direct uploads.")
        return self._backend

    def check(self) -> None:
        """See whether the storage is usable; a StorageError says in words what is wrong."""
        self._call("check", self._backend.check)

    def clear_staging(self, older_than: float) -> int:
        """Remove what interrupted puts left, here and in the store, older than so many seconds.

        Returns: how many staged files and unfinished uploads.
        """
        before = time.time() - older_than
        removed = self._call("sweep", lambda: self._backend.sweep(before))
        with (
            disk_errors(),
            opened(self._backend.staging, os.O_RDONLY | os.O_DIRECTORY) as folder,
            os.scandir(folder) as entries,
        ):
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(entry.name, dir_fd=folder)
                        removed += 1
        return removed

    def _keep(self, key: str, data: bytes, content_type: str) -> None:
        check_key(key)
        self._call("keep", lambda: self._backend.keep(key, data, content_type))

    def _call(self, operation: str, work: Callable[[], T]) -> T:
        first = time.monotonic()
        for attempt in range(1, _ATTEMPTS + 1):
            self._refuse_if_open(operation)
            try:
                result = self._attempt(operation, work)
            except StorageUnavailable:
                self._breaker.failed()
                if attempt == _ATTEMPTS or time.monotonic() - first > self._timeout:
                    raise
            except StorageError:
                self._breaker.answered()
                raise
            else:
                self._breaker.answered()
                return result
            time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - spreads retries only
        raise AssertionError

    def _refuse_if_open(self, operation: str, *, trying: bool = True) -> None:
        try:
            self._breaker.refuse_if_open(trying=trying)
        except StorageUnavailable:
            self._observe(self.name, operation, 0.0, "not_tried")
            raise

    def _attempt(self, operation: str, work: Callable[[], T]) -> T:
        started, outcome = time.monotonic(), "ok"
        try:
            with _only_storage_errors(self.name):
                return work()
        except StorageError as error:
            outcome = error.code
            raise
        finally:
            self._observe(self.name, operation, time.monotonic() - started, outcome)


@contextlib.contextmanager
def _only_storage_errors(name: str) -> Iterator[None]:
    """A plugin's stray exception must not look like a fault of ours: it fails its storage alone."""
    try:
        yield
    except (StorageError, InvalidFields):
        raise
    except Exception as error:
        raise StorageError(f"The storage {name!r} failed.") from error


class Storages:
    """The storages by name; each is loaded when it is first asked for.

    Args:
        plugins: name of a storage → name of its entry point.
        context: lent to every backend, under its own name.
        observe: see `Observe`.
    """

    def __init__(
        self, plugins: Mapping[str, str], context: Context, observe: Observe | None = None
    ) -> None:
        self.urls = SignedURLs(context.secret_keys, context.public_url, context.url_window)
        self._plugins = dict(plugins)
        self._context = context
        self._observe = observe
        self._classes: dict[str, type[Backend]] = {}
        self._loaded: dict[str, Storage] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Storage:
        """The storage of this name.

        Raises:
            StorageUnavailable: unknown, not installed, broken or misconfigured; says which.
        """
        storage = self._loaded.get(name)
        if storage is None:
            with self._lock:
                storage = self._loaded.get(name) or self._load(name)
                self._loaded[name] = storage
        return storage

    def names(self) -> tuple[str, ...]:
        """The configured names, whether usable or not."""
        return tuple(self._plugins)

    def check(self, name: str) -> str | None:
        """Why the storage is not usable, in words; None when it is."""
        try:
            self[name].check()
        except StorageError as error:
            return str(error)
        return None

    def variables(self) -> list[str]:
        """The environment variables that the installed plugins declare for these storages."""
        variables = []
        for name in self._plugins:
            with contextlib.suppress(StorageUnavailable):
                options = self._class(name).Options
                fields = dataclasses.fields(options)
                variables += [settings.variable(field, _prefix(name)) for field in fields]
        return variables

    def secrets(self) -> list[str]:
        """The secrets that the environment holds for these storages."""
        found = []
        for name in self._plugins:
            with contextlib.suppress(StorageUnavailable):
                options, _faults = settings.read(self._class(name).Options, _prefix(name))
                found += settings.hidden(options) if options else []
        return found

    def open_breakers(self) -> dict[str, bool]:
        """Whether each storage that was used is known not to answer."""
        return {name: storage.given_up for name, storage in list(self._loaded.items())}

    def _load(self, name: str) -> Storage:
        plugin = self._class(name)
        options, faults = settings.read(plugin.Options, _prefix(name))
        if faults:
            raise StorageUnavailable(f"The storage {name!r} is not configured: {' '.join(faults)}")
        context = dataclasses.replace(self._context, name=name)
        try:
            backend = plugin(options, context)
        except StorageError:
            raise
        except Exception as error:
            raise StorageUnavailable(f"The storage {name!r} does not start.") from error
        return Storage(backend, self._observe)

    def _class(self, name: str) -> type[Backend]:
        # To look for an entry point is to read what every installed package says of itself.
        found = self._classes.get(name)
        if found is None:
            found = self._classes[name] = self._found(name)
        return found

    def _found(self, name: str) -> type[Backend]:
        plugin = self._plugins.get(name)
        if plugin is None:
            raise StorageUnavailable(f"There is no storage {name!r}.")
        entries = importlib.metadata.entry_points(group=GROUP, name=plugin)
        if len({entry.value for entry in entries}) != 1:
            number = "more than one plugin" if entries else "no plugin"
            raise StorageUnavailable(f"The storage {name!r}: {number} {plugin!r} is installed.")
        try:
            loaded = next(iter(entries)).load()
        except Exception as error:
            reason = f"the plugin {plugin!r} is broken ({type(error).__name__})"
            raise StorageUnavailable(f"The storage {name!r}: {reason}.") from error
        if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
            raise StorageUnavailable(f"The storage {name!r}: the plugin {plugin!r} is no Backend.")
        return loaded


def _prefix(name: str) -> str:
    return f"{settings.PREFIX}STORAGE_{name.upper()}_"
