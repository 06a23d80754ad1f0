"""Users: they have no rows of their own; here is what other rows say about them.

Albums stay their owner's until they are transferred, ids that were given up stay reserved for who
gave them up, and revocations stay in force: without the id none of these would hold.

Source: design §8.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.extensions import Row, read, transaction
from imageapi.models import Album, Image, Share, Tag, TagImage

BATCH = 200
"""How many rows one transaction changes."""

_OF_ISSUER = sa.select(Album.id).where(Album.issuer == sa.bindparam("issuer"))
_UPLOADED = sa.select(Image.id).where(
    Image.uploader == sa.bindparam("user"), Image.album_id.in_(_OF_ISSUER)
)
_TAGGED = (
    sa.select(TagImage.id)
    .join(Tag, Tag.id == TagImage.tag_id)
    .where(TagImage.user == sa.bindparam("user"), Tag.album_id.in_(_OF_ISSUER))
)
_OWNED = sa.select(sa.func.count()).where(
    Album.owner == sa.bindparam("user"),
    Album.issuer == sa.bindparam("issuer"),
    Album.deleted_ms.is_(None),
)


def owned(user: str, issuer: str = "") -> int:
    """How many albums a user of `issuer` owns."""
    count: int = read(_OWNED, user=user, issuer=issuer)[0][0]
    return count


def erase(user: str, issuer: str = "") -> Iterator[Counter[str]]:
    """Take out what rows say about a user of `issuer`, a batch a transaction.

    These are the shares that the user made, that the user uploaded images or put tags on them, and where
    the user was when uploading, by browser and by address. Positions in EXIF are part of the picture and
    stay. What was done stays done when this is stopped; the next run goes on.

    Yields: what each transaction did: `shares`, `images`, `positions` (of these images), `tags`.
    """
    with transaction() as session:
        made = sa.delete(Share).where(Share.maker == user, Share.album_id.in_(_OF_ISSUER))
        shares = session.connection().execute(made, {"issuer": issuer}).rowcount
    yield Counter(shares=shares)
    while rows := read(_UPLOADED, user=user, issuer=issuer):
        for image_ids in _batches(rows):
            with transaction() as session:
                done = _erase_uploads(session, image_ids)
            yield done
    while rows := read(_TAGGED, user=user, issuer=issuer):
        for ids in _batches(rows):
            with transaction() as session:
                put_on = sa.update(TagImage).where(TagImage.id.in_(ids)).values(user=None)
                tags = session.connection().execute(put_on).rowcount
            yield Counter(tags=tags)


def _batches(rows: Sequence[Row]) -> Iterator[list[str]]:
    ids = [row.id for row in rows]
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _erase_uploads(session: orm.Session, image_ids: Sequence[str]) -> Counter[str]:
    done: Counter[str] = Counter()
    found = sa.select(Image).where(Image.id.in_(image_ids)).order_by(Image.id).with_for_update()
    for image in session.scalars(found):
        image.uploader = None
        infos = json.loads(image.infos)
        located = infos.pop("location", None) is not None
        if located:
            image.infos = json.dumps(infos, ensure_ascii=False, separators=(",", ":"))
        done["positions"] += located or image.gps_html is not None or image.gps_ip is not None
        image.gps_html = image.gps_ip = None
        exifs = json.loads(image.gps_exifs) if image.gps_exifs else (None, None)
        image.latitude, image.longitude = exifs
        done["images"] += 1
    return done
