"""For operators: is the process alive."""

from __future__ import annotations

from flask import Blueprint, Response

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that this process answers; looks at nothing else."""
    return Response("ok\n", mimetype="text/plain")
