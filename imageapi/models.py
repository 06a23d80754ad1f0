"""Rows: albums, the stored objects that their images share, and the images.

What the contract answers as JSON blocks (`infos`, `exifs`, positions) is kept as ready JSON text and
spliced into answers. Times are whole milliseconds since 1970, UTC. The operator's own issuer is "".
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from imageapi.extensions import Base, db

ID_LENGTH = 128
"""The most characters of an album id, an issuer or a user id."""

TAG_LENGTH = 128
"""The most characters of a tag's name."""

_ISSUER = String(ID_LENGTH)
_ROW_ID = BigInteger().with_variant(db.Integer, "sqlite")


class Album(Base):
    """An album; `(issuer, public_id)` is its name, `id` what other rows point at.

    A deleted album keeps its row, under a name nobody can ask for, until its images are gone.
    """

    __tablename__ = "album"

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    issuer: Mapped[str] = mapped_column(_ISSUER)
    public_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    owner: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    storage: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    images_count: Mapped[int] = mapped_column(server_default=text("0"))
    bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    views_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("uq_album_issuer_public_id", "issuer", "public_id", unique=True),
        Index("ix_album_owner", "issuer", "owner", "created_ms", "id"),
    )


class StoredObject(Base):
    """The bytes of one original, in one storage; belongs to one album, shared by its duplicates.

    `width` and `height` are those of the upright picture, in pixels.
    """

    __tablename__ = "stored_object"

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id))
    storage: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str | None] = mapped_column(String(64))
    md5: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int]
    height: Mapped[int]
    created_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index(
            "uq_stored_object_album_id_sha256",
            "album_id",
            "sha256",
            unique=True,
            sqlite_where=text("sha256 IS NOT NULL"),
            postgresql_where=text("sha256 IS NOT NULL"),
        ),
    )


class Image(Base):
    """An image: a stored object with an edit of its own.

    `width`, `height`: the effective size, after crop and rotation. `rendered`: the extension of the
    renditions that exist for this revision, "" while there are none. `placeholder`: the ThumbHash of
    the revision rendered last, in base64; null after an edit that the storage renders by itself.
    `latitude`, `longitude`: the position that `gps` shows, for the bbox filter.
    """

    __tablename__ = "image"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id))
    object_id: Mapped[int] = mapped_column(ForeignKey(StoredObject.id), index=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(server_default=text("0"))
    rotation: Mapped[int] = mapped_column(server_default=text("0"))
    crop_x: Mapped[float] = mapped_column(db.Double, server_default=text("0"))
    crop_y: Mapped[float] = mapped_column(db.Double, server_default=text("0"))
    crop_w: Mapped[float] = mapped_column(db.Double, server_default=text("0"))
    crop_h: Mapped[float] = mapped_column(db.Double, server_default=text("0"))
    width: Mapped[int]
    height: Mapped[int]
    rendered: Mapped[str] = mapped_column(String(4), default="")
    placeholder: Mapped[str | None] = mapped_column(String(64))
    infos: Mapped[str] = mapped_column(Text)
    exifs: Mapped[str] = mapped_column(Text)
    gps_exifs: Mapped[str | None] = mapped_column(String(64))
    gps_html: Mapped[str | None] = mapped_column(String(64))
    gps_ip: Mapped[str | None] = mapped_column(String(64))
    latitude: Mapped[float | None] = mapped_column(db.Double)
    longitude: Mapped[float | None] = mapped_column(db.Double)
    taken_ms: Mapped[int | None] = mapped_column(BigInteger)
    uploader: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    file_name: Mapped[str] = mapped_column(String(255), default="")

    # Read backwards for "newest first".
    __table_args__ = (Index("ix_image_album", "album_id", "created_ms", "id"),)


class IntegratorKey(Base):
    """A secret of a registered integrator; the newest signs, all verify until they end."""

    __tablename__ = "integrator_key"

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    issuer: Mapped[str] = mapped_column(_ISSUER, index=True)
    secret: Mapped[str] = mapped_column(String(ID_LENGTH))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    ends_ms: Mapped[int | None] = mapped_column(BigInteger)


class Revocation(Base):
    """Tokens of a subject that were not issued after `at` (seconds since 1970) are refused.

    `kind`: `user`, `album`, `issuer` or `all`; `subject`: the user id, or the album's row id, so that
    a rename changes nothing.
    """

    __tablename__ = "revocation"

    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    issuer: Mapped[str] = mapped_column(_ISSUER, primary_key=True)
    subject: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)


class Generation(Base):
    """One row: it counts the changes of keys and revocations, so that a worker sees that it is late."""

    __tablename__ = "generation"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Share(Base):
    """What a share token may do at most. `abilities`: JSON list; `expires_at`: seconds since 1970."""

    __tablename__ = "share"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id), index=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    abilities: Mapped[str] = mapped_column(Text)
    label: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    maker: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)


