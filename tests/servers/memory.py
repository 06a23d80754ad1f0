"""How much memory a server and all that it started take, decoders too."""

import contextlib

import psutil


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it, as far as they still are there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def taken(pid: int) -> int:
    """Bytes that a process and all below it have for themselves (USS)."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total
