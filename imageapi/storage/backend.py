"""What a storage plugin writes, and the values that pass between a storage and its caller.

A plugin subclasses `Backend`, declares its `Options` and is named in the entry-point group
`imageapi.storage`. Callers never hold a `Backend`: they hold a `Storage` (`storages.py`), which adds
every check that all backends share. `conformance.py` is the suite that a backend must pass.

Keys: an original is `ab/<uuid4>`, a rendition `ab/<uuid4>.<revision>.<name>.<jpg|png>`, where `ab`
are the first two characters of the UUID. A key is never reused and never rewritten with other bytes
(a rendition may be kept again after a rebuild). Keys reach a backend checked.
"""

from __future__ import annotations

import abc
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from imageapi.geometry import Edit, Rendition, Size

KEY = re.compile(
    r"(?P<folder>[0-9a-f]{2})/(?P<name>(?P=folder)[0-9a-f]{6}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"(\.(0|[1-9][0-9]{0,9})\.[a-z0-9]{1,32}\.(jpg|png))?)"
)
"""The grammar of keys; match with `fullmatch`."""


def check_key(key: str) -> None:
    """Refuse what is not a key.

    Raises:
        ValueError: the caller's fault; no client names a key without having been given it.
    """
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a storage key")


def original_key() -> str:
    """A new key for an original, `ab/<uuid4>`."""
    name = str(uuid.uuid4())
    return f"{name[:2]}/{name}"


@dataclass(frozen=True)
class Staged:
    """A file that was taken in and is not stored yet.

    Attributes:
        path: where it lies, in the backend's `staging` folder.
        length: bytes.
        md5, sha256: hex digests of those bytes.
        format: by content, in Cloudinary's words (`jpg`, `png`, `gif`, `webp`, …); "" until known.
        size: of the upright picture, in pixels; 1×1 until known.
        changed: the file's `st_ctime_ns` when it was hashed: a file that still has it need not be
            read again to know that its bytes are those of the digests.
    """

    path: Path
    length: int
    md5: str
    sha256: str
    format: str = ""
    size: Size = Size(1, 1)
    changed: int = 0


class Infos(TypedDict):
    """The `infos` block of an image, in contract order (contract/retrieve-an-image.md).

    `created_at` is UTC with seconds and `Z`; `etag` the MD5 of the stored bytes in hex.
    """

    bytes: int
    created_at: str
    etag: str
    format: str
    height: int
    resource_type: str
    tags: list[str]
    type: str
    width: int


def infos(staged: Staged, tags: Sequence[str], created: float, delivery: str = "private") -> Infos:
    """The `infos` block of bytes that were stored as they were staged.

    Args:
        staged: with format and size known.
        tags: the album's id.
        created: seconds since 1970.
        delivery: `type` in the block: private, authenticated or upload.
    """
    return Infos(
        bytes=staged.length,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)),
        etag=staged.md5,
        format=staged.format,
        height=staged.size.height,
        resource_type="image",
        tags=list(tags),
        type=delivery,
        width=staged.size.width,
    )


@dataclass(frozen=True)
class Stored:
    """What a backend vouches for about one key, without reading the bytes.

    Attributes:
        key: as it was put.
        bytes: length.
        etag: MD5 in hex where the backend knows it, else "".
        created: when it was stored, seconds since 1970, UTC.
    """

    key: str
    bytes: int
    etag: str
    created: float


@dataclass(frozen=True)
class Picture:
    """What a backend must know of an image to give its rendition URLs; no I/O is needed.

    Attributes:
        key: of the stored original.
        image_id: the image's own UUID; duplicates share `key` but not this.
        revision: of the edit; part of every URL.
        size: of the upright original, in pixels.
        edit: crop and rotation of this revision.
        extension: of the renditions that we rendered, `jpg` or `png`.
    """

    key: str
    image_id: str
    revision: int
    size: Size
    edit: Edit
    extension: str


def rendition_key(image_id: str, revision: int, name: str, extension: str) -> str:
    """The key that a rendition of one revision of one image is kept under."""
    return f"{image_id[:2]}/{image_id}.{revision}.{name}.{extension}"


@dataclass(frozen=True)
class Context:
    """What the application lends to every backend.

    Attributes:
        name: the storage's own name, `[a-z0-9]+`.
        instance: a folder that a backend may keep local files in, each under its own name.
        secret_keys: to sign URLs that the application itself serves, newest first.
        public_url: prefix of absolute URLs, "" for relative ones.
        url_window: W, in seconds; a URL made at `now` ends at (⌊now/W⌋ + 2)·W.
        timeout: seconds that one remote call may take.
    """

    name: str
    instance: Path
    secret_keys: tuple[str, ...] = field(repr=False)
    public_url: str = ""
    url_window: int = 3600
    timeout: float = 5.0


class UploadForm(TypedDict):
    """A form that a client posts to the storage itself: where to, and its fields, in their order."""

    url: str
    params: dict[str, str | int]


