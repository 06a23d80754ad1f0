"""gunicorn's settings; it finds this file by itself in the folder it is started in.

Source: https://docs.gunicorn.org/en/stable/settings.html.
"""

import gc
import os
import sys
from typing import Any

from gunicorn.http.unreader import SocketUnreader

from imageapi.settings import SettingsError, load

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "gthread"
threads = 4
keepalive = 75
timeout = 60
graceful_timeout = 30
# A token of 8 KiB comes in and goes out again.
limit_request_field_size = 16384
# A control socket in the home folder would be shared by all hosts of one user.
control_socket_disable = True
# A body is read 256 KiB at a time (blueprints/uploads.py); what gunicorn receives beyond, up to 1 MiB,
# it would copy again at each of these reads, and hold five times.
SocketUnreader.max_body_chunk = 256 * 1024


def post_worker_init(worker: Any) -> None:
    """Start the thread that does, beside the requests, what need not hold them up."""
    # What is there now stays: the collector need not look through it again and again.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    worker.wsgi.extensions["background"].start()


def worker_exit(_server: object, worker: Any) -> None:
    """Write what this worker has counted and not written yet."""
    if background := getattr(worker.wsgi, "extensions", {}).get("background"):
        background.stop()


def on_starting(_server: object) -> None:
    """Refuse a bad configuration once, in the master, before any worker is started."""
    try:
        load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(4) from None
