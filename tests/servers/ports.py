"""Loopback ports that no one else takes, neither another test process nor an outgoing connection."""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HOST = "127.0.0.1"
_FIRST = 10240


@contextmanager
def reserved(count: int = 1) -> Iterator[range]:
    """Reserve consecutive ports until the block ends, also while the server on them is down.

    They lie below the range from which the kernel takes the ports of outgoing connections. Test
    processes agree through abstract Unix sockets, one named after each port: binding one twice
    fails, and it goes with its process, leaving no file.
    """
    last = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) - count
    for _ in range(1000):
        first = random.SystemRandom().randint(_FIRST, last)
        ports = range(first, first + count)
        with ExitStack() as locks:
            if all(_lock(locks, port) for port in ports):
                yield ports
                return
    raise RuntimeError(f"no {count} free ports in a row between {_FIRST} and {last}")


def _lock(locks: ExitStack, port: int) -> bool:
    lock = locks.enter_context(socket.socket(socket.AF_UNIX))
    try:
        lock.bind(f"\0imageapi-test-port-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except OSError:
        return False
    return True
