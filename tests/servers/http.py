"""A look at a server over plain HTTP, just enough to know that it answers."""

import http.client
from ssl import SSLContext

from .ports import HOST


def status(port: int, path: str = "/", tls: SSLContext | None = None) -> int | None:
    """The status of one GET, or None when there is no answer within a second."""
    connection = (
        http.client.HTTPSConnection(HOST, port, timeout=1, context=tls)
        if tls
        else http.client.HTTPConnection(HOST, port, timeout=1)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
