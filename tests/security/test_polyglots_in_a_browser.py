"""A browser is led to pictures that are HTML or scripts too: none of it runs.

Source: threats T21; OWASP ASVS 5.0, 5.3 (files).
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.security.test_polyglots import POLYGLOTS, encoded
from tests.servers.chromium import chromium
from tests.servers.gunicorn import gunicorn
from tests.servers.ports import HOST

NUMBER = 500 if os.environ.get("FAULTS") == "full" else 16
API = "/api/v1"
TAGS = (
    '<script src="{}"></script>',
    '<iframe src="{}"></iframe>',
    '<object data="{}"></object>',
    '<embed src="{}">',
    '<link rel="stylesheet" href="{}">',
    '<img src="{}">',
)
STEPS = 400
"""Milliseconds in which a script that is there has run."""


def script() -> bytes:
    """A GIF that is a script: its width, 10,799 pixels, begins a comment that its own comment ends."""
    data = bytearray(encoded("GIF", comment=b"*/=1;alert(1)/*"))
    data[6:8] = b"/*"
    return bytes(data) + b"*/"


KINDS = [*POLYGLOTS.values(), script()]


@pytest.fixture(scope="module")
def server():
    with gunicorn({"IMAGEAPI_LOG_LEVEL": "ERROR"}, "--workers", "1") as server:
        server.flask("albums", "create", "holidays", "--owner", "anna")
        yield server


@pytest.fixture(scope="module")
def headers(server):
    token = server.flask("token", "create", "--user", "anna").stdout.strip()
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Evil(BaseHTTPRequestHandler):
    """The attacker's own site: `/` shows `body`, as what `kind` says."""

    body, kind = b"", ""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def evil():
    """Its address, on another site than ours."""
    with ThreadingHTTPServer((HOST, 0), Evil) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def page(browser, headers):
    """A page that counts the scripts which speak up; each of its requests has the token."""
    page = browser.new_page()
    page.spoke = []
    page.on("dialog", lambda dialog: (page.spoke.append(dialog.message), dialog.accept()))
    page.set_extra_http_headers(headers)
    yield page
    page.close()


def upload(server, headers, number):
    data = KINDS[number % len(KINDS)]
    if data[4:8] != b"ftyp":  # whose boxes are all there is
        data += b"//" + secrets.token_hex(8).encode()
    file = ("x.html", io.BytesIO(data), "text/html")
    answer = requests.post(
        f"{server.url}{API}/albums/holidays/images",
        files={"file": file},
        headers=headers,
        timeout=30,
    )
    assert answer.status_code in (200, 201), answer.text
    made = answer.json()
    original = f"{server.url}{API}/images/{made['public_id']}/original"
    return [f"{server.url}{made['thumbnails']['full']}", original]


def visit(page, evil, body, kind="text/html"):
    Evil.body, Evil.kind = body, kind
    page.goto(evil)
    page.wait_for_timeout(STEPS)


@pytest.mark.parametrize("kind", ["PNG, then HTML", "GIF with script in a comment"])
def test_elsewhere_they_run(page, evil, kind):
    visit(page, evil, POLYGLOTS[kind])
    assert page.spoke


def test_elsewhere_the_gif_is_a_script(page, evil):
    visit(page, evil, b"<p>")
    Evil.body, Evil.kind = script(), "text/javascript"
    page.add_script_tag(url=f"{evil}a.js")
    assert page.spoke == ["1"]


def test_nothing_of_them_runs_here(page, evil, server, headers):
    for start in range(0, NUMBER, 8):
        places = []
        for number in range(start, min(start + 8, NUMBER)):
            urls = upload(server, headers, number)
            places += urls
            for url in urls:
                look(page, url)
        visit(page, evil, "".join(tag.format(url) for url in places for tag in TAGS).encode())
        assert page.evaluate("document.images[0].naturalWidth") > 0, "the pictures are shown"
        assert page.spoke == [], number


def look(page, url):
    """Go there: a picture is shown, an original comes as a file."""
    if url.endswith("/original"):
        with page.expect_download() as download, contextlib.suppress(Exception):
            page.goto(url)
        assert download.value.suggested_filename.endswith(
            (".jpg", ".png", ".gif", ".webp", ".avif", ".tiff")
        )
        return
    page.goto(url)
    assert page.evaluate("document.contentType").startswith("image/")
