"""Moving an album from storage to storage: what is kept, what is said, and what is put right."""

from __future__ import annotations

import json
import threading

import pytest
import sqlalchemy as sa

from imageapi.catalog import albums, edits, images, library, moving, renditions, work
from imageapi.catalog.moving import Verdict
from imageapi.errors import StorageNotFound
from imageapi.extensions import read, transaction
from imageapi.models import Image, ObjectCopy, StoredObject, Work
from tests.conftest import jpeg

ROAD = ("s3", "cloudinary", "local")


@pytest.fixture
def flask(flask, s3, on_cloudinary):
    return flask


def migrate(flask, to, *more):
    return flask("storages", "migrate", "--album", "holidays", "--to", to, *more)


def objects():
    return read(sa.select(StoredObject.__table__).order_by(StoredObject.id))


def listed(name):
    return [stored.key for stored in library().storages[name].list()]


def without_urls(body):
    return {name: value for name, value in body.items() if name != "thumbnails"}


def kinds():
    return [row.kind for row in read(sa.select(Work.kind).order_by(Work.id))]


def remove_now(app):
    """What moves left, as if its grace time were over."""
    with app.app_context(), transaction() as session:
        session.execute(sa.update(Work).values(due_ms=0))
    app.extensions["background"].once()


def test_there_and_back(app, flask, anna):
    blocks = [anna.upload(data=jpeg(seed=number), latitude=1, longitude=2) for number in range(3)]
    anna.put(f"/images/{blocks[0]['public_id']}", json={"rotation": 90})
    copy = anna.post(f"/images/{blocks[1]['public_id']}/duplicate").json
    blocks = [anna.get(f"/images/{b['public_id']}").json for b in [*blocks, copy]]

    for to in ROAD:
        done = migrate(flask, to)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith("moved 3, failed 0, left 0; ")
        for before in blocks:
            path = f"/images/{before['public_id']}"
            now = anna.get(path).json
            assert without_urls(now) == without_urls(before)
            assert not {"/assets/blank.jpg"} & set(now["thumbnails"].values())
            with app.app_context():
                row = images.get(before["public_id"])
                assert row.storage == to
                assert albums.get(row.album_id).storage == to
            number = next(n for n in range(3) if blocks[n]["infos"]["etag"] == now["infos"]["etag"])
            assert anna.get(f"{path}/original").data == jpeg(seed=number)
    with app.app_context():
        assert len(read(sa.select(ObjectCopy.key))) == 9
    remove_now(app)
    with app.app_context():
        assert read(sa.select(ObjectCopy.key)) == read(sa.select(Work.id)) == []
        assert listed("s3") == listed("cloudinary") == []
        rows = [images.get(before["public_id"]) for before in blocks]
        shown = [key for row in rows for key in renditions.keys(renditions.picture(row))]
        assert listed("local") == sorted([*shown, *{row.key for row in rows}])


def test_in_the_background_a_slice_at_a_time(app, flask, anna, monkeypatch):
    monkeypatch.setattr(work, "SLICE", 0.0)  # one original is the least
    for number in range(3):
        anna.upload(data=jpeg(seed=number))
    done = migrate(flask, "s3", "--background")
    size = sum(len(jpeg(seed=number)) for number in range(3))
    assert done.stdout == f"3 originals, {size} bytes, are left to be moved to 's3'.\n"
    for left in (2, 1, 0):
        app.extensions["background"].once()
        with app.app_context():
            assert moving.left(albums.find("holidays"), "s3")[0] == left
            assert kinds().count("move") == 1
    app.extensions["background"].once()
    with app.app_context():
        assert kinds() == ["remove_copy"] * 3


def test_in_the_background_until_the_album_goes_elsewhere(app, flask, anna):
    anna.upload()
    migrate(flask, "s3", "--background")
    with app.app_context():
        moving.begin(albums.find("holidays"), "local")
    app.extensions["background"].once()
    with app.app_context():
        assert [row.storage for row in objects()] == ["local"]
        assert kinds() == []


def test_in_the_background_what_is_damaged_is_passed_over(app, flask, anna):
    anna.upload(data=jpeg(seed=1))
    anna.upload(data=jpeg(seed=2))
    with app.app_context():
        library().storages["local"].delete(objects()[0].key)
    migrate(flask, "s3", "--background")
    app.extensions["background"].once()
    with app.app_context():
        assert [row.storage for row in objects()] == ["local", "s3"]
        assert kinds() == ["remove_copy"]


