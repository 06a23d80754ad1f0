"""The `flask` commands: thin, over the catalog."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Add the commands to `app`."""
