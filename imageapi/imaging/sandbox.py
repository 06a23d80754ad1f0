"""What a decoder's process may take and touch.

`bound` limits memory and time from the start. `lock` comes after the picture was opened and before the
first decoder written in C sees its bytes: from then on nothing can be opened, named or reached any more.

Source: getrlimit(2); landlock(7), https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

from imageapi.imaging.limits import BYTES_PER_PIXEL, CPU_SECONDS, MEMORY_BYTES, Limits

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION = 1
_NO_NEW_PRIVILEGES = 38


def bound(limits: Limits) -> None:
    """Limit this process: memory for the largest allowed picture, CPU time, no bytes into any file."""
    memory = MEMORY_BYTES + BYTES_PER_PIXEL * limits.max_pixels
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (most, most))


def lock() -> None:
    """Keep the descriptors that are open, and let this process never have another.

    No open, no socket, no copy of a descriptor works any more. Where the kernel has Landlock, also what
    needs no descriptor is denied: to remove, rename, make or run a file, and to signal other processes.
    """
    _landlock()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _landlock() -> None:
    version = _LIBC.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return  # before Linux 5.13, or switched off
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    everything = struct.pack("=Q", files)
    if version >= 4:
        everything += struct.pack("=Q", 0b11)  # to bind and to connect TCP
    if version >= 6:
        everything += struct.pack("=Q", 0b11)  # abstract sockets and signals outside
    ruleset = _LIBC.syscall(_CREATE_RULESET, everything, len(everything), 0)
    if ruleset < 0:
        return
    _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _LIBC.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
