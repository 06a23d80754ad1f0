"""Renders all sizes of a picture from one decode.

The steps, in the order of design §6: decode (JPEG at a fraction that is enough), cut and scale the
largest size, bring it to sRGB, turn it; the smaller sizes are cut from that one. Boxes are traced
back from the edited picture to the stored raster, so that nothing large is ever copied.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.Image import Resampling, Transpose

from imageapi import geometry
from imageapi.geometry import Edit, Plan, Rendition, Size
from imageapi.imaging.colour import to_srgb
from imageapi.imaging.decode import TURNED_BY_DECODER, decode, decoding
from imageapi.imaging.headers import Header
from imageapi.imaging.limits import Limits
from imageapi.imaging.probe import Probe, inspect

JPEG_QUALITY = 85
"""Of renditions, with 4:2:0; docs/pictures.md tells how it was chosen."""

_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_CLOCKWISE = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
# Each step swaps the axes or not, and after that mirrors left and right, top and bottom, or not.
_SIDEWAYS = {
    Transpose.TRANSPOSE,
    Transpose.TRANSVERSE,
    Transpose.ROTATE_90,
    Transpose.ROTATE_270,
}
_FLIPS_ACROSS = {
    Transpose.FLIP_LEFT_RIGHT,
    Transpose.ROTATE_180,
    Transpose.ROTATE_270,
    Transpose.TRANSVERSE,
}
_FLIPS_DOWN = {
    Transpose.FLIP_TOP_BOTTOM,
    Transpose.ROTATE_180,
    Transpose.ROTATE_90,
    Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class Rendered:
    """The renditions of a picture.

    Attributes:
        extension: `png` where the source has alpha that is not all opaque, else `jpg`.
        content_type: of all files.
        files: rendition name → bytes, without any metadata.
        sizes: rendition name → pixels.
    """

    extension: str
    content_type: str
    files: dict[str, bytes]
    sizes: dict[str, Size]


class _Span(NamedTuple):
    """A box with fractions of pixels: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float


def render(path: Path, edit: Edit, renditions: Sequence[Rendition], limits: Limits) -> Rendered:
    """Decode a picture to its end and render it in all sizes.

    Args:
        path: the file.
        edit: crop and rotation, of the upright picture.
        renditions: the sizes.
        limits: that the headers are held against first.

    Raises:
        UnsupportedFormat: as `probe`.
        UndecodablePicture: as `probe`, or the pixels are broken or end early.
        CropFault: the crop does not fit the picture.
    """
    probed, header = inspect(path, limits)
    return draw(path, probed, header, edit, renditions, limits)


def draw(
    path: Path,
    probed: Probe,
    header: Header,
    edit: Edit,
    renditions: Sequence[Rendition],
    limits: Limits,
) -> Rendered:
    """As `render`, of a picture that was inspected already."""
    with decoding(limits):
        pictures = compose(path, probed, header, edit, renditions)
        extension = "png" if any(map(_has_alpha, pictures.values())) else "jpg"
        return Rendered(
            extension=extension,
            content_type="image/png" if extension == "png" else "image/jpeg",
            files={name: _encoded(picture, extension) for name, picture in pictures.items()},
            sizes={name: Size(*picture.size) for name, picture in pictures.items()},
        )


def compose(
    path: Path, probed: Probe, header: Header, edit: Edit, renditions: Sequence[Rendition]
) -> dict[str, Image.Image]:
    """The renditions before they are encoded: 8 bits, sRGB; with alpha if the source shows any.

    Raises:
        UndecodablePicture: inside `decoding`.
    """
    edited = geometry.effective_size(probed.size, edit)
    plans = {rendition.name: geometry.plan(edited, rendition) for rendition in renditions}
    need = max((max(_scales(plan)) for plan in plans.values()), default=1.0)
    return _cascade(_Source(path, probed, header, edit, edited, need), plans, edited)


def _scales(plan: Plan) -> tuple[float, float]:
    across, down = plan.box.size
    return plan.size.width / across, plan.size.height / down


