"""The helper's side: takes requests from a socket and forks a child for each.

A child has bounded memory and CPU time, opens nothing but its picture and is killed when its time is
over. It answers with one frame: four bytes of length, JSON, then the files one after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import json
import os
import random
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

from PIL import Image

from imageapi.errors import Busy, ImageAPIError
from imageapi.geometry import Crop, CropFault, Edit, Rendition
from imageapi.imaging import sandbox
from imageapi.imaging.decode import prepare
from imageapi.imaging.limits import (
    DECODED_BYTES,
    ROOM,
    ROOM_WAIT,
    ROOMS,
    WALL_SECONDS,
    Limits,
)
from imageapi.imaging.places import HOST, hold
from imageapi.imaging.probing import inspect
from imageapi.imaging.rendering import draw
from imageapi.imaging.values import Probe

DECODING = "decoding"
"""The name of a process that decodes, as ps shows it; one that waits has the helper's."""
PATIENCE = 0.01
"""Seconds that the next child waits at most for the end of the last one to be forked: a small picture
and what comes after it have the cores to themselves until then."""
_REQUEST = 1 << 16


def serve(fd: int) -> None:
    """Have requests answered until the other side is gone."""
    requests = socket.socket(fileno=fd)
    sample = _sample()
    _rehearse(sample)  # what is made once, all children have from here
    gc.freeze()  # else the collector of each child would copy all pages
    children: dict[int, float] = {}
    while True:
        spare = _Spare(requests, sample)
        while not spare.has_ended_waiting(0.2 if children else None):
            _look_after(children)
        children[spare.pid] = time.monotonic() + WALL_SECONDS
        _look_after(children)
        if _gone(requests):
            break
        spare.leave_the_cores_to_it(requests)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


class _Spare:
    """A child that was forked ahead of its picture, and takes the next request itself.

    Fork and the first touch of each page take twice as long as a small picture does.
    """

    def __init__(self, requests: socket.socket, sample: Path) -> None:
        # A byte comes when it has a picture, the end when it has ended.
        self._life, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._life)
            _wait(requests, theirs, sample)
        os.close(theirs)

    def has_ended_waiting(self, timeout: float | None) -> bool:
        """Whether it has a picture now, or is not there any more."""
        return bool(select.select([self._life], [], [], timeout)[0])

    def leave_the_cores_to_it(self, requests: socket.socket) -> None:
        """Wait until it has ended, another child is asked for, or patience has."""
        os.read(self._life, 1)
        select.select([requests.fileno(), self._life], [], [], PATIENCE)
        os.close(self._life)


def _gone(requests: socket.socket) -> bool:
    """Whether nobody is there who could ask."""
    try:
        return not requests.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _sample() -> Path:
    """A small picture that is no file of any disk."""
    fd = os.memfd_create("sample")
    with open(fd, "wb", closefd=False) as file:
        Image.new("RGB", (64, 48)).save(file, "JPEG")
    return Path(f"/proc/self/fd/{fd}")


def _wait(requests: socket.socket, life: int, sample: Path) -> None:
    """The child: takes one request, answers it, and ends.

    Args:
        requests: of all children; not this one's any more when it has its own.
        life: the pipe that tells of it.
        sample: to rehearse with.
    """
    try:
        if not select.select([requests], [], [], 0)[0]:
            _rehearse(sample)
        request, fds, _, _ = socket.recv_fds(requests, _REQUEST, 1)
        requests.close()
        with contextlib.suppress(BrokenPipeError):  # the helper died: this picture can do without
            os.write(life, b".")
        if request:
            with socket.socket(fileno=fds[0]) as job:
                _work(job, json.loads(request))
    finally:
        os._exit(0)


def _rehearse(sample: Path) -> None:
    """Have the pages that a picture needs copied before there is one.

    Whoever waits for the core meanwhile, such as the one that writes the last picture's files, goes first.
    """
    limits, sizes = Limits(), [Rendition("fit", 64, 64, "fit"), Rendition("fill", 32, 32, "fill")]
    os.sched_yield()
    with sample.open("rb") as stream:
        probed, header = inspect(stream, limits)
        for some in ([], sizes):
            os.sched_yield()
            draw(stream, probed, header, Edit(), some, limits)
    os.sched_yield()
    json.loads(json.dumps(dataclasses.asdict(probed)))


def _look_after(children: dict[int, float]) -> None:
    """Take leave of the children that ended, kill those whose time is over."""
    for pid, deadline in list(children.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del children[pid]
        elif time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)


def _work(job: socket.socket, request: dict[str, Any]) -> None:
    """Bound this process, do the task, answer."""
    _name(DECODING)
    limits = Limits(*request["limits"])
    sandbox.bound(limits)
    try:
        answer, files = _done(request, limits)
    except CropFault as fault:
        answer, files = _error(fault, fault.message) | {"field": fault.field}, []
    except ImageAPIError as error:
        answer, files = _error(error, str(error)), []
    except Exception as error:  # noqa: BLE001 (told to the other side, which logs it)
        answer, files = _error(error, repr(error)), []
    head = json.dumps(answer, allow_nan=False).encode()
    job.sendall(len(head).to_bytes(4, "big") + head)
    for file in files:
        job.sendall(file)
    job.shutdown(socket.SHUT_WR)
    job.recv(1)  # to give our memory back takes a core, which the other side needs first


def _name(name: str) -> None:
    fd = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(fd, name.encode())
    os.close(fd)


def _error(error: Exception, detail: str) -> dict[str, Any]:
    return {"error": type(error).__name__, "detail": detail}


def _done(request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], list[bytes]]:
    with Path(request["path"]).open("rb") as stream:
        probed, header = inspect(stream, limits)
        answer: dict[str, Any] = {"probe": dataclasses.asdict(probed)}
        if request["task"] == "probe":
            return answer, []
        *crop, rotation = request["edit"]
        edit = Edit(Crop(*crop), rotation)
        renditions = [Rendition(*size) for size in request["renditions"]]
        prepare(probed.format)
        with _room_for(probed):
            sandbox.lock()
            rendered = draw(stream, probed, header, edit, renditions, limits)
    answer["extension"] = rendered.extension
    answer["placeholder"] = rendered.placeholder
    answer["sizes"] = rendered.sizes
    answer["lengths"] = {name: len(file) for name, file in rendered.files.items()}
    return answer, list(rendered.files.values())


def _room_for(probed: Probe) -> contextlib.ExitStack:
    """Hold as much of the host's memory for decoders as this picture takes, all of it or none.

    Raises:
        Busy: others hold too much of it for long.
    """
    pixels = probed.size.width * probed.size.height
    wanted = min(ROOMS, pixels * DECODED_BYTES[probed.format] // ROOM)
    deadline = time.monotonic() + ROOM_WAIT
    while len(rooms := _rooms(wanted)) < wanted:
        for room in rooms:
            room.close()
        if time.monotonic() > deadline:
            raise Busy
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 (so that two do not meet again)
    held = contextlib.ExitStack()
    for room in rooms:
        held.enter_context(room)
    return held


def _rooms(wanted: int) -> list[socket.socket]:
    """As many rooms as are wanted, or fewer."""
    places = (hold(f"{HOST}-room-{number}") for number in range(ROOMS if wanted else 0))
    return list(itertools.islice(filter(None, places), wanted))
