"""What a process asked of the kernel, in order (strace), and whether an upload was durable in it.

Only a power cut or this order prove durability: after `kill -9` the page cache is still there.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.need import lacking, need

CALLS = "write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"
OPTIONS = ["-f", "-y", "-s", "40", "-e", f"trace={CALLS}", "-e", "signal=none"]
SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64", "writev", "pwritev")
SENDS = ("sendto", "sendmsg", "write", "writev")

_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?).*")
_UNFINISHED = re.compile(r"(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_PATH = re.compile(r"\d+<([^>]*)>")
_RENAME_AT = re.compile(r'\d+<([^>]*)>, "([^"]*)", \d+<([^>]*)>, "([^"]*)"')
_RENAME = re.compile(r'"([^"]*)", "([^"]*)"')


@dataclass(frozen=True)
class Call:
    """A system call that succeeded; `start` and `end` are places in the trace."""

    name: str
    arguments: str
    start: int
    end: int

    @property
    def path(self) -> str:
        """Of the file that a descriptor stands for."""
        match = _PATH.match(self.arguments)
        return match[1] if match else ""

    @property
    def moved(self) -> tuple[str, str] | None:
        """From where to where."""
        if match := _RENAME_AT.match(self.arguments):
            return f"{match[1]}/{match[2]}", f"{match[3]}/{match[4]}"
        match = _RENAME.match(self.arguments)
        return (match[1], match[2]) if match and self.name.startswith("rename") else None


def parse(trace: str) -> list[Call]:
    """The calls of `strace -f -y`, in the order of their starts; failed and endless ones left out."""
    calls, open_calls = [], {}
    for place, line in enumerate(trace.splitlines()):
        match = _LINE.fullmatch(line)
        if not match:
            continue
        thread, text = match.groups()
        if unfinished := _UNFINISHED.fullmatch(text):
            open_calls[thread] = (place, unfinished[2])
            continue
        start = place
        if resumed := _RESUMED.fullmatch(text):
            start, arguments = open_calls.pop(thread, (place, ""))
            text = f"{resumed[1]}({arguments}{resumed[2]}"
        call = _CALL.fullmatch(text)
        if call and call[3] not in ("?", "-1"):
            calls.append(Call(call[1], call[2], start, place))
    return sorted(calls, key=lambda call: call.start)


def faults(calls: Sequence[Call], target: str, wal: str, answer: str) -> list[str]:
    """What is wrong with the order in which one picture was stored.

    Args:
        calls: of everything that took part.
        target: the path of the stored original.
        wal: the path of the database's write-ahead log.
        answer: what the bytes begin with that acknowledge it.
    Returns: one sentence a fault; none: a power cut at any time loses nothing acknowledged.
    """
    renames = [call for call in calls if call.moved and call.moved[1] == target]
    answers = [call for call in calls if call.name in SENDS and f'"{answer}' in call.arguments]
    if len(renames) != 1 or not answers:
        return [f"{len(renames)} renames to the key, {len(answers)} answers"]
    rename, answered = renames[0], answers[-1].start
    source, folder = rename.moved[0], target.rpartition("/")[0]
    written = max((c.end for c in calls if c.name in WRITES and c.path == source), default=None)
    logged = [
        c.end for c in calls if c.name in WRITES and c.path == wal and rename.end < c.end < answered
    ]
    found = []
    if written is None or not _synced(calls, source, written, rename.start):
        found.append("the file is not synced between its last write and its rename")
    if not logged or not _synced(calls, folder, rename.end, min(logged)):
        found.append("the folder is not synced between the rename and the row")
    if not logged or not _synced(calls, wal, max(logged), answered):
        found.append("the row is not synced before the answer")
    return found


def _synced(calls: Sequence[Call], path: str, after: int, before: int) -> bool:
    return any(
        call.name in SYNCS and call.path == path and after < call.start and call.end < before
        for call in calls
    )


@contextlib.contextmanager
def attached(pids: Sequence[int], output: Path) -> Iterator[None]:
    """Trace running processes and their children during the block; `output` has the trace after."""
    strace = need("strace", install="apt install strace")
    given = [part for pid in pids for part in ("-p", str(pid))]
    said = output.with_suffix(".said")
    with said.open("wb") as stderr:
        process = subprocess.Popen([strace, *OPTIONS, "-o", output, *given], stderr=stderr)
    try:
        _wait_attached(process, pids, said)
        yield
        time.sleep(0.05)  # the trace of the last calls is written after they return
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def _wait_attached(process: subprocess.Popen[bytes], pids: Sequence[int], said: Path) -> None:
    end = time.monotonic() + 10
    while not all(_traced(pid) for pid in pids):
        text = said.read_text()
        if process.poll() is not None or time.monotonic() > end:
            lacking(f"strace can not attach here: {text.strip()}")
        time.sleep(0.01)


def _traced(pid: int) -> bool:
    """Whether every thread of a process is traced."""
    return all(
        not re.search(r"TracerPid:\t0\n", (task / "status").read_text())
        for task in Path(f"/proc/{pid}/task").iterdir()
    )
