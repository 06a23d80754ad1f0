"""Originals on their way out: one range, strong validators, a file name that harms nobody.

Source: RFC 9110 §13 and §14 (conditions, ranges), RFC 6266 and RFC 8187 (the file's name),
RFC 9530 (Repr-Digest).
"""

from __future__ import annotations

import base64
import re
import unicodedata
from urllib.parse import quote

from flask import Response, request

from imageapi.blueprints import responses
from imageapi.catalog import originals
from imageapi.errors import PreconditionFailed, RangeNotSatisfiable
from imageapi.extensions import Row

TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
    "heic": "image/heic",
}
"""The media type of each format."""

_EXTENSIONS = {"jpg": ("jpg", "jpeg", "jpe"), "tiff": ("tif", "tiff"), "heic": ("heic", "heif")}
_NOT_KEPT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_CSP = "default-src 'none'; sandbox; frame-ancestors 'none'"


def answer(row: Row) -> Response:
    """The answer for an original, a row of `models.ORIGINALS`: 200, 206 or 304.

    Raises:
        PreconditionFailed: `If-Match` names other bytes.
        RangeNotSatisfiable: the one range asked for begins after the end.
        StorageError: the bytes can not be had.
    """
    if not responses.matches(row.md5):
        raise PreconditionFailed("The original has another ETag.")
    if request.if_none_match.contains_weak(row.md5):
        return responses.not_modified([("ETag", f'"{row.md5}"')])
    asked = _range(row)
    start, end = asked or (0, row.bytes)
    headers = _headers(row)
    if asked:
        headers.append(("Content-Range", f"bytes {start}-{end - 1}/{row.bytes}"))
    body = originals.stream(row, start, end - start) if request.method == "GET" else ()
    return responses.stream(body, TYPES[row.format], end - start, 206 if asked else 200, headers)


def _range(row: Row) -> tuple[int, int] | None:
    """First byte and the one after the last, where exactly one range is asked for and may be given."""
    asked = request.range
    if request.method != "GET" or asked is None or asked.units != "bytes" or len(asked.ranges) > 1:
        return None
    if request.headers.get("If-Range", f'"{row.md5}"') != f'"{row.md5}"':
        return None
    first, end = asked.ranges[0]
    if end is None and -first >= row.bytes:  # the last bytes, and more of them than there are
        return 0, row.bytes
    found = asked.range_for_length(row.bytes)
    if found is None or found[0] >= found[1]:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{row.bytes}"})
    return found


def _headers(row: Row) -> list[tuple[str, str]]:
    headers = [
        ("ETag", f'"{row.md5}"'),
        ("Accept-Ranges", "bytes"),
        ("Content-Disposition", disposition(row.file_name, row.id, row.format)),
        ("Content-Security-Policy", _CSP),
    ]
    if row.sha256:
        digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
        headers.append(("Repr-Digest", f"sha-256=:{digest}:"))
    return headers


def disposition(name: str, image_id: str, kind: str) -> str:
    """The Content-Disposition of a download; its extension is that of the bytes, whatever `name` says."""
    kept = (c for c in name.replace("\\", "/") if unicodedata.category(c) not in _NOT_KEPT)
    base = "".join(kept).rpartition("/")[2].strip(" .") or image_id
    if base.rpartition(".")[2].lower() not in _EXTENSIONS.get(kind, (kind,)):
        base = f"{base}.{kind}"
    stem, _dot, extension = base.rpartition(".")
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    # Only now: it makes slashes and dots of characters that look like them.
    plain = re.sub(r'["%;\\/]', "_", plain).lstrip(" .") or image_id
    return f"attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{quote(base, safe='')}"
