"""Pixels: what a file is, and its renditions.

`probe`, `render` and `take_in` are all that the other rooms use; they do their work outside of this
process (`helper.py`), so that no picture can hurt it.
"""

from imageapi.imaging.helper import probe, render, take_in
from imageapi.imaging.limits import Limits
from imageapi.imaging.values import Probe, Rendered

__all__ = ["Limits", "Probe", "Rendered", "probe", "render", "take_in"]
