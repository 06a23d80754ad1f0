"""Spans of requests by OTLP over HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` asks for them.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/; the extra `otel`.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request

from imageapi import telemetry
from imageapi.settings import SettingsError

_ASKED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_WITH_QUERY = ("http.target", "http.url", "url.full", "url.query")


def init_app(app: Flask) -> None:
    """Trace the requests of `app`, if the environment asks for it; otherwise nothing is imported.

    Raises:
        SettingsError: it asks, and the extra `otel` is not installed.
    """
    if not any(map(os.environ.get, _ASKED)):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415
        from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider, export  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            [f"{_ASKED[0]} needs the extra otel, which is not installed."]
        ) from error
    os.environ.setdefault("OTEL_SERVICE_NAME", "imageapi")
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(export.BatchSpanProcessor(trace_exporter.OTLPSpanExporter()))
    app.extensions["traces"] = provider
    instrument: Any = FlaskInstrumentor().instrument_app
    instrument(app, response_hook=_without_query, tracer_provider=provider)


def _without_query(span: Any, _status: str, _headers: Any) -> None:
    # A query may hold a signature or a place. Asked before the answer: what is set at the request is
    # set again after the hook for that.
    for name in set(_WITH_QUERY).intersection(span.attributes or ()):
        path = "" if name == "url.query" else telemetry.blanked(request.path)
        span.set_attribute(name, path)