def test_the_bytes_stay_where_they_were_for_a_while(app, flask, anna):
    before = anna.upload()
    migrate(flask, "s3", "--keep", "5h")
    shown = anna.client.get(before["thumbnails"]["mini"])
    assert (shown.status_code, shown.content_type) == (200, "image/jpeg")
    with app.app_context():
        [due] = read(sa.select(Work.due_ms).where(Work.kind == "remove_copy"))
        assert due[0] > images.now_ms() + 4 * 3600 * 1000
        [copy] = read(sa.select(ObjectCopy.__table__))
        assert copy.storage == "local"
        assert copy.key in listed("local")


def test_the_grace_time_is_never_shorter_than_urls_last(app, flask, anna):
    anna.upload()
    migrate(flask, "s3", "--keep", "1s")
    with app.app_context():
        [due] = read(sa.select(Work.due_ms).where(Work.kind == "remove_copy"))
        assert due[0] > images.now_ms() + 7100 * 1000


def test_deleting_takes_the_copies_at_once(app, flask, anna):
    block = anna.upload()
    migrate(flask, "s3")
    with app.app_context():
        assert len(listed("local")) == len(listed("s3")) == 4
    assert anna.delete(f"/images/{block['public_id']}").status_code == 204
    with app.app_context():
        assert listed("local") == listed("s3") == []
        assert read(sa.select(ObjectCopy.key)) == read(sa.select(Work.id)) == []


def test_moving_back_before_the_grace_time_ends(app, flask, anna):
    block = anna.upload()
    migrate(flask, "s3")
    migrate(flask, "local")
    remove_now(app)
    with app.app_context():
        assert listed("s3") == []
        assert len(listed("local")) == 4
    assert anna.get(f"/images/{block['public_id']}/original").data == jpeg()
    shown = anna.client.get(anna.get(f"/images/{block['public_id']}").json["thumbnails"]["mini"])
    assert shown.content_type == "image/jpeg"


def test_what_is_to_be_removed_waits_for_an_album_that_comes_back(app, flask, anna):
    anna.upload()
    migrate(flask, "s3")
    with app.app_context():
        moving.begin(albums.find("holidays"), "local")
    remove_now(app)
    with app.app_context():
        assert len(listed("local")) == 4
        assert len(read(sa.select(ObjectCopy.key))) == 1
    migrate(flask, "local")
    remove_now(app)
    remove_now(app)
    with app.app_context():
        assert len(listed("local")) == 4
        assert listed("s3") == []


def test_what_comes_back_while_it_is_removed_stays(app, flask, anna, monkeypatch):
    """S3 could not render anew what its URLs show."""
    migrated = [anna.upload(data=jpeg(seed=number)) for number in range(2)]
    for to in ("s3", "local"):
        migrate(flask, to)
        remove_now(app)
    there, images_in = [], moving._images_in

    def move_back():
        with app.app_context():
            album = albums.find("holidays")
            moving.begin(album, "s3")
            there.extend(moving.move(album, "s3", 0))

    def meanwhile(storage, ids):
        found = images_in(storage, ids)
        if storage == "s3" and not back.ident:
            back.start()
            back.join(2)  # in vain, or it would be too late for what was found
        return found

    migrate(flask, "s3")
    migrate(flask, "local")
    back = threading.Thread(target=move_back)
    monkeypatch.setattr(moving, "_images_in", meanwhile)
    remove_now(app)
    back.join()
    assert [outcome.verdict for outcome in there] == [Verdict.MOVED] * len(migrated)
    remove_now(app)
    with app.app_context():
        rows = [images.get(image["public_id"]) for image in migrated]
        shown = [key for row in rows for key in renditions.keys(renditions.picture(row))]
        assert set(shown) < set(listed("s3"))


def test_a_dry_run(app, flask, anna):
    anna.upload()
    done = migrate(flask, "s3", "--dry-run")
    size = len(jpeg())
    assert (done.exit_code, done.stdout) == (0, f"Would move 1 originals, {size} bytes, to 's3'.\n")
    with app.app_context():
        assert albums.find("holidays").storage == "local"
        assert listed("s3") == []


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_storage_that_is_not_usable(app, flask, anna, monkeypatch, more):
    anna.upload()
    monkeypatch.setenv("IMAGEAPI_STORAGE_S3_BUCKET", "no-such-bucket")
    done = migrate(flask, "s3", *more)
    assert done.exit_code == 1
    assert "The bucket does not exist." in done.stderr
    assert migrate(flask, "nowhere", *more).exit_code == 1
    with app.app_context():
        assert albums.find("holidays").storage == "local"


def test_an_unknown_album(flask):
    done = migrate(flask, "s3")
    assert (done.exit_code, done.stderr) == (1, "Error: There is no album 'holidays'.\n")


