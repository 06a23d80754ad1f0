"""nginx in front of something, with the text of its http block given."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .need import need
from .ports import HOST, reserved
from .process import Process, Server, running, temporary

_MAIN = """
daemon off;
worker_processes 2;
pid @DIR@/pid;
error_log stderr info;
events {}
http {
    access_log @DIR@/access.log;
    client_body_temp_path @DIR@/body;
    proxy_temp_path @DIR@/proxy;
    fastcgi_temp_path @DIR@/fastcgi;
    uwsgi_temp_path @DIR@/uwsgi;
    scgi_temp_path @DIR@/scgi;
@HTTP@
}
"""


@dataclass(frozen=True, kw_only=True)
class Nginx(Server):
    """A running nginx; its access log is `directory / "access.log"`.

    Args:
        url: of the first listener.
    """

    url: str


@contextmanager
def nginx(http: str) -> Iterator[Nginx]:
    """Run nginx until the block ends; `process` also takes signals: HUP reloads.

    Args:
        http: what stands in the http block: at least `server { listen 127.0.0.1:@PORT@; … }`.
            `@PORT@` becomes a free port, `@DIR@` the server's folder.
    """
    program = need("nginx", install="apt install nginx")
    with temporary("nginx") as directory, reserved() as (port,):
        # Workers of root's nginx are nobody otherwise, whom the tests' folders do not let in.
        user = "user root;" if os.geteuid() == 0 else ""
        text = (user + _MAIN).replace("@HTTP@", http)
        configuration = directory / "nginx.conf"
        configuration.write_text(text.replace("@PORT@", str(port)).replace("@DIR@", str(directory)))
        process = Process(
            [program, "-p", f"{directory}/", "-e", "stderr", "-c", configuration],
            log=directory / "error.log",
            ready=lambda: _listens(port),
            gentle=signal.SIGQUIT,
        )
        with running(process):
            yield Nginx(
                process=process, port=port, directory=directory, url=f"http://{HOST}:{port}"
            )


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
