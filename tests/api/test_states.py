"""Albums, images, edits, tags, shares and abilities against a model of plain dicts."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from imageapi import create_app
from imageapi.auth.policy import Ability
from imageapi.settings import Settings
from tests.api.conftest import Api
from tests.conftest import SECRET, NewDatabase, bearing, close, jpeg, part, sign

USERS = ["anna", "bert"]
NAMES = ["sea", "land", "sky"]
SIZE = (40, 30)
PICTURES = [jpeg(*SIZE, seed=number) for number in range(4)]
GRANTS = sorted(set(Ability) - {Ability.IMAGE_SHARE})


class Machine(stateful.RuleBasedStateMachine):
    """Two users of one application, and what it should know by now."""

    new_database: NewDatabase
    albums = stateful.Bundle("albums")
    images = stateful.Bundle("images")
    tags = stateful.Bundle("tags")
    shares = stateful.Bundle("shares")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stack = contextlib.ExitStack()
        url = self.stack.enter_context(self.new_database(self.folder))
        settings = Settings(secret_keys=(SECRET,), instance=self.folder, database_url=url)
        self.app = create_app(settings)
        client = self.app.test_client()
        self.api = {user: Api(client, bearing(sign({"user_id": user}))) for user in USERS}
        self.client = client
        self.numbers = itertools.count()
        # Name of an album to its owner, images (id to picture, edit, revision) and reserved names.
        self.owner = {}
        self.pictures = collections.defaultdict(dict)
        self.tagged = collections.defaultdict(set)
        self.live = {}
        self.reserved = {}

    def teardown(self):
        close(self.app)
        self.stack.close()
        shutil.rmtree(self.folder)

    def expect(self, response, *statuses):
        assert response.status_code in statuses, (response.status_code, response.text)
        return response

    @stateful.rule(target=albums, user=st.sampled_from(USERS), name=st.sampled_from(NAMES))
    def make_album(self, user, name):
        response = self.api[user].post("/albums", json={"album": {"public_id": name}})
        taken = name in self.owner or self.reserved.get(name, user) != user
        self.expect(response, 409 if taken else 200)
        if not taken:
            self.owner[name] = user
            self.reserved.pop(name, None)
        return name

    @stateful.rule(album=albums, user=st.sampled_from(USERS), to=st.sampled_from(NAMES))
    def rename_album(self, album, user, to):
        response = self.api[user].put(f"/albums/{album}", json={"album": {"public_id": to}})
        if self.owner.get(album) != user:
            self.expect(response, 404)
        elif to != album and (to in self.owner or self.reserved.get(to, user) != user):
            self.expect(response, 409)
        else:
            self.expect(response, 200)
            self._move(album, to)

    def _move(self, album, to):
        if album == to:
            return
        self.owner[to] = self.owner.pop(album)
        self.reserved.pop(to, None)
        self.reserved[album] = self.owner[to]
        self.pictures[to] = self.pictures.pop(album, {})
        self.tagged[to] = self.tagged.pop(album, set())
        for share in self.live.values():
            if share["album"] == album:
                share["album"] = to

    @stateful.rule(album=albums, user=st.sampled_from(USERS))
    def delete_album(self, album, user):
        response = self.api[user].delete(f"/albums/{album}")
        if self.owner.get(album) != user:
            self.expect(response, 404)
            return
        self.expect(response, 204)
        self.reserved[album] = self.owner.pop(album)
        self.pictures.pop(album, None)
        self.tagged.pop(album, None)
        for share in self.live.values():
            if share["album"] == album:
                share["album"] = None

    @stateful.rule(
        target=images,
        album=albums,
        user=st.sampled_from(USERS),
        picture=st.integers(0, len(PICTURES) - 1),
    )
    def upload(self, album, user, picture):
        files = {"file": part(PICTURES[picture])}
        response = self.api[user].post(f"/albums/{album}/images", data=files)
        if self.owner.get(album) != user:
            self.expect(response, 404)
            return stateful.multiple()
        there = self.pictures[album]
        known = [image for image, state in there.items() if state["picture"] == picture]
        self.expect(response, 200 if known else 201)
        image = response.json["public_id"]
        if known:
            assert image == known[0]
        else:
            there[image] = {"picture": picture, "revision": 0, "rotation": 0, "crop": (0, 0, 0, 0)}
        return image

    def _of(self, image):
        for album, images in self.pictures.items():
            if image in images:
                return album, images[image]
        return None, None

    @stateful.rule(
        image=images,
        user=st.sampled_from(USERS),
        rotation=st.sampled_from([0, 90, 180, 270, 45]),
        crop=st.none() | st.tuples(*(st.integers(0, 45) for _ in range(4))),
    )
    def edit(self, image, user, rotation, crop):
        album, state = self._of(image)
        values = {"rotation": rotation}
        if crop is not None:
            values |= dict(zip(("crop_x", "crop_y", "crop_w", "crop_h"), crop, strict=True))
        response = self.api[user].put(f"/images/{image}", json=values)
        if self.owner.get(album) != user:
            self.expect(response, 404)
        elif rotation == 45 or not self._fits(crop):
            self.expect(response, 422)
        else:
            self.expect(response, 200)
            state["revision"] += 1
            state["rotation"] = rotation
            state["crop"] = crop or state["crop"]

    def _fits(self, crop):
        if crop is None or crop[2:] == (0, 0):
            return True
        x, y, w, h = crop
        return w > 0 and h > 0 and x + w <= SIZE[0] and y + h <= SIZE[1]

    @stateful.rule(target=images, image=images, user=st.sampled_from(USERS))
    def duplicate(self, image, user):
        album, state = self._of(image)
        response = self.api[user].post(f"/images/{image}/duplicate")
        if self.owner.get(album) != user:
            self.expect(response, 404)
            return stateful.multiple()
        self.expect(response, 201)
        made = response.json["public_id"]
        self.pictures[album][made] = {**state, "revision": 0}
        return made

    @stateful.rule(image=images, user=st.sampled_from(USERS))
    def delete_image(self, image, user):
        album, _state = self._of(image)
        response = self.api[user].delete(f"/images/{image}")
        if self.owner.get(album) != user:
            self.expect(response, 404)
            return
        self.expect(response, 204)
        del self.pictures[album][image]
        self.tagged[album] = {pair for pair in self.tagged[album] if pair[1] != image}

    @stateful.rule(
        album=albums,
        tag=st.sampled_from(["A", "B"]),
        image=images,
        able=st.booleans(),
    )
    def tag_image(self, album, tag, image, able):
        entry = {"Tags": {tag: tag}, "Access": {"image_tag": able}}
        tagger = Api(self.client, bearing(sign({"abilities": {album: entry}})))
        found = self.expect(tagger.get(f"/albums/{album}/tags"), 200).json
        if album not in self.owner:
            assert found == []
            return
        (tag_id,) = (row["id"] for row in found if row["name"] == tag)
        response = tagger.post(f"/tags/{tag_id}/tag_images", json={"image_ids": [image]})
        if not able:
            self.expect(response, 403)
        elif image not in self.pictures[album]:
            self.expect(response, 404)
        else:
            self.expect(response, 200)
            self.tagged[album].add((tag, image))

    @stateful.rule(
        target=shares,
        album=albums,
        sharer=st.booleans(),
        own=st.sets(st.sampled_from(GRANTS), min_size=1),
        asked=st.sets(st.sampled_from(GRANTS), min_size=1),
    )
    def share(self, album, sharer, own, asked):
        access = dict.fromkeys(own, True) | {"image_share": sharer}
        maker = Api(self.client, bearing(sign({"abilities": {album: {"Access": access}}})))
        body = {"abilities": sorted(asked), "expires_in": 3600}
        response = maker.post(f"/albums/{album}/shares", json=body)
        if album not in self.owner:
            self.expect(response, 404)
        elif not sharer:
            self.expect(response, 403)
        elif not asked <= own:
            self.expect(response, 422)
        else:
            made = self.expect(response, 201).json
            self.live[made["id"]] = {"album": album, "abilities": asked, "token": made["token"]}
            return made["id"]
        return stateful.multiple()

    @stateful.rule(share=shares)
    def end_share(self, share):
        album = self.live[share]["album"] if share in self.live else None
        entry = {album or "none": {"Access": {"image_share": True}}}
        sharer = Api(self.client, bearing(sign({"abilities": entry})))
        self.expect(sharer.delete(f"/shares/{share}"), 204 if album else 404)
        if album:
            del self.live[share]

    @stateful.rule(share=shares, image=images)
    def use_share(self, share, image):
        if share not in self.live:
            return
        state = self.live[share]
        api = Api(self.client, bearing(state["token"]))
        may = {"see", "image_list"} & state["abilities"]
        album, _state = self._of(image)
        if state["album"] is None:
            expected = 401
        elif album != state["album"]:
            expected = 404
        else:
            expected = 200 if may else 403
        response = api.get(f"/images/{image}")
        assert response.status_code in (expected, 404 if expected == 401 else expected), (
            response.text
        )

    @stateful.invariant()
    def everything_is_as_the_model_says(self):
        for album, owner in self.owner.items():
            api = self.api[owner]
            body = self.expect(api.get(f"/albums/{album}"), 200).json
            listed = self.expect(api.get(f"/albums/{album}/images"), 200).json
            expected = self.pictures[album]
            assert body["images_count"] == len(expected)
            assert {image["public_id"] for image in listed} == set(expected)
            for image in listed:
                self._check(image, expected[image["public_id"]])
            tagged = api.get(f"/tag_images?album_id={album}").json
            pairs = {(row["tag"]["name"], row["image"]["public_id"]) for row in tagged}
            assert pairs == self.tagged[album]
        for user in USERS:
            names = {item["public_id"] for item in self.api[user].get("/albums").json}
            assert names == {album for album, owner in self.owner.items() if owner == user}

    def _check(self, image, state):
        assert image["rotation"] == state["rotation"]
        assert tuple(image[f"crop_{side}"] for side in "xywh") == state["crop"]
        width, height = state["crop"][2:] if state["crop"][2] else SIZE
        turned = state["rotation"] in (90, 270)
        assert (image["width"], image["height"]) == ((height, width) if turned else (width, height))
        assert f".{state['revision']}.full.jpg" in image["thumbnails"]["full"]


@pytest.fixture
def machine(new_database):
    Machine.new_database = staticmethod(new_database)


@pytest.mark.usefixtures("machine")
def test_the_application_agrees_with_the_model():
    stateful.run_state_machine_as_test(
        Machine,
        settings=hypothesis.settings(
            max_examples=200 if os.environ.get("FAULTS") == "full" else 8,
            stateful_step_count=40 if os.environ.get("FAULTS") == "full" else 25,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
