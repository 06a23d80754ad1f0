"""A memory cgroup: what is started in it may together take so much, or the kernel kills one of it."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class NoCgroup(Exception):
    """None can be made here; says why."""


@dataclass(frozen=True)
class Cgroup:
    """A memory cgroup, version 1 or 2.

    Args:
        folder: in the kernel's file system.
        unified: whether it is of version 2.
    """

    folder: Path
    unified: bool

    @property
    def entrance(self) -> Path:
        """The file that a process writes its id to, to be in it with all that it starts."""
        return self.folder / "cgroup.procs"

    def limit(self, most: int) -> None:
        """Let all processes in it together have so many bytes, the page cache of their files too."""
        name = "memory.max" if self.unified else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(most))

    @property
    def kills(self) -> int:
        """Processes that the kernel killed because of the limit."""
        name = "memory.events" if self.unified else "memory.oom_control"
        lines = (self.folder / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    @property
    def peak(self) -> int:
        """The most bytes that it held, page cache included: the limit is often reached by that."""
        name = "memory.peak" if self.unified else "memory.max_usage_in_bytes"
        return int((self.folder / name).read_text())


@contextlib.contextmanager
def memory_cgroup(most: int) -> Iterator[Cgroup]:
    """A cgroup of `most` bytes below our own; what runs in it must have ended when the block ends.

    Raises:
        NoCgroup: no such controller, or no right to use it.
    """
    parent, unified = _own()
    cgroup = Cgroup(parent / f"imageapi-{uuid.uuid4()}", unified)
    try:
        cgroup.folder.mkdir()
    except OSError as error:
        raise NoCgroup(f"{parent}: {error.strerror}") from error
    try:
        try:
            cgroup.limit(most)
        except OSError as error:
            raise NoCgroup(f"{cgroup.folder} takes no limit: {error.strerror}") from error
        yield cgroup
    finally:
        _remove(cgroup.folder)


def _own() -> tuple[Path, bool]:
    """Our own memory cgroup as a folder, and whether it is of version 2."""
    mounts = [line.split()[1:4] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        for place, kind, options in mounts:
            folder = Path(place) / path.lstrip("/")
            if kind == "cgroup" and "memory" in controllers.split(",") and "memory" in options:
                return folder, False
            if kind == "cgroup2" and number == "0" and (folder / "memory.max").exists():
                return folder, True
    raise NoCgroup("the kernel gives us no memory controller")


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # the kernel has not yet taken leave of the last process
        else:
            return
