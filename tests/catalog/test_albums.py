"""The rules of album ids, and what is made, found and listed by them."""

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from imageapi import models
from imageapi.catalog import albums, edits, work
from imageapi.errors import Conflict, InvalidFields, StorageUnavailable
from imageapi.extensions import read, transaction
from tests.conftest import jpeg, part

FINE = [
    "a",
    "6bfb864c-8927-48d4-a286-97ba8583f7ae",
    "été à Paris",
    "x" * 128,
    "...",
    "a.b",
    "日本",
    "👩‍🚀",
]
REFUSED = [
    "",
    "x" * 129,
    "a/b",
    "a\\b",
    "a?b",
    "a#b",
    "a%b",
    "a,b",
    "a\nb",
    "a\x00b",
    "a\x7fb",
    "a\x85b",
    "\udcff",
    "e\u0301",  # é in two characters: not NFC
    "\u212b",  # the sign of Ångström, in NFC the letter
    " a",
    "a ",
    "a\u00a0",
    "\u3000a",
    ".",
    "..",
]


@pytest.mark.parametrize("public_id", FINE)
def test_an_id_within_the_rules_can_be_made_and_found(app, public_id):
    with app.app_context():
        made = albums.create(public_id, "anna")
        assert (made.public_id, made.owner, made.issuer) == (public_id, "anna", "")
        assert (made.storage, made.images_count, made.bytes) == ("local", 0, 0)
        assert albums.find(public_id) == made
        assert albums.find(public_id, "another") is None


@pytest.mark.parametrize("public_id", REFUSED)
def test_an_id_beyond_them_is_refused_and_unknown(app, public_id):
    with app.app_context():
        with pytest.raises(InvalidFields) as refusal:
            albums.create(public_id, "anna")
        (fault,) = refusal.value.errors
        assert fault.field == "album[public_id]"
        assert fault.message.startswith("must ")
        assert albums.find(public_id) is None
        assert not albums.every()


@given(st.text())
def test_what_passes_can_be_written_into_a_path_and_a_row(public_id):
    try:
        albums.check_id(public_id)
    except InvalidFields:
        return
    assert 0 < len(public_id) <= 128
    assert public_id.encode()
    assert set(public_id).isdisjoint("/\\?#%,\0")
    assert public_id.strip() == public_id
    assert public_id not in (".", "..")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("owner", {"owner": ""}),
        ("owner", {"owner": "u" * 129}),
        ("owner", {"owner": "a\0"}),
        ("owner", {"owner": "\udcff"}),
        ("issuer", {"owner": "anna", "issuer": "i" * 129}),
    ],
)
def test_an_owner_is_what_a_token_could_name(app, field, values):
    with app.app_context():
        with pytest.raises(InvalidFields) as refusal:
            albums.create("a", **values)
        assert [fault.field for fault in refusal.value.errors] == [field]


def test_an_id_is_unique_per_issuer(app):
    with app.app_context():
        albums.create("a", "anna")
        albums.create("a", "anna", "shop")
        with pytest.raises(Conflict):
            albums.create("a", "bob")
        assert [(row.issuer, row.public_id) for row in albums.every()] == [("", "a"), ("shop", "a")]


def test_an_unknown_storage_makes_no_album(app):
    with app.app_context():
        with pytest.raises(StorageUnavailable, match="attic"):
            albums.create("a", "anna", storage="attic")
        assert albums.find("a") is None


def test_ensure_makes_an_album_once(app):
    with app.app_context():
        made = albums.ensure("a", "anna")
        assert albums.ensure("a", "anna", storage="local") == made
        with pytest.raises(Conflict):
            albums.ensure("a", "bob")
        with pytest.raises(Conflict):
            albums.ensure("a", "anna", storage="attic")


def test_storages_in_use_are_those_that_rows_name(app, album):
    album("a", storage="attic")
    with app.app_context():
        assert albums.storages_in_use() == {"attic"}


class TestEmptying:
    @pytest.fixture
    def deleted(self, app, client, album, token, monkeypatch):
        """The number of the work that an album of three images left; it is not done yet."""
        number, anna = album(), token(user_id="anna")
        for seed in range(3):
            data = {"file": part(jpeg(seed=seed))}
            client.post("/api/v1/albums/holidays/images", data=data, headers=anna)
        monkeypatch.setattr(albums.background, "soon", lambda *_numbers, **_options: None)
        with app.app_context():
            albums.delete(albums.get(number))
            [row] = read(sa.select(models.Work.id).where(models.Work.kind == "empty_album"))
            yield row.id

    def left(self):
        count = sa.func.count()
        kinds = (models.Image, models.StoredObject, models.Album)
        return [read(sa.select(count).select_from(kind))[0][0] for kind in kinds]

    def test_what_another_process_has_just_removed_is_no_end(self, deleted, monkeypatch):
        """Its lease was over: had this been taken for the end, a death of the other were for ever."""
        monkeypatch.setattr(albums, "_IMAGES", albums._IMAGES.limit(1))

        def overtaken(*arguments, **parameters):
            rows = read(*arguments, **parameters)
            monkeypatch.setattr(albums, "read", read)
            with transaction() as session:
                edits.remove(session, [row.id for row in rows])
            return rows

        monkeypatch.setattr(albums, "read", overtaken)
        assert work.run(deleted)
        assert self.left() == [0, 0, 0]

    def test_it_is_done_a_slice_at_a_time(self, deleted, monkeypatch):
        monkeypatch.setattr(work, "SLICE", -1.0)
        monkeypatch.setattr(albums, "_IMAGES", albums._IMAGES.limit(1))
        for images in (2, 1, 0):
            assert work.run(deleted)
            assert self.left() == [images, images, 1]
        assert work.run(deleted)
        assert self.left() == [0, 0, 0]
        assert read(sa.select(models.Work.id).where(models.Work.kind == "empty_album")) == []
