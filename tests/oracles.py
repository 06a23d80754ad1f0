"""Outside opinions: ExifTool on metadata, libvips on pixels, the kernel on what a process does."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageChops, ImageStat

from tests.servers.need import need, need_module

# --- metadata


def exiftool(path: Path, *, printed: bool = False) -> dict[str, Any]:
    """What ExifTool tells of one file: `{"ExifIFD:ISO": 100, "GPS:GPSLatitude": 48.86, …}`.

    Args:
        path: any file that ExifTool knows.
        printed: values as for people (`1/250`, `Rotate 90 CW`) instead of numbers.
    """
    program = need("exiftool", install="apt install libimage-exiftool-perl")
    form = [] if printed else ["-n"]
    command = [program, "-j", "-G1", *form, "-charset", "filename=utf8", str(path)]
    [told] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return told


# --- pixels


def rendered(
    path: Path,
    width: int,
    height: int,
    mode: Literal["fit", "fill"],
    *,
    crop: tuple[int, int, int, int] | None = None,
    rotation: int = 0,
) -> Image.Image:
    """A picture as libvips renders it: upright, cropped, rotated, then into the box; sRGB.

    Args:
        path: the file; of several frames the first.
        width: of the box, in pixels.
        height: of the box, in pixels.
        mode: `fit` scales down into the box; `fill` crops about the centre to the box's aspect
            first. Neither enlarges.
        crop: x, y, width, height in pixels of the upright picture.
        rotation: clockwise, in degrees: 0, 90, 180, 270.
    """
    picture = _upright(path)
    if crop:
        picture = picture.crop(*crop)
    picture = picture.rot(f"d{rotation}")
    if mode == "fill":
        unit = min(picture.width / width, picture.height / height)
        cut = [max(1, math.floor(side * unit + 0.5)) for side in (width, height)]
        picture = picture.smartcrop(*cut, interesting="centre")
    scale = min(1, width / picture.width, height / picture.height)
    if scale < 1:
        size = [max(1, math.floor(side * scale + 0.5)) for side in (picture.width, picture.height)]
        scales = size[0] / picture.width, size[1] / picture.height
        alpha = picture.hasalpha()
        picture = picture.premultiply() if alpha else picture
        picture = picture.resize(scales[0], vscale=scales[1], kernel="lanczos3")
        picture = picture.unpremultiply() if alpha else picture
    picture = picture.cast("uchar")
    bands = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[picture.bands]
    return Image.frombytes(bands, (picture.width, picture.height), picture.write_to_memory())


def _upright(path: Path) -> Any:
    pyvips = need_module("pyvips", "pip install pyvips pyvips-binary")
    picture = pyvips.Image.new_from_file(str(path)).autorot()
    if picture.get_typeof("icc-profile-data"):
        picture = picture.icc_transform("srgb", embedded=True, intent="perceptual")
    elif picture.interpretation == "grey16":
        picture = (picture >> 8).copy(interpretation="b-w")
    elif picture.interpretation not in ("srgb", "b-w"):
        picture = picture.colourspace("srgb")
    return picture.cast("uchar")


def difference(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures of one size are apart, in levels of 0 to 255.

    Returns: the mean absolute difference of the worst channel, with what is transparent on grey.
    """
    if one.size != other.size:
        raise ValueError(f"{one.size} is not {other.size}")
    return max(ImageStat.Stat(ImageChops.difference(_flat(one), _flat(other))).mean)


