"""Albums: the rules of their ids; make, find and list them."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.catalog import background, edits, library, now_ms, work
from imageapi.catalog.images import Confirm, agreed
from imageapi.errors import Conflict, FieldFault, InvalidFields, NotFound
from imageapi.extensions import Row, read, transaction
from imageapi.models import (
    ALBUMS,
    ID_LENGTH,
    Album,
    AlbumViews,
    Generation,
    Image,
    ObjectCopy,
    ReservedID,
    Revocation,
    Share,
    StoredObject,
    Tag,
)

ID_FIELD = "album[public_id]"
FORBIDDEN = r"/\?#%,"

_FIND = ALBUMS.where(
    Album.issuer == sa.bindparam("issuer"), Album.public_id == sa.bindparam("public_id")
)
_ONE = ALBUMS.where(Album.id == sa.bindparam("album_id"))
# Of a deleted album only: SQLite gives a row's id out again, and work may be done twice.
_DELETED = sa.select(Album.id).where(
    Album.id == sa.bindparam("album_id"), Album.deleted_ms.is_not(None)
)
_IMAGES = sa.select(Image.id).where(Image.album_id.in_(_DELETED)).limit(100)
_FORMATS = (
    sa.select(StoredObject.format, sa.func.count().label("images"))
    .join(Image, Image.object_id == StoredObject.id)
    .where(Image.album_id == sa.bindparam("album_id"))
    .group_by(StoredObject.format)
    .order_by(StoredObject.format)
)
_ALL = ALBUMS.order_by(Album.issuer, Album.public_id)


def check_id(public_id: str) -> None:
    """Refuse what can not be an album id.

    Raises:
        InvalidFields: naming the field `album[public_id]` and the limit.
    Source: design §4.
    """
    if fault := _id_fault(public_id):
        raise InvalidFields(errors=[FieldFault(ID_FIELD, fault)])


def check_name(field: str, name: str) -> None:
    """Refuse what can not be a user id or an issuer, by the rule that tokens have.

    Raises:
        InvalidFields: naming `field` and the limit.
    """
    if not 0 < len(name) <= ID_LENGTH or "\0" in name or not _encodable(name):
        fault = FieldFault(field, f"must be a text of 1 to {ID_LENGTH} characters.")
        raise InvalidFields(errors=[fault])


def _id_fault(public_id: str) -> str | None:
    if not 0 < len(public_id) <= ID_LENGTH:
        return f"must have 1 to {ID_LENGTH} characters."
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in public_id):
        return "must not contain control characters."
    if not set(FORBIDDEN).isdisjoint(public_id):
        return f"must not contain any of {' '.join(FORBIDDEN)}"
    if not unicodedata.is_normalized("NFC", public_id):
        return "must be in Unicode's normal form C (NFC)."
    if public_id != public_id.strip():
        return "must not begin or end with a space."
    if public_id in (".", ".."):
        return "must not be . or .."
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def find(public_id: str, issuer: str = "") -> Row | None:
    """The album of `issuer`, a row of `models.ALBUMS`; None where there is none, or never could be."""
    if _id_fault(public_id) or not _encodable(issuer):
        return None
    rows = read(_FIND, issuer=issuer, public_id=public_id)
    return rows[0] if rows else None


def every() -> Sequence[Row]:
    """All albums, rows of `models.ALBUMS`, by issuer and id."""
    return read(_ALL)


def create(
    public_id: str,
    owner: str,
    issuer: str = "",
    storage: str | None = None,
    confirm: Confirm = agreed,
) -> Row:
    """Make an album.

    Args:
        public_id: see `check_id`.
        owner: a user id of that issuer.
        issuer: "" is the operator.
        storage: where its images will be; None: where `IMAGEAPI_STORAGE` says.
        confirm: asked inside the write, with the album's id; may raise to refuse.
    Returns: the row, of `models.ALBUMS`.
    Raises:
        InvalidFields: an id breaks its rule.
        Conflict: the issuer has an album of this id, or the id was another owner's a short time ago.
        StorageUnavailable: the storage is unknown or not configured.
    """
    check_id(public_id)
    check_name("owner", owner)
    if issuer:
        check_name("issuer", issuer)
    shelf = library()
    album = Album(
        issuer=issuer,
        public_id=public_id,
        owner=owner,
        storage=shelf.storages[storage or shelf.settings.storage].name,
        created_ms=now_ms(),
    )
    try:
        with transaction() as session:
            session.add(album)
            session.flush()
            # Not before: it may have waited for who gives this id up, and reserves it.
            _demand_free(session, issuer, public_id, owner)
            confirm(session, public_id)
    except sa.exc.IntegrityError as error:
        raise Conflict(f"There is an album {public_id!r} already.") from error
    return get(album.id)


def get(album_id: int) -> Row:
    """The album whose row has this id, a row of `models.ALBUMS`.

    Raises:
        NotFound: it was deleted.
    """
    rows = read(_ONE, album_id=album_id)
    if not rows:
        raise NotFound
    return rows[0]


def rename(album: Row, public_id: str, confirm: Confirm = agreed) -> None:
    """Give an album another id; the old one is unknown at once, and kept for its owner for a while.

    Args:
        album: of `models.ALBUMS`.
        public_id: see `check_id`.
        confirm: asked inside the write, with the new id; may raise to refuse.
    Raises:
        InvalidFields, Conflict: as `create`.
        NotFound: the album was deleted or renamed meanwhile.
    """
    check_id(public_id)
    if public_id == album.public_id:
        return
    try:
        with transaction() as session:
            _hold(session, album)
            confirm(session, public_id)
            of_album = sa.update(Album).where(Album.id == album.id)
            session.execute(of_album.values(public_id=public_id))
            _demand_free(session, album.issuer, public_id, album.owner)
            _reserve(session, album)
    except sa.exc.IntegrityError as error:
        raise Conflict(f"There is an album {public_id!r} already.") from error


def transfer(album: Row, owner: str) -> None:
    """Give an album to another user of its issuer.

    Args:
        album: of `models.ALBUMS`.
        owner: a user id.
    Raises:
        InvalidFields: that is no user id.
        NotFound: the album was deleted meanwhile.
    """
    check_name("owner", owner)
    there = sa.update(Album).where(Album.id == album.id, Album.deleted_ms.is_(None))
    with transaction() as session:
        if session.connection().execute(there.values(owner=owner)).rowcount == 0:
            raise NotFound


def delete(album: Row, confirm: Confirm = agreed) -> None:
    """Delete an album: gone for everybody when this returns; its images and bytes go after it.

    Raises:
        NotFound: the album was deleted or renamed meanwhile.
    """
    with transaction() as session:
        _hold(session, album)
        confirm(session, album.public_id)
        # No id that can be asked for has a slash: the tombstone is in nobody's way.
        tombstone = {"public_id": f"/{album.id}", "deleted_ms": now_ms()}
        session.execute(sa.update(Album).where(Album.id == album.id).values(**tombstone))
        _reserve(session, album)
        number = work.record(session, "empty_album", {"album": album.id})
    background.soon(number, wait=False)


def _hold(session: orm.Session, album: Row) -> None:
    """Have the album to ourselves until the transaction ends, if it is what `album` shows."""
    same = sa.select(Album.id).where(Album.id == album.id, Album.public_id == album.public_id)
    if session.scalar(same.with_for_update()) is None:
        raise NotFound


def _demand_free(session: orm.Session, issuer: str, public_id: str, owner: str | None) -> None:
    reserved = session.get(ReservedID, (issuer, public_id))
    if reserved is None:
        return
    if reserved.owner != owner and reserved.until_ms > now_ms():
        raise Conflict(f"The id {public_id!r} was another owner's a short time ago.")
    session.delete(reserved)


def _reserve(session: orm.Session, album: Row) -> None:
    until_ms = now_ms() + library().settings.token_max_age * 1000
    name = {"issuer": album.issuer, "public_id": album.public_id}
    session.merge(ReservedID(**name, owner=album.owner, until_ms=until_ms))


@work.kind("empty_album")
def _empty(payload: work.Payload) -> work.Payload | None:
    """Remove the images of a deleted album, a batch a transaction, then its row; for a slice of time."""
    album_id = payload["album"]
    end = time.monotonic() + work.SLICE
    while rows := read(_IMAGES, album_id=album_id):
        for number in _removed(rows):
            work.run(number)
        if time.monotonic() > end:
            return payload
    with transaction() as session:
        if session.scalar(_DELETED, {"album_id": album_id}) is None:
            return None
        for model in (Tag, Share, AlbumViews, StoredObject):
            session.execute(sa.delete(model).where(model.album_id == album_id))
        _forget_revocation(session, album_id)
        session.execute(sa.delete(Album).where(Album.id == album_id))
    return None


def _removed(rows: Sequence[Row]) -> list[int]:
    """Remove these images; the work that is left of them."""
    try:
        with transaction() as session:
            return edits.remove(session, [row.id for row in rows])
    except NotFound:
        return []  # by another process, which took this up when our lease was over


def _forget_revocation(session: orm.Session, album_id: int) -> None:
    """Leave no revocation to the next album that SQLite gives this row id to."""
    theirs = (Revocation.kind == "album", Revocation.subject == str(album_id))
    if session.connection().execute(sa.delete(Revocation).where(*theirs)).rowcount:
        session.execute(sa.update(Generation).values(value=Generation.value + 1))


def opened_by(
    issuer: str,
    owner: str,
    entries: Collection[str],
    seen: Collection[str],
    limit: int,
    after: tuple[int, int] | None,
) -> tuple[Sequence[Row], tuple[int, int] | None]:
    """A page of the albums that a token opens, newest first.

    Args:
        issuer: of the token.
        owner: its user, whose albums they are unless an entry says otherwise.
        entries: the album ids that it has an entry for; `seen` those of them with `see`.
        limit: the most albums.
        after: `created_ms` and row id of the last album of the page before.
    Returns: rows of `models.ALBUMS`, and the place where the next page begins, None at the end.
    """
    theirs = sa.and_(Album.owner == owner, Album.public_id.not_in(list(entries)))
    opened = sa.or_(theirs, Album.public_id.in_(list(seen)))
    statement = ALBUMS.where(Album.issuer == issuer, opened)
    if after is not None:
        here = sa.tuple_(sa.literal(after[0], sa.BigInteger), sa.literal(after[1]))
        statement = statement.where(sa.tuple_(Album.created_ms, Album.id) < here)
    newest_first = statement.order_by(Album.created_ms.desc(), Album.id.desc())
    rows = read(newest_first.limit(limit + 1))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], (rows[limit - 1].created_ms, rows[limit - 1].id)


def reached(issuer: str, owner: str | None, entries: Collection[str]) -> Sequence[Row]:
    """The albums of an issuer that a user owns, and those of these ids: rows of `models.ALBUMS`."""
    theirs = sa.false() if owner is None else Album.owner == owner
    named = Album.public_id.in_(list(entries))
    return read(
        ALBUMS.where(Album.issuer == issuer, sa.or_(theirs, named)).order_by(Album.public_id)
    )


def formats(album_id: int) -> dict[str, int]:
    """How many images of each format an album has."""
    return {row.format: row.images for row in read(_FORMATS, album_id=album_id)}


def ensure(public_id: str, owner: str, issuer: str = "", storage: str | None = None) -> Row:
    """The album of this id, made as `create` does if there is none.

    Raises:
        Conflict: there is one, of another owner or in another storage than asked for.
    """
    album = find(public_id, issuer)
    if album is None:
        return create(public_id, owner, issuer, storage)
    if album.owner != owner:
        raise Conflict(f"The album {public_id!r} belongs to another user.")
    if storage not in (None, album.storage):
        raise Conflict(f"The album {public_id!r} is in the storage {album.storage!r}.")
    return album


def storages_in_use() -> set[str]:
    """The names of the storages that albums, stored objects or copies of these say they are in."""
    models = (Album, StoredObject, ObjectCopy)
    return {row.storage for row in read(sa.union(*(sa.select(m.storage) for m in models)))}
