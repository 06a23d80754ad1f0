"""What the decoder's process does, done in this one: for tests of the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from imageapi.geometry import Edit, Rendition
from imageapi.imaging import Limits, Probe, Rendered
from imageapi.imaging.decode import decoding, prepare
from imageapi.imaging.probing import inspect
from imageapi.imaging.rendering import compose, draw


def probe(path: Path, limits: Limits) -> Probe:
    """As `imaging.probe`."""
    with path.open("rb") as stream:
        return inspect(stream, limits)[0]


def render(path: Path, edit: Edit, renditions: Sequence[Rendition], limits: Limits) -> Rendered:
    """As `imaging.render`."""
    with path.open("rb") as stream:
        probed, header = inspect(stream, limits)
        prepare(probed.format)
        return draw(stream, probed, header, edit, renditions, limits)


def take_in(path: Path, renditions: Sequence[Rendition], limits: Limits) -> tuple[Probe, Rendered]:
    """As `imaging.take_in`."""
    return probe(path, limits), render(path, Edit(), renditions, limits)


def pictures(
    path: Path, edit: Edit, renditions: Sequence[Rendition], limits: Limits
) -> dict[str, Image.Image]:
    """The renditions before they are encoded."""
    with path.open("rb") as stream:
        probed, header = inspect(stream, limits)
        prepare(probed.format)
        with decoding(limits):
            return compose(stream, probed, header, edit, renditions)
