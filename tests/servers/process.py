"""A server as a process: started in a group of its own, waited for, hurt on demand, always ended."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def children(pid: int) -> list[int]:
    """The processes that this one started and that are there."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All processes below this one, also those that left its group."""
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def state(pid: int) -> str:
    """The state letter of a process: T stopped, Z ended and not yet forgotten, X gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def freeze(pid: int) -> list[int]:
    """Stop a process, then all below it; returns them, the process first."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    while state(pid) not in "TtZX":
        time.sleep(0.001)
    return [pid, *(below for child in children(pid) for below in freeze(child))]


class Process:
    """One command that can be started again under the same name, port and log.

    Args:
        command: the program and its arguments.
        log: the file that collects its output over all its lives.
        ready: tells whether it answers.
        deadline: seconds it has to answer after a start.
        gentle: the signal that asks it to end.
        options: further arguments of `subprocess.Popen`.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool],
        deadline: float = 30,
        gentle: signal.Signals = signal.SIGTERM,
        **options: Any,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._ready = ready
        self._deadline = deadline
        self._gentle = gentle
        self._options = options
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process started last, which leads its group."""
        if self._popen is None:
            raise RuntimeError("never started")
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen is not None and self._popen.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it and, unless told otherwise, wait until it answers."""
        if self.alive:
            raise RuntimeError(f"{self.command[0]} runs already")
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._options,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it answers; what it printed is in the error when it does not in time."""
        end = time.monotonic() + self._deadline
        while not self._ready():
            if not self.alive or time.monotonic() > end:
                state = f"not ready in {self._deadline} s" if self.alive else "ended at once"
                self.kill()
                output = self.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{' '.join(self.command)} {state}:\n{output}")
            time.sleep(0.02)

    def wait(self, timeout: float = 30) -> int:
        """Wait for its end; the exit status."""
        if self._popen is None:
            raise RuntimeError("never started")
        return self._popen.wait(timeout)

    def pause(self) -> None:
        """Freeze it with all its children, as a server that accepts and never answers."""
        freeze(self.pid)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal([self.pid, *descendants(self.pid)], signal.SIGCONT)

    def kill(self) -> None:
        """End it and all its children at once, as a crash would."""
        if self._popen is not None:
            self._end(freeze(self.pid))  # frozen, none of them starts another meanwhile

    def stop(self, timeout: float = 15) -> None:
        """Ask it to end, and wait; what of it is left then ends by force."""
        if not self.alive:
            return
        self.resume()
        pids = [self.pid, *descendants(self.pid)]
        os.kill(self.pid, self._gentle)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout)
        self._end(pids)

    def _end(self, pids: list[int]) -> None:
        self._signal(pids, signal.SIGKILL)
        self.wait()
        for pid in pids:
            while state(pid) not in "ZX":
                time.sleep(0.001)

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server of a test.

    Args:
        process: the process that answers.
        port: where it listens on 127.0.0.1.
        directory: everything that it wrote; gone after the block.
    """

    process: Process
    port: int
    directory: Path

    @property
    def pid(self) -> int:
        """Its process, another one after a restart."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self.process.log.read_text(errors="replace")

    def stop(self) -> None:
        """End it in order."""
        self.process.stop()

    def kill(self) -> None:
        """End it as `kill -9` of every process of it."""
        self.process.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        self.process.pause()

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.process.resume()

    def start(self) -> None:
        """Start it again on the same port and data; returns when it answers."""
        self.process.start()

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()


@contextlib.contextmanager
def temporary(name: str) -> Iterator[Path]:
    """A folder that every user may enter, for servers that leave root behind; gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=f"imageapi-{name}-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    """Start it, and end it whatever happens."""
    try:
        process.start()
        yield process
    finally:
        process.stop()
        process.kill()


def clean_environment(**values: str) -> Mapping[str, str]:
    """An environment that holds nothing of the caller's but PATH."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **values}
