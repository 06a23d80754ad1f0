"""The same bytes uploaded, duplicated and deleted by many at once: each is told what became of its own."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from imageapi.catalog import images
from imageapi.storage.local import LocalBackend
from tests.api.conftest import Api
from tests.conftest import jpeg, part

TURNS = 25
PATH = "/albums/holidays/images"


def test_an_upload_whose_twin_came_first_and_was_deleted(anna, monkeypatch):
    """It says what became of it: neither a 500 nor that there is no album."""
    find, keep = images.find, LocalBackend.keep

    def overtaken(*arguments):
        keep(*arguments)
        monkeypatch.setattr(LocalBackend, "keep", keep)
        first = anna.post(PATH, data={"file": part(jpeg())})
        deleting.append(first.json["public_id"])

    def looked_for(*arguments):
        found = find(*arguments)
        if deleting:
            assert anna.delete(f"/images/{deleting.pop()}").status_code == 204
            return None
        return found

    deleting = []
    monkeypatch.setattr(LocalBackend, "keep", overtaken)
    monkeypatch.setattr(images, "find", looked_for)
    answer = anna.post(PATH, data={"file": part(jpeg())})
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert anna.get("/albums/holidays").json["images_count"] == 0


def test_an_image_that_is_deleted_before_its_upload_is_answered(anna, monkeypatch):
    add = images.add

    def deleted(*arguments):
        made = add(*arguments)
        assert anna.delete(f"/images/{made[0]}").status_code == 204
        return made

    monkeypatch.setattr(images, "add", deleted)
    answer = anna.post(PATH, data={"file": part(jpeg())})
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")


def test_the_same_bytes_uploaded_deleted_and_duplicated_at_once(app, anna):
    """On PostgreSQL whoever locked in another order had the others wait for each other."""
    answers, headers = Counter(), anna.headers

    def work(number):
        with app.app_context():
            anna = Api(app.test_client(), headers)
            for _ in range(TURNS):
                sent = anna.post(PATH, data={"file": part(jpeg())})
                answers["upload", sent.status_code] += 1
                if sent.status_code in (200, 201):
                    path = f"/images/{sent.json['public_id']}"
                    answers["duplicate", anna.post(f"{path}/duplicate").status_code] += 1
                    named = {"If-Match": '"0"'} if number % 2 else {}
                    answers["delete", anna.delete(path, headers=named).status_code] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    allowed = {"upload": {200, 201, 409}, "duplicate": {201, 404}, "delete": {204, 404}}
    assert all(status in allowed[what] for what, status in answers), answers
