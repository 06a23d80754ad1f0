"""What only we can make up: URLs that the application serves itself, names of direct uploads."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence

from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode

from imageapi.storage.backend import KEY

_QUERY = re.compile(r"expires=([1-9][0-9]{0,15})&signature=([A-Za-z0-9_-]{43})")
_NAME = re.compile("[a-z0-9]+")
_TICKET = re.compile(
    r"(?P<value>incoming/(?P<folder>[0-9a-f]{32})/[0-9a-f]{32}\.(?P<expires>[1-9][0-9]{0,15}))"
    r"\.(?P<signature>[A-Za-z0-9_-]{43})"
)


class SignedURLs:
    """Makes and verifies `<public_url>/files/<storage>/<key>?expires=…&signature=…`.

    HMAC-SHA256 over storage, key and end; there is one spelling of a valid URL's query.

    Args:
        secret_keys: newest first; the newest signs, all verify.
        public_url: prefix of absolute URLs, "" for relative ones.
        window: W, in seconds.
        purpose: goes into the salt, so that a signature made for one purpose is none for another.
    """

    def __init__(
        self,
        secret_keys: Sequence[str],
        public_url: str = "",
        window: int = 3600,
        purpose: str = "rendition",
    ) -> None:
        self._public_url = public_url
        self._window = window
        self._signer = _signer(secret_keys, purpose)

    def url(self, name: str, key: str, window: int) -> str:
        """The URL of `key` in the storage `name`, valid until (window + 2)·W; no I/O."""
        value = f"{name}/{key}?expires={(window + 2) * self._window}"
        signature = self._signer.get_signature(value).decode()
        return f"{self._public_url}/files/{value}&signature={signature}"

    def verify(self, name: str, key: str, query: str, now: float) -> int:
        """How long a URL that came in is still valid.

        Args:
            name: the storage, from the path.
            key: from the path, decoded.
            query: the query string as it came, not decoded: parameters in another order, twice,
                beside others or escaped are not ours.
            now: seconds since 1970.
        Returns: whole seconds, at least 1 (the `max-age` of an answer); 0 when it is not valid.
        """
        match = _QUERY.fullmatch(query)
        if not match or not _NAME.fullmatch(name) or not KEY.fullmatch(key):
            return 0
        expires, signature = int(match[1]), match[2]
        if not _signed(self._signer, f"{name}/{key}?expires={expires}", signature):
            return 0
        return max(0, int(expires - now))


class Tickets:
    """Names that direct uploads get: for one album, until one time, `incoming/…`, never guessed.

    Args:
        secret_keys: newest first; the newest signs, all verify.
    """

    def __init__(self, secret_keys: Sequence[str]) -> None:
        self._signer = _signer(secret_keys, "incoming")

    def new(self, album: str, expires: int) -> str:
        """A new name for an upload into `album` that must be handed in before `expires`."""
        value = f"incoming/{_folder(album)}/{uuid.uuid4().hex}.{expires}"
        return f"{value}.{self._signer.get_signature(value).decode()}"

    def valid(self, name: str, album: str, now: float) -> bool:
        """Whether it is a name that was made for this album and has not ended."""
        match = _TICKET.fullmatch(name)
        return (
            match is not None
            and match["folder"] == _folder(album)
            and now < int(match["expires"])
            and _signed(self._signer, match["value"], match["signature"])
        )


def _signer(secret_keys: Sequence[str], purpose: str) -> Signer:
    return Signer(
        secret_keys[::-1],  # itsdangerous wants the newest last
        salt=f"imageapi.storage.{purpose}".encode(),
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )


def _signed(signer: Signer, value: str, signature: str) -> bool:
    canonical = base64_encode(base64_decode(signature)).decode() == signature  # no stray last bits
    return canonical and signer.verify_signature(value, signature)


def _folder(album: str) -> str:
    """A name of fixed length for an album's id, which may be long and hold anything."""
    return hashlib.sha256(album.encode()).hexdigest()[:32]
