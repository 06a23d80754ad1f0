"""Rows and bytes in step: what HTTP and the command line both ask for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import Flask, current_app

from imageapi import telemetry
from imageapi.catalog import calls
from imageapi.catalog.views import Views
from imageapi.geoip import GeoIP
from imageapi.geometry import Rendition
from imageapi.imaging import Limits
from imageapi.settings import Settings
from imageapi.storage.backend import Context
from imageapi.storage.storages import Storages


@dataclass(frozen=True)
class Library:
    """What the catalog of one application works with.

    `thumbnails`: the JSON text of URLs that were made already (`renditions.thumbnails`).
    `asked`: until when workers are told no more of an image that lacks renditions (`renditions.ASKED`).
    """

    settings: Settings
    storages: Storages
    renditions: tuple[Rendition, ...]
    limits: Limits
    geoip: GeoIP
    views: Views
    thumbnails: dict[tuple[Any, ...], str]
    asked: dict[tuple[str, int], float]


def init_app(app: Flask, settings: Settings) -> None:
    """Give `app` its library; no storage is loaded yet."""
    context = Context(
        name="",
        instance=settings.instance,
        secret_keys=settings.secret_keys,
        public_url=settings.public_url,
        url_window=settings.url_window,
    )
    storages = Storages(settings.storages, context, calls.observe())
    telemetry.hide([*settings.secrets(), *storages.secrets()])
    app.extensions["library"] = Library(
        settings=settings,
        storages=storages,
        renditions=(
            Rendition("full", *settings.full, "fit"),
            Rendition("large", *settings.large, "fill"),
            Rendition("mini", *settings.mini, "fill"),
        ),
        limits=Limits(max_pixels=settings.max_pixels),
        geoip=GeoIP(settings.geoip_database),
        views=Views(),
        thumbnails={},
        asked={},
    )


def now_ms() -> int:
    """The clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def library() -> Library:
    """The library of the current application."""
    found: Library = current_app.extensions["library"]
    return found
