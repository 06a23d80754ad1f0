"""Originals that are damaged or gone, when renditions must be made of them: blank, never wrong, never for ever."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from imageapi.catalog import library, renditions, work
from imageapi.errors import UnsupportedFormat
from imageapi.extensions import read, transaction
from imageapi.models import IMAGES, Work
from tests.conftest import jpeg, part
from tests.servers.gunicorn import ROOT

BLANK = (ROOT / "imageapi/assets/blank.jpg").read_bytes()


@pytest.fixture
def anna(album, token):
    album()
    return token(user_id="anna")


@pytest.fixture
def image(app, client, anna):
    """An image, its original on the disk, and its renditions."""
    sent = client.post(
        "/api/v1/albums/holidays/images", data={"file": part(jpeg(400, 300))}, headers=anna
    )
    with app.app_context():
        [row] = read(IMAGES)
        root = library().settings.instance / "storage" / "local"
        kept = [root / key for key in renditions.keys(renditions.picture(row))]
        return sent.json, root / row.key, kept


def flipped(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 0x55, data[place + 1] ^ 0x2A]) + data[place + 2 :]


DAMAGE = {
    "two bytes are others": flipped,
    "no picture any more": lambda data: b"\0\0\0\0" + data[4:],
    "empty": lambda _data: b"",
    "cut": lambda data: data[:-100],
    "gone": None,
}


def damage(original, how):
    if how is None:
        original.unlink()
    else:
        original.write_bytes(how(original.read_bytes()))


@pytest.mark.parametrize("how", DAMAGE.values(), ids=list(DAMAGE))
def test_what_was_lost_is_not_made_of_it(client, image, how):
    shown, original, kept = image
    right, good = client.get(shown["thumbnails"]["mini"]).data, original.read_bytes()
    for path in kept:
        path.unlink()
    damage(original, how)
    blank = client.get(shown["thumbnails"]["mini"])
    assert (blank.status_code, blank.data) == (200, BLANK)
    assert not any(path.exists() for path in kept)
    original.write_bytes(good)
    assert client.get(shown["thumbnails"]["mini"]).data == right


@pytest.mark.parametrize("how", DAMAGE.values(), ids=list(DAMAGE))
@pytest.mark.parametrize("kind", ["render", "restore"])
def test_work_that_can_not_be_done_is_not_tried_for_ever(app, image, kind, how):
    shown, original, kept = image
    damage(original, how)
    for path in kept:
        path.unlink()
    with app.app_context():
        with transaction() as session:
            if kind == "render":
                session.execute(sa.text("UPDATE image SET rendered = ''"))
            number = work.record(session, kind, {"image": shown["public_id"]})
        assert work.run(number)
        assert read(sa.select(Work.kind)) == []
    assert not any(path.exists() for path in kept)


def test_a_format_that_is_not_accepted_any_more(app, client, image, monkeypatch):
    """As HEIC, when the extra was taken away."""
    shown, _original, kept = image
    for path in kept:
        path.unlink()

    def refuse(*_arguments):
        raise UnsupportedFormat

    monkeypatch.setattr(renditions.imaging, "render", refuse)
    blank = client.get(shown["thumbnails"]["mini"])
    assert (blank.status_code, blank.data) == (200, BLANK)
    with app.app_context():
        with transaction() as session:
            number = work.record(session, "restore", {"image": shown["public_id"]})
        assert work.run(number)
        assert read(sa.select(Work.kind)) == []


def test_an_edit_of_it_is_kept_and_shows_the_blank_picture(client, anna, image):
    shown, original, _ = image
    damage(original, flipped)
    edited = client.put(f"/api/v1/images/{shown['public_id']}", json={"rotation": 90}, headers=anna)
    assert edited.status_code == 200
    assert set(edited.json["thumbnails"].values()) == {"/assets/blank.jpg"}
