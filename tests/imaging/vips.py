"""libvips as a second opinion: decodes in full, edits and scales by its own arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyvips
from PIL import Image, ImageChops, ImageStat

from imageapi import geometry
from imageapi.geometry import Edit, Rendition, Size


def upright(path: Path) -> Any:
    """The first frame, upright, sRGB, 8 bits."""
    picture = pyvips.Image.new_from_file(str(path)).autorot()
    if picture.get_typeof("icc-profile-data"):
        picture = picture.icc_transform("srgb", embedded=True, intent="perceptual")
    elif picture.interpretation == "grey16":
        picture = (picture >> 8).cast("uchar").copy(interpretation="b-w")
    elif picture.interpretation not in ("srgb", "b-w"):
        picture = picture.colourspace("srgb")
    return picture.cast("uchar")


def rendition(path: Path, edit: Edit, size: Rendition) -> Image.Image:
    """One rendition, not encoded."""
    picture = upright(path)
    whole = Size(picture.width, picture.height)
    box = geometry.crop_box(edit.crop, whole)
    if box:
        picture = picture.crop(box.left, box.top, *box.size)
    picture = picture.rot(f"d{edit.rotation}")
    plan = geometry.plan(geometry.effective_size(whole, edit), size)
    picture = picture.crop(plan.box.left, plan.box.top, *plan.box.size)
    scale = plan.size.width / plan.box.size.width, plan.size.height / plan.box.size.height
    if scale != (1, 1):
        alpha = picture.hasalpha()
        picture = picture.premultiply() if alpha else picture
        picture = picture.resize(scale[0], vscale=scale[1], kernel="lanczos3")
        picture = picture.unpremultiply() if alpha else picture
    return _pillow(picture.cast("uchar"))


def _pillow(picture: Any) -> Image.Image:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[picture.bands]
    return Image.frombytes(mode, (picture.width, picture.height), picture.write_to_memory())


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures on grey, in levels of 255, of the worst channel."""
    stat = ImageStat.Stat(ImageChops.difference(flat(one), flat(other)))
    return max(stat.mean)


def flat(picture: Image.Image) -> Image.Image:
    """A picture on grey."""
    ground = Image.new("RGBA", picture.size, (128, 128, 128, 255))
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")
