"""Oracles of the picture tests."""

from __future__ import annotations

import importlib

import pytest

from tests.servers.need import need, need_module


@pytest.fixture(scope="session")
def exiftool() -> str:
    return need("exiftool", install="apt install libimage-exiftool-perl")


@pytest.fixture(scope="session")
def vips():
    need_module("pyvips", install="pip install pyvips pyvips-binary")
    return importlib.import_module("tests.imaging.vips")
