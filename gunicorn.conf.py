"""gunicorn's settings; it finds this file by itself in the folder it is started in.

Source: https://docs.gunicorn.org/en/stable/settings.html.
"""

import ctypes
import gc
import os
import resource
import socket
import struct
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import PollableMethodQueue, ThreadWorker

# Where each process counts; read when the metrics are first imported, with what follows.
METRICS = Path(
    os.environ.setdefault(
        "PROMETHEUS_MULTIPROC_DIR",
        str(Path(os.environ.get("IMAGEAPI_INSTANCE") or "instance").resolve() / "metrics"),
    )
)

from prometheus_client.multiprocess import mark_process_dead  # noqa: E402

from imageapi.blueprints import problems  # noqa: E402
from imageapi.blueprints.responses import SAFETY  # noqa: E402
from imageapi.errors import BadRequest, ImageAPIError  # noqa: E402
from imageapi.settings import SettingsError, load  # noqa: E402

SILENCE = 30
"""Seconds that a client may neither send nor take a byte of what is under way."""
LAST_SECONDS = 10
"""Seconds that a worker has for what is left when it must end: longer, and it would be killed."""
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""The numbers of mallopt's parameters."""


class Wakeups(PollableMethodQueue):
    """The pipe through which the threads wake the main one up."""

    def close(self) -> None:
        """Leave it to the end of the process.

        A thread that still answers a request writes a byte when it is done. Were the pipe closed, it
        would write it into whatever file had been given the same number meanwhile: the database.
        """


class Worker(ThreadWorker):
    """gthread, whose end comes in time whatever clients and signals do."""

    quitting = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method_queue = Wakeups()

    def init_process(self) -> None:
        """Have the accepted connections time out, which they take over from the listening socket."""
        for listener in self.sockets:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SILENCE, 0))
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Be ready for nothing new from now on; then end in order."""
        # There is no application yet while it is being loaded.
        if readiness := getattr(getattr(self, "wsgi", None), "extensions", {}).get("readiness"):
            readiness.stopping = True
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End without waiting for clients; `worker_exit` says how long for requests under way.

        gthread's own takes a lock of its thread pool and raises SystemExit, here, wherever the main
        thread was. Ctrl-C brings two signals, a SIGINT and the master's SIGQUIT: the second may come
        within the first and wait for it for ever. Or the pool is left with a thread it forgot.
        """
        self.quitting = True
        self.handle_exit(sig, frame)
        self.method_queue.defer(self._leave)

    def _leave(self) -> None:
        self.nr_conns = 0

    def _cap_keepalive(self, deadline: float) -> None:
        """Nor wait, when stopping, for connections that have not sent anything yet."""
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, deadline)
        if self.quitting:
            self._leave()


def write_problem(connection: Any, status: int, _reason: str, _message: str) -> None:
    """Refuse what is no HTTP as everything else is refused, not in HTML."""
    error = BadRequest() if status < 500 or status == 501 else ImageAPIError()
    request_id = str(uuid.uuid4())
    body = problems.body(error, request_id)
    headers = [
        *SAFETY,
        ("Content-Type", problems.PROBLEM_TYPE),
        ("X-Request-Id", request_id),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    head = [
        f"HTTP/1.1 {error.status} {error.title}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    util.write_nonblock(connection, "\r\n".join([*head, "", ""]).encode() + body)


util.write_error = write_problem

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = Worker
# A connection that no descriptor is left for would end the worker: half of them are for files.
worker_connections = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
# What waits for a decoder, a disk or a slow client holds one. No more than 56 have to do with decoders
# (imaging/helper.py), so that some are left for reads. An upload has up to eight files open.
threads = min(64, worker_connections // 8)
keepalive = 75
timeout = 60
graceful_timeout = 30
# A token of 8 KiB comes in and goes out again.
limit_request_field_size = 16384
# A control socket in the home folder would be shared by all hosts of one user.
control_socket_disable = True
# A body is read 256 KiB at a time (blueprints/raw.py); what gunicorn receives beyond, up to 1 MiB,
# it would copy again at each of these reads, and hold five times.
SocketUnreader.max_body_chunk = 256 * 1024


def post_fork(_server: object, _worker: object) -> None:
    """Have glibc's allocator, where it is that, keep the memory that a body's pieces go through.

    All threads share one heap: what the pieces leave unused in one, the next thread would take anew in
    another. And 4 MiB at its end are not given back to the system: of every piece they were, and half
    of the time that it took to receive one went into having them again.

    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(ARENA_MAX, 1)
        mallopt(TRIM_THRESHOLD, 4 << 20)
        mallopt(MMAP_THRESHOLD, 1 << 20)  # else each piece would be mapped, and unmapped


def post_worker_init(worker: Any) -> None:
    """Start the thread that does, beside the requests, what need not hold them up."""
    # What is there now stays: the collector need not look through it again and again.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    worker.wsgi.extensions["background"].start()


def worker_exit(_server: object, worker: Any) -> None:
    """Write what this worker has counted and not written yet; see that it ends."""
    # The interpreter would wait for ever for a thread whose client is silent.
    timer = threading.Timer(LAST_SECONDS, os._exit, [0])
    timer.daemon = True
    timer.start()
    wsgi = getattr(worker, "wsgi", None)  # none where the application did not start
    if background := getattr(wsgi, "extensions", {}).get("background"):
        background.stop()


def child_exit(_server: object, worker: Any) -> None:
    """Forget what only a living worker has: what it counted stays."""
    mark_process_dead(worker.pid)


def on_starting(server: Any) -> None:
    """Refuse a bad configuration once, in the master, before any worker is started."""
    try:
        load()
        _refuse_what_is_open(server.cfg)
        METRICS.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        METRICS.mkdir(mode=0o700, exist_ok=True)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(4) from None
    except OSError as error:
        sys.stderr.write(f"{METRICS} can not be made: {error.strerror}.\n")
        raise SystemExit(4) from None
    if "GUNICORN_PID" not in os.environ:  # else it takes over from a master that still serves
        for left in METRICS.glob("*.db"):
            left.unlink(missing_ok=True)


def _refuse_what_is_open(cfg: Any) -> None:
    faults = []
    if os.environ.get("FLASK_DEBUG", "0").lower() not in ("", "0", "false", "no"):
        faults.append("FLASK_DEBUG is refused: it is for development, behind `flask run`.")
    if "*" in cfg.forwarded_allow_ips:
        faults.append("FORWARDED_ALLOW_IPS is refused: * lets every client speak for a proxy.")
    if faults:
        raise SettingsError(faults)