def _flat(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", picture.size, (128, 128, 128, 255))
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


# --- system calls


@dataclass(frozen=True)
class Syscall:
    """One system call of a traced process.

    Args:
        pid: the thread that made it.
        name: `fsync`, `renameat2`, …
        arguments: as strace writes them.
        result: as strace writes it: `0`, `-1 ENOENT (No such file or directory)`, `?`.
        paths: the files its descriptors and names stand for, absolute, in their order; of a
            socket strace's text, `TCP:[127.0.0.1:80->127.0.0.1:4242]`.
        start: its place among all starts and ends.
        end: likewise; infinite if it never came back.
    """

    pid: int
    name: str
    arguments: str
    result: str
    paths: tuple[str, ...]
    start: float
    end: float

    @property
    def ok(self) -> bool:
        """Whether it came back without an error."""
        return not self.result.startswith(("-1", "?"))

    def before(self, other: Syscall) -> bool:
        """Whether it was over when the other began, on whatever thread."""
        return self.end < other.start


def strace(
    command: Sequence[str | Path], *, calls: str, shown: int = 64, options: Sequence[str] = ()
) -> list[Syscall]:
    """Run a command to its end and tell the system calls of all its processes, in order.

    Args:
        command: what to run; its exit status is not looked at.
        calls: which calls: `openat,rename,fsync,fdatasync,sendto`.
        shown: how many bytes of a buffer to show.
        options: further options of strace: `-e`, `inject=fsync:error=EIO:when=2`.
    """
    with _log() as log:
        subprocess.run([*_strace(log, calls, shown), *options, "--", *command], check=False)
        return list(syscalls(log.read_text()))


@contextlib.contextmanager
def traced(*pids: int, calls: str, shown: int = 64) -> Iterator[list[Syscall]]:
    """Trace running processes and all their threads and children to come.

    Args:
        pids: the processes; those below them that exist already have to be named as well.
        calls: as of `strace`.
        shown: as of `strace`.
    Yields: a list, filled in order when the block has ended.
    """
    told: list[Syscall] = []
    with _log() as log:
        attach = [part for pid in pids for part in ("-p", str(pid))]
        process = subprocess.Popen([*_strace(log, calls, shown), *attach], stderr=subprocess.PIPE)
        try:
            while not all(_is_traced(pid) for pid in pids):
                if process.poll() is not None:
                    raise RuntimeError(f"strace: {process.stderr.read().decode()}")
                time.sleep(0.01)
            yield told
        finally:
            process.terminate()
            process.communicate()
            told += syscalls(log.read_text())


def _strace(log: Path, calls: str, shown: int) -> list[str]:
    program = need("strace", install="apt install strace")
    return [program, "-f", "-yy", "-a1", "-s", str(shown), "-e", f"trace={calls}", "-o", str(log)]


@contextlib.contextmanager
def _log() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="imageapi-strace-") as directory:
        log = Path(directory) / "log"
        log.touch()
        yield log


def _is_traced(pid: int) -> bool:
    """Whether every thread of a process has a tracer."""
    statuses = Path(f"/proc/{pid}/task").glob("*/status")
    try:
        return all("\nTracerPid:\t0\n" not in status.read_text() for status in statuses)
    except OSError:
        return False  # a thread ended meanwhile: look again


_LINE = re.compile(r"(?P<pid>\d+) +(?:<\.\.\. \w+ resumed>|(?P<name>\w+)\()(?P<rest>.*)")
_RETURN = re.compile(r"(?P<arguments>.*)\) += (?P<result>.*)")
_BY_NAME = re.compile(r"(open|stat|rename|link|unlink|symlink|mkdir|rmdir|truncate|chmod)(at2?)?")
_FILE = re.compile(
    r'(?:\b(?:\d+|AT_FDCWD)<(?P<fd>(?:->|[^>])*)>)?(?:(?:, )?"(?P<name>(?:[^"\\]|\\.)*)")?'
)


def syscalls(log: str) -> Iterator[Syscall]:
    """Read what strace wrote with `-f -yy`; a call in two parts is joined at its start."""
    begun: dict[int, tuple[str, str, int]] = {}
    ended: list[Syscall] = []
    for place, line in enumerate(log.splitlines()):
        match = _LINE.match(line)
        if not match:
            continue  # a signal, an exit
        pid = int(match["pid"])
        name, before, start = begun.pop(pid, ("", "", place))
        name, rest = match["name"] or name, before + match["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = (name, rest.removesuffix("<unfinished ...>").rstrip(), start)
        elif returned := _RETURN.match(rest):
            ended.append(_syscall(pid, name, *returned.groups(), start, place))
    ended += [
        _syscall(pid, name, rest, "?", start, math.inf)
        for pid, (name, rest, start) in begun.items()
    ]
    return iter(sorted(ended, key=lambda call: call.start))


def _syscall(pid: int, name: str, arguments: str, result: str, start: float, end: float) -> Syscall:
    return Syscall(pid, name, arguments, result, tuple(_paths(name, arguments)), start, end)


def _paths(name: str, arguments: str) -> Iterator[str]:
    by_name = _BY_NAME.fullmatch(name.removeprefix("newf"))
    for match in _FILE.finditer(arguments):
        folder, file = match["fd"] or "", match["name"] if by_name else None
        if folder or file:
            yield str(Path(folder) / _unescaped(file or ""))


def _unescaped(text: str) -> str:
    return codecs.decode(text, "unicode_escape").encode("latin-1").decode(errors="replace")
