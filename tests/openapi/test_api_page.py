"""docs/api.md: every route has a line, and every line answers what it says."""

from __future__ import annotations

import dataclasses
import re
import subprocess

import pytest

from tests.conftest import REPOSITORY, jpeg
from tests.deploy.site import served
from tests.openapi.seed import API, seed
from tests.servers.gunicorn import gunicorn
from tests.servers.need import need
from tests.servers.process import clean_environment

PAGE = (REPOSITORY / "docs" / "api.md").read_text()
LINES = re.findall(r"^(curl .*)  # (\d{3})$", PAGE, re.MULTILINE)


OPERATORS = ('/readyz"', '/metrics"')
"""The ends of the lines that are the operator's: nginx shows nothing of them."""


@pytest.fixture(scope="module", params=["gunicorn", "nginx"])
def server(request):
    """The application as it is, and behind nginx as docs/deployment.md has it."""
    if request.param == "gunicorn":
        with gunicorn(None, "--workers", "1") as server:
            yield server
    else:
        with served() as site:
            yield dataclasses.replace(site.door.app, url=site.nginx.url)


@pytest.fixture
def run(server, tmp_path):
    """`run(line)`: run it as a shell does, on an album of its own; the status, method and path."""
    need("curl", install="apt install curl")
    (tmp_path / ".curlrc").write_text(
        'silent\nwrite-out = "%{stderr}%{http_code} %{method} %{url}"\n'
    )
    (tmp_path / "picture.jpg").write_bytes(jpeg(64, 48, seed=1))
    seeded = seed(server)
    variables = {
        "API": f"{server.url}{API}",
        "SERVICE": server.url,
        "TOKEN": seeded.token,
        "ALBUM": seeded.ids["album_id"],
        "IMAGE": seeded.ids["image_id"],
        "TAG": seeded.ids["tag_id"],
        "TAG_IMAGE": seeded.ids["tag_image_id"],
        "SHARE": seeded.ids["share_id"],
        "THUMBNAIL": seeded.image["thumbnails"]["mini"],
    }
    environment = {**clean_environment(), **variables, "CURL_HOME": str(tmp_path)}

    def run(line):
        done = subprocess.run(
            ["bash", "-euc", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=True,
            timeout=30,
        )
        status, method, url = done.stderr.decode().split()
        return status, method, url.removeprefix(server.url).partition("?")[0]

    return run


@pytest.mark.parametrize(("line", "status"), LINES)
def test_a_line_answers_what_it_says(line, status, run, described, request):
    answered, method, path = run(line)
    if line.endswith(OPERATORS) and request.node.callspec.params["server"] == "nginx":
        assert answered == "404"
        return
    assert answered == status
    assert status in described.operation(method, path)["responses"]


def test_every_line_is_run():
    assert PAGE.count("curl ") == len(LINES) > 25


def test_every_route_has_a_line(described):
    """Each line asks for an operation, and each operation but HEAD has one that succeeds."""
    named = dict.fromkeys(("IMAGE", "TAG_IMAGE", "TAG", "ALBUM", "SHARE"), "x")
    found = set()
    for line, status in LINES:
        url = re.search(r'"\$(\S+)"$', line)[1]
        url = url.replace("SERVICE$THUMBNAIL", "SERVICE/files/local/ab/x").partition("?")[0]
        for name in named:
            url = re.sub(rf"\${name}\b", "x", url)
        path = url.replace("SERVICE", "").replace("API", API, 1)
        sends = re.search(r" (-d|--json|-F) ", line) and " -G " not in line
        method = match[1] if (match := re.search(r"-X (\w+)", line)) else "POST" if sends else "GET"
        if status < "400":
            found.add(described.operation(method, path)["operationId"])
    assert found == {
        operation["operationId"]
        for method, _path, operation in described.operations()
        if method != "HEAD"
    }
