"""ThumbHash: a picture's placeholder in some 25 bytes.

Sums are taken in the order of the reference, for a hash of a plain colour depends on their last bit.

Source: https://evanw.github.io/thumbhash/ (rgbaToThumbHash).
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Sequence
from operator import add, mul
from typing import NamedTuple

from imageapi.imaging.fdlibm import cos

MAX_SIDE = 100
_OPAQUE = [1 / 255 * value for value in range(256)]


class _Channel(NamedTuple):
    """The cosine terms of a channel: the constant one, the others scaled to 0…1, their scale."""

    constant: float
    others: list[float]
    scale: float


def encode(width: int, height: int, rgba: bytes) -> bytes:
    """The hash of a picture.

    Args:
        width, height: in pixels, at most 100 each; some 30 are enough.
        rgba: its pixels row by row, 8 bits a channel, not premultiplied.

    Raises:
        ValueError: larger than 100 pixels, or not as many bytes as pixels.
    """
    if max(width, height) > MAX_SIDE or len(rgba) != width * height * 4:
        raise ValueError("no picture of at most 100x100 pixels")
    transparent = any(value < 255 for value in rgba[3::4])
    alphas = [value / 255 for value in rgba[3::4]] if transparent else []
    red, green, blue = (
        _over_average(rgba[channel::4], alphas)
        if transparent
        else [_OPAQUE[value] for value in rgba[channel::4]]
        for channel in range(3)
    )
    pixels = list(zip(red, green, blue, strict=True))
    most = 5 if transparent else 7  # fewer terms of light when there is alpha
    across = max(1, _round(most * width / max(width, height)))
    down = max(1, _round(most * height / max(width, height)))
    size = width, height
    light = _terms([(r + g + b) / 3 for r, g, b in pixels], size, max(3, across), max(3, down))
    yellow = _terms([(r + g) / 2 - b for r, g, b in pixels], size, 3, 3)
    pink = _terms([r - g for r, g, _ in pixels], size, 3, 3)
    channels = [light, yellow, pink]
    lying = width > height
    head = (
        _round(63 * light.constant)
        | _round(31.5 + 31.5 * yellow.constant) << 6
        | _round(31.5 + 31.5 * pink.constant) << 12
        | _round(31 * light.scale) << 18
        | transparent << 23
        | (down if lying else across) << 24
        | _round(63 * yellow.scale) << 27
        | _round(63 * pink.scale) << 33
        | lying << 39
    ).to_bytes(5, "little")
    if transparent:
        shown = _terms(alphas, size, 5, 5)
        head += bytes([_round(15 * shown.constant) | _round(15 * shown.scale) << 4])
        channels.append(shown)
    steps = [_round(15 * term) for channel in channels for term in channel.others]
    steps += [0] * (len(steps) % 2)
    return head + bytes(low | high << 4 for low, high in zip(steps[::2], steps[1::2], strict=True))


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _over_average(colour: bytes, alphas: Sequence[float]) -> list[float]:
    """A channel over its own average, 0 to 1."""
    amount = total = 0.0
    for value, alpha in zip(colour, alphas, strict=True):
        amount += alpha / 255 * value
        total += alpha
    mean = amount / total if total else amount
    return [
        mean * (1 - alpha) + alpha / 255 * value
        for value, alpha in zip(colour, alphas, strict=True)
    ]


@functools.lru_cache(maxsize=32)
def _waves(length: int, index: int) -> list[float]:
    return [cos(math.pi / length * index * (place + 0.5)) for place in range(length)]


@functools.lru_cache(maxsize=8)
def _waves_down(width: int, height: int, index: int) -> list[float]:
    """Of each pixel, row by row."""
    return [wave for wave in _waves(height, index) for _ in range(width)]


def _sum(values: Iterable[float]) -> float:
    """One added to the other, in their order."""
    if sys.version_info < (3, 12):
        return sum(values, 0.0)
    return functools.reduce(add, values, 0.0)  # sum() makes up there for what rounding loses


def _terms(channel: Sequence[float], size: tuple[int, int], across: int, down: int) -> _Channel:
    width, height = size
    # What all terms of a column have in common.
    columns = [list(map(mul, channel, _waves(width, u) * height)) for u in range(across)]
    constant, others = 0.0, []
    for v in range(down):
        waves = _waves_down(width, height, v)
        for u in range(across):
            if u * down >= across * (down - v):
                break
            amount = _sum(map(mul, columns[u], waves)) / (width * height)
            if u or v:
                others.append(amount)
            else:
                constant = amount
    scale = max((abs(term) for term in others), default=0.0)
    if scale:
        others = [0.5 + 0.5 / scale * term for term in others]
    return _Channel(constant, others, scale)
