"""renditions rebuild: after the sizes have changed, and where it was stopped."""

from __future__ import annotations

import io

import pytest
import sqlalchemy as sa
from PIL import Image as Pillow

from imageapi.catalog import images, library, rebuilding, renditions, work
from imageapi.extensions import read
from imageapi.geometry import Rendition
from imageapi.models import Progress, Work
from tests.conftest import jpeg
from tests.upkeep.helpers import objects, path


@pytest.fixture
def rebuild(flask):
    return lambda *arguments: flask("renditions", "rebuild", *arguments)


@pytest.fixture
def smaller(app):
    """The sizes as changed settings would have them."""
    shelf = app.extensions["library"]
    sizes = tuple(Rendition(r.name, r.width // 2, r.height // 2, r.mode) for r in shelf.renditions)
    object.__setattr__(shelf, "renditions", sizes)


def mini(anna, block):
    shown = anna.client.get(block["thumbnails"]["mini"])
    return Pillow.open(io.BytesIO(shown.data)).size


def shown(block):
    return renditions.keys(renditions.picture(images.get(block["public_id"])))


def done(rebuild, *arguments):
    run = rebuild(*arguments)
    return run.exit_code, run.stdout.partition(" in ")[0]


def test_other_sizes(rebuild, anna, smaller):
    block = anna.upload(data=jpeg(400, 300))
    assert mini(anna, block) == (50, 50)


def test_all_of_them_are_rendered_anew(app, rebuild, anna, request):
    blocks = [anna.upload(data=jpeg(400, 300, seed=number)) for number in range(3)]
    anna.put(f"/images/{blocks[0]['public_id']}", json={"rotation": 90})
    request.getfixturevalue("smaller")
    assert done(rebuild) == (0, "rendered 3, skipped 0, failed 0")
    for block in blocks:
        now = anna.get(f"/images/{block['public_id']}").json
        assert mini(anna, now) == (50, 50)
        assert now["infos"] == block["infos"]
    with app.app_context():
        assert read(sa.select(Progress.task)) == []


def test_one_album(rebuild, anna, album, request):
    album("work", owner="anna")
    holiday, work = (anna.upload(name, jpeg(400, 300)) for name in ("holidays", "work"))
    request.getfixturevalue("smaller")
    assert done(rebuild, "--album", "work") == (0, "rendered 1, skipped 0, failed 0")
    assert (mini(anna, holiday), mini(anna, work)) == ((100, 100), (50, 50))
    run = rebuild("--album", "none")
    assert (run.exit_code, run.stderr) == (1, "Error: There is no album 'none'.\n")


def test_it_goes_on_where_it_was_killed(app, rebuild, anna, monkeypatch):
    for number in range(5):
        anna.upload(data=jpeg(seed=number))
    monkeypatch.setattr(rebuilding, "PAGE", 2)
    with app.app_context():
        run = rebuilding.rebuild(None, "")
        for _ in range(4):  # the fourth is not noted yet
            next(run)
        run.close()
        assert rebuilding.left(None, rebuilding.place(None)) == 3
        assert rebuilding.place(None) != ""
    assert done(rebuild) == (0, "rendered 3, skipped 0, failed 0")
    assert done(rebuild) == (0, "rendered 5, skipped 0, failed 0")


def test_in_the_background_a_slice_at_a_time(app, rebuild, anna, album, monkeypatch):
    monkeypatch.setattr(work, "SLICE", 0.0)
    album("empty", owner="anna")
    blocks = [anna.upload(data=jpeg(seed=number)) for number in range(3)]
    with app.app_context():
        for key in [key for block in blocks for key in shown(block)]:
            library().storages["local"].delete(key)
        assert done(rebuild, "--background", "--album", "empty") == (
            0,
            "0 images are left to be rendered.\n",
        )
        assert done(rebuild, "--background") == (0, "3 images are left to be rendered.\n")
        for _ in range(4):
            app.extensions["background"].once()
        assert read(sa.select(Work.id)) == []
        for key in [key for block in blocks for key in shown(block)]:
            assert library().storages["local"].stat(key).bytes > 0


def test_it_can_begin_anew(app, rebuild, anna, monkeypatch):
    for number in range(3):
        anna.upload(data=jpeg(seed=number))
    monkeypatch.setattr(rebuilding, "PAGE", 1)
    with app.app_context():
        run = rebuilding.rebuild(None, "")
        next(run), next(run), run.close()
    assert done(rebuild, "--restart") == (0, "rendered 3, skipped 0, failed 0")


def test_other_sizes_are_another_task(app, rebuild, anna, monkeypatch, request):
    for number in range(3):
        anna.upload(data=jpeg(seed=number))
    monkeypatch.setattr(rebuilding, "PAGE", 1)
    with app.app_context():
        run = rebuilding.rebuild(None, "")
        next(run), next(run), run.close()
    request.getfixturevalue("smaller")
    assert done(rebuild) == (0, "rendered 3, skipped 0, failed 0")


def test_what_can_not_be_rendered_is_told(app, settings, rebuild, anna):
    block, _whole = anna.upload(), anna.upload(data=jpeg(seed=1))
    with app.app_context():
        path(settings, images.get(block["public_id"]).key).unlink()
    run = rebuild()
    assert (run.exit_code, run.stdout[:32]) == (1, "rendered 1, skipped 0, failed 1 ")
    assert run.stderr.startswith(f"{block['public_id']}: The storage has no bytes for this image.")


def test_a_storage_that_renders_by_itself_has_nothing_to_do(
    app, rebuild, anna, album, on_cloudinary
):
    album("cloud", owner="anna", storage="cloudinary")
    anna.upload("cloud")
    assert done(rebuild) == (0, "rendered 0, skipped 1, failed 0")


def test_lost_renditions_come_back(app, settings, rebuild, anna):
    block = anna.upload()
    with app.app_context():
        keys = renditions.keys(renditions.picture(images.get(block["public_id"])))
        for key in keys:
            path(settings, key).unlink()
        assert done(rebuild) == (0, "rendered 1, skipped 0, failed 0")
        assert all(path(settings, key).exists() for key in keys)
        assert len(objects()) == 1
        assert library().renditions[0].name == "full"
