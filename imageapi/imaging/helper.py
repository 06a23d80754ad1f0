"""Has pictures decoded outside of this process: a helper, which forks a child for each picture.

The helper is started at a process's first picture, after gunicorn's fork, with an environment that
holds no secret. It ends when this process ends, however that happens: the socket between them closes.
What comes back is checked text and bytes, never code. At most as many pictures are decoded at once
on a host as it has cores; further callers wait, a bounded number of them for a bounded time.

Source: design §6; threats of decoders: memory corruption, memory and time bombs.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from imageapi import metrics
from imageapi.errors import Busy, ImageAPIError, UndecodablePicture, UnsupportedFormat
from imageapi.geometry import CropFault, Edit, Rendition, Size
from imageapi.imaging.limits import MAX_ANSWER_BYTES, WALL_SECONDS, Limits
from imageapi.imaging.places import HOST, hold
from imageapi.imaging.values import Probe, Rendered

log: Any = structlog.get_logger()
CORES = len(os.sched_getaffinity(0))
MAX_CALLERS = 56
"""Callers of one process that may have a core or wait for one."""
AT_THE_DOOR = 1.0
"""Seconds that one more waits to be among them: long enough for small pictures to make room."""
MAX_WAIT = 30.0
"""Seconds that they wait."""
_POLL = 0.02
UNEDITED = Edit()
_TYPES = {"jpg": "image/jpeg", "png": "image/png"}

_START = """
import sys, types
fd, folder, *sys.path[len(sys.path):] = sys.argv[1:]
for name, path in (("imageapi", folder), ("imageapi.imaging", folder + "/imaging")):
    package = types.ModuleType(name)  # a bare package, without the application that it would import
    package.__path__ = [path]
    sys.modules[name] = package
from imageapi.imaging.decoder import serve
serve(int(fd))
"""


def probe(path: Path, limits: Limits) -> Probe:
    """Find out what a file is, from its headers.

    Raises:
        UnsupportedFormat: not a picture of an accepted format; names those.
        UndecodablePicture: broken, or over a limit, which it names.
        Busy: too many pictures are being decoded.
    """
    answer, _ = _ask("probe", path, limits)
    return _probed(answer)


def render(path: Path, edit: Edit, renditions: Sequence[Rendition], limits: Limits) -> Rendered:
    """Decode a picture to its end and render it in all sizes.

    Args:
        path: the file.
        edit: crop and rotation, of the upright picture.
        renditions: the sizes.
        limits: that the headers are held against first.

    Raises:
        UnsupportedFormat, Busy: as `probe`.
        UndecodablePicture: as `probe`, or the pixels are broken, end early, or take too much time
            or memory.
        CropFault: the crop does not fit the picture.
    """
    answer, data = _ask("render", path, limits, renditions, edit)
    return _rendered(answer, data)


def take_in(path: Path, renditions: Sequence[Rendition], limits: Limits) -> tuple[Probe, Rendered]:
    """What an upload needs: probe a picture, decode it to its end, render it unedited.

    Raises:
        UnsupportedFormat, UndecodablePicture, Busy: as `render`.
    """
    answer, data = _ask("take_in", path, limits, renditions)
    return _probed(answer), _rendered(answer, data)


def _ask(
    task: str,
    path: Path,
    limits: Limits,
    renditions: Sequence[Rendition] = (),
    edit: Edit = UNEDITED,
) -> tuple[dict[str, Any], bytes]:
    request = {
        "task": task,
        "path": str(path.resolve()),
        "limits": [limits.max_pixels, limits.max_side],
        "renditions": [[size.name, size.width, size.height, size.mode] for size in renditions],
        "edit": [*edit.crop, edit.rotation],
    }
    with _counted(task):
        return _answered(task, json.dumps(request).encode())


@contextlib.contextmanager
def _counted(task: str) -> Iterator[None]:
    started, outcome = time.monotonic(), "ok"
    metrics.decoding(task, 1)
    try:
        yield
    except BaseException as error:
        outcome = error.code if isinstance(error, ImageAPIError) else type(error).__name__
        raise
    finally:
        metrics.decoding(task, -1)
        metrics.decode(task, outcome, time.monotonic() - started)


def _answered(task: str, request: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        with _turn(), _helper.send(request) as job:
            frame = _received(job, time.monotonic() + WALL_SECONDS + 2)
    except OSError as error:  # no descriptor, no process, no memory for one more
        raise Busy("No picture can be decoded at the moment.") from error
    head = int.from_bytes(frame[:4], "big")
    try:
        answer = json.loads(frame[4 : 4 + head])
    except ValueError:
        answer = {}
    if not isinstance(answer, dict) or not answer:  # the child was killed, or it broke
        log.warning("picture.decoder_died", task=task)
        raise UndecodablePicture(
            "The picture can not be decoded within the limits of time and memory."
        )
    _raise(answer)
    return answer, frame[4 + head :]


def _received(job: socket.socket, deadline: float) -> bytes:
    """All that the child sends; nothing when it takes too long or sends too much."""
    parts: list[bytes] = []
    length = 0
    try:
        while True:
            job.settimeout(max(0.01, deadline - time.monotonic()))
            part = job.recv(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
            length += len(part)
            if length > MAX_ANSWER_BYTES:
                return b""
    except OSError:
        return b""


def _raise(answer: dict[str, Any]) -> None:
    kind, detail = answer.get("error"), str(answer.get("detail", ""))[:1000]
    if kind == "CropFault":
        raise CropFault(str(answer.get("field", "")), detail)
    if kind == "Busy":
        raise Busy
    if kind == "UnsupportedFormat":
        raise UnsupportedFormat(detail)
    if kind:
        if kind != "UndecodablePicture":
            log.warning("picture.decoder_failed", error=kind, detail=detail)
            detail = "The picture can not be decoded."
        raise UndecodablePicture(detail)


def _probed(answer: dict[str, Any]) -> Probe:
    found = answer["probe"]
    gps = found["gps"]
    return Probe(
        format=str(found["format"]),
        size=Size(*map(int, found["size"])),
        orientation=int(found["orientation"]),
        exifs={str(name): str(text) for name, text in found["exifs"].items()},
        gps=(float(gps[0]), float(gps[1])) if gps else None,
        taken_at=found["taken_at"] and str(found["taken_at"]),
        frames=int(found["frames"]),
    )


def _rendered(answer: dict[str, Any], data: bytes) -> Rendered:
    extension = str(answer["extension"])
    files, place = {}, 0
    for name, length in answer["lengths"].items():
        files[str(name)] = data[place : place + int(length)]
        place += int(length)
    return Rendered(
        extension=extension,
        content_type=_TYPES[extension],
        files=files,
        placeholder=str(answer["placeholder"]),
        sizes={str(name): Size(*map(int, size)) for name, size in answer["sizes"].items()},
    )


_callers = threading.BoundedSemaphore(MAX_CALLERS)
_working = threading.BoundedSemaphore(CORES)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Hold one of the host's cores.

    Raises:
        Busy: too many wait already, or none became free in time.
    """
    deadline = time.monotonic() + MAX_WAIT
    if not _callers.acquire(timeout=AT_THE_DOOR):
        raise Busy
    try:
        if not _working.acquire(timeout=MAX_WAIT):
            raise Busy
        try:
            with _core(deadline):
                yield
        finally:
            _working.release()
    finally:
        _callers.release()


