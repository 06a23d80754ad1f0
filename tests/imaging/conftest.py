"""Oracles of the picture tests."""

from __future__ import annotations

import importlib

import PIL.Image
import pytest

from tests.servers.need import need, need_module


@pytest.fixture(autouse=True)
def limit_of_pixels():
    """Decoding in this very process lowers Pillow's limit; other tests have their own pictures."""
    before = PIL.Image.MAX_IMAGE_PIXELS
    yield
    PIL.Image.MAX_IMAGE_PIXELS = before


@pytest.fixture(scope="session")
def exiftool() -> str:
    return need("exiftool", install="apt install libimage-exiftool-perl")


@pytest.fixture(scope="session")
def vips():
    need_module("pyvips", install="pip install pyvips pyvips-binary")
    return importlib.import_module("tests.imaging.vips")
