"""Renders all sizes of a picture from one decode.

The steps, in the order of design §6: decode (JPEG at a fraction that is enough), cut and scale the
largest size, bring it to sRGB, turn it; the smaller sizes are cut from that one. Boxes are traced
back from the edited picture to the stored raster, so that nothing large is ever copied.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from PIL import Image
from PIL.Image import Resampling, Transpose

from imageapi import geometry
from imageapi.geometry import Edit, Plan, Rendition, Size
from imageapi.imaging import thumbhash
from imageapi.imaging.colour import to_srgb
from imageapi.imaging.decode import TURNED_BY_DECODER, decode, decoding
from imageapi.imaging.headers import Header
from imageapi.imaging.limits import Limits
from imageapi.imaging.values import Probe, Rendered

JPEG_QUALITY = 85
"""Of renditions, with 4:2:0; docs/pictures.md tells how it was chosen."""

_PLACEHOLDER = Rendition("", 24, 24, "fit")
"""What a placeholder is made of: it holds no more than seven waves across.

Over the corpus, as many of its terms are those of 100 pixels as with 32, in little more than half
the time."""

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


class _Span(NamedTuple):
    """A box with fractions of pixels: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float


def draw(
    stream: BinaryIO,
    probed: Probe,
    header: Header,
    edit: Edit,
    renditions: Sequence[Rendition],
    limits: Limits,
) -> Rendered:
    """Decode a picture to its end and render it in all sizes.

    Args:
        stream: the file.
        probed, header: what `inspect` found out about it.
        edit: crop and rotation, of the upright picture.
        renditions: the sizes.
        limits: that the headers were held against.

    Raises:
        UndecodablePicture: the pixels are broken or end early.
        CropFault: the crop does not fit the picture.
    """
    with decoding(limits):
        pictures = compose(stream, probed, header, edit, [*renditions, _PLACEHOLDER])
        placeholder = pictures.pop(_PLACEHOLDER.name).convert("RGBA")
        extension = "png" if any(map(_has_alpha, pictures.values())) else "jpg"
        return Rendered(
            extension=extension,
            content_type="image/png" if extension == "png" else "image/jpeg",
            files={name: _encoded(picture, extension) for name, picture in pictures.items()},
            sizes={name: Size(*picture.size) for name, picture in pictures.items()},
            placeholder=base64.b64encode(
                thumbhash.encode(*placeholder.size, placeholder.tobytes())
            ).decode("ascii"),
        )


def compose(
    stream: BinaryIO, probed: Probe, header: Header, edit: Edit, renditions: Sequence[Rendition]
) -> dict[str, Image.Image]:
    """The renditions before they are encoded: 8 bits, sRGB; with alpha if the source shows any.

    Raises:
        UndecodablePicture: inside `decoding`.
    """
    edited = geometry.effective_size(probed.size, edit)
    plans = {rendition.name: geometry.plan(edited, rendition) for rendition in renditions}
    need = max((max(_scales(plan)) for plan in plans.values()), default=1.0)
    return _cascade(_Source(stream, probed, header, edit, edited, need), plans)


def _scales(plan: Plan) -> tuple[float, float]:
    across, down = plan.box.size
    return plan.size.width / across, plan.size.height / down


class _Source:
    """The decoded raster, and how a box of the edited picture is found in it."""

    def __init__(
        self, stream: BinaryIO, probed: Probe, header: Header, edit: Edit, edited: Size, need: float
    ) -> None:
        turned = probed.format in TURNED_BY_DECODER
        size = probed.size if turned else header.size
        self._raster = decode(stream, probed.format, size, need)
        # Only a JPEG is decoded smaller; a GIF's size is that of all frames, its raster of the first.
        drafted = probed.format == "jpg"
        self._shrink = max(1, round(size.width / self._raster.width)) if drafted else 1
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


def _cascade(source: _Source, plans: dict[str, Plan]) -> dict[str, Image.Image]:
    """All renditions, largest first; each is cut from the smallest that holds its pixels."""
    pictures: dict[str, Image.Image] = {}
    done: list[str] = []
    for name in sorted(plans, key=lambda name: math.prod(plans[name].size), reverse=True):
        base = next((other for other in reversed(done) if _holds(plans[other], plans[name])), None)
        if base is None:
            pictures[name] = source.cut(plans[name])
        else:
            pictures[name] = _cut_again(pictures[base], plans[base], plans[name])
        done.append(name)
    return {name: pictures[name] for name in plans}


def _holds(base: Plan, plan: Plan) -> bool:
    inside = (
        base.box.left <= plan.box.left
        and base.box.top <= plan.box.top
        and base.box.right >= plan.box.right
        and base.box.bottom >= plan.box.bottom
    )
    return inside and all(
        has >= needs for has, needs in zip(_scales(base), _scales(plan), strict=True)
    )


def _cut_again(picture: Image.Image, base: Plan, plan: Plan) -> Image.Image:
    if plan == base:
        return picture
    across, down = _scales(base)
    box = _moved(_Span(*plan.box), -base.box.left, -base.box.top)
    span = _Span(box.left * across, box.top * down, box.right * across, box.bottom * down)
    return _scaled(picture, span, plan.size, gap=2.0)


def _scaled(image: Image.Image, span: _Span, size: Size, gap: float | None = None) -> Image.Image:
    """A box of a picture at a smaller size.

    `gap`: see Pillow's `reducing_gap`. Averaging whole pixels first halves the time; how little may be
    left for LANCZOS after that was measured (bench/renditions.py).
    """
    box = _Span(span.left, span.top, min(span.right, image.width), min(span.bottom, image.height))
    if gap is None:
        shrink = min((box.right - box.left) / size.width, (box.bottom - box.top) / size.height)
        gap = 1.04 if shrink < 4 else 2.0
        factor = int(shrink / gap)
        if _has_alpha(image) and factor > 1:
            box = _Span(*(edge / factor for edge in box))
            small = _averaged(image, factor).resize(size, Resampling.LANCZOS, box=box)
            return small.convert(image.mode)
    return image.resize(size, Resampling.LANCZOS, box=box, reducing_gap=gap)


def _averaged(image: Image.Image, factor: int) -> Image.Image:
    """A picture with alpha, premultiplied, each square of pixels averaged to one.

    Pillow would premultiply a copy of the whole first; strips need next to no memory.
    """
    mode = {"RGBA": "RGBa", "LA": "La"}[image.mode]
    result = Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    step = 64 * factor
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        result.paste(strip.convert(mode).reduce(factor), (0, top // factor))
    return result


def _encoded(picture: Image.Image, extension: str) -> bytes:
    output = io.BytesIO()
    if extension == "png":
        picture.save(output, "PNG")
    else:
        picture.save(output, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return output.getvalue()