def test_what_is_damaged_or_missing_stays_and_is_told(app, settings, flask, anna):
    for number in range(3):
        anna.upload(data=jpeg(seed=number))
    with app.app_context():
        flipped, missing, _whole = (row.key for row in objects())
        (settings.instance / "storage/local" / missing).unlink()
        path = settings.instance / "storage/local" / flipped
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    done = migrate(flask, "s3")
    assert (done.exit_code, done.stdout[:27]) == (1, "moved 1, failed 2, left 2; ")
    assert f"{flipped}: The stored bytes are not those that were stored." in done.stderr
    assert f"{missing}: The storage has no bytes for this image." in done.stderr
    with app.app_context():
        assert [row.storage for row in objects()] == ["local", "local", "s3"]
        assert len(listed("s3")) == 4


def test_a_new_storage_that_gives_other_bytes_back(app, flask, anna, monkeypatch):
    anna.upload()
    with app.app_context():
        backend = library().storages["s3"]._backend
    monkeypatch.setattr(backend, "open", lambda *_: iter([b"other bytes"]))
    done = migrate(flask, "s3")
    assert done.exit_code == 1
    assert "gave other bytes back" in done.stderr
    with app.app_context():
        assert [row.storage for row in objects()] == ["local"]
        assert listed("s3") == []


def test_an_edit_in_the_middle_is_brought_over(app, flask, anna, monkeypatch):
    block = anna.upload()
    switch = moving._switch
    tries = []

    def edited_before(*arguments):
        if len(tries) < 2:
            rotation = 90 * (len(tries) + 1)
            row = images.get(block["public_id"])
            assert edits.edit(row, {"rotation": rotation})
        tries.append(1)
        return switch(*arguments)

    monkeypatch.setattr(moving, "_switch", edited_before)
    assert migrate(flask, "s3").exit_code == 0
    assert len(tries) == 3
    with app.app_context():
        row = images.get(block["public_id"])
        assert (row.storage, row.revision, row.rotation, row.rendered) == ("s3", 2, 180, "jpg")
        assert set(renditions.keys(renditions.picture(row))) <= set(listed("s3"))


def test_a_delete_in_the_middle_leaves_nothing(app, flask, anna, monkeypatch):
    block = anna.upload()
    switch = moving._switch

    def deleted_before(*arguments):
        edits.delete(images.get(block["public_id"]))
        return switch(*arguments)

    monkeypatch.setattr(moving, "_switch", deleted_before)
    assert migrate(flask, "s3").exit_code == 0
    with app.app_context():
        assert objects() == []
        assert [key for key in listed("s3") if "." not in key] == []


def test_a_rendering_that_ends_after_the_move_is_done_again_there(app, flask, anna, monkeypatch):
    block = anna.upload()
    draw = renditions.draw
    moved = []

    def moved_meanwhile(*arguments):
        rendered = draw(*arguments)
        if not moved:
            moved.append(1)
            assert migrate(flask, "s3").exit_code == 0
        return rendered

    with app.app_context():
        with transaction() as session:
            row = session.get(Image, block["public_id"])
            row.rendered, row.revision = "", 1
        monkeypatch.setattr(renditions, "draw", moved_meanwhile)
        renditions.render(block["public_id"])
        row = images.get(block["public_id"])
        assert (row.storage, row.rendered) == ("s3", "jpg")
        assert set(renditions.keys(renditions.picture(row))) <= set(listed("s3"))


def test_what_was_never_rendered_is_rendered_on_its_way(app, flask, anna):
    block = anna.upload()
    with app.app_context(), transaction() as session:
        session.get(Image, block["public_id"]).rendered = ""
    assert migrate(flask, "cloudinary").exit_code == 0
    assert anna.get(f"/images/{block['public_id']}").json["thumbnails"]["mini"].startswith("http")


def test_a_move_ends_when_the_album_goes_elsewhere(app, flask, anna, monkeypatch):
    for number in range(3):
        anna.upload(data=jpeg(seed=number))
    monkeypatch.setattr(moving, "_OBJECTS", moving._OBJECTS.limit(1))
    with app.app_context():
        album = albums.find("holidays")
        moving.begin(album, "s3")
        move = moving.move(album, "s3", 0)
        next(move)
        moving.begin(album, "local")
        assert list(move) == []
        assert [row.storage for row in objects()] == ["s3", "local", "local"]
    assert migrate(flask, "local").exit_code == 0
    with app.app_context():
        assert [row.storage for row in objects()] == ["local"] * 3


def test_outcomes(app, flask, anna):
    anna.upload()
    with app.app_context():
        album = albums.find("holidays")
        moving.begin(album, "s3")
        outcomes = list(moving.move(album, "s3", 0))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.MOVED]
        assert moving.left(album, "s3") == (0, 0)
        assert json.loads(read(sa.select(Work.payload))[0].payload)["storage"] == "local"
        assert list(moving.move(album, "s3", 0)) == []
        with pytest.raises(StorageNotFound):
            library().storages["s3"].open(outcomes[0].key)
