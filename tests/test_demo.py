"""`make run`'s own part: from an empty instance to an answer, and nothing left running."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from .conftest import REPOSITORY
from .servers.ports import HOST, reserved
from .servers.process import descendants, state

BIN = Path(sys.executable).parent


@contextlib.contextmanager
def running(instance, port):
    """The demo as make starts it, in a process group of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(instance.parent),
        "BIN": str(BIN),
        "PORT": str(port),
        "IMAGEAPI_INSTANCE": str(instance),
    }
    demo = subprocess.Popen(
        [REPOSITORY / "demo" / "run.sh"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield demo
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate()


def welcome(demo):
    """All that it said until it was ready."""
    said = ""
    for line in demo.stdout:
        said += line
        if "Ctrl-C ends it." in line:
            break
    assert "Ctrl-C ends it." in said, said
    return said


def test_from_nothing_to_an_answer_twice(tmp_path):
    instance = tmp_path / "instance"
    kept = set()
    for number, seeded in [
        (signal.SIGINT, "added 6, skipped 0"),
        (signal.SIGTERM, "added 0, skipped 6"),
    ]:
        with reserved() as (port,), running(instance, port) as demo:
            said = welcome(demo)
            assert seeded in said
            assert (instance / "secret").stat().st_mode & 0o777 == 0o600
            kept.add(
                ((instance / "secret").read_text(), *sorted(map(str, instance.glob("demo/*"))))
            )
            command = shlex.split(re.search(r"^  (curl .*)$", said, re.MULTILINE)[1])
            name, value = command[command.index("-H") + 1].split(": ")
            answer = requests.get(command[-1], headers={name: value}, timeout=10)
            assert answer.status_code == 200
            assert answer.json()["gps"] == [48.3303, -4.7714]
            assert (answer.json()["width"], answer.json()["height"]) == (1080, 1440)
            for url in re.findall(r"^  (http\S+)$", said, re.MULTILINE):
                assert requests.get(url, timeout=10).headers["Content-Type"] == "image/jpeg"
            ours = [demo.pid, *descendants(demo.pid)]
            assert len(ours) > 1
            if number == signal.SIGINT:
                os.killpg(demo.pid, number)
            else:
                demo.send_signal(number)
            # gunicorn gives requests in flight 30 seconds (graceful_timeout).
            demo.communicate(timeout=45)
            assert all(state(pid) in "ZX" for pid in ours)
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://{HOST}:{port}/healthz", timeout=10)
    assert len(kept) == 1


def test_a_port_in_use_is_said_to_be(tmp_path):
    with (
        reserved() as (port,),
        subprocess.Popen(
            [sys.executable, "-m", "http.server", "--bind", HOST, str(port)],
            stderr=subprocess.DEVNULL,
        ) as other,
    ):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"http://{HOST}:{port}", timeout=10)
                break
        with running(tmp_path / "instance", port) as demo:
            said, _ = demo.communicate(timeout=30)
        other.terminate()
    assert demo.returncode == 1
    assert said.startswith(f"Port {port} can not be used (Address already in use)")
    assert not (tmp_path / "instance").exists()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_said_to_be(tmp_path, port):
    with running(tmp_path / "instance", port) as demo:
        said, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert "PORT must be a number from 1 to 65535" in said
