"""Redis (Debian's redis-server), or Valkey, which speaks the same."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .need import need
from .ports import HOST, reserved
from .process import Process, Server, running, temporary


@dataclass(frozen=True, kw_only=True)
class Redis(Server):
    """A Redis server without a password.

    Args:
        url: of its database 0.
    """

    url: str


@contextmanager
def redis(*options: str) -> Iterator[Redis]:
    """Run Redis in memory alone; a restart finds it empty.

    Args:
        options: further options of redis-server: `--appendonly`, `yes` keeps what it holds.
    """
    program = need("redis-server", "valkey-server", install="apt install redis-server")
    with temporary("redis") as directory, reserved() as (port,):
        arguments = ["--port", str(port), "--bind", HOST, "--dir", directory]
        arguments += ["--save", "", "--appendonly", "no", *options]
        process = Process(
            [program, *arguments],
            log=directory / "log",
            ready=lambda: ping(port),
            cwd=directory,
        )
        with running(process):
            yield Redis(
                process=process, port=port, directory=directory, url=f"redis://{HOST}:{port}/0"
            )


def ping(port: int) -> bool:
    """Whether a Redis on this port answers within a second."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
