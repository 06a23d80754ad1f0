"""Small disks of a test's own: in memory, or an ext4 in a file."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers.need import lacking, need

BLOCK = 4096


@contextlib.contextmanager
def tmpfs(directory: Path, options: str = "") -> Iterator[Path]:
    """A disk in memory on an empty folder; `options` as of mount(8): `size=8m,nr_inodes=64`."""
    with _mounted(directory, "-t", "tmpfs", *(["-o", options] if options else []), "tmpfs"):
        yield directory


@contextlib.contextmanager
def ext4(image: Path, directory: Path, options: str) -> Iterator[Path]:
    """The ext4 in a file on an empty folder."""
    with _mounted(directory, "-t", "ext4", "-o", f"loop,{options}", image):
        yield directory


def repair_ext4(image: Path) -> None:
    """What a boot does with a file system: replay its journal, put right what is torn."""
    program = need("e2fsck", install="apt install e2fsprogs")
    done = subprocess.run([program, "-y", image], check=False, capture_output=True, text=True)
    if done.returncode > 1:  # 1: put right
        raise RuntimeError(f"e2fsck: {done.stdout}{done.stderr}")


def make_ext4(image: Path, size: int) -> None:
    """Make a file with an empty ext4 of so many bytes."""
    program = need("mkfs.ext4", install="apt install e2fsprogs")
    with image.open("wb") as file:
        file.truncate(size)
    lazy = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]  # no writes but the workload's
    subprocess.run([program, "-q", "-b", str(BLOCK), *lazy, image], check=True)


def remount(directory: Path, options: str) -> None:
    """Change the options of what is mounted there: `ro`, `size=16m`."""
    subprocess.run(["mount", "-o", f"remount,{options}", directory], check=True)


@contextlib.contextmanager
def _mounted(directory: Path, *arguments: str | Path) -> Iterator[None]:
    if os.geteuid() != 0:
        lacking("mounting a file system takes root")
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", *arguments, directory]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lacking(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    try:
        yield
    finally:
        unmount(directory)


def unmount(directory: Path) -> None:
    """Unmount; a loop device may hold its file for a moment longer."""
    for _ in range(500):
        done = subprocess.run(["umount", directory], check=False, capture_output=True, text=True)
        if not done.returncode or "not mounted" in done.stderr:
            return
        time.sleep(0.02)
    subprocess.run(["umount", "--lazy", directory], check=True)
    raise RuntimeError(f"{directory} was still in use: {done.stderr.strip()}")
