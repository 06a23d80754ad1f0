"""Albums full of images to read from: rows as uploads leave them, made by the database itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import flask_migrate
import sqlalchemy as sa
from flask import Flask

from imageapi import create_app
from imageapi.auth import tokens
from imageapi.extensions import db, read, transaction
from imageapi.models import Album, Image, StoredObject
from imageapi.settings import Settings

OWNER = "90cfb538-0284-4e99-888e-a3cdb4778101"
START = 1_700_000_000_000
_INFOS = (
    '{"bytes":2903604,"created_at":"2015-09-25T13:32:55Z","etag":"5a98d4d3e5d39024abf237be55e99b15",'
    '"format":"jpg","height":3024,"resource_type":"image","tags":["holidays-1"],"type":"private",'
    '"width":4032,"location":{"accuracy":36,"latitude":48.861934399999996,"longitude":2.348967}}'
)
_EXIFS = '{"Make":"Canon","Model":"Canon EOS 5D","FNumber":"2.8","ISOSpeedRatings":"100"}'


_HEX = "lower(hex(randomblob({})))"
_UUID = " || '-' || ".join(
    [
        _HEX.format(4),
        _HEX.format(2),
        f"'4' || substr({_HEX.format(2)}, 2)",
        f"'a' || substr({_HEX.format(2)}, 2)",
        _HEX.format(6),
    ]
)


@dataclass(frozen=True)
class _Words:
    """How a database says it.

    Attributes:
        numbers: `n`, of the numbers `i` after `:after`, `:count` of them, each with a new `uuid`.
        sha256, md5: a digest of its own for each.
        tidy: what follows so many rows.
    """

    numbers: str
    sha256: str
    md5: str
    tidy: str


_SAID = {
    "sqlite": _Words(
        f"WITH RECURSIVE n(i, uuid) AS (SELECT :after + 1, {_UUID} UNION ALL "  # noqa: S608
        f"SELECT i + 1, {_UUID} FROM n WHERE i < :after + :count)",
        _HEX.format(32),
        _HEX.format(16),
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ),
    "postgresql": _Words(
        "WITH n(i, uuid) AS (SELECT i, CAST(gen_random_uuid() AS text) "
        "FROM generate_series(:after + 1, :after + :count) AS i)",
        "encode(sha256(CAST(uuid AS bytea)), 'hex')",
        "md5(uuid)",
        "VACUUM ANALYZE",
    ),
}


def authorization(secret: str, expires: int, *albums: str) -> str:
    """The header of a token that may list, see, upload to and crop in these albums."""
    allowed = {"Access": dict.fromkeys(("see", "image_list", "image_upload", "image_crop"), True)}
    claims = {
        "exp": expires,
        "abilities": dict.fromkeys(albums, allowed),
        "user_id": OWNER,
    }
    return f'Token token="{tokens.sign(claims, secret)}"'


def disk() -> Path | None:
    """Where files reach a disk: a folder in memory has no fsync to speak of."""
    place = Path("/var/tmp")  # noqa: S108
    return place if place.is_dir() else None


def application(instance: Path, secret: str, url: str = "") -> Flask:
    """Our application on a new database, brought up by its migrations.

    Args:
        url: of an empty database of PostgreSQL; "" is SQLite in `instance`.
    """
    app = create_app(Settings(secret_keys=(secret,), instance=instance, database_url=url))
    with app.app_context():
        flask_migrate.upgrade()
    return app


def close(app: Flask) -> None:
    """Close the connections of this thread."""
    app.extensions["reader"].close()
    with app.app_context():
        db.engine.dispose()


def fill(app: Flask, albums: Iterable[tuple[str, int]]) -> None:
    """Make albums of so many images each."""
    with app.app_context():
        made = [(_album(name, count), count) for name, count in albums]
        url = db.engine.url
        db.engine.dispose()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    said = _SAID[engine.dialect.name]
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for pragma in ("synchronous = OFF", "cache_size = -400000", "temp_store = MEMORY"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
        after = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(StoredObject.id), 0)))
        for album, count in made:
            _insert(connection, StoredObject(**_object(album)), after, count, {
                "id": "i",
                "key": "substr(uuid, 1, 2) || '/' || uuid",
                "sha256": said.sha256,
                "md5": said.md5,
            })  # fmt: skip
            _insert(connection, Image(**_image(album)), after, count, {
                "id": "uuid",
                "object_id": "i",
                "created_ms": f"{START} + CAST(i AS bigint) * 1000",
            })  # fmt: skip
            after += count
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(said.tidy)


def ids(app: Flask, album: str, limit: int) -> list[str]:
    """The ids of images of an album, in no order of time: by their random ids."""
    statement = (
        sa.select(Image.id)
        .join(Album, Album.id == Image.album_id)
        .where(Album.public_id == album)
        .order_by(Image.id)
        .limit(limit)
    )
    with app.app_context():
        return [row.id for row in read(statement)]


def _album(name: str, count: int) -> int:
    with transaction() as session:
        album = Album(
            issuer="",
            public_id=name,
            owner=OWNER,
            storage="local",
            created_ms=START,
            images_count=count,
        )
        session.add(album)
        session.flush()
        return album.id


def _object(album: int) -> dict[str, object]:
    return {
        "album_id": album,
        "storage": "local",
        "bytes": 2903604,
        "format": "jpg",
        "width": 4032,
        "height": 3024,
        "created_ms": START,
    }


def _image(album: int) -> dict[str, object]:
    return {
        "album_id": album,
        "width": 4032,
        "height": 3024,
        "rendered": "jpg",
        "infos": _INFOS,
        "exifs": _EXIFS,
        "gps_html": "[48.861934399999996,2.348967]",
        "latitude": 48.861934399999996,
        "longitude": 2.348967,
        "uploader": OWNER,
        "file_name": "IMG_0001.JPG",
    }


def _insert(
    connection: sa.Connection,
    template: StoredObject | Image,
    after: int,
    count: int,
    expressions: Mapping[str, str],
) -> None:
    """Insert `count` rows like `template`, with these columns from the number `i` and a new `uuid`."""
    given = {
        column.name: value
        for column in sa.inspect(type(template)).columns
        if (value := getattr(template, column.name)) is not None
    }
    columns = [*given, *expressions]
    values = [*(f":{name}" for name in given), *expressions.values()]
    numbers = _SAID[connection.dialect.name].numbers
    statement = (
        f"{numbers} INSERT INTO {template.__tablename__} ({', '.join(columns)}) "  # noqa: S608
        f"SELECT {', '.join(values)} FROM n"
    )
    connection.execute(sa.text(statement), {**given, "after": after, "count": count})
