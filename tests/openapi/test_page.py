"""The documentation page in a real browser: it loads nothing from outside, and a pasted token works."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

import pytest
import requests

from tests.conftest import jpeg
from tests.servers.chromium import chromium
from tests.servers.gunicorn import gunicorn
from tests.servers.ports import HOST

API = "/api/v1"


@pytest.fixture(scope="module")
def server():
    with gunicorn(None, "--workers", "1") as server:
        yield server


@pytest.fixture
def token(server):
    return server.flask("token", "create", "--user", "anna").stdout.strip()


@pytest.fixture
def album(server, token):
    """The id of an album of anna's."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.post(f"{server.url}{API}/albums", headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()["public_id"]


@pytest.fixture
def image(server, token, album):
    """The id of an image in it."""
    answer = requests.post(
        f"{server.url}{API}/albums/{album}/images",
        files={"file": ("picture.jpg", jpeg(640, 480))},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["public_id"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(server, browser):
    """The page, and all that it said and asked for."""
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    page.set_default_timeout(20_000)
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(f"{server.url}/docs")
    page.wait_for_selector(".opblock")
    yield page
    page.close()


def look(page, name):
    """Keep what the page looks like where the environment variable SCREENSHOTS says."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def authorize(page, token):
    page.click("button.authorize")
    page.fill(".auth-container input", token)
    page.click(".auth-btn-wrapper button.authorize")
    page.click(".auth-btn-wrapper button.btn-done")


def execute(page, operation, variable, value, **files):
    """Try an operation; the status and the body that the page shows."""
    where = f"#operations-{operation}"
    page.click(f"{where} .opblock-summary-control")
    page.fill(f"{where} input[placeholder='{variable}']", value)
    if files:
        page.set_input_files(f"{where} input[type=file]", files)
    page.click(f"{where} button.execute")
    shown = f"{where} .live-responses-table .response"
    page.wait_for_selector(f"{shown} .highlight-code code")
    look(page, operation)
    status = page.inner_text(f"{shown} .response-col_status").split()[0]
    return status, json.loads(page.inner_text(f"{shown} .highlight-code code"))


def test_a_pasted_token_asks_for_an_image(page, server, token, image):
    look(page, "docs")
    authorize(page, token)
    status, body = execute(page, "images-images_show", "image_id", image)

    assert (status, body["public_id"]) == ("200", image)
    assert f"{server.url}{API}/images/{image}" in page.asked
    assert f"{server.url}/openapi.json" in page.asked
    assert {urlsplit(url).hostname for url in page.asked if not url.startswith("data:")} == {HOST}
    assert page.said == []
    assert token not in json.dumps(page.context.storage_state())


def test_a_picture_is_uploaded(page, token, album):
    authorize(page, token)
    picture = {"name": "picture.jpg", "mimeType": "image/jpeg", "buffer": jpeg(320, 240)}
    status, body = execute(page, "albums-albums_upload_image", "album_id", album, **picture)

    assert (status, body["album_id"], body["width"]) == ("201", album, 320)
    assert page.said == []


def test_without_a_token_it_says_so(page, image):
    status, body = execute(page, "images-images_show", "image_id", image)
    assert (status, body["code"]) == ("401", "unauthorized")


def test_its_policy_lets_it_load_itself_alone(server):
    answer = requests.get(f"{server.url}/docs", timeout=10)
    assert answer.status_code == 200
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "<script>" not in answer.text


def test_nothing_but_its_files_is_served(client):
    for name in ("index.html", "swagger-ui.js", "..", "docs.html", "blank.jpg"):
        assert client.get(f"/docs/{name}").status_code == 404
