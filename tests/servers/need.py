"""What a test needs from the machine: skip where it is missing, fail in CI, where nothing may be."""

import importlib
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

_SEARCH = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
)


def lacking(reason: str) -> NoReturn:
    """End the test: skipped with the reason, or failed where the environment variable CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (and CI must have it)", pytrace=False)
    pytest.skip(reason)


def need(*programs: str, install: str) -> str:
    """Find the first of these programs: beside the interpreter, on PATH, in the sbin folders.

    Args:
        programs: names of programs that do the same.
        install: what brings it, for the reason: `apt install nginx`.
    Returns: the absolute path of the program.
    """
    for program in programs:
        if path := shutil.which(program, path=_SEARCH):
            return path
    lacking(f"{' or '.join(programs)} is not installed: {install}")


def need_module(name: str, install: str) -> ModuleType:
    """Import a module that not every machine has."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        lacking(f"{error}: {install}")
