"""Servers as processes, and what /proc says of them: CPU time, memory, bytes written."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A gunicorn that answers: its port, its master process, its workers."""

    port: int
    master: int
    workers: tuple[int, ...]

    def cpu(self) -> float:
        """CPU milliseconds that it took so far, with all processes below it, ended ones too."""
        return cpu(self.master) + sum(map(cpu, descendants(self.master)))


def environment(instance: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's but PATH, a secret of its own, and what is given on top."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(instance.parent),
        "IMAGEAPI_SECRET_KEYS": secrets.token_urlsafe(48),
        "IMAGEAPI_INSTANCE": str(instance),
        **more,
    }


@contextlib.contextmanager
def gunicorn(app: str, env: Mapping[str, str], *options: str) -> Iterator[Server]:
    """Serve `app` (`wsgi:app`) with the settings of gunicorn.conf.py until the block ends."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", app, "--bind", f"{HOST}:{port}", *options]
    log = Path(env["IMAGEAPI_INSTANCE"]).parent / f"{app.partition(':')[0]}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        yield Server(port, process.pid, _ready(process, port, log))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ready(process: subprocess.Popen[bytes], port: int, log: Path) -> tuple[int, ...]:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        workers = children(process.pid)
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1) as peer:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            if peer.recv(12) and workers:
                return tuple(workers)
        time.sleep(0.1)
    raise RuntimeError(f"the server does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    below = children(pid)
    return below + [further for child in below for further in descendants(child)]


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it, or a thread of it, ended meanwhile
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def cpu(pid: int) -> float:
    """User + system milliseconds of a process so far, and of its children that ended.

    Its own are exact, theirs come in ticks of 10 ms.

    Source: clock_getcpuclockid(3); the clock of a process on Linux is its inverted id and
    CPUCLOCK_SCHED. proc_pid_stat(5): cutime, cstime.
    """
    try:
        own = time.clock_gettime(~pid << 3 | 2)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it ended meanwhile, and is part of its parent's account
        return 0.0
    return own * 1000 + (int(fields[13]) + int(fields[14])) * 1000 / _TICKS


def memory(pid: int, name: str) -> float:
    """`VmRSS` or `VmHWM` (the peak) of a process, or its share `Pss`, in MiB."""
    file = "smaps_rollup" if name == "Pss" else "status"
    return _field(pid, file, name) / 1024


def forget_peak(pid: int) -> None:
    """Let `VmHWM` begin anew at the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def written(pid: int) -> int:
    """Bytes that a process gave to write calls so far; what it sends to sockets is not among them."""
    return _field(pid, "io", "wchar")


def _field(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise LookupError(name)
