"""Faults in the system calls of the one thread that answers requests, by strace.

A server with one worker and one thread makes the same calls for the same request, each time in the
same order, so that a call is named by its name and its number among those of that name.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

from tests.faults.front import Front, form, picture
from tests.oracles import Syscall, syscalls, traced
from tests.servers.need import need

OPTIONS = ("--workers", "1", "--threads", "1")
"""Of a gunicorn whose requests all run in one thread."""


def answering(door: Front, connection: HTTPConnection, seed: int) -> tuple[int, list[Syscall]]:
    """Upload a picture; the thread that did it, and its calls from the body to the answer."""
    (worker, *_) = door.app.workers
    with traced(worker, calls="all") as calls:
        status, body = door.post(connection, form(picture(100_000, seed=seed)))
        assert status == 201, body
        assert door.get(connection, "/healthz")[0] == 200
    (answer,) = (n for n, call in enumerate(calls) if '"HTTP/1.1 201' in call.arguments)
    thread = calls[answer].pid
    mine = [call for call in calls[: answer + 1] if call.pid == thread]
    (begin,) = (n for n, call in enumerate(mine) if '"POST ' in call.arguments)
    return thread, mine[begin:]


def counted(calls: list[Syscall]) -> Counter[str]:
    """How often each call is made."""
    return Counter(call.name for call in calls)


@contextlib.contextmanager
def injected(thread: int, name: str, fault: str, also: str = "") -> Iterator[list[Syscall]]:
    """Let a call of a thread fail.

    Args:
        thread: its id.
        name: of the call: `fsync`.
        fault: what and when: `error=EIO:when=2`, `signal=KILL:when=7`, as of strace(1).
        also: further calls to tell of: `,renameat`.
    Yields: a list, filled when the block has ended: the calls named, in order.
    """
    program = need("strace", install="apt install strace")
    inject = ["-e", f"trace={name}{also}", "-e", f"inject={name}:{fault}"]
    told: list[Syscall] = []
    with tempfile.NamedTemporaryFile() as log:
        command = [program, "-yy", "-o", log.name, *inject, "-p", str(thread)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            status = Path(f"/proc/{thread}/status")
            while "\nTracerPid:\t0\n" in status.read_text():
                if process.poll() is not None:
                    raise RuntimeError(f"strace: {process.stderr.read().decode()}")
                time.sleep(0.002)
            yield told
        finally:
            process.terminate()
            process.communicate()
            lines = log.read().decode().splitlines()
            told += syscalls("\n".join(f"{thread} {line}" for line in lines))
