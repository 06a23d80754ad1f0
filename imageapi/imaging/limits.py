"""What a picture may cost before and while it is decoded."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EXIF_BYTES = 1 << 20
"""Of an EXIF block, what lies beyond is not read."""
MAX_META_BYTES = 1 << 20
"""What AVIF and HEIC say of themselves, `meta` and `moov`."""
MAX_PROFILE_BYTES = 4 << 20
"""A larger ICC profile is ignored."""
MAX_TAGS = 512
MAX_TEXT = 1000
"""Characters of one EXIF value."""
MAX_VALUES = 64
"""Numbers of one EXIF value."""
MAX_SEGMENTS = 8192
"""JPEG segments before the first scan, WebP chunks, ISO boxes, tags of a TIFF directory."""
MAX_ENTRIES = 65_536
"""Tags of all pages of a TIFF together: directories may lie on one another, so that bytes do not bound them."""
MAX_CHUNKS = 50_000
"""PNG chunks; IDAT comes in pieces as small as the encoder's buffer."""
MAX_SUB_BLOCKS = 400_000
"""GIF sub-blocks, of up to 255 bytes each."""
USUAL_SCANS, MAX_SCANS = 16, 64
"""Scans of a progressive JPEG. Encoders write about ten; each costs a pass over all pixels, so that
the largest pictures may have as many as is usual, and smaller ones more."""
WALL_SECONDS = 30
CPU_SECONDS = 15
MEMORY_BYTES = 512 << 20
BYTES_PER_PIXEL = 16
"""A decoder's address space: this much of `MEMORY_BYTES`, and more for each pixel of the limit."""
DECODED_BYTES = {"jpg": 3, "png": 5, "gif": 5, "tiff": 5, "heic": 8, "avif": 9, "webp": 16}
"""What a pixel takes at the most while it is decoded, measured with Pillow 13."""
ROOM, ROOMS, ROOM_WAIT = 64 << 20, 10, 15.0
"""All decoders of a host share so many rooms of so many bytes; one that needs several waits so many
seconds for them. What needs less than one needs none."""
MAX_ANSWER_BYTES = 256 << 20
"""Of all renditions of a picture together."""


@dataclass(frozen=True)
class Limits:
    """What an operator may set.

    Attributes:
        max_pixels: width x height x frames.
        max_side: pixels of the longer side; JPEG's own ends at 65500.
    """

    max_pixels: int = 100_000_000
    max_side: int = 65_500
