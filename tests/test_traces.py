"""Traces: spans at a collector when the environment asks for them, and nothing imported otherwise."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest

from imageapi import create_app
from tests.conftest import REPOSITORY, SECRET
from tests.servers.need import need_module


@pytest.fixture
def collector():
    """Its URL, and the bodies that it has been sent."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.filterwarnings("default")  # of a library that is in beta
def test_a_request_is_a_span(settings, collector, monkeypatch):
    need_module("opentelemetry.exporter.otlp.proto.http", "pip install -e '.[otel]'")
    url, bodies = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    app = create_app(settings)
    app.test_client().get("/healthz?signature=canary-of-the-query")
    app.extensions["traces"].force_flush()
    app.extensions["traces"].shutdown()
    ((path, body),) = bodies
    assert path == "/v1/traces"
    assert b"GET /healthz" in body
    assert b"imageapi" in body
    assert b"canary-of-the-query" not in body


def test_without_an_endpoint_nothing_of_it_is_imported(tmp_path):
    code = (
        "import sys, wsgi; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    env = {"IMAGEAPI_SECRET_KEYS": SECRET, "IMAGEAPI_INSTANCE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=env, check=False)
    assert done.returncode == 0
