"""Places that only one process of a host can hold at a time, free again when that one ends.

They are names of abstract sockets (Linux): they leave no file behind, and processes that share nothing
but the host can count on them.
"""

from __future__ import annotations

import os
import socket

HOST = f"\0imageapi-decoder-{os.getuid()}"
"""What the names of all places begin with."""


def hold(name: str) -> socket.socket | None:
    """Take a place, or None when it is taken; it is held until the socket is closed."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(name)
    except OSError:
        holder.close()
        return None
    return holder
