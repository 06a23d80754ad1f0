"""Every error of the product: a stable `code`, an HTTP status, a title.

Raised where the fault is known, turned into HTTP in `blueprints/problems.py` alone. Callers branch
on the class, clients on `code`, nobody on the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldFault:
    """One refused field: its name as the client sent it, and the limit it broke, in words."""

    field: str
    message: str


class ImageAPIError(Exception):
    """The root of the tree.

    Args:
        detail: one sentence for the person who reads the answer; no secret, no path, no SQL.
        errors: the fields at fault, for a refused form.
        headers: HTTP headers that belong to the answer (`Retry-After`, `Allow`).
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal Server Error"
    detail: ClassVar[str] = "Something went wrong on our side; the request id names it in the logs."

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[FieldFault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or type(self).detail)
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class BadRequest(ImageAPIError):
    """The request is malformed: a body that is no form, a header that says nothing."""

    code, status, title = "bad_request", 400, "Bad Request"
    detail = "The request is malformed."


class IncompleteBody(BadRequest):
    """The body ended before its own end mark or its Content-Length; nothing was stored."""

    code = "incomplete_body"
    detail = "The body ended before its end; nothing was stored."


class Unauthorized(ImageAPIError):
    """No token, or none that counts (design §3). Never says which: `token explain` does."""

    code, status, title = "unauthorized", 401, "Unauthorized"
    detail = "A valid token is required."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Token realm="Application"'})


class AccessDenied(ImageAPIError):
    """The token reaches the album but lacks the ability."""

    code, status, title = "access_denied", 403, "Forbidden"
    detail = "The token reaches this album but lacks the ability."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"X-message": "Access denied"})


class NotFound(ImageAPIError):
    """There is no such thing, or the token does not reach it: the same answer."""

    code, status, title = "not_found", 404, "Not Found"
    detail = "There is nothing here under this id."


class MethodNotAllowed(ImageAPIError):
    """The route exists under other methods; `Allow` lists them."""

    code, status, title = "method_not_allowed", 405, "Method Not Allowed"
    detail = "The route does not take this method."


class Conflict(ImageAPIError):
    """The thing changed meanwhile, or its name is taken."""

    code, status, title = "conflict", 409, "Conflict"
    detail = "The request conflicts with the present state."


class AlbumFull(ImageAPIError):
    """The album holds as many bytes or images as it may; `detail` names the limit."""

    code, status, title = "album_full", 409, "Conflict"
    detail = "The album is full; nothing was stored."


class LengthRequired(ImageAPIError):
    """A body whose end nobody announced."""

    code, status, title = "length_required", 411, "Length Required"
    detail = "A Content-Length is required."


class PreconditionFailed(ImageAPIError):
    """`If-Match` names a revision that is no longer the current one, or none at all."""

    code, status, title = "precondition_failed", 412, "Precondition Failed"
    detail = "The image has another revision by now."


class PayloadTooLarge(ImageAPIError):
    """More bytes than the limit named in `detail`."""

    code, status, title = "payload_too_large", 413, "Content Too Large"
    detail = "The body is too large."


class UnsupportedFormat(ImageAPIError):
    """The bytes are not of an accepted picture format, or the body not of an accepted type."""

    code, status, title = "unsupported_format", 415, "Unsupported Media Type"
    detail = "This format is not accepted."


class RangeNotSatisfiable(ImageAPIError):
    """The range begins after the end; `Content-Range` says where that is (RFC 9110 §15.5.17)."""

    code, status, title = "range_not_satisfiable", 416, "Range Not Satisfiable"
    detail = "The range begins after the end of the original."


class InvalidFields(ImageAPIError):
    """A field breaks its limit; `errors` names field and limit."""

    code, status, title = "invalid_fields", 422, "Unprocessable Content"
    detail = "A field is not acceptable."


class IdempotencyMismatch(ImageAPIError):
    """The Idempotency-Key was used for another request: other fields or another file."""

    code, status, title = "idempotency_mismatch", 422, "Unprocessable Content"
    detail = "This Idempotency-Key was used for another request."


class UndecodablePicture(ImageAPIError):
    """Broken, too large in pixels, or otherwise impossible to decode."""

    code, status, title = "undecodable_picture", 422, "Unprocessable Content"
    detail = "The picture can not be decoded."


class DigestMismatch(ImageAPIError):
    """The bytes are not those that `Content-Digest` or `Repr-Digest` announced (RFC 9530)."""

    code, status, title = "digest_mismatch", 422, "Unprocessable Content"
    detail = "The bytes are not those that the digest announced; nothing was stored."


class TooManyRequests(ImageAPIError):
    """More requests than `IMAGEAPI_RATE_LIMIT` lets one token or one address make."""

    code, status, title = "too_many_requests", 429, "Too Many Requests"
    detail = "Too many requests; Retry-After says when to come again."


class DatabaseUnavailable(ImageAPIError):
    """The database does not answer in time."""

    code, status, title = "database_unavailable", 503, "Service Unavailable"
    detail = "The database does not answer at the moment."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": "5"})


class Busy(ImageAPIError):
    """All decoders are at work and the queue is full; worth another try soon."""

    code, status, title = "busy", 503, "Service Unavailable"
    detail = "Too many pictures are being decoded at the moment."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": "2"})


class StorageError(ImageAPIError):
    """What a storage backend may raise, and nothing else."""

    code, status, title = "storage_error", 503, "Service Unavailable"
    detail = "The storage failed."


class StorageNotFound(StorageError):
    """No bytes under this key. In an answer: the row is there and its bytes are not."""

    code, status, title = "storage_not_found", 502, "Bad Gateway"
    detail = "The storage has no bytes for this image."


class StorageDenied(StorageError):
    """The storage refuses our credentials; never retried."""

    code = "storage_denied"
    detail = "The storage refuses this service."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": "60"})


class StorageFull(StorageError):
    """No space left; nothing of the write is left behind."""

    code, status, title = "storage_full", 507, "Insufficient Storage"
    detail = "The storage is full."


class StorageUnavailable(StorageError):
    """No answer in time, or the backend is not configured; worth another try later."""

    code = "storage_unavailable"
    detail = "The storage does not answer at the moment."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": "5"})


class StorageCorrupt(StorageError):
    """The bytes are not those that were stored or sent; never served, nothing left behind."""

    code, status, title = "storage_corrupt", 502, "Bad Gateway"
    detail = "The stored bytes are not those that were stored."
