"""Pixels: what a file is, and its renditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imageapi.geometry import Edit, Rendition
from imageapi.imaging.limits import Limits
from imageapi.imaging.probe import Probe, inspect, probe
from imageapi.imaging.render import Rendered, draw, render

__all__ = ["Limits", "Probe", "Rendered", "probe", "render", "take_in"]


def take_in(path: Path, renditions: Sequence[Rendition], limits: Limits) -> tuple[Probe, Rendered]:
    """What an upload needs: probe a picture, decode it to its end, render it unedited.

    Raises:
        UnsupportedFormat: not a picture of an accepted format; names those.
        UndecodablePicture: broken, cut short, or over a limit, which it names.
    """
    probed, header = inspect(path, limits)
    return probed, draw(path, probed, header, Edit(), renditions, limits)
