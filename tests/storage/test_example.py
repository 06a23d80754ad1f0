"""The plugin in `examples/`, installed as anyone would, passes the suite."""

import os
import subprocess
import sys
from pathlib import Path

from tests.servers.need import lacking

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "imageapi-sqlite"


def test_the_example_passes_the_suite(tmp_path):
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "imageapi_sqlite.py"):
        (source / name).write_bytes((EXAMPLE / name).read_bytes())
    command = [sys.executable, "-m", "pip", "install", *options, "--target", tmp_path / "site"]
    installed = subprocess.run([*command, source], check=False, capture_output=True, text=True)
    if "bdist_wheel" in installed.stderr:
        lacking("the example can not be built: pip install 'setuptools>=77'")
    assert installed.returncode == 0, installed.stderr
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{REPOSITORY}"},
        cwd=EXAMPLE,
    )
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout
