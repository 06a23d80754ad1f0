"""See that PORT is free, before anything else is done; say so in words where it is not."""

import os
import socket
import sys


def main(text: str) -> str | None:
    """What is wrong with the port, or None."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        return f"PORT must be a number from 1 to 65535, not {text!r}."
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((os.environ["HOST"], int(text)))
        except OSError as error:
            return (
                f"Port {text} can not be used ({error.strerror}); take another: make run PORT=8001"
            )
    return None


if __name__ == "__main__":
    sys.exit(main(os.environ["PORT"]))
