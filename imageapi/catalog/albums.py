"""Albums: the rules of their ids; make, find and list them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import sqlalchemy as sa

from imageapi.catalog import library, now_ms
from imageapi.errors import Conflict, FieldFault, InvalidFields
from imageapi.extensions import Row, read, transaction
from imageapi.models import ALBUMS, ID_LENGTH, Album, StoredObject

ID_FIELD = "album[public_id]"
FORBIDDEN = r"/\?#%,"

_FIND = ALBUMS.where(
    Album.issuer == sa.bindparam("issuer"), Album.public_id == sa.bindparam("public_id")
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


def create(public_id: str, owner: str, issuer: str = "", storage: str | None = None) -> Row:
    """Make an album.

    Args:
        public_id: see `check_id`.
        owner: a user id of that issuer.
        issuer: "" is the operator.
        storage: where its images will be; None: where `IMAGEAPI_STORAGE` says.
    Returns: the row, of `models.ALBUMS`.
    Raises:
        InvalidFields: an id breaks its rule.
        Conflict: the issuer has an album of this id.
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
    except sa.exc.IntegrityError as error:
        raise Conflict(f"There is an album {public_id!r} already.") from error
    return read(ALBUMS.where(Album.id == album.id))[0]


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
    """The names of the storages that albums or stored objects say they are in."""
    names = sa.union(sa.select(Album.storage), sa.select(StoredObject.storage))
    return {row.storage for row in read(names)}
