"""Pictures made from the corpus: other sizes, formats, qualities, orientations. Always the same ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageOps

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}
_SIDES = (40, 97, 128, 200, 333, 480, 640, 801)
_LARGE = 2050
"""Of one JPEG in eight: larger than every rendition."""
_JPEG: tuple[dict[str, Any], ...] = (
    {"quality": 92, "subsampling": 0},
    {"quality": 75},
    {"quality": 40, "progressive": True},
    {"quality": 85, "optimize": True, "restart_marker_blocks": 8},
)
_WEBP: tuple[dict[str, Any], ...] = ({"quality": 80, "method": 0}, {"lossless": True, "method": 0})


@dataclass(frozen=True)
class Variant:
    """A picture that was made: its file, its format in the product's words, its upright size."""

    path: Path
    format: str
    size: tuple[int, int]


def make(sources: Sequence[Path], folder: Path, number: int) -> Iterator[Variant]:
    """Make `number` different pictures in `folder`, each from one of the sources."""
    for index in range(number):
        source = sources[index * len(sources) // number]
        kind = tuple(FORMATS)[index % 4]
        side = _LARGE if index % 32 == 0 else _SIDES[index * 7 % len(_SIDES)]
        picture = _scaled(_upright(source), side)
        if index % 11 == 5:
            picture = picture.convert("L")
        elif kind == "jpg":
            picture = picture.convert("RGB")
        orientation = 1 + index % 8 if kind != "gif" else 1
        path = folder / f"{index:03}-{source.stem}.{kind}"
        picture.save(path, FORMATS[kind], **_options(kind, index, orientation))
        width, height = picture.size
        yield Variant(path, kind, (height, width) if orientation >= 5 else (width, height))


@functools.lru_cache(maxsize=1)
def _upright(source: Path) -> Pillow.Image:
    with Pillow.open(source) as opened:
        opened.draft("RGB", (_LARGE, _LARGE))
        picture = ImageOps.exif_transpose(opened)
        alpha = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
        return picture.convert("RGBA" if alpha else "RGB")


def _scaled(picture: Pillow.Image, side: int) -> Pillow.Image:
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), reducing_gap=2.0)


def _options(kind: str, index: int, orientation: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if kind == "jpg":
        options = dict(_JPEG[index % len(_JPEG)])
    elif kind == "webp":
        options = dict(_WEBP[index % len(_WEBP)])
    elif kind == "png":
        options = {"compress_level": 1}
    else:
        return {"comment": str(index)}  # no two of them are the same bytes
    exif = Pillow.Exif()
    exif[0x10E] = str(index)
    if orientation != 1:
        exif[0x112] = orientation
    return {**options, "exif": exif}