class Backend(abc.ABC):
    """One kind of storage. Methods may be called from many threads, and after a fork.

    Every method raises `StorageError`s (`imageapi.errors`) and nothing else for what its storage
    may do to it: StorageNotFound, StorageDenied, StorageFull, StorageUnavailable (no answer within
    `context.timeout`), StorageCorrupt; StorageError itself for a failure that another try could
    hide (a failed fsync). A backend must not retry: `Storage` does, StorageUnavailable alone.
    """

    Options: ClassVar[type[Any]]
    """A frozen dataclass of `imageapi.settings.setting()` fields: `IMAGEAPI_STORAGE_<NAME>_…`."""

    renders: ClassVar[bool] = False
    """True: the storage itself renders any edit by URL, and `keep` is never called."""

    sent_from: str = ""
    """A location of the web server in front from which it sends the file `<sent_from><key>` itself."""

    def __init__(self, options: Any, context: Context) -> None:
        """Keep the options; must not do I/O, must not import a vendor's SDK."""
        self.options = options
        self.context = context

    @property
    @abc.abstractmethod
    def staging(self) -> Path:
        """A local folder for files on their way in; made if absent."""

    @abc.abstractmethod
    def put(self, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        """Make the staged bytes durable under `key`; return once they would survive a power cut.

        The caller commits the row next. A key is used once; a second put of one is the caller's
        fault. The staged file may be moved away or left: the caller discards what is left.

        Args:
            key: `ab/<uuid4>`.
            staged: what was taken in, with format and size known.
            tags: for `infos`; the album's id.
        Returns: the `infos` block.
        Raises:
            StorageCorrupt: what arrived is not what was staged; nothing is left under `key`.
            StorageDenied, StorageFull, StorageUnavailable: nothing is left under `key`.
        """

    @abc.abstractmethod
    def keep(self, key: str, data: bytes, content_type: str) -> None:
        """Keep a rendition; it replaces one of the same key, and readers see the old or the new.

        Renditions can be made again, so the backend may trade durability for speed, but must
        never serve a torn one. Raises as `put`.
        """

    @abc.abstractmethod
    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `start`, `length` of them (None: to the end), in pieces ≤ 1 MiB.

        A generator will do: `Storage` asks for the first piece at once. Errors are raised before
        it where they are known by then. Closing the iterator early frees what it holds.

        Raises:
            StorageNotFound: nothing under `key`.
            StorageCorrupt: fewer bytes came than were asked for.
        """

    @abc.abstractmethod
    def stat(self, key: str) -> Stored:
        """What is stored under `key`.

        Raises:
            StorageNotFound: nothing under `key`.
        """

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove exactly this key. Absent already: no error. Never by prefix or pattern."""

    @abc.abstractmethod
    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """All keys that begin with `prefix` and sort after `after`, in order of key (code points).

        Must stream: a million keys may be there. Staged files are never listed.
        """

    @abc.abstractmethod
    def rendition_url(self, picture: Picture, rendition: Rendition, window: int) -> str:
        """The URL of one rendition, made without I/O.

        Args:
            picture: the image, with the revision that the URL must carry.
            rendition: which size.
            window: ⌊now/W⌋. The URL is a function of the arguments alone: identical on every
                worker, valid until (window + 2)·W.
        """

    @abc.abstractmethod
    def check(self) -> None:
        """See whether the storage is usable: reachable, writable, configured.

        Raises:
            StorageError: its text says what is wrong, in words, for the operator.
        """

    def sweep(self, before: float) -> int:  # noqa: ARG002 - nothing to sweep is the common case
        """Remove what interrupted puts left in the store and no key shows, such as parts.

        Args:
            before: leave alone what began after this time (seconds since 1970).
        Returns: how many were removed.
        """
        return 0

    def upload_form(self, album: str, limit: int, now: float) -> UploadForm | None:  # noqa: ARG002
        """The signed form of a direct upload into an album; None where the storage has none.

        Made without I/O. A backend that gives one is a `DirectUpload` too (below).

        Args:
            album: the album's id.
            limit: the most bytes that the storage may take in.
            now: seconds since 1970.
        """
        return None


class DirectUpload(abc.ABC):
    """What a backend can do besides, if clients may upload to its store directly.

    The client posts the form to the store and hands in what the store answered. Nothing that it
    says counts but the name of the upload, which only we can make up: the caller claims it, reads
    it into staging as any upload (hash, probe, decode, render), and has the store adopt it.
    """

    @abc.abstractmethod
    def claim(self, album: str, answer: Mapping[str, str], now: float) -> str:
        """The name of the upload that is handed in; made without I/O.

        Args:
            album: as in `upload_form`.
            answer: what the store answered the client, as the client tells it.
            now: seconds since 1970.
        Raises:
            InvalidFields: not of a form of this album, altered, or ended.
        """

    @abc.abstractmethod
    def incoming(self, name: str) -> Iterator[bytes]:
        """The bytes of an upload, as `Backend.open`.

        Raises:
            StorageNotFound: never uploaded, adopted already, or swept.
        """

    @abc.abstractmethod
    def adopt(self, name: str, key: str, staged: Staged, tags: Sequence[str]) -> Infos:
        """Make an upload a stored original under `key`, as `Backend.put`.

        It may be there under its own name as well, until the caller discards that: once there is a
        row, for until then the client may have to hand it in again.

        Whoever has the form can upload other bytes at any time until it ends: what is stored must
        be the staged ones.

        Raises:
            StorageCorrupt: the bytes are others by now; nothing is left under `key`.
            StorageNotFound: as `incoming`.
        """

    @abc.abstractmethod
    def release(self, key: str, name: str) -> None:
        """Undo `adopt`: nothing is under `key`, and the upload is there under its own name."""

    @abc.abstractmethod
    def discard(self, name: str) -> None:
        """Remove an upload that is not wanted; it may be gone already."""