class ReservedID(Base):
    """An album id that was given up: only its last owner may take it again until `until_ms`."""

    __tablename__ = "reserved_id"

    issuer: Mapped[str] = mapped_column(_ISSUER, primary_key=True)
    public_id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    until_ms: Mapped[int] = mapped_column(BigInteger)


class Tag(Base):
    """A tag of an album. `label`: a text, or compact JSON as the token that named it first had it."""

    __tablename__ = "tag"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(TAG_LENGTH))
    label: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("uq_tag_album_id_name", "album_id", "name", unique=True),)


class TagImage(Base):
    """One image that carries one tag, and the user who put it on."""

    __tablename__ = "tag_image"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tag_id: Mapped[str] = mapped_column(ForeignKey(Tag.id))
    image_id: Mapped[str] = mapped_column(ForeignKey(Image.id), index=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    user: Mapped[str | None] = mapped_column(String(ID_LENGTH))

    __table_args__ = (Index("uq_tag_image_tag_id_image_id", "tag_id", "image_id", unique=True),)


class Work(Base):
    """The outbox: work that a transaction leaves to be done after it, not before `due_ms`.

    Who takes it up moves `due_ms` ahead first, so that it is found again if that process dies.
    `request_id`: that of the request that made it necessary, for the logs.
    """

    __tablename__ = "work"

    id: Mapped[int] = mapped_column(_ROW_ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)
    due_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    request_id: Mapped[str | None] = mapped_column(String(64))


class ObjectCopy(Base):
    """A second copy of an object's bytes, left where a move found them until its work removes it."""

    __tablename__ = "object_copy"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    object_id: Mapped[int] = mapped_column(
        ForeignKey(StoredObject.id, ondelete="CASCADE"), index=True
    )
    storage: Mapped[str] = mapped_column(String(64))
    work_id: Mapped[int] = mapped_column(BigInteger)


class Quarantined(Base):
    """Bytes that no row wants, and since when that is known; they go if it stays so for long."""

    __tablename__ = "quarantined"

    storage: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    since_ms: Mapped[int] = mapped_column(BigInteger)


class Progress(Base):
    """How far a long task has come: the id that it finished last."""

    __tablename__ = "progress"

    task: Mapped[str] = mapped_column(String(128), primary_key=True)
    place: Mapped[str] = mapped_column(String(64))


class AlbumViews(Base):
    """How often an album's images were listed to others than its owner, on one day (UTC)."""

    __tablename__ = "album_views"

    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    views: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """A request that named an Idempotency-Key, and what it made.

    `scope`: a hash of issuer, user, method, path and key. `status` is 0 while it is in flight;
    `resource` is the id of the album or image that answered it.
    """

    __tablename__ = "idempotency_key"

    scope: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    resource: Mapped[str] = mapped_column(String(ID_LENGTH))
    created_ms: Mapped[int] = mapped_column(BigInteger, index=True)


GENERATION = sa.select(Generation.value).scalar_subquery().label("generation")
"""How many changes of keys and revocations there were, as a column of any SELECT."""

_NOT_SHOWN = ("taken_ms", "uploader", "file_name")

_ANY_IMAGES = (
    sa.select(
        *(column for column in Image.__table__.columns if column.name not in _NOT_SHOWN),
        StoredObject.key,
        StoredObject.storage,
        StoredObject.width.label("original_width"),
        StoredObject.height.label("original_height"),
        Album.issuer,
        Album.owner,
        Album.public_id.label("album"),
        GENERATION,
    )
    .join(StoredObject, StoredObject.id == Image.object_id)
    .join(Album, Album.id == Image.album_id)
)

IMAGES = _ANY_IMAGES.where(Album.deleted_ms.is_(None))
"""Images with what their answer, their thumbnails and the decision about them need: plain rows.

`generation` is that of keys and revocations at the moment of the read.
"""

_UNSEEN = ("object_id", "latitude", "longitude", *_NOT_SHOWN)

LISTED = sa.select(
    *(column for column in Image.__table__.columns if column.name not in _UNSEEN),
    StoredObject.key,
    StoredObject.storage,
    StoredObject.width.label("original_width"),
    StoredObject.height.label("original_height"),
    sa.bindparam("album", type_=String).label("album"),
).join(StoredObject, StoredObject.id == Image.object_id)
"""As `IMAGES`, for the images of an album that was decided about: its id comes with the question."""

ANY_ORIGINALS = _ANY_IMAGES.add_columns(
    StoredObject.bytes, StoredObject.sha256, StoredObject.md5, StoredObject.format, Image.file_name
)
"""As `IMAGES`, with what is known of the stored bytes; those of deleted albums too."""

ORIGINALS = ANY_ORIGINALS.where(Album.deleted_ms.is_(None))
"""As `IMAGES`, with what is known of the stored bytes."""

ALBUMS = sa.select(*Album.__table__.columns, GENERATION).where(Album.deleted_ms.is_(None))
"""Albums that are not deleted: plain rows."""
