"""Two who change the same rows at once: the second waits, and then sees what the first has done."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from imageapi.catalog import albums, edits, images, tags
from imageapi.errors import Conflict, NotFound
from imageapi.extensions import read
from imageapi.models import TagImage
from tests.conftest import jpeg
from tests.upkeep.crowd import upload

SECONDS = 20
TURNS = 25


@pytest.fixture
def beside(app):
    """`beside(act, *arguments)`: the future of an act in a thread of its own."""

    def run(act, *arguments):
        with app.app_context():
            return act(*arguments)

    with ThreadPoolExecutor(2) as pool, app.app_context():
        yield lambda act, *arguments: pool.submit(run, act, *arguments)


class Pause:
    """A `confirm` that waits in the middle of its transaction."""

    def __init__(self):
        self.reached, self.over = threading.Event(), threading.Event()

    def __call__(self, *_):
        self.reached.set()
        assert self.over.wait(SECONDS)

    @contextlib.contextmanager
    def while_another_waits(self):
        """What is begun here meets what is held; it goes on at the end."""
        assert self.reached.wait(SECONDS)
        yield
        time.sleep(0.3)
        self.over.set()


@pytest.mark.parametrize("give_up", ["rename", "delete"])
def test_an_id_that_is_being_given_up_goes_to_no_other_owner(monkeypatch, beside, give_up):
    album, pause, reserve = albums.create("a", "anna"), Pause(), albums._reserve
    monkeypatch.setattr(albums, "_reserve", lambda *row: (pause(), reserve(*row)))
    first = (
        beside(albums.rename, album, "b") if give_up == "rename" else beside(albums.delete, album)
    )
    with pause.while_another_waits():
        second = beside(albums.create, "a", "bob")
    first.result(SECONDS)
    with pytest.raises(Conflict):
        second.result(SECONDS)


@pytest.mark.parametrize("then", ["rename", "delete"])
def test_an_album_that_is_being_renamed_is_found_under_its_new_id_alone(beside, then):
    album, pause = albums.create("a", "anna"), Pause()
    first = beside(albums.rename, album, "b", pause)
    with pause.while_another_waits():
        late = (albums.rename, album, "c") if then == "rename" else (albums.delete, album)
        second = beside(*late)
    first.result(SECONDS)
    with pytest.raises(NotFound):
        second.result(SECONDS)
    assert [row.public_id for row in albums.every()] == ["b"]


def test_two_who_put_one_tag_on_the_same_images(beside):
    album = albums.create("holidays", "anna")
    ids = [upload(jpeg(16, 16, seed=number)) for number in range(4)]
    for turn in range(TURNS):
        [*_, tag], _ = tags.ensure(album.id, {f"tag {turn}": ""})
        both = [
            beside(tags.put_on, tag, order, "anna", images.agreed) for order in (ids, ids[::-1])
        ]
        assert {row.tag_image_id for row in both[0].result(SECONDS)} == {
            row.tag_image_id for row in both[1].result(SECONDS)
        }


def test_a_tag_and_the_deletion_of_its_image(beside):
    album = albums.create("holidays", "anna")
    [tag], _ = tags.ensure(album.id, {"best": ""})
    for turn in range(TURNS):
        row = images.get(upload(jpeg(16, 16, seed=turn)))
        tagged = beside(tags.put_on, tag, [row.id], "anna", images.agreed)
        beside(edits.delete, row).result(SECONDS)
        with contextlib.suppress(NotFound):
            tagged.result(SECONDS)
        assert read(sa.select(TagImage.id)) == []
