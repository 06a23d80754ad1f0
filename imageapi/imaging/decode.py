"""Opens a picture with Pillow, under the limits, and decodes its first frame to the end.

The pixels stay as they are stored, not yet upright: turning the small results is cheaper.

Source: design §6.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    ImageMath,
    MpoImagePlugin,  # noqa: F401 (JPEG's plugin imports it when it meets one, which is too late)
    TiffImagePlugin,
    WebPImagePlugin,
)

from imageapi.errors import UndecodablePicture
from imageapi.geometry import CropFault, Size
from imageapi.imaging.limits import Limits
from imageapi.imaging.tiff import Tiff

_PILLOW = {
    "jpg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "webp": WebPImagePlugin.WebPImageFile.format,
    "avif": AvifImagePlugin.AvifImageFile.format,
    "tiff": TiffImagePlugin.TiffImageFile.format,
    "heic": "HEIF",
}
Image.preinit()  # the other plugins: once a decoder's process is locked, nothing can be imported
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # as many pictures are decoded at once as there are cores
TURNED_BY_DECODER = {"tiff", "heic"}
"""Formats whose decoder gives the upright picture, its clean aperture cut out."""


_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, EOFError,
    struct.error,
)  # fmt: skip
"""What Pillow and its decoders raise for bytes that they can not make sense of."""


@contextmanager
def decoding(limits: Limits) -> Iterator[None]:
    """Turn everything that Pillow raises for a bad picture into `UndecodablePicture`."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except CropFault:
            raise  # the caller's fault, and a ValueError
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UndecodablePicture(
                f"The picture is too large; the limit is {limits.max_pixels} pixels."
            ) from error
        except MemoryError as error:
            raise UndecodablePicture("The picture takes too much memory to decode.") from error
        except _BROKEN as error:
            raise UndecodablePicture("The picture is broken or cut short.") from error


def prepare(kind: str) -> None:
    """Load the decoder of a format that is not there from the start."""
    if kind == "heic":
        import pillow_heif  # noqa: PLC0415 (an extra, large, and only now of use)

        pillow_heif.register_heif_opener(thumbnails=False)


def decode(stream: BinaryIO, kind: str, size: Size, scale: float) -> Image.Image:
    """Decode the first frame.

    Args:
        stream: the file.
        kind: its format, as `Probe.format`.
        size: of the raster that the decoder must give, as the header tells it.
        scale: of the result that needs most pixels; a JPEG is decoded at the smallest of 1/1, 1/2,
            1/4, 1/8 that still has as many.

    Returns: 8 bits a channel in the mode L, LA, RGB, RGBA, CMYK or LAB; its `info` holds the ICC
        profile.

    Raises:
        UndecodablePicture: inside `decoding`.
    """
    with _opened(stream, kind) as image:
        if kind != "gif" and image.size != size:  # a GIF's frames may widen its screen
            raise UndecodablePicture("The picture is broken: its headers disagree on its size.")
        if kind == "jpg" and scale < 1:
            image.draft("RGB", (math.ceil(size.width * scale), math.ceil(size.height * scale)))
        image.info.pop("xmp", None)  # by which Pillow would turn a TIFF that has no tag for that
        shown = key = None
        if kind == "gif":
            shown = _shown(image)
        elif kind == "png":
            key = _fit_key(image)
        image.load()
        if key:
            shown = _unlike(key, image, stream)
        result = _eight_bit(image)
        if shown:
            result.putalpha(shown)
        return result


def _opened(stream: BinaryIO, kind: str) -> ImageFile.ImageFile:
    planes = kind == "tiff" and _in_planes(stream)
    # Pillow's own reader takes each plane for 8 bits a pixel, whatever it has; libtiff's does not,
    # but puts the alpha of grey where none is looked for.
    TiffImagePlugin.READ_LIBTIFF = planes
    stream.seek(0)
    image = Image.open(stream, formats=(_PILLOW[kind],))
    if planes and len(image.getbands()) == 2:
        raise UndecodablePicture("A TIFF with grey and alpha in two planes is not accepted.")
    if isinstance(image, WebPImagePlugin.WebPImageFile) and image.mode == "RGB":
        _show_margin(stream, image)
    return image


