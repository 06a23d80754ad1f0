"""Bytes that the application serves itself: assets, and renditions under signed URLs."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from flask import Blueprint, Response, request

from imageapi.catalog import renditions

blueprint = Blueprint("files", __name__)

ASSETS = Path(__file__).parent.parent / "assets"


@blueprint.get("/assets/blank.jpg")
def blank() -> Response:
    """Serve the picture that stands for every rendition that can not be had."""
    return _blank("public, max-age=86400")


@blueprint.get("/cloudinary_cors.html")
def cloudinary_cors() -> Response:
    """Serve the page that Cloudinary's upload widget sends old browsers back to."""
    return _asset("cloudinary_cors.html", "text/html", "public, max-age=86400")


@blueprint.get("/files/<storage>/<path:key>")
def rendition(storage: str, key: str) -> Response:
    """Serve a rendition under its signed URL, restored if it is missing; else the blank picture."""
    query = request.query_string.decode("latin-1")
    shown = renditions.open_signed(storage, key, query, time.time())
    if shown is None:
        return _blank("no-store")
    headers = {
        "Cache-Control": f"private, max-age={shown.max_age}, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(shown.length),
    }
    if shown.location:
        headers["X-Accel-Redirect"] = shown.location
    return Response(shown.pieces, mimetype=shown.content_type, headers=headers)


def _blank(keep: str) -> Response:
    return _asset("blank.jpg", "image/jpeg", keep)


def _asset(name: str, mimetype: str, keep: str) -> Response:
    headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
    return Response(_read(name), mimetype=mimetype, headers=headers)


@functools.cache
def _read(name: str) -> bytes:
    return (ASSETS / name).read_bytes()
