"""The corpus and 300 pictures made from it, seeded by the command line and looked at over HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image as Pillow

from imageapi import models
from imageapi.extensions import read
from tests.corpus import variants
from tests.imaging.corpus import rows
from tests.oracles import difference, rendered

VARIANTS = 300
BOXES = {"full": (1920, 1920, "fit"), "large": (200, 200, "fill"), "mini": (100, 100, "fill")}
MOST = {"full": 2.5, "large": 2.5, "mini": 4.0}
"""Levels of 255 that a rendition may be off in the mean, in its worst channel; turned, mirrored or
shifted ones are off by tens."""
UNLIKE = {
    "cmyk-ycck-seine.jpg",  # libvips takes a press profile where there is none, we take none
    "gen-jpeg-cmyk-plain.jpg",
}


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is seeded."""

    path: Path
    format: str
    size: tuple[int, int]


@pytest.fixture(scope="module")
def expected(shared, tmp_path_factory):
    """Every acceptable file of the four formats, and variants of them, in one folder."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "variants").mkdir()
    originals = [
        Expected(folder / row.path.name, row.format, row.upright)
        for row in rows()
        if row.expected == "accept" and row.format in variants.FORMATS
    ]
    for original in originals:
        shutil.copy(shared / "corpus" / original.path.name, original.path)
    sources = [original.path for original in originals]
    made = [
        Expected(variant.path, variant.format, variant.size)
        for variant in variants.make(sources, folder / "variants", VARIANTS)
    ]
    assert len(originals) > 60
    return folder, originals, made


def test_what_is_seeded_is_what_is_served(app, client, token, expected):
    folder, originals, made = expected
    everything = originals + made

    seeded = app.test_cli_runner().invoke(
        args=["albums", "seed", str(folder), "--album", "holidays", "--owner", "anna"]
    )
    assert seeded.exit_code == 0, seeded.output
    assert f"added {len(everything)}, skipped 0, refused 0" in seeded.output
    images = stored(app)
    assert len(images) == len(everything)

    headers = token("holidays", "image_list")
    compared = {one.path for one in originals + made[::3]}
    faults = []
    for one in everything:
        body = client.get(f"/api/v1/images/{images[sha256(one.path)]}", headers=headers).get_json()
        assert infos(body) == own(one), one.path.name
        assert (body["width"], body["height"]) == one.size
        for name, url in body["thumbnails"].items():
            response = client.get(url)  # without a token
            assert response.status_code == 200
            assert response.content_type in ("image/jpeg", "image/png")
            faults += look(one, name, response.data, compared)
    assert faults == []


def stored(app):
    """SHA-256 to image id."""
    with app.app_context():
        found = read(
            sa.select(models.StoredObject.sha256, models.Image.id).join(
                models.Image, models.Image.object_id == models.StoredObject.id
            )
        )
    return {row.sha256: row.id for row in found}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def infos(body):
    names = ("bytes", "etag", "format", "height", "width", "tags", "type", "resource_type")
    return {name: body["infos"][name] for name in names}


def own(one):
    """The same, from the file itself."""
    data = one.path.read_bytes()
    return {
        "bytes": len(data),
        "etag": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "format": one.format,
        "height": one.size[1],
        "width": one.size[0],
        "tags": ["holidays"],
        "type": "private",
        "resource_type": "image",
    }


def look(one, name, data, compared):
    """What is wrong with a rendition: its size, or, where it is compared, its pixels."""
    picture = Pillow.open(io.BytesIO(data))
    picture.load()
    if picture.size != box(one.size, *BOXES[name]):
        return [f"{one.path.name} {name}: {picture.size}"]
    if one.path not in compared or one.path.name in UNLIKE:
        return []
    other = rendered(one.path, *BOXES[name])
    off = difference(picture, encoded(other) if picture.format == "JPEG" else other)
    return [f"{one.path.name} {name}: {off:.1f}"] if off > MOST[name] else []


def encoded(picture):
    """What JPEG makes of it, as renditions are written: its losses are not what is looked for."""
    flat = Pillow.new("RGB", picture.size, (255, 255, 255))
    flat.paste(picture.convert("RGB"))
    file = io.BytesIO()
    flat.save(file, "JPEG", quality=85, subsampling="4:2:0")
    return Pillow.open(file)


def box(size, width, height, mode):
    """The size of a rendition, by design: scaled down into the box, or cut to its aspect first."""
    across, down = size
    if mode == "fill":
        unit = min(across / width, down / height)
        across, down = (max(1, int(side * unit + 0.5)) for side in (width, height))
    scale = min(1, width / across, height / down)
    return max(1, int(across * scale + 0.5)), max(1, int(down * scale + 0.5))


def test_seeding_again_skips_everything(app, expected):
    folder, originals, _made = expected
    runner = app.test_cli_runner()
    few = folder.parent / "few"
    few.mkdir(exist_ok=True)
    for one in originals[:20]:
        shutil.copy(one.path, few)
    arguments = ["albums", "seed", str(few), "--album", "holidays", "--owner", "anna"]

    assert "added 20, skipped 0, refused 0" in runner.invoke(args=arguments).output
    before = stored(app)
    assert "added 0, skipped 20, refused 0" in runner.invoke(args=arguments).output
    assert stored(app) == before
    assert (
        json.loads(runner.invoke(args=["albums", "list", "--json"]).stdout)[0]["images_count"] == 20
    )
