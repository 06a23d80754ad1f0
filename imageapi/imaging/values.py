"""What is found out about a picture, and what is made of it: plain values, without Pillow."""

from __future__ import annotations

from dataclasses import dataclass

from imageapi.geometry import Size


@dataclass(frozen=True)
class Probe:
    """What was found out about a picture; every value is plain.

    Attributes:
        format: by content, in Cloudinary's words: `jpg png gif webp avif tiff heic`.
        size: of the upright picture, in pixels.
        orientation: how the stored raster stands, as an EXIF value 1 to 8.
        exifs: tag name → text, at most 512 of 1000 characters; {} when there are none.
        gps: latitude and longitude in signed degrees, from EXIF.
        taken_at: `YYYY-MM-DDTHH:MM:SS` of the camera's clock.
        frames: pictures in an animated file, pages of a TIFF.
    """

    format: str
    size: Size
    orientation: int
    exifs: dict[str, str]
    gps: tuple[float, float] | None
    taken_at: str | None
    frames: int


@dataclass(frozen=True)
class Rendered:
    """The renditions of a picture.

    Attributes:
        extension: `png` where the source has alpha that is not all opaque, else `jpg`.
        content_type: of all files.
        files: rendition name → bytes, without any metadata.
        sizes: rendition name → pixels.
        placeholder: the ThumbHash of the edited picture, in base64.
    """

    extension: str
    content_type: str
    files: dict[str, bytes]
    sizes: dict[str, Size]
    placeholder: str
