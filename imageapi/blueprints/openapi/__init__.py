"""The OpenAPI document as a route: made once a process, when it is first asked for."""

from __future__ import annotations

import json

from flask import Blueprint, Response, current_app, request

blueprint = Blueprint("openapi", __name__)


@blueprint.get("/openapi.json")
def show() -> Response:
    """Describe this API as OpenAPI 3.1 does."""
    response = Response(_text(), mimetype="application/json")
    response.headers["Cache-Control"] = "public, max-age=300"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    response.make_conditional(request)
    return response


def _text() -> bytes:
    kept: bytes | None = current_app.extensions.get("openapi")
    if kept is None:
        # Imported here, as apispec and the tables are nothing that a start has to wait for.
        from imageapi.blueprints.openapi import document  # noqa: PLC0415

        made = document.make(current_app)
        kept = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
        current_app.extensions["openapi"] = kept
    return kept
