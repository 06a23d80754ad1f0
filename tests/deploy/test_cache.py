"""A cache in front: nobody gets what was meant for another, whatever of it the cache keeps.

The worst that an operator may do: everything is offered to the cache, and thumbnails are kept against
their own word (`private`).

Source: CVE-2024-26144 (a private answer with its cookie, kept by a shared cache).
"""

from __future__ import annotations

import base64
import json
import os
import random
import threading
import time
from collections import Counter

import pytest

from tests.auth.conftest import mint
from tests.conftest import jpeg
from tests.deploy.site import DEPLOY, served
from tests.faults.front import FORM, form

REQUESTS = 10_000 if os.environ.get("FAULTS") == "full" else 2_000
USERS = 4
ZONE = "proxy_cache_path @DIR@/cache keys_zone=cache:1m;"
CACHE = """
    proxy_cache cache;
    proxy_cache_key $request_uri;
    add_header X-Cache $upstream_cache_status always;
    location /files/ {
        proxy_pass http://imageapi;
        proxy_ignore_headers Cache-Control Expires;
        proxy_cache_valid 200 10m;
    }
"""


@pytest.fixture(scope="module")
def site():
    with served(more=CACHE, http=ZONE, env={"IMAGEAPI_STORAGE_LOCAL_X_ACCEL_PREFIX": ""}) as site:
        yield site


@pytest.fixture(scope="module")
def users(site):
    """User to token and images."""
    made = {}
    for number in range(USERS):
        user, album = f"user-{number}", f"album-{number}"
        claims = {"exp": int(time.time()) + 3600, "user_id": user, "secret_of": user}
        token = mint(claims, secret=site.door.app.env["IMAGEAPI_SECRET_KEYS"])
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        named = json.dumps({"album": {"public_id": album}})
        assert site.ask("/api/v1/albums", "POST", named, headers).status == 200
        images = []
        for seed in range(2):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": FORM}
            body = form(jpeg(300 + number, 200 + seed, quality=50 + number))
            answer = site.ask(f"/api/v1/albums/{album}/images", "POST", body, headers)
            assert answer.status == 201
            images.append(answer.json)
        made[user] = (token, album, images)
    return made


def test_no_answer_is_another_s(site, users):
    pictures = {
        url: site.ask(url, port=site.door.app.port).body
        for _token, _album, images in users.values()
        for image in images
        for url in image["thumbnails"].values()
    }
    assert len(set(pictures.values())) > len(pictures) / 2
    seen, wrong = Counter(), []

    def client(seed):
        choice = random.Random(seed)  # noqa: S311
        for _ in range(REQUESTS // 8):
            kind, answer, fault = ask(site, users, pictures, choice)
            seen[kind, answer.headers["X-Cache"]] += 1
            if fault:
                wrong.append((kind, fault, answer))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen.total() == REQUESTS // 8 * 8
    assert seen["thumbnail", "HIT"] > REQUESTS / 10, "the cache kept nothing: nothing was shown"
    assert {kind for kind, cached in seen if cached == "HIT"} <= {"thumbnail", "asset"}


def ask(site, users, pictures, choice):
    """One request of someone, and what is wrong with its answer."""
    user = choice.choice(list(users))
    token, album, images = users[user]
    headers = {"Authorization": f"Bearer {token}"}
    image = choice.choice(images)["public_id"]
    kind = choice.choice(["image", "list", "stranger", "nobody", "thumbnail", "original", "asset"])
    if kind == "thumbnail":
        url = choice.choice(list(pictures))
        answer = site.ask(url, headers=choice.choice([headers, {}]))
        leaks = [name for name in ("X-token", "Set-Cookie") if name in answer.headers]
        return kind, answer, leaks or answer.body != pictures[url]
    if kind == "asset":
        answer = site.ask("/assets/blank.jpg")
        return kind, answer, answer.status != 200 or "X-token" in answer.headers
    if kind == "nobody":
        answer = site.ask(f"/api/v1/images/{image}")
        return kind, answer, answer.status != 401 or "X-token" in answer.headers
    if kind == "stranger":
        _token, theirs, _images = choice.choice([users[u] for u in users if u != user])
        answer = site.ask(f"/api/v1/albums/{theirs}/images", headers=headers)
        return kind, answer, answer.body != b"[]"
    path = {
        "image": f"/api/v1/images/{image}",
        "list": f"/api/v1/albums/{album}/images",
        "original": f"/api/v1/images/{image}/original",
    }[kind]
    answer = site.ask(path, headers=headers)
    if answer.status != 200 or "no-store" not in answer.headers["Cache-Control"]:
        return kind, answer, "not answered"
    if user not in claims(answer.headers["X-token"]):
        return kind, answer, "another's token"
    wanted = {"image": image, "list": f'"album_id":"{album}"', "original": ""}[kind]
    return kind, answer, wanted.encode() not in answer.body


def claims(token):
    part = token.split(".")[1]
    return json.dumps(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def test_by_its_own_word_only_assets_are_kept():
    """With the cache on for all, and nothing forced."""
    more = "proxy_cache cache; proxy_cache_key $request_uri; add_header X-Cache $upstream_cache_status;"
    with served(more=more, http=ZONE, env={"IMAGEAPI_STORAGE_LOCAL_X_ACCEL_PREFIX": ""}) as site:
        headers = {**site.door.headers, "Content-Type": FORM}
        image = site.ask("/api/v1/albums/holidays/images", "POST", form(jpeg()), headers).json
        for path, kept in [
            (f"/api/v1/images/{image['public_id']}", False),
            ("/api/v1/albums/holidays/images", False),
            (image["thumbnails"]["mini"], False),
            ("/healthz", False),
            ("/assets/blank.jpg", True),
        ]:
            found = [site.ask(path, headers=site.door.headers).headers["X-Cache"] for _ in range(3)]
            assert (found[-1] == "HIT") == kept, path


def test_the_site_itself_keeps_nothing():
    assert "proxy_cache" not in (DEPLOY / "nginx.conf").read_text()
