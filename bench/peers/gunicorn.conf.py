# ruff: noqa: N999
"""The settings that ours runs with, for a peer: without the hooks, which are for our application."""

import runpy
from pathlib import Path

_OURS = runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py"))
globals().update({name: value for name, value in _OURS.items() if not callable(value)})
