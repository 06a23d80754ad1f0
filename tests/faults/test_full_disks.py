"""A disk is full: uploads are refused as such, reads go on, and room is all that it takes to go on.

Of the pictures (in bytes and in files), of the database, and of an ext4, which notices late.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import mounts
from tests.faults.front import FORM, PATH, Front, form, front, picture
from tests.faults.invariants import (
    DATABASE,
    assert_healthy,
    assert_kept,
    assert_problem,
    collect,
    leftovers,
    violations,
)

TRIES = 500 if os.environ.get("FAULTS") == "full" else 40
SIZES = (1_000, 150_000, 1_200_000)
"""Bytes of the pictures, in turn: the last of them do not fit long before the first."""


@contextlib.contextmanager
def disk(kind: str, place: Path):
    if kind == "ext4":
        image = place.with_suffix(".image")
        mounts.make_ext4(image, 16 << 20)
        with mounts.ext4(image, place, "noatime"):
            (place / "lost+found").rmdir()
            yield
    else:
        options = {"bytes": "size=8m", "files": "nr_inodes=120"}[kind]
        with mounts.tmpfs(place, options):
            yield


def upload(
    door: Front, connection: http.client.HTTPConnection, seed: int
) -> tuple[int, str, dict[str, str]]:
    """Status, code and, if it was taken, id to SHA-256."""
    data = picture(SIZES[seed % len(SIZES)], seed=seed)
    connection.request("POST", PATH, form(data), {**door.headers, "Content-Type": FORM})
    response = connection.getresponse()
    body = response.read()
    told = json.loads(body)
    if response.status == 201:
        return 201, "", {told["public_id"]: hashlib.sha256(data).hexdigest()}
    assert_problem(response.status, response.headers, body, 503, 507)
    return response.status, told["code"], {}


def read_all(door: Front, connection: http.client.HTTPConnection, acknowledged: dict[str, str]):
    """Every picture is answered, with its bytes and its thumbnail."""
    for image, sha256 in acknowledged.items():
        status, body = door.get(connection, f"/api/v1/images/{image}")
        assert status == 200
        status, shown = door.get(connection, json.loads(body)["thumbnails"]["mini"])
        assert (status, shown[:2]) == (200, b"\xff\xd8")
        status, data = door.get(connection, f"/api/v1/images/{image}/original")
        assert (status, hashlib.sha256(data).hexdigest()) == (200, sha256)


def delete(door: Front, connection: http.client.HTTPConnection, image: str):
    connection.request("DELETE", f"/api/v1/images/{image}", headers=door.headers)
    response = connection.getresponse()
    assert (response.status, response.read()) == (204, b"")


@pytest.mark.parametrize("kind", ["bytes", "files", "ext4"])
def test_the_pictures_disk(kind, tmp_path):
    place = tmp_path / "disk"
    env = {"IMAGEAPI_STORAGE_LOCAL_ROOT": str(place)}
    with disk(kind, place), front("--workers", "1", env=env) as door, door.connect() as connection:
        acknowledged, statuses = {}, Counter()
        for seed in range(TRIES):
            status, code, taken = upload(door, connection, seed)
            acknowledged |= taken
            statuses[status] += 1
            assert code in ("", "storage_full")
            if status == 507:
                # Nothing of it stays, not even until `collect`.
                assert leftovers(door.app.instance / DATABASE, {"local": place}) == []
            if seed % 20 == 0:
                read_all(door, connection, acknowledged)
        assert statuses[507] > TRIES // 10
        sys.stdout.write(
            f"{kind}: {dict(statuses)}, {len(acknowledged)} pictures read throughout\n"
        )

        for image in list(acknowledged)[:3]:
            delete(door, connection, image)
            del acknowledged[image]
        status, _, taken = upload(door, connection, 10_000)
        assert status == 201
        acknowledged |= taken
        assert_kept(door, acknowledged, {"local": place})


def test_the_databases_disk(tmp_path):
    place = tmp_path / "disk"
    env = {"IMAGEAPI_DATABASE_URL": f"sqlite:///{place}/{DATABASE}"}
    with (
        mounts.tmpfs(place, "size=1500k"),
        front("--workers", "1", env=env) as door,
        door.connect() as connection,
    ):
        acknowledged, statuses = {}, Counter()
        database, storages = place / DATABASE, {"local": door.root}
        for seed in range(TRIES):
            status, code, taken = upload(door, connection, seed)
            acknowledged |= taken
            statuses[status, code] += 1
            if seed == 9:
                (place / "filler").write_bytes(b"\0" * room(place))
            if seed % 20 == 0:
                read_all(door, connection, acknowledged)
                assert violations(database, storages, acknowledged) == []
        refused = {key: n for key, n in statuses.items() if key[0] != 201}
        assert sum(refused.values()) > TRIES // 2
        assert violations(database, storages, acknowledged) == []
        sys.stdout.write(f"{statuses}\n")

        (place / "filler").unlink()
        status, _, taken = upload(door, connection, 10_000)
        assert status == 201
        acknowledged |= taken
        read_all(door, connection, acknowledged)
        acknowledged.update([assert_healthy(door)])
        mounts.remount(place, "size=16m")  # what is collected is noted in rows first
        collect(door)
        assert violations(database, storages, acknowledged) == []
        assert leftovers(database, storages) == []


def room(place: Path) -> int:
    """The bytes that are free."""
    free = os.statvfs(place)
    return free.f_bavail * free.f_frsize
