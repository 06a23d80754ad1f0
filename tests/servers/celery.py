"""Workers of Celery, as operators run them: `celery -A wsgi worker`."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .gunicorn import ROOT
from .need import need_module
from .process import Process, descendants, running, temporary


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A running worker; `directory` holds its log."""

    process: Process
    directory: Path

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self.process.log.read_text(errors="replace")

    @property
    def pool(self) -> list[int]:
        """The processes that do tasks, and what they have started."""
        return descendants(self.process.pid)


def lines(log: str, event: str) -> list[dict[str, Any]]:
    """The lines of a log that tell of such an event."""
    told = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line for line in told if line.get("event") == event]


@contextmanager
def celery(env: Mapping[str, str], *options: str) -> Iterator[Worker]:
    """Run a worker until the block ends.

    Args:
        env: its whole environment, that of the gunicorn beside it.
        options: of `celery worker`, on top of two processes.
    """
    need_module("celery", "pip install celery")
    with temporary("celery") as directory:
        log = directory / "log"
        log.touch()
        command = [sys.executable, "-m", "celery", "-A", "wsgi", "worker", "--concurrency", "2"]
        process = Process(
            [*command, *options],
            log=log,
            ready=lambda: "worker ready" in log.read_text(errors="replace"),
            deadline=60,
            cwd=ROOT,
            env={**env, "C_FORCE_ROOT": "1"},
        )
        with running(process):
            yield Worker(process=process, directory=directory)
