"""The helper and its children: transparent, bounded, and gone when they should be."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from imageapi import imaging
from imageapi.errors import Busy, UndecodablePicture, UnsupportedFormat
from imageapi.geometry import Crop, CropFault, Edit
from imageapi.imaging import decoder, helper, places, sandbox
from imageapi.imaging.limits import Limits
from tests.imaging import inprocess
from tests.imaging.corpus import rows
from tests.imaging.pictures import ALL, corners, exif, jpeg_with_exif, ratios, saved, shorts

LIMITS = Limits()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture"
    gps = [(1, 2, 2, b"N\0"), ratios(2, (48, 1)), (3, 2, 2, b"W\0"), ratios(4, (2, 1))]
    path.write_bytes(jpeg_with_exif(exif([shorts(0x112, 6)], gps=gps)))
    return path


_others: set[int] = set()


def helpers() -> list[psutil.Process]:
    """What this process has started, but for the servers of other tests."""
    return [child for child in psutil.Process().children() if child.pid not in _others]


def children() -> list[psutil.Process]:
    """The helper and what it forked."""
    return [process for one in helpers() for process in (one, *one.children(recursive=True))]


@pytest.fixture(autouse=True)
def _alone(monkeypatch) -> Iterator[None]:
    """Cores that no other process of this machine counts, and nothing left in the end."""
    monkeypatch.setattr(helper, "HOST", f"\0imageapi-test-{os.getpid()}")
    helper._helper.stop()
    _others.update(child.pid for child in psutil.Process().children())
    yield
    helper._helper.stop()
    assert children() == []


def test_it_answers_what_this_process_would(picture: Path):
    assert imaging.probe(picture, LIMITS) == inprocess.probe(picture, LIMITS)
    assert imaging.take_in(picture, ALL, LIMITS) == inprocess.take_in(picture, ALL, LIMITS)
    edit = Edit(Crop(1, 2, 30, 40), 90)
    assert imaging.render(picture, edit, ALL, LIMITS) == inprocess.render(
        picture, edit, ALL, LIMITS
    )


def test_it_answers_with_the_same_errors(picture: Path, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("no picture")
    with pytest.raises(UnsupportedFormat, match="JPEG, PNG"):
        imaging.take_in(text, ALL, LIMITS)
    with pytest.raises(UndecodablePicture, match="limit is 100 pixels"):
        imaging.take_in(picture, ALL, Limits(max_pixels=100))
    with pytest.raises(CropFault) as caught:
        imaging.render(picture, Edit(Crop(0, 0, 500, 5)), ALL, LIMITS)
    assert caught.value.field == "crop_w"


def test_an_mpo_is_decoded_where_nothing_can_be_imported_any_more(tmp_path: Path):
    more = {"save_all": True, "append_images": [corners()]}
    assert imaging.take_in(saved(tmp_path / "x", corners(), "MPO", **more), ALL, LIMITS)


def test_small_files_of_the_corpus_come_out_the_same(shared: Path):
    for row in rows():
        if row.expected == "accept" and row.path.stat().st_size < 30_000:
            here = inprocess.take_in(row.path, ALL, LIMITS)
            assert imaging.take_in(row.path, ALL, LIMITS) == here


def stopped(path: Path) -> Path:
    """A file whose opening blocks for ever: a pipe without a writer."""
    os.mkfifo(path)
    return path


def decoders() -> list[psutil.Process]:
    """The children that decode at the moment."""
    found = []
    for child in children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == decoder.DECODING:
                found.append(child)
    return found


def wait_for_decoders(count: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 10
    while len(found := decoders()) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_dies_costs_its_own_picture_only(tmp_path: Path, picture: Path, how: int):
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(imaging.take_in, stopped(tmp_path / "pipe"), ALL, LIMITS)
        wait_for_decoders(1)[0].send_signal(how)
        with pytest.raises(UndecodablePicture, match="limits of time and memory"):
            lost.result(timeout=10)
    assert imaging.take_in(picture, ALL, LIMITS)[0].format == "jpg"


def test_children_that_ended_are_taken_leave_of_under_load(picture: Path):
    for _ in range(30):
        imaging.take_in(picture, ALL, LIMITS)
    (parent,) = helpers()
    ended = [child for child in parent.children() if child.status() == psutil.STATUS_ZOMBIE]
    assert len(ended) <= 3


def test_a_child_has_no_way_to_the_pictures_of_others(tmp_path: Path):
    """It took its request itself, from the socket of all."""
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(imaging.take_in, stopped(tmp_path / "pipe"), ALL, LIMITS)
        (child,) = wait_for_decoders(1)
        opened = [str(entry.readlink()) for entry in Path(f"/proc/{child.pid}/fd").iterdir()]
        child.kill()
        with pytest.raises(UndecodablePicture):
            lost.result(timeout=10)
    kinds = sorted({name.partition(":")[0] for name in opened if name != "/dev/null"})
    assert kinds == ["/memfd", "pipe", "socket"]  # the sample; its life; where the answer goes
    assert sum(name.startswith("socket:") for name in opened) == 1


def test_a_child_that_hangs_is_killed(tmp_path: Path, picture: Path, monkeypatch):
    monkeypatch.setattr(helper, "WALL_SECONDS", -1)  # 1 s with the margin
    with pytest.raises(UndecodablePicture, match="limits of time"):
        imaging.take_in(stopped(tmp_path / "pipe"), ALL, LIMITS)
    monkeypatch.undo()
    assert imaging.take_in(picture, ALL, LIMITS)[0].format == "jpg"


def test_a_spare_that_died_is_replaced(picture: Path):
    for _ in range(3):
        imaging.probe(picture, LIMITS)
        spare = wait_for_spare()
        spare.kill()
        psutil.wait_procs([spare], timeout=1)
    assert imaging.probe(picture, LIMITS).format == "jpg"


def wait_for_spare() -> psutil.Process:
    """The child that waits for its picture."""
    (parent,) = helpers()
    deadline = time.monotonic() + 10
    while not (found := [child for child in parent.children() if child.name() == parent.name()]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


def test_a_helper_that_died_is_started_again(picture: Path):
    imaging.probe(picture, LIMITS)
    (first,) = helpers()
    first.kill()
    first.wait()
    assert imaging.probe(picture, LIMITS).format == "jpg"
    assert helpers()[0].pid != first.pid


def test_the_helper_knows_no_secret(picture: Path, monkeypatch):
    monkeypatch.setenv("IMAGEAPI_SECRET_KEYS", "a-secret-of-the-server")
    helper._helper.stop()
    imaging.probe(picture, LIMITS)
    (process,) = helpers()
    assert set(process.environ()) == {"PATH", "LC_ALL"}
    names = {Path(file.path).name for file in process.open_files()}
    assert not {name for name in names if "sqlite" in name}


def locked(script: str, *arguments: object) -> str:
    """Run a script in a process of its own, where `here(name, do)` tells what became of `do()`."""
    start = (
        "import ctypes, os, socket, sys; from pathlib import Path\n"
        "from imageapi.imaging import sandbox\n"
        "def here(name, do):\n"
        "    try: do()\n"
        "    except OSError as error: print(name, error.strerror, sep=': ')\n"
        "    else: print(name, 'done', sep=': ')\n"
    )
    command = [sys.executable, "-c", start + script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


ATTEMPTS = """
canary, kept = Path(sys.argv[1]), open(sys.argv[1], 'rb')
LOCK
here('read what is open', kept.read)
here('open', canary.open)
here('list', lambda: os.listdir('/'))
here('copy', lambda: os.dup(kept.fileno()))
here('TCP', lambda: socket.socket())
here('UNIX', lambda: socket.socket(socket.AF_UNIX))
here('pipe', os.pipe)
here('memory', lambda: os.memfd_create('x'))
here('signal', lambda: os.kill(os.getppid(), 0))
here('rename', lambda: canary.rename(canary.with_name('gone')))
here('remove', lambda: canary.with_name('second').unlink())
here('make', lambda: os.mkdir(canary.with_name('new')))
here('run', lambda: os.execv('/bin/true', ['true']))
"""
OPENING = ("open", "list", "copy", "TCP", "UNIX", "pipe", "memory")
NAMING = ("signal", "rename", "remove", "make", "run")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    (tmp_path / "second").write_text("second")
    (tmp_path / "canary").write_text("canary")
    return tmp_path / "canary"


def test_a_locked_process_reaches_nothing(canary: Path):
    lines = locked(ATTEMPTS.replace("LOCK", "sandbox.lock()"), canary).splitlines()
    told = dict(line.split(": ") for line in lines)
    assert told.pop("read what is open") == "done"
    assert {told[name] for name in OPENING} <= {"Too many open files", "Invalid argument"}
    if LANDLOCK:  # else names are within reach
        assert {told[name] for name in NAMING} <= {"Permission denied", "Operation not permitted"}
        assert sorted(path.name for path in canary.parent.iterdir()) == ["canary", "second"]


def test_a_process_that_is_not_locked_reaches_all_of_it(canary: Path):
    told = locked(ATTEMPTS.replace("LOCK", ""), canary).splitlines()
    names = ("read what is open", *OPENING, *NAMING)
    assert told == [f"{name}: done" for name in names if name != "run"]


LANDLOCK = sandbox._LIBC.syscall(sandbox._CREATE_RULESET, None, 0, sandbox._VERSION) >= 1


def test_pictures_are_decoded_behind_the_lock(picture: Path, monkeypatch):
    """What a decoder would do that a picture has taken over, done by the child itself."""
    reached: list[str] = []

    def evil(*_given: object) -> None:
        for name, do in (("open", lambda: picture.open("rb")), ("socket", socket.socket)):
            try:
                do()
            except OSError:
                continue
            reached.append(name)
        raise RuntimeError(f"reached {reached}")

    request = {"task": "take_in", "path": str(picture), "renditions": [], "edit": [0] * 5}
    monkeypatch.setattr(decoder, "draw", evil)
    told, tell = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            decoder._done(request, LIMITS)
        except RuntimeError as error:
            tell.send(str(error).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    with told, tell:
        assert told.recv(100) == b"reached []"


def test_memory_is_bounded(tmp_path: Path):
    path = saved(tmp_path / "large.png", corners(4000, 3000), "PNG")
    assert imaging.take_in(path, ALL, LIMITS)[0].size == (4000, 3000)
    script = (
        "import sys, resource; from pathlib import Path; from imageapi.imaging import sandbox;"
        "from tests.imaging.inprocess import take_in;"
        "from imageapi.imaging.limits import Limits; sandbox.MEMORY_BYTES = 110 << 20;"
        "sandbox.bound(Limits(max_pixels=1)); from imageapi.errors import UndecodablePicture\n"
        "try: take_in(Path(sys.argv[1]), [], Limits())\n"
        "except UndecodablePicture as error: sys.exit(7 if 'memory' in str(error) else 8)"
    )
    found = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert found.returncode == 7


def test_no_more_than_the_cores_decode_at_once_and_few_wait(tmp_path: Path, monkeypatch):
    cores = helper.CORES
    monkeypatch.setattr(helper, "_callers", threading.BoundedSemaphore(cores + 2))
    monkeypatch.setattr(helper, "MAX_WAIT", 0.5)
    pipes = [stopped(tmp_path / str(number)) for number in range(cores + 3)]
    with ThreadPoolExecutor(len(pipes)) as pool:
        jobs = [pool.submit(imaging.probe, pipe, LIMITS) for pipe in pipes]
        deadline = time.monotonic() + 10
        while sum(job.done() for job in jobs) < 3:  # one is refused at once, two give up
            assert time.monotonic() < deadline
            assert len(decoders()) <= cores
            time.sleep(0.02)
        for child in wait_for_decoders(cores):
            child.kill()
        kinds = [type(job.exception(timeout=10)) for job in jobs]
    assert kinds.count(Busy) == 3
    assert kinds.count(UndecodablePicture) == cores


def test_decoders_share_the_memory_of_the_host(tmp_path: Path, monkeypatch):
    path = saved(tmp_path / "x.png", Image.new("L", (2000, 1000)), "PNG")
    request = {"task": "take_in", "path": str(path), "renditions": [], "edit": [0, 0, 0, 0, 0]}
    monkeypatch.setattr(decoder, "HOST", f"\0imageapi-test-{os.getpid()}")
    monkeypatch.setattr(decoder, "ROOM_WAIT", 0.1)
    monkeypatch.setattr(decoder.sandbox, "lock", lambda: None)  # this process goes on
    with contextlib.ExitStack() as taken:
        for number in range(decoder.ROOMS - 3):
            taken.enter_context(places.hold(f"{decoder.HOST}-room-{number}"))
        decoder._done(request, LIMITS)  # 10 MB: needs no room
        monkeypatch.setattr(decoder, "ROOM", 3_000_000)
        decoder._done(request, LIMITS)  # needs three
        monkeypatch.setattr(decoder, "ROOM", 2_500_000)
        with pytest.raises(Busy):
            decoder._done(request, LIMITS)
        monkeypatch.setattr(decoder, "ROOM", 3_000_000)
        decoder._done(request, LIMITS)  # nothing is left held
    monkeypatch.setattr(decoder, "ROOM", 1)
    decoder._done(request, LIMITS)  # never more than there are


def test_threads_get_their_own_answers(tmp_path: Path):
    paths = [
        saved(tmp_path / f"{side}.png", corners(side, side), "PNG") for side in range(20, 60, 2)
    ]
    with ThreadPoolExecutor(8) as pool:
        sizes = [probe.size for probe in pool.map(lambda path: imaging.probe(path, LIMITS), paths)]
    assert sizes == [(side, side) for side in range(20, 60, 2)]


def test_a_forked_process_has_a_helper_of_its_own(picture: Path):
    expected = dataclasses.asdict(imaging.probe(picture, LIMITS))
    (ours,) = helpers()
    pid = os.fork()
    if pid == 0:
        same = dataclasses.asdict(imaging.probe(picture, LIMITS)) == expected
        other = [child.pid for child in helpers()] != [ours.pid]
        helper._helper.stop()
        os._exit(0 if same and other else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert imaging.probe(picture, LIMITS).format == "jpg"
    assert [child.pid for child in helpers()] == [ours.pid]


def test_helper_and_children_end_with_a_process_that_is_killed(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path; from imageapi import imaging;"
        "imaging.probe(Path(sys.argv[1]), imaging.Limits())"
    )
    pipe = stopped(tmp_path / "pipe")
    process = subprocess.Popen([sys.executable, "-c", script, str(pipe)])
    family = psutil.Process(process.pid)
    deadline = time.monotonic() + 20
    while len(family.children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    both = family.children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(both, timeout=10)
    assert alive == []
