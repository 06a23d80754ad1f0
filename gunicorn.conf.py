"""gunicorn's settings; it finds this file by itself in the folder it is started in.

Source: https://docs.gunicorn.org/en/stable/settings.html.
"""

import gc
import os
import socket
import struct
import sys
import threading
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import PollableMethodQueue, ThreadWorker

from imageapi.settings import SettingsError, load

SILENCE = 30
"""Seconds that a client may neither send nor take a byte of what is under way."""
LAST_SECONDS = 10
"""Seconds that a worker has for what is left when it must end: longer, and it would be killed."""


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


bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = Worker
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
    """Write what this worker has counted and not written yet; see that it ends."""
    # The interpreter would wait for ever for a thread whose client is silent.
    timer = threading.Timer(LAST_SECONDS, os._exit, [0])
    timer.daemon = True
    timer.start()
    if background := getattr(worker.wsgi, "extensions", {}).get("background"):
        background.stop()


def on_starting(_server: object) -> None:
    """Refuse a bad configuration once, in the master, before any worker is started."""
    try:
        load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(4) from None
