"""One arithmetic for crops, rotations and renditions, shared by rows, pixels and delivery URLs.

Everything here is pure and speaks of the upright picture (EXIF orientation applied). Lengths are
whole pixels unless said otherwise; a `Crop` keeps the client's own floats.

Source: design §2 (crop first, then rotation), §9 (fills).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

ROTATIONS = (0, 90, 180, 270)
"""Accepted rotations, degrees clockwise."""


class Size(NamedTuple):
    """Width and height in pixels, both ≥ 1."""

    width: int
    height: int


class Box(NamedTuple):
    """Left, top, right, bottom in pixels; right and bottom are just outside (as in Pillow)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        """Width and height of the box."""
        return Size(self.right - self.left, self.bottom - self.top)


class Crop(NamedTuple):
    """A crop as the client gave it, in pixels of the upright, unrotated original.

    `w == h == 0` means no crop.
    """

    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0


class Edit(NamedTuple):
    """What is done to a picture: the crop first, then the rotation (degrees clockwise)."""

    crop: Crop = Crop()
    rotation: int = 0


class CropFault(ValueError):
    """A crop that no picture of this size can have; `field` is the first field at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class Rendition:
    """A size that every picture is offered in.

    `fit`: the whole picture, scaled down into the box. `fill`: cropped about the centre to the
    box's aspect, then scaled down to the box. Neither ever enlarges.
    """

    name: str
    width: int
    height: int
    mode: Literal["fit", "fill"]


class Plan(NamedTuple):
    """How a rendition is cut: this box of the edited picture, scaled to this size."""

    box: Box
    size: Size


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def crop_box(crop: Crop, size: Size) -> Box | None:
    """The whole-pixel box of a crop: floor(v + ½) of x, y, x+w, y+h.

    Returns: the box, inside `size` and with sides ≥ 1; None when `crop` means no crop.
    Raises:
        CropFault: negative, not finite, only one of w and h zero, or a box that is empty or
            leaves the picture.
    """
    for name, value in zip(("crop_x", "crop_y", "crop_w", "crop_h"), crop, strict=True):
        if not math.isfinite(value):
            raise CropFault(name, "must be a finite number")
        if value < 0:
            raise CropFault(name, "must not be negative")
    if crop.w == 0 and crop.h == 0:
        return None
    left, right = _edges("w", crop.x, crop.w, size.width)
    top, bottom = _edges("h", crop.y, crop.h, size.height)
    return Box(left, top, right, bottom)


def _edges(side: str, start: float, length: float, limit: int) -> tuple[int, int]:
    field, end = f"crop_{side}", start + length
    if length == 0:
        raise CropFault(field, "must not be 0 while the other side is not")
    if end >= limit + 0.5:
        raise CropFault(field, f"must end inside the picture, which is {limit} pixels there")
    first, last = _round(start), _round(end)
    if last - first < 1:
        raise CropFault(field, "must cover at least one pixel")
    return first, last


def effective_size(size: Size, edit: Edit) -> Size:
    """The size after crop and rotation, in pixels.

    Raises:
        CropFault: as `crop_box`.
    """
    box = crop_box(edit.crop, size)
    width, height = box.size if box else size
    return Size(height, width) if edit.rotation in (90, 270) else Size(width, height)


def plan(size: Size, rendition: Rendition) -> Plan:
    """Where `rendition` is cut from an edited picture of `size`, and how large it becomes."""
    box = _centre(size, rendition) if rendition.mode == "fill" else Box(0, 0, *size)
    width, height = box.size
    if rendition.mode == "fill" and width >= rendition.width and height >= rendition.height:
        return Plan(box, Size(rendition.width, rendition.height))
    scale = min(1.0, rendition.width / width, rendition.height / height)
    return Plan(box, Size(max(1, _round(width * scale)), max(1, _round(height * scale))))


def _centre(size: Size, rendition: Rendition) -> Box:
    width, height = size
    if width * rendition.height > height * rendition.width:
        width = max(1, _round(height * rendition.width / rendition.height))
    else:
        height = max(1, _round(width * rendition.height / rendition.width))
    left, top = (size.width - width) // 2, (size.height - height) // 2
    return Box(left, top, left + width, top + height)
