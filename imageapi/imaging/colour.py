"""Brings pixels of any colour space to sRGB.

Source: ICC.1; perceptual intent, as browsers do it.
"""

from __future__ import annotations

import io

from PIL import Image, ImageCms
from PIL._imagingcms import CmsProfile

from imageapi.imaging.limits import MAX_PROFILE_BYTES

_SRGB = ImageCms.createProfile("sRGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB.

    Args:
        image: in the mode L, LA, RGB, RGBA, CMYK or LAB; the caller's own, it may be changed.
        profile: its ICC profile; one that is broken or made for other channels is ignored.

    Returns: an image in the mode L, LA, RGB or RGBA without any `info`.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode[:-1]) if alpha else image
    result = _transformed(colours, profile) or _plain(colours)
    if alpha:
        result.putalpha(alpha)
    result.info = {}
    return result


def _plain(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        return _transform(image, ImageCms.createProfile("LAB"))
    return image.convert("RGB") if image.mode == "CMYK" else image


def _transformed(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        return _transform(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _transform(image: Image.Image, profile: CmsProfile | ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(profile, _SRGB, image.mode, "RGB")
    return transform.apply(image)
