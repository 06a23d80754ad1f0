"""What holds after every fault, looked up in the database and on the disk themselves.

I1 what was acknowledged is there, its bytes are those that were sent; I2 no row without its bytes;
I3 bytes without a row are collected; I4 the database is whole; I5 nothing stays in staging; I6 an error
is a documented problem with its request id; I7 the service works again without anybody's help.

`violations` tells I1, I2, I4; `leftovers` I3, I5; `assert_problem` I6; `assert_healthy` I7.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sqlite3
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from PIL import Image as Pillow

from tests.faults.front import Front, form, picture

DATABASE = "imageapi.sqlite3"
_IMAGES = """
    SELECT image.id, object.storage, object.key, object.sha256, object.bytes, image.revision
    FROM stored_object AS object LEFT JOIN image ON image.object_id = object.id
"""
_COUNTS = """
    SELECT album.public_id, album.images_count, album.bytes,
        (SELECT count(*) FROM image WHERE image.album_id = album.id),
        (SELECT coalesce(sum(bytes), 0) FROM stored_object WHERE album_id = album.id)
    FROM album
"""
_RENDITION = re.compile(r"[0-9a-f]{2}/([0-9a-f-]{36})\.\d+\.\w+\.\w+")


class Kept(NamedTuple):
    """A row: an image and the object that it shows; without an image its id is None."""

    id: str | None
    storage: str
    key: str
    sha256: str
    bytes: int
    revision: int


def rows(database: Path) -> list[Kept]:
    """All objects with their images."""
    with closing(sqlite3.connect(database)) as connection:
        return list(map(Kept._make, connection.execute(_IMAGES)))


def roots(instance: Path) -> dict[str, Path]:
    """Where the local storages of an instance are, as long as no setting says otherwise."""
    return {path.name: path for path in (instance / "storage").glob("*")}


def violations(
    database: Path,
    storages: Mapping[str, Path],
    acknowledged: Mapping[str, str],
    known: Collection[str] = (),
    remote: Collection[str] = (),
) -> list[str]:
    """What is wrong with rows and bytes, one sentence each; whether the server runs or not.

    Args:
        database: the SQLite file.
        storages: name to root of every local storage.
        acknowledged: id to SHA-256 of every image that somebody was told is stored.
        known: ids of images whose bytes were looked at before.
        remote: keys that another storage is known to hold.
    """
    found = []
    with closing(sqlite3.connect(database)) as connection:
        for pragma in ("integrity_check", "foreign_key_check"):
            answer = connection.execute(f"PRAGMA {pragma}").fetchall()
            if answer not in ([], [("ok",)]):
                found.append(f"{pragma}: {answer}")
        for album, images, size, *counted in connection.execute(_COUNTS):
            if [images, size] != counted:
                found.append(f"{album} counts {images} images, {size} bytes, has {counted}")
    kept = rows(database)
    for row in kept:
        if row.id is None:
            found.append(f"the object {row.key} has no image")
        elif row.id not in known and row.key not in remote and (fault := _fault(row, storages)):
            found.append(f"the image {row.id} {fault}")
    by_id = {row.id: row.sha256 for row in kept}
    found += [
        f"the acknowledged image {image} is {'another' if image in by_id else 'gone'}"
        for image, sha256 in acknowledged.items()
        if by_id.get(image) != sha256
    ]
    return found


def _fault(row: Kept, storages: Mapping[str, Path]) -> str | None:
    path = storages[row.storage] / row.key if row.storage in storages else None
    if path is None or not path.is_file():
        return "has no bytes"
    data = path.read_bytes()
    same = hashlib.sha256(data).hexdigest() == row.sha256 and len(data) == row.bytes
    return None if same else "has other bytes"


def leftovers(database: Path, storages: Mapping[str, Path]) -> list[str]:
    """Files that nobody needs: staged ones, originals without a row, renditions of no image.

    Renditions of a former revision are no leftovers: URLs may name them, and they go by age.
    """
    kept = rows(database)
    objects, images = {(row.storage, row.key) for row in kept}, {row.id for row in kept}
    found = []
    for name, root in storages.items():
        for path in root.glob("*/*"):
            key = f"{path.parent.name}/{path.name}"
            rendition = _RENDITION.fullmatch(key)
            needed = rendition[1] in images if rendition else (name, key) in objects
            if not needed:
                found.append(f"{name}:{key}")
    return found


def assert_kept(
    door: Front, acknowledged: Mapping[str, str], storages: Mapping[str, Path] | None = None
) -> None:
    """I1 to I5, on a server at rest: nothing is wrong, and nothing is left after `collect`."""
    database = door.app.instance / DATABASE
    storages = storages or roots(door.app.instance)
    assert violations(database, storages, acknowledged) == []
    if leftovers(database, storages):
        collect(door)
    assert leftovers(database, storages) == []
    assert violations(database, storages, acknowledged) == []


def collect(door: Front) -> None:
    """`flask collect` of all that has no row: what is a second old is old enough here."""
    time.sleep(1.1)
    door.app.flask("collect", "--older-than", "1s", "--force")


def assert_problem(status: int, headers: Mapping[str, str], body: bytes, *allowed: int) -> None:
    """I6: one of the allowed statuses, as a problem with its own request id."""
    assert status in allowed, (status, body)
    assert headers["Content-Type"] == "application/problem+json"
    told = json.loads(body)
    assert told["status"] == status
    assert told["instance"] == f"urn:uuid:{headers['X-Request-Id']}"
    assert told["code"]


def assert_healthy(door: Front) -> tuple[str, str]:
    """I7: the very next upload is taken and shown; its id and SHA-256."""
    data = picture(3000, seed=uuid.uuid4().int)
    with door.connect() as connection:
        status, body = door.post(connection, form(data))
        assert status == 201, body
        status, _ = door.get(connection, f"/api/v1/images/{body['public_id']}")
        assert status == 200
        status, shown = door.get(connection, body["thumbnails"]["mini"])
    assert status == 200
    assert decoded(shown)
    return body["public_id"], hashlib.sha256(data).hexdigest()


def decoded(data: bytes) -> bool:
    """Whether it is a picture, to its end."""
    with Pillow.open(io.BytesIO(data)) as opened:
        opened.load()
    return True
