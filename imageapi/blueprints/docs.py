"""The documentation page: Swagger UI, all of it from here.

The bundle comes with the package flask-swagger-ui, which follows Swagger UI's releases; the page and
the script that starts it are ours, so that nothing on it is inline and its policy can be strict.

Source: https://github.com/swagger-api/swagger-ui/blob/master/docs/usage/configuration.md.
"""

from __future__ import annotations

import functools
import importlib.resources

from flask import Blueprint, Response, request

from imageapi.blueprints.files import ASSETS
from imageapi.errors import NotFound

blueprint = Blueprint("docs", __name__)

_TYPES = {
    "docs.js": "text/javascript",
    "docs.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
"""The files of the page, each with its media type."""

# Swagger UI styles its elements in place, has its icons as data, and shows pictures as blobs.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@blueprint.get("/docs")
def page() -> Response:
    """Show the API, and try it with a token."""
    response = _file("docs.html", "text/html", "no-cache")
    response.headers["Content-Security-Policy"] = _CSP
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Frame-Options"] = "DENY"
    return response


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Serve a script or a style of the documentation page."""
    if name not in _TYPES:
        raise NotFound
    response = _file(name, _TYPES[name], "public, max-age=3600")
    response.add_etag()
    response.make_conditional(request)
    return response


def _file(name: str, mimetype: str, keep: str) -> Response:
    headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
    return Response(_read(name), mimetype=mimetype, headers=headers)


@functools.cache
def _read(name: str) -> bytes:
    if name.startswith("docs."):
        return (ASSETS / name).read_bytes()
    return (importlib.resources.files("flask_swagger_ui") / "dist" / name).read_bytes()
