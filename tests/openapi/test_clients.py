"""Clients that are made from the document: upload, list, crop, thumbnail, delete on a real server."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from imageapi.auth.tokens import sign
from tests.conftest import jpeg
from tests.openapi.seed import API, claims
from tests.servers.gunicorn import gunicorn
from tests.servers.need import lacking, need, need_module

HERE = Path(__file__).parent
ALBUM = "holidays 2026"


@pytest.fixture(scope="module")
def server():
    with gunicorn(None, "--workers", "1") as server:
        yield server


@pytest.fixture
def token(server):
    """A token of anna's that says all of her album, which is there and empty."""
    token = sign(claims(ALBUM), server.env["IMAGEAPI_SECRET_KEYS"])
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}) as client:
        if client.get(f"{API}/albums/{ALBUM}").status_code == 200:
            assert client.delete(f"{API}/albums/{ALBUM}").status_code == 204
        made = client.post(f"{API}/albums", json={"album": {"public_id": ALBUM}})
        assert made.status_code == 200, made.text
    return token


def run(*command, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def generated(made, tmp_path, monkeypatch):
    """The package that openapi-python-client makes of the document."""
    need_module("openapi_python_client", "pip install openapi-python-client")
    (tmp_path / "openapi.json").write_text(json.dumps(made))
    kinds = {
        kind: "application/octet-stream"
        for item in made["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
        for answer in operation["responses"].values()
        for kind in answer.get("content", {})
        if kind.startswith("image/")
    }
    config = {"content_type_overrides": kinds, "post_hooks": []}
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
        *("--path", "openapi.json", "--config", "config.json", "--output-path", "image_api_client"),
        cwd=tmp_path,
    )
    assert "WARNING" not in said, said
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"image_api_client.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "image_api_client"]:
        del sys.modules[name]


def test_a_python_client(generated, server, token):
    models, types = generated("models"), generated("types")
    with generated("client").AuthenticatedClient(base_url=server.url, token=token) as client:

        def call(path, status, **options):
            answer = generated(f"api.{path}").sync_detailed(client=client, **options)
            assert answer.status_code == status, answer
            return answer

        file = types.File(io.BytesIO(jpeg()), "picture.jpg", "image/jpeg")
        body = models.AlbumsUploadImageFilesBody(file=file, latitude=48.85, longitude=2.35)
        image = call("albums.albums_upload_image", 201, album_id=ALBUM, body=body).parsed
        assert image.gps == [48.85, 2.35]
        assert image.created_at.tzinfo

        (listed,) = call("albums.albums_list_images", 200, album_id=ALBUM, limit=10).parsed
        assert listed == image

        crop = {"crop_x": 8, "crop_y": 4, "crop_w": 32, "crop_h": 24, "rotation": 90}
        edit = models.ImagesUpdateJsonBody.from_dict(crop)
        options = {"image_id": image.public_id, "body": edit, "if_match": '"0"'}
        cropped = call("images.images_update", 200, **options)
        assert (cropped.parsed.width, cropped.parsed.height) == (24, 32)
        assert cropped.headers["ETag"] == '"1"'

        mini = httpx.get(f"{server.url}{cropped.parsed.thumbnails['mini']}")
        assert mini.headers["Content-Type"] == "image/jpeg"
        original = call("images.images_original", 200, image_id=image.public_id).parsed
        assert original.payload.read() == jpeg()

        call("images.images_delete", 204, image_id=image.public_id)
        refused = call("images.images_show", 404, image_id=image.public_id).parsed
        assert refused.code == "not_found"


@pytest.fixture
def typescript(made, tmp_path):
    """A folder with the tour, what it needs, and the types of the document."""
    need("node", install="apt install nodejs")
    npm = need("npm", install="apt install npm")
    shutil.copytree(HERE / "typescript", tmp_path, dirs_exist_ok=True)
    (tmp_path / "openapi.json").write_text(json.dumps(made))
    options = [
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--ignore-scripts",
        "--prefer-offline",
    ]
    installed = subprocess.run(
        [npm, "install", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if installed.returncode:
        lacking(f"npm can not install: {installed.stderr[-500:]}")
    run(_bin(tmp_path, "openapi-typescript"), "openapi.json", "--output", "api.d.ts", cwd=tmp_path)
    return tmp_path


def _bin(folder, name):
    return folder / "node_modules" / ".bin" / name


def test_a_typescript_client(typescript, server, token):
    (typescript / "picture.jpg").write_bytes(jpeg())
    run(_bin(typescript, "tsc"), cwd=typescript)
    arguments = [server.url, token, ALBUM, "picture.jpg"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(typescript)}
    said = run("node", "made/tour.js", *arguments, cwd=typescript, env=environment)
    assert said == "done\n"
