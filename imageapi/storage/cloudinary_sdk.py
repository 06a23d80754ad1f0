"""How we talk to Cloudinary: its SDK, sent through a connector that we can rely on.

The SDK signs and builds requests; left alone it would also try again on its own account, wait for
ever, send a fork's requests on its parent's connections, hold whole files in memory, read other
programs' environment variables, and take a 500 without an `error` for success.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from imageapi.errors import (
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_PIECE = 256 * 1024
_STATUSES: Mapping[int, type[StorageError]] = {
    401: StorageDenied,
    403: StorageDenied,
    404: StorageNotFound,
    408: StorageUnavailable,
    420: StorageUnavailable,
    429: StorageUnavailable,
    507: StorageFull,
}
_SAID: Mapping[str, type[StorageError]] = {
    "Stale request": StorageDenied,  # our clock is an hour off
    "File size too large": StorageFull,  # for the account's plan
}


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """In the block Cloudinary's answers are read: what they lack makes them no answers.

    Raises:
        StorageUnavailable: for anything that is not a StorageError already.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # the SDK raises bare Exceptions too
        raise StorageUnavailable("The answer is not one of Cloudinary.") from error


class Connector:
    """What the SDK sends its requests with: once each, with connections of this process alone.

    Args:
        make: makes the pool of connections.
    """

    def __init__(self, make: Callable[[], PoolManager]) -> None:
        self._make = make
        self._made: tuple[int, PoolManager] | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        fields: Any = None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> BaseHTTPResponse:
        """Send one request of the SDK; a file among `fields` is the last of them.

        Raises:
            StorageError: what status, missing answer or lost connection mean.
        """
        options: dict[str, Any] = {"headers": headers, "timeout": timeout}
        with _transport_errors():
            if fields and fields[-1][0] == "file":
                options["body"], more = _multipart(fields)
                options["headers"] = {**headers, **more}
                answer = self._pool.urlopen(method, url, **options)
            else:
                answer = self._pool.request(method, url, fields=fields, **options)
        if not 200 <= answer.status < 300:
            raise _meaning(answer, answer.data)
        return answer

    @contextlib.contextmanager
    def opened(
        self, url: str, headers: Mapping[str, str], timeout: float
    ) -> Iterator[BaseHTTPResponse]:
        """A GET whose body is still to be read: 200, 206 or 416; closed at the end of the block."""
        from urllib3 import Retry  # noqa: PLC0415

        with _transport_errors():
            answer = self._pool.request(
                "GET",
                url,
                headers={"Accept-Encoding": "identity", **headers},
                preload_content=False,
                timeout=timeout,
                retries=Retry(None, connect=0, read=0, status=0, other=0, redirect=3),
            )
            try:
                if answer.status not in (200, 206, 416):
                    raise _meaning(answer, answer.read(_PIECE))
                yield answer
            finally:
                answer.close()

    @property
    def _pool(self) -> PoolManager:
        # Without a lock, which a fork could leave held: two threads may each make one, no more.
        made = self._made
        if made is None or made[0] != os.getpid():
            made = self._made = (os.getpid(), self._make())
        return made[1]


def _multipart(
    fields: Sequence[tuple[str, Any]],
) -> tuple[Iterable[bytes], Mapping[str, str]]:
    """A form whose last field is a file or bytes, as a body that is read while it is sent."""
    from urllib3.filepost import choose_boundary, encode_multipart_formdata  # noqa: PLC0415

    *plain, (field, (name, source)) = fields
    boundary = choose_boundary()
    form, content_type = encode_multipart_formdata([*plain, (field, (name, b""))], boundary)
    end = f"\r\n--{boundary}--\r\n".encode()
    head = form.removesuffix(end)
    pieces, length = _source(source)
    headers = {"Content-Type": content_type, "Content-Length": str(len(form) + length)}
    return itertools.chain([head], pieces, [end]), headers


def _source(source: bytes | IO[bytes]) -> tuple[Iterator[bytes], int]:
    if isinstance(source, bytes):
        starts = range(0, len(source), _PIECE)
        return (source[start : start + _PIECE] for start in starts), len(source)
    return iter(lambda: source.read(_PIECE), b""), os.fstat(source.fileno()).st_size


class SDK(NamedTuple):
    """The parts of the SDK that we use, and what they send their requests with."""

    api: Any
    uploader: Any
    utils: Any
    connector: Connector


@functools.cache
def sdk() -> SDK:
    """The SDK, imported now."""
    import cloudinary  # type: ignore[import-untyped]  # noqa: PLC0415 - it looks around on import
    from cloudinary import api, uploader, utils  # noqa: PLC0415
    from cloudinary.api_client import call_api  # type: ignore[import-untyped]  # noqa: PLC0415
    from urllib3 import Retry  # noqa: PLC0415

    found = cloudinary.config()
    network = SimpleNamespace(
        api_proxy=found.api_proxy, disable_tcp_keep_alive=found.disable_tcp_keep_alive
    )
    vars(found).clear()  # signed calls must not depend on environment variables of others
    options = {**cloudinary.CERT_KWARGS, "maxsize": 32, "retries": Retry(0, redirect=False)}
    connector = Connector(lambda: utils.get_http_connector(network, options))
    uploader._http = call_api._http = connector  # noqa: SLF001 - it has no other way in
    return SDK(api, uploader, utils, connector)


@contextlib.contextmanager
def _transport_errors() -> Iterator[None]:
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except HTTPError as error:
        if isinstance(error.__cause__, http.client.IncompleteRead):
            raise StorageCorrupt from error
        raise StorageUnavailable from error
    except OSError as error:
        raise StorageUnavailable from error


def _meaning(answer: BaseHTTPResponse, body: bytes) -> StorageError:
    """The error that an answer without success means; Cloudinary's own words are its note."""
    status, message = answer.status, answer.headers.get("X-Cld-Error", "")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = str(json.loads(body)["error"]["message"])
    kind = _STATUSES.get(status) or (StorageError if 400 <= status < 500 else StorageUnavailable)
    if kind is StorageNotFound and not message:
        kind = StorageUnavailable  # someone else's 404
    for begin, meant in _SAID.items():
        kind = meant if message.startswith(begin) else kind
    error = kind(f"{kind.detail} (Cloudinary: {status})")
    error.add_note(message)
    if status in (420, 429):
        error.headers["Retry-After"] = str(_seconds(answer.headers))
    return error


def _seconds(headers: Mapping[str, str]) -> int:
    """How long Cloudinary wants to be left alone; at most an hour, which is how long it counts."""
    with contextlib.suppress(ValueError, TypeError):
        reset = headers.get("X-FeatureRateLimit-Reset", "")
        wait = email.utils.parsedate_to_datetime(reset).timestamp() - time.time()
        return int(min(max(wait, 1), 3600))
    return 60
