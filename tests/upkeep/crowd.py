"""One of several processes that upload, duplicate, edit, delete and collect on the same few files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from flask import Flask

from imageapi import create_app, models
from imageapi.catalog import albums, collecting, edits, images, library, work
from imageapi.errors import NotFound, StorageNotFound
from imageapi.extensions import db, read, transaction
from imageapi.settings import Settings
from tests.conftest import SECRET, jpeg
from tests.upkeep.helpers import put_stray

STORAGES = {"local": "local", "attic": "local"}
FILES = 20
DAY = 86_400
OPERATIONS = {"upload": 32, "delete": 32, "duplicate": 18, "edit": 16, "collect": 2}
"""Each with its share."""


@contextlib.contextmanager
def application(instance: Path, url: str) -> Iterator[Flask]:
    """An application on this database, its context pushed; `url` may be "" for SQLite."""
    app = create_app(
        Settings(
            secret_keys=(SECRET,),
            instance=instance,
            database_url=url,
            database_statement_timeout=60,
            database_lock_timeout=60,  # so many wait for each other here, and nobody for them
            storages=STORAGES,
        )
    )
    with app.app_context():
        try:
            yield app
        finally:
            app.extensions["reader"].close()
            db.engine.dispose()


def member(instance: Path, url: str, seed: int, operations: int) -> Counter[str]:
    """Do so many operations at random, and read an image after each; returns how many came to an end."""
    choice, done = random.Random(seed), Counter[str]()  # noqa: S311
    with application(instance, url):
        for _ in range(operations):
            name = choice.choices(list(OPERATIONS), OPERATIONS.values())[0]
            # Another may be faster.
            with contextlib.suppress(NotFound):
                _OPERATION[name](choice)
                done[name] += 1
            if ids := known():
                read_back(choice.choice(ids))
    return done


def known() -> list[str]:
    """The ids of some images; of all, as few as there are."""
    statement = sa.select(models.Image.id).order_by(models.Image.id).limit(3 * FILES)
    return [row.id for row in read(statement)]


def upload(data: bytes) -> str:
    album = albums.find("holidays")
    with library().storages[album.storage].stage() as staging:
        staging.write(data)
        return images.add(album, staging.finish(), images.Upload(uploader="anna"))[0]


def read_back(image_id: str) -> None:
    """An image's bytes are those of its row, for as long as it is its row."""
    statement = models.ORIGINALS.where(models.Image.id == image_id)
    while rows := read(statement):
        row = rows[0]
        try:
            data = b"".join(library().storages[row.storage].open(row.key))
        except StorageNotFound:
            assert [row.key] != [now.key for now in read(statement)], f"{row.key} has no bytes"
        else:
            assert hashlib.sha256(data).hexdigest() == row.sha256
            return


def _upload(choice: random.Random) -> None:
    read_back(upload(jpeg(16, 16, seed=choice.randrange(FILES))))


def _one(choice: random.Random) -> models.Row:
    if not (ids := known()):
        raise NotFound
    return images.get(choice.choice(ids))


def _edit(choice: random.Random) -> None:
    edits.edit(_one(choice), {"rotation": choice.choice([0, 90, 180, 270])})


def _collect(choice: random.Random) -> None:
    """Everything is old, its time is over, and there are bytes without a row."""
    storages = library().settings.instance / "storage"
    put_stray(storages / choice.choice(list(STORAGES)))
    then = library().settings.instance.stat().st_mtime - 2 * DAY
    for row in read(sa.select(models.StoredObject.storage, models.StoredObject.key)):
        with contextlib.suppress(FileNotFoundError):
            os.utime(storages / row.storage / row.key, (then, then))
    collecting.collect(collecting.Rule(older_than=3600, force=True))
    due = sa.update(models.Work).where(models.Work.kind.in_(["remove", "remove_copy"]))
    with transaction() as session:
        session.execute(due.values(due_ms=0))
    work.run_due()


_OPERATION = {
    "upload": _upload,
    "delete": lambda choice: edits.delete(_one(choice)),
    "duplicate": lambda choice: edits.duplicate(_one(choice)),
    "edit": _edit,
    "collect": _collect,
}