def _show_margin(stream: BinaryIO, image: WebPImagePlugin.WebPImageFile) -> None:
    """Keep the alpha of an animated WebP that announces none: its first frame may reach not everywhere."""
    stream.seek(0)
    head = stream.read(21)
    if head[12:16] == b"VP8X" and head[20] & 2:
        image.rawmode = image._mode = "RGBA"  # noqa: SLF001 (what `load` takes them for)


_STEPS = {"L;2": (0x3, 85), "L;4": (0xF, 17)}
"""Which bits of a PNG's sample count, and what Pillow multiplies it by to make 8 bits of them."""


def _fit_key(image: ImageFile.ImageFile) -> Sequence[int] | None:
    """Bring a PNG's transparent colour to the depth of the pixels; Pillow leaves it as it is stored.

    Returns: one of three 16-bit values, for which the pixels have no room.
    """
    key, raw = image.info.get("transparency"), str(image.tile[0].args)
    if isinstance(key, tuple) and raw == "RGB;16B":
        del image.info["transparency"]
        return key
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value & 0xFF for value in key)
    elif raw in _STEPS and key is not None:
        mask, step = _STEPS[raw]
        image.info["transparency"] = (key & mask) * step
    return None


def _unlike(key: Sequence[int], image: Image.Image, stream: BinaryIO) -> Image.Image:
    """Where a PNG of 16 bits has another colour than the transparent one.

    Pillow keeps the upper byte of each value; told the other order of bytes, it gives the lower one.
    """
    stream.seek(0)
    shown = Image.new("L", image.size)
    with Image.open(stream, formats=("PNG",)) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        # One channel by one, for a picture may be large.
        for channel, value in zip("RGB", key, strict=True):
            for half, byte in ((image, value >> 8), (lower, value & 0xFF)):
                other = half.getchannel(channel).point([255 * (n != byte) for n in range(256)])
                shown = ImageChops.lighter(shown, other)
    return shown


def _shown(image: ImageFile.ImageFile) -> Image.Image | None:
    """Where a GIF's first frame reaches, if not everywhere.

    Browsers show nothing beside it. Pillow does so if a colour is transparent, else it paints its first.
    """
    reach = image.tile[0].extents
    if "transparency" in image.info or reach == (0, 0, *image.size):
        return None
    shown = Image.new("L", image.size)
    shown.paste(255, reach)
    return shown


def _in_planes(stream: BinaryIO) -> bool:
    file = Tiff(stream)
    tags, _ = file.directory(file.first)
    layout = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION)
    return layout is not None and file.numbers(layout, 1) == [2]


_KEPT = {"L", "LA", "RGB", "RGBA", "CMYK", "LAB"}


def _eight_bit(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        return _with_profile(_black_is_zero(_sixteen_bit(image, key), image), image)
    if image.mode in ("I", "F"):
        return _black_is_zero(_stretched(image), image)
    if image.mode in _KEPT and key is None:
        return image
    if image.mode == "1" and key is None:
        return image.convert("L")
    alpha = image.mode in ("PA", "RGBa") or key is not None
    return _with_profile(image.convert("RGBA" if alpha else "RGB"), image)


def _sixteen_bit(image: Image.Image, key: int | None) -> Image.Image:
    whole = image if image.mode == "I;16" else image.convert("I")
    gain = 1 / 16 if _tags(image).get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 1 / 256
    grey = whole.point(lambda value: value * gain).convert("L")
    if key is not None:
        shown = ImageMath.lambda_eval(lambda of: (of["im"] != key) * 255, im=image.convert("I"))
        grey.putalpha(shown.convert("L"))
    return grey


def _stretched(image: Image.Image) -> Image.Image:
    """32 bits a pixel have no white of their own: the brightest pixel is taken for it."""
    low, high = image.getextrema()
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise TypeError("one channel is expected")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("a pixel is not finite")
    gain = 255 / (high - low) if high > low else 0.0
    return image.convert("F").point(lambda value: value * gain + -low * gain).convert("L")


def _tags(image: Image.Image) -> Mapping[int, object]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _black_is_zero(grey: Image.Image, image: Image.Image) -> Image.Image:
    """Grey of a TIFF in which white is 0; Pillow turns that round itself only up to 8 bits."""
    tags = _tags(image)
    negative = tags and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0
    return ImageChops.invert(grey) if negative else grey


def _with_profile(result: Image.Image, source: Image.Image) -> Image.Image:
    result.info = {key: source.info[key] for key in ("icc_profile",) if key in source.info}
    return result
