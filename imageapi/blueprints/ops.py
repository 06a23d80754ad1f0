"""For operators: is the process alive, can it do its work, what has it done."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flask import Blueprint, Response, g

from imageapi import metrics as counted
from imageapi.blueprints.responses import JSON_TYPE, P3P, SAFETY
from imageapi.blueprints.traffic import from_operator
from imageapi.catalog import library
from imageapi.catalog.readiness import Found, readiness
from imageapi.errors import NotFound

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say that this process answers; looks at nothing else."""
    return Response("ok\n", mimetype="text/plain")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Say whether the service can do its work, within three seconds."""
    state, found = readiness(), readiness().look()
    red = state.stopping or any(check.needed and check.reason for check in found.values())
    amber = any(check.reason for check in found.values())
    words = "stopping" if state.stopping else "unavailable" if red else "degraded"
    reasons = from_operator(library().settings.ops_networks)
    body = {
        "status": words if red or amber else "ready",
        "checks": {name: _shown(check, reasons=reasons) for name, check in found.items()},
    }
    return _answer(json.dumps(body, ensure_ascii=False) + "\n", JSON_TYPE, 503 if red else 200)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Tell what all processes have counted, for Prometheus."""
    if not from_operator(library().settings.ops_networks):
        raise NotFound
    found = readiness().look()
    works = {name: float(check.reason is None) for name, check in found.items()}
    gauges = [counted.gauge("check_ok", "1 where what /readyz checks is well.", "check", works)]
    gauges += _backlog(found)
    return _answer(counted.scrape(gauges), counted.CONTENT_TYPE)


def _backlog(found: Mapping[str, Found]) -> list[counted.Metric]:
    by_kind = found["database"].value or {}
    texts = {
        "waiting": ("work_waiting", "Work in the outbox, also what is put off."),
        "due": ("work_due", "Work in the outbox that is due."),
        "age": ("work_oldest_due_seconds", "How long the oldest due work has been so."),
        "attempts": ("work_most_attempts", "How often the work that was tried most was tried."),
    }
    return [
        counted.gauge(name, text, "kind", {kind: getattr(b, field) for kind, b in by_kind.items()})
        for field, (name, text) in texts.items()
    ]


def _shown(check: Found, *, reasons: bool) -> dict[str, object]:
    shown: dict[str, object] = {"ok": check.reason is None, "needed": check.needed}
    return {**shown, "reason": check.reason} if reasons and check.reason else shown


def _answer(body: str | bytes, kind: str, status: int = 200) -> Response:
    about = [("Content-Type", kind), P3P, ("X-Request-Id", g.request_id)]
    answer = Response(body, status, headers=[*SAFETY, *about])
    answer.headers["Content-Length"] = str(answer.calculate_content_length())
    return answer
