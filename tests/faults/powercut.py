"""Power cuts: run a workload on a disk that logs, then see what each cut would have left of it.

    def workload(disk):
        subprocess.run([sys.executable, "store.py", disk.directory, disk.acks], check=True)

    for cut in record(workload).cuts(1000):
        with cut.recovered() as directory:
            check(directory, cut.acknowledged)

The disk is an ext4 on a loop device over a FUSE file (`logged_disk`) that notes every write, flush and
acknowledgement in order. A cut takes what the last flush before it made safe, loses, keeps or tears
at random what was written since, and recovers as a boot does, by e2fsck and the journal. So it tells
what `kill -9`, which keeps the page cache, cannot: whether what was promised had been flushed before.

Source: the technique of dm-log-writes (https://docs.kernel.org/admin-guide/device-mapper/log-writes.html),
which needs a kernel module.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import block_log, mounts
from tests.faults.block_log import Ack, Event, Flush, Write
from tests.servers.need import lacking, need, need_module

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
_END = "\0end of the workload"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Disk:
    """The disk that a workload works on.

    Args:
        directory: its mounted file system.
        acks: a file each of whose writes is one acknowledgement, in the order of the disk's events.
            Write to it unbuffered, once whatever was promised could be seen by somebody else.
    """

    directory: Path
    acks: Path

    def acknowledge(self, text: str) -> None:
        """Note a promise; a process of the workload can as well write to `acks` by itself."""
        with self.acks.open("wb", buffering=0) as file:
            file.write(text.encode())


@dataclass(frozen=True)
class Cut:
    """The power goes off once.

    Args:
        recording: of the workload.
        position: after so many of its events.
        seed: chooses what is lost of that which was not flushed.
    """

    recording: Recording
    position: int
    seed: int

    @property
    def acknowledged(self) -> list[str]:
        """What had been promised by then, in order."""
        events = self.recording.events[: self.position]
        return [event.text for event in events if isinstance(event, Ack)]

    @contextlib.contextmanager
    def recovered(self) -> Iterator[Path]:
        """The file system after its recovery, mounted; what is done there is forgotten."""
        with _workplace() as place:
            with (place / "image").open("wb") as image:
                image.truncate(self.recording.size)
                for write in self.writes():
                    os.pwrite(image.fileno(), write.data, write.offset)
            mounts.repair_ext4(place / "image")
            with mounts.ext4(place / "image", place / "mounted", "noatime") as directory:
                yield directory

    def writes(self) -> Iterator[Write]:
        """What is on the medium when the power is back, over an empty disk."""
        events = self.recording.events[: self.position]
        flushes = [n for n, event in enumerate(events) if isinstance(event, Flush)]
        safe = flushes[-1] if flushes else 0
        unsafe = [event for event in events[safe:] if isinstance(event, Write)]
        yield from self.recording.base
        yield from (event for event in events[:safe] if isinstance(event, Write))
        yield from _survivors(unsafe, random.Random(self.seed))  # noqa: S311


@dataclass(frozen=True)
class Recording:
    """What a workload did to its disk.

    Args:
        size: of the disk, in bytes.
        base: what was on it before.
        events: in their order.
    """

    size: int
    base: Sequence[Write]
    events: Sequence[Event]

    def cuts(self, count: int, seed: int = 0) -> Iterator[Cut]:
        """So many cuts: one after the last event, half of the others right after a promise.

        Args:
            count: how many.
            seed: chooses the places and what is lost; the same again for the same recording.
        """
        choice = random.Random(seed)  # noqa: S311
        promises = [n + 1 for n, event in enumerate(self.events) if isinstance(event, Ack)]
        yield Cut(self, len(self.events), seed)
        for number in range(1, count):
            anywhere = choice.randint(0, len(self.events))
            position = choice.choice(promises) if promises and number % 2 else anywhere
            yield Cut(self, position, choice.getrandbits(32))


def _survivors(unsafe: Sequence[Write], choice: random.Random) -> Iterator[Write]:
    """What of the unflushed writes reached the medium: the first ones, or sectors here and there."""
    if choice.random() < 0.5:
        yield from unsafe[: choice.randint(0, len(unsafe))]
        return
    share = choice.random()
    for write in unsafe:
        # The superblock is there once on a disk this small: torn, no boot would find a file system.
        whole = (write.offset, len(write.data)) == (0, mounts.BLOCK)
        piece = mounts.BLOCK if whole else SECTOR
        for start in range(0, len(write.data), piece):
            if choice.random() < share:
                yield Write(write.offset + start, write.data[start : start + piece])


def record(
    workload: Callable[[Disk], object],
    *,
    prepare: Callable[[Path], object] | None = None,
    size: int = 64 << 20,
    options: str = "noatime,noauto_da_alloc",
) -> Recording:
    """Run a workload on a disk of its own and note what reaches it.

    Args:
        workload: gets the disk; what it started has ended when it returns.
        prepare: gets the empty file system first; what it leaves there is safe on every disk.
        size: of the disk, in bytes.
        options: of the mount. `noauto_da_alloc` keeps ext4 from flushing on its own what programs
            that forget fsync rename over another file; other file systems never do.
    """
    with _workplace() as place:
        image = place / "image"
        mounts.make_ext4(image, size)
        if prepare:
            with mounts.ext4(image, place / "prepared", options) as directory:
                prepare(directory)
        base = list(_content(image))
        with (
            _logging(image, place) as files,
            mounts.ext4(files / "disk", place / "mounted", options) as directory,
        ):
            disk = Disk(directory, files / "acks")
            workload(disk)
            disk.acknowledge(_END)
        events = list(block_log.read(place / "log"))
        return Recording(size, base, events[: events.index(Ack(_END))])


def _content(image: Path) -> Iterator[Write]:
    """The blocks of a disk that are not empty."""
    with image.open("rb") as file:
        for offset in range(0, image.stat().st_size, mounts.BLOCK):
            data = file.read(mounts.BLOCK)
            if data.strip(b"\0"):
                yield Write(offset, data)


@contextlib.contextmanager
def _logging(image: Path, place: Path) -> Iterator[Path]:
    """The folder of `logged_disk`'s files."""
    need("fusermount3", install="apt install fuse3")
    need_module("mfusepy", "pip install mfusepy")
    files = place / "files"
    files.mkdir()
    command = [sys.executable, "-m", "tests.faults.logged_disk", files, image, place / "log"]
    with subprocess.Popen(command, cwd=_ROOT) as process:
        try:
            while not (files / "disk").exists():
                if process.poll() is not None:
                    lacking("FUSE is not to be had here")
                time.sleep(0.01)
            yield files
        finally:
            mounts.unmount(files)
            process.wait(30)


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder in memory, so that the real disk's speed is of no matter."""
    with (
        tempfile.TemporaryDirectory(prefix="imageapi-powercut-") as directory,
        mounts.tmpfs(Path(directory)) as place,
    ):
        yield place
