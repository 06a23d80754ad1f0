"""Adding images: bytes and rows stay in step whatever fails in between."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from imageapi import catalog, models
from imageapi.catalog import images
from imageapi.errors import NotFound, StorageFull
from imageapi.extensions import db, read, transaction
from imageapi.storage.local import LocalBackend
from tests.conftest import jpeg


@pytest.fixture
def add(app, album):
    """`add(bytes, confirm)`: as the command line does; answers what `images.add` does."""
    album_id = album()

    def added(data=None, **options):
        with app.app_context():
            row = read(models.ALBUMS.where(models.Album.id == album_id))[0]
            with catalog.library().storages["local"].stage() as staging:
                staging.write(jpeg() if data is None else data)
                return images.add(row, staging.finish(), images.Upload(), **options)

    return added


def rows(app):
    with app.app_context():
        return [len(read(sa.select(table.id))) for table in (models.StoredObject, models.Image)]


def files(app):
    root = app.extensions["library"].settings.instance / "storage" / "local"
    return [path for path in root.rglob("*") if path.is_file()]


def kept_whole(app):
    """Every row has its bytes."""
    with app.app_context():
        storage = catalog.library().storages["local"]
        for row in read(sa.select(models.StoredObject.key, models.StoredObject.bytes)):
            assert storage.stat(row.key).bytes == row.bytes
    return True


def test_the_same_bytes_at_once_are_one_image(app, add):
    barrier = threading.Barrier(8)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        keep = LocalBackend.put

        def put(*arguments):
            barrier.wait(10)  # all of them have looked, and found nothing
            return keep(*arguments)

        patch.setattr(LocalBackend, "put", put)
        answers = list(pool.map(lambda _number: add(), range(8)))

    assert len({image_id for image_id, _new in answers}) == 1
    assert sorted(new for _image_id, new in answers) == [False] * 7 + [True]
    assert rows(app) == [1, 1]
    assert len(files(app)) == 4


def test_a_refusal_at_the_last_moment_leaves_nothing(app, add):
    def refuse(*_arguments):
        raise NotFound

    with pytest.raises(NotFound):
        add(confirm=refuse)
    assert rows(app) == [0, 0]
    assert files(app) == []


def test_an_album_that_is_deleted_meanwhile_gets_nothing(app, add, monkeypatch):
    keep = LocalBackend.keep

    def delete(*arguments):
        keep(*arguments)
        with app.app_context(), transaction() as session:
            session.execute(sa.update(models.Album).values(deleted_ms=1))

    monkeypatch.setattr(LocalBackend, "keep", delete)
    with pytest.raises(NotFound):
        add()
    assert rows(app) == [0, 0]
    assert files(app) == []


def test_a_rendition_that_can_not_be_kept_leaves_nothing(app, add, monkeypatch):
    def full(*_arguments):
        raise StorageFull

    monkeypatch.setattr(LocalBackend, "keep", full)
    with pytest.raises(StorageFull):
        add()
    assert rows(app) == [0, 0]
    assert files(app) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, sa.exc.OperationalError("COMMIT", {}, None)])
def test_a_commit_whose_answer_is_lost_keeps_its_bytes(app, add, error):
    def lose(_session):
        raise error

    sa.event.listen(orm.Session, "after_commit", lose)
    try:
        with pytest.raises((KeyboardInterrupt, sa.exc.OperationalError)):
            add()
    finally:
        sa.event.remove(orm.Session, "after_commit", lose)

    assert rows(app) == [1, 1]
    assert kept_whole(app)
    assert add()[1] is False


def test_no_transaction_is_open_while_bytes_move_and_pixels_decode(app, add, monkeypatch):
    seen = []

    def watched(function):
        def call(*arguments, **options):
            with app.app_context():
                seen.append(db.engine.pool.checkedout())
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(LocalBackend, "put", watched(LocalBackend.put))
    monkeypatch.setattr(LocalBackend, "keep", watched(LocalBackend.keep))
    monkeypatch.setattr(images.imaging, "take_in", watched(images.imaging.take_in))
    add()
    assert seen == [0] * 5
