"""Address → position, from a MaxMind database file. Source: https://maxmind.github.io/MaxMind-DB/."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import maxminddb


class GeoIP:
    """Positions of internet addresses; without a database, none is known."""

    def __init__(self, database: Path | None) -> None:
        """Open `database`. Raises OSError or maxminddb.InvalidDatabaseError when it is none."""
        self._reader = maxminddb.open_database(database) if database else None

    def position(self, address: str | None) -> tuple[float, float] | None:
        """Latitude and longitude in degrees, or None: unknown, private, or no address."""
        if self._reader is None or not address:
            return None
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        entry = self._reader.get(getattr(parsed, "ipv4_mapped", None) or parsed)
        location = entry.get("location") if isinstance(entry, dict) else None
        if not isinstance(location, dict):
            return None
        return _checked(location.get("latitude"), location.get("longitude"))


def _checked(latitude: object, longitude: object) -> tuple[float, float] | None:
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return None
    # NaN fails both comparisons.
    inside = abs(latitude) <= 90 and abs(longitude) <= 180
    return (float(latitude), float(longitude)) if inside else None
