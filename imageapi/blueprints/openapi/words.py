"""What variables of paths, fields and headers mean, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PATH: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "image_id": ("The image's `public_id`.", {}),
    "album_id": (
        "The album's `public_id`, percent-encoded.",
        {"minLength": 1, "maxLength": 128, "pattern": r"^[^/\\?#%,\u0000-\u001f\u007f-\u009f]+$"},
    ),
    "tag_id": ("The tag's `id`.", {}),
    "tag_image_id": ("The `id` of the tag's being on the image.", {}),
    "share_id": ("The share's `id`.", {}),
    "storage": ("The storage's name.", {"pattern": "^[a-z0-9]+$"}),
    "key": ("The rendition.", {}),
    "name": ("A file of the page.", {"pattern": "^[a-z0-9.-]+$"}),
}
"""Variable of a path to what it is, and its schema beyond that of its converter."""

HAND_IN: Mapping[str, str] = {
    "key": "S3: the `key` of the form.",
    "public_id": "Cloudinary: as its answer has it.",
    "version": "Cloudinary: as its answer has it.",
    "signature": "Cloudinary: as its answer has it, over `public_id` and `version`.",
    "resource_type": "Cloudinary: as its answer has it.",
    "original_filename": "The file's name, for downloads.",
}
"""What tells of a direct upload: what its form named, or what the storage answered."""

FIELDS: Mapping[str, str] = {
    "include": "Additions to each image: `placeholder`, `srcset`, or both, separated by a comma.",
    "limit": "The most items of a page.",
    "cursor": "Where the page begins: from the `Link` of the page before, with the same filters.",
    "tag": "The name of a tag that they carry.",
    "taken_after": "Taken after this moment: ISO 8601; without an offset as cameras write it.",
    "taken_before": "Taken before this moment: ISO 8601; without an offset as cameras write it.",
    "created_after": "Made after this moment: ISO 8601; without an offset in the service's zone.",
    "created_before": "Made before this moment: ISO 8601; without an offset in the service's zone.",
    "bbox": (
        "West, south, east, north in degrees, separated by commas; west > east crosses the "
        "antimeridian."
    ),
    "format": "The format, as in `infos`.",
    "album_id": "The album.",
    "tag_name": "Only this tag.",
    "image_id": "Only this image.",
    "rotation": "Degrees clockwise.",
    "crop_x": "Pixels from the left.",
    "crop_y": "Pixels from the top.",
    "crop_w": "Pixels.",
    "crop_h": "Pixels.",
    "album": "The album.",
    "public_id": "The album's id.",
    "image_ids": "Images of the tag's album.",
    "abilities": "What the share allows.",
    "expires_in": "Seconds until the share ends.",
    "label": "A note for oneself.",
    "accuracy": "Metres.",
    "latitude": "Degrees north; not without `longitude`.",
    "longitude": "Degrees east; not without `latitude`.",
    "file": "The picture.",
}
"""Field of a query or a body to what it is."""

_DIGEST = r"^[a-z0-9*_.-]+=:[A-Za-z0-9+/=]*:$"
_ETAG = r'^(W/)?"[!#-~]*"$'

REQUEST_HEADERS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "If-Match": (
        "If-Match",
        "The `ETag` of the revision that is meant; another one by now: 412.",
        {"pattern": _ETAG, "examples": ['"3"']},
    ),
    "If-Match-Original": (
        "If-Match",
        "The `ETag` of the bytes that are meant.",
        {"pattern": _ETAG, "examples": ['"5a98d4d3e5d39024abf237be55e99b15"']},
    ),
    "If-None-Match": (
        "If-None-Match",
        "The `ETag` of the bytes that one has.",
        {"pattern": _ETAG, "examples": ['"5a98d4d3e5d39024abf237be55e99b15"']},
    ),
    "Range": (
        "Range",
        "One range of bytes.",
        {"pattern": r"^bytes=(\d{1,15}-\d{0,15}|-\d{1,15})$", "examples": ["bytes=0-1023"]},
    ),
    "If-Range": (
        "If-Range",
        "The `ETag` that the range is of; another one by now: all of the bytes.",
        {"pattern": _ETAG, "examples": ['"5a98d4d3e5d39024abf237be55e99b15"']},
    ),
    "Idempotency-Key": (
        "Idempotency-Key",
        "The same key with the same request, within a day: the same answer, and nothing done twice.",
        {"pattern": "^[!-~]{1,255}$", "examples": ["6b1f3d5e-upload-17"]},
    ),
    "Content-Digest": (
        "Content-Digest",
        "A digest of the file or of the whole body (RFC 9530); other bytes: 422, nothing stored.",
        {
            "pattern": _DIGEST,
            "examples": ["sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"],
        },
    ),
    "Repr-Digest": (
        "Repr-Digest",
        "As `Content-Digest`.",
        {
            "pattern": _DIGEST,
            "examples": ["sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"],
        },
    ),
}
"""Key to a request header: its name, what it is, its schema."""

ANSWER_HEADERS: Mapping[str, tuple[str, str, bool, Mapping[str, Any]]] = {
    "X-token": (
        "X-token",
        "The same token, good for four hours more: use it for the next request.",
        True,
        {},
    ),
    "X-Request-Id": (
        "X-Request-Id",
        (
            "The id of this request in the logs: the one that the client sent in this header "
            "(letters, digits, `.`, `_`, `-`, at most 64), or a new one."
        ),
        True,
        {},
    ),
    "X-Runtime": ("X-Runtime", "Seconds that the answer took.", True, {}),
    "X-message": ("X-message", "`Access denied`.", True, {}),
    "X-duplicate": ("X-duplicate", "`true`.", True, {"enum": ["true"]}),
    "ETag": ("ETag", 'The revision, `"<number>"`: for `If-Match`.', True, {}),
    "OriginalETag": ("ETag", "The MD5 of the bytes, in quotes.", True, {}),
    "DocumentETag": ("ETag", "Another text, another one.", True, {}),
    "Link": ("Link", '`<URL of the next page>; rel="next"`; none on the last page.', False, {}),
    "Location": ("Location", "The path of the new image.", True, {}),
    "Accept-Ranges": ("Accept-Ranges", "`bytes`.", True, {}),
    "Content-Disposition": ("Content-Disposition", "`attachment`, with the file's name.", True, {}),
    "Content-Security-Policy": ("Content-Security-Policy", "Keeps bytes from acting.", True, {}),
    "Content-Range": ("Content-Range", "Which bytes of how many.", True, {}),
    "Repr-Digest": ("Repr-Digest", "The SHA-256 of all the bytes (RFC 9530).", False, {}),
    "Retry-After": ("Retry-After", "Seconds until another try is worth it.", True, {}),
    "WWW-Authenticate": ("WWW-Authenticate", 'Always `Token realm="Application"`.', True, {}),
    "RateLimit-Limit": ("RateLimit-Limit", "Requests in a window.", False, {"type": "integer"}),
    "RateLimit-Remaining": (
        "RateLimit-Remaining",
        "How many are left.",
        False,
        {"type": "integer"},
    ),
    "RateLimit-Reset": ("RateLimit-Reset", "Seconds until all are.", False, {"type": "integer"}),
}
"""Key to a header of answers: its name, what it says, whether it is always there, its schema."""
