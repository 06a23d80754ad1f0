"""How often an album's images were listed to others than its owner: counted beside the read path.

A process counts in memory and writes its counts every few seconds, in one transaction.
"""

from __future__ import annotations

import datetime
import threading
from collections import Counter

import sqlalchemy as sa
from sqlalchemy import orm

from imageapi.extensions import read, transaction
from imageapi.models import Album, AlbumViews

DAYS = 30
"""How many days the statistics show."""

_BY_DAY = (
    sa.select(AlbumViews.day, AlbumViews.views)
    .where(AlbumViews.album_id == sa.bindparam("album_id"), AlbumViews.day > sa.bindparam("after"))
    .order_by(AlbumViews.day)
)


class Views:
    """What one process has counted and not written yet."""

    def __init__(self) -> None:
        self._pending: Counter[int] = Counter()
        self._lock = threading.Lock()

    def count(self, album_id: int) -> None:
        """Count one view; it is written a few seconds later."""
        with self._lock:
            self._pending[album_id] += 1

    def flush(self) -> None:
        """Write what was counted since the last time; what can not be written is kept.

        Where only the commit failed, it may be written all the same: that is not counted twice.
        """
        with self._lock:
            counted, self._pending = self._pending, Counter()
        if not counted:
            return
        sent = False
        try:
            with transaction() as session:
                _write(session, counted, today())
                session.flush()
                sent = True
        except sa.exc.SQLAlchemyError:
            if not sent:
                with self._lock:
                    self._pending += counted
            raise


def _write(session: orm.Session, counted: Counter[int], day: str) -> None:
    # In one order everywhere, so that two processes never wait for each other.
    for album_id, views in sorted(counted.items()):
        there = sa.update(Album).where(Album.id == album_id)
        more = session.connection().execute(there.values(views_count=Album.views_count + views))
        if more.rowcount:
            row = session.get(AlbumViews, (album_id, day))
            if row is None:
                session.add(AlbumViews(album_id=album_id, day=day, views=views))
            else:
                row.views = AlbumViews.views + views


def by_day(album_id: int) -> list[tuple[str, int]]:
    """Day (YYYY-MM-DD, UTC) and views of an album, of the last `DAYS` days that had any."""
    after = (_now() - datetime.timedelta(days=DAYS)).date().isoformat()
    return [(row.day, row.views) for row in read(_BY_DAY, album_id=album_id, after=after)]


def today() -> str:
    """The present day, YYYY-MM-DD, UTC."""
    return _now().date().isoformat()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