def _core(deadline: float) -> socket.socket:
    while True:
        for number in range(CORES):
            if core := hold(f"{HOST}-{number}"):
                return core
        if time.monotonic() > deadline:
            raise Busy
        time.sleep(_POLL)


class _Helper:
    """The helper of this process: started when it is needed, again if it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def send(self, request: bytes) -> socket.socket:
        """Hand a request over; the answer comes through the socket that is returned."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    self._send(request, theirs)
            except OSError:
                ours.close()
                raise
        return ours

    def _send(self, request: bytes, theirs: socket.socket) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        try:
            socket.send_fds(self._running(), [request], [theirs.fileno()])
        except (BrokenPipeError, ConnectionResetError):  # it died since
            self._start()
            socket.send_fds(self._running(), [request], [theirs.fileno()])

    def _running(self) -> socket.socket:
        if self._control is None:
            raise BrokenPipeError
        return self._control

    def _start(self) -> None:
        self.stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = str(Path(__file__).parents[1])
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
                [sys.executable, "-I", "-c", _START, str(theirs.fileno()), folder, *sys.path],
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which ends this one when it is done
            )
        self._control = ours

    def stop(self) -> None:
        """End the helper and its children, and wait for it."""
        if self._control:
            self._control.close()
            self._control = None
        if self._process:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def forget(self) -> None:
        """After a fork: the helper belongs to the parent."""
        self._lock = threading.Lock()
        if self._control:
            self._control.close()
        if self._process:
            self._process.returncode = 0  # not ours to wait for
        self._control = self._process = None


def _after_fork() -> None:
    global _callers, _working  # noqa: PLW0603 (a thread that is not here any more may hold them)
    _callers = threading.BoundedSemaphore(MAX_CALLERS)
    _working = threading.BoundedSemaphore(CORES)
    _helper.forget()


_helper = _Helper()
atexit.register(_helper.stop)
os.register_at_fork(after_in_child=_after_fork)