class _Source:
    """The decoded raster, and how a box of the edited picture is found in it."""

    def __init__(
        self, path: Path, probed: Probe, header: Header, edit: Edit, edited: Size, need: float
    ) -> None:
        turned = probed.format in TURNED_BY_DECODER
        size = probed.size if turned else header.size
        self._raster = decode(path, probed.format, size, need)
        self._shrink = max(1, round(size.width / self._raster.width))
        self._upright, self._edited = probed.size, edited
        self._orientation = None if turned else _UPRIGHT.get(probed.orientation)
        self._rotation = _CLOCKWISE.get(edit.rotation)
        self._crop = geometry.crop_box(edit.crop, probed.size)
        self._clean = None if turned else header.clean
        self._transparent = _transparent(self._raster)

    def cut(self, plan: Plan) -> Image.Image:
        """One rendition from the raster, in sRGB, upright and edited."""
        size = Size(*plan.size)
        steps = [step for step in (self._orientation, self._rotation) if step is not None]
        if sum(step in _SIDEWAYS for step in steps) % 2:
            size = Size(size.height, size.width)
        picture = to_srgb(
            _scaled(self._raster, self._trace(_Span(*plan.box)), size),
            self._raster.info.get("icc_profile"),
        )
        if _has_alpha(picture) and not self._transparent:
            picture = picture.convert(picture.mode[:-1])
        for step in steps:
            picture = picture.transpose(step)
        return picture

    def _trace(self, span: _Span) -> _Span:
        """A box of the edited picture, in pixels of the raster."""
        if self._rotation is not None:
            span = _before(span, self._edited, self._rotation)
        if self._crop:
            span = _moved(span, self._crop.left, self._crop.top)
        if self._orientation is not None:
            span = _before(span, self._upright, self._orientation)
        if self._clean:
            span = _moved(span, self._clean.left, self._clean.top)
        width, height = self._raster.size
        left, top, right, bottom = (edge / self._shrink for edge in span)
        return _Span(left, top, min(right, width), min(bottom, height))


def _moved(span: _Span, across: float, down: float) -> _Span:
    return _Span(span.left + across, span.top + down, span.right + across, span.bottom + down)


def _before(span: _Span, after: Size, step: Transpose) -> _Span:
    """Where a box of a transposed picture, of the size `after`, was before."""
    left, top, right, bottom = span
    if step in _FLIPS_ACROSS:
        left, right = after.width - right, after.width - left
    if step in _FLIPS_DOWN:
        top, bottom = after.height - bottom, after.height - top
    return _Span(top, left, bottom, right) if step in _SIDEWAYS else _Span(left, top, right, bottom)


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("LA", "RGBA")


def _transparent(raster: Image.Image) -> bool:
    if not _has_alpha(raster):
        return False
    low, _ = raster.getchannel("A").getextrema()
    return isinstance(low, int) and low < 255


def _cascade(source: _Source, plans: dict[str, Plan], edited: Size) -> dict[str, Image.Image]:
    """All renditions; what the largest whole one has enough pixels for is cut from that."""
    whole = [plan for plan in plans.values() if plan.box.size == edited]
    base_plan = max(whole, key=lambda plan: plan.size.width, default=None)
    base = source.cut(base_plan) if base_plan else None
    pictures = {}
    for name, plan in plans.items():
        if base_plan and base and plan == base_plan:
            pictures[name] = base
        elif base_plan and base and _enough(base_plan, plan):
            across, down = _scales(base_plan)
            left, top, right, bottom = plan.box
            box = _Span(left * across, top * down, right * across, bottom * down)
            pictures[name] = _scaled(base, box, plan.size, gap=2.0)
        else:
            pictures[name] = source.cut(plan)
    return pictures


def _enough(base: Plan, plan: Plan) -> bool:
    return all(has >= needs for has, needs in zip(_scales(base), _scales(plan), strict=True))


def _scaled(image: Image.Image, span: _Span, size: Size, gap: float | None = None) -> Image.Image:
    box = _Span(span.left, span.top, min(span.right, image.width), min(span.bottom, image.height))
    return image.resize(size, Resampling.LANCZOS, box=box, reducing_gap=gap)


def _encoded(picture: Image.Image, extension: str) -> bytes:
    output = io.BytesIO()
    if extension == "png":
        picture.save(output, "PNG")
    else:
        picture.save(output, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return output.getvalue()
