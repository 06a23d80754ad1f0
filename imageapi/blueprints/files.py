"""Bytes that the application serves itself: assets, and renditions under signed URLs."""

from __future__ import annotations

import time
from pathlib import Path

from flask import Blueprint, Response, request, send_file

from imageapi.catalog import renditions

blueprint = Blueprint("files", __name__)

ASSETS = Path(__file__).parent.parent / "assets"
BLANK = ASSETS / "blank.jpg"


@blueprint.get("/assets/blank.jpg")
def blank() -> Response:
    """Serve the picture that stands for every rendition that can not be had."""
    return send_file(BLANK, mimetype="image/jpeg", max_age=86400)


@blueprint.get("/cloudinary_cors.html")
def cloudinary_cors() -> Response:
    """Serve the page that Cloudinary's upload widget sends old browsers back to."""
    return send_file(ASSETS / "cloudinary_cors.html", mimetype="text/html", max_age=86400)


@blueprint.get("/files/<storage>/<path:key>")
def rendition(storage: str, key: str) -> Response:
    """Serve a rendition under its signed URL, rendered now if it is missing; else the blank picture."""
    query = request.query_string.decode("latin-1")
    shown = renditions.open_signed(storage, key, query, time.time())
    if shown is None:
        response = send_file(BLANK, mimetype="image/jpeg")
        response.headers["Cache-Control"] = "no-store"
        return response
    return Response(
        shown.pieces,
        mimetype=shown.content_type,
        headers={
            "Cache-Control": f"private, max-age={shown.max_age}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Content-Length": str(shown.length),
        },
    )
