"""The oracles themselves: what they say of things that are known."""

import itertools
import math
import subprocess
import sys

import pytest
from PIL import Image

from tests import oracles
from tests.oracles import Syscall

SCRIPT = """
import os, sys, threading
folder = sys.argv[1]
def store():
    descriptor = os.open(folder + "/a b", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"bytes")
    os.fsync(descriptor)
    os.rename(folder + "/a b", folder + "/\\u00e9 \\"c\\"")
    above = os.open(folder, os.O_RDONLY)
    os.rename("\\u00e9 \\"c\\"", "d", src_dir_fd=above, dst_dir_fd=above)
    os.fsync(above)
thread = threading.Thread(target=store)
thread.start()
thread.join()
os.write(1, b"done")
"""
CALLS = "write,fsync,rename,renameat,renameat2"


@pytest.fixture
def photo(tmp_path):
    """60×40 on its side: upright it is 40×60, red above, blue below."""
    picture = Image.new("RGB", (60, 40), (200, 0, 0))
    picture.paste((0, 0, 200), (30, 0, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8827] = 100
    picture.save(tmp_path / "é.png", exif=exif)
    return tmp_path / "é.png"


def test_exiftool_gives_numbers_or_words(photo):
    assert oracles.exiftool(photo)["IFD0:Orientation"] == 6
    assert oracles.exiftool(photo, printed=True)["IFD0:Orientation"] == "Rotate 90 CW"


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((1920, 1920, "fit"), (40, 60)),
        ((30, 30, "fit"), (20, 30)),
        ((30, 30, "fill"), (30, 30)),
        ((50, 50, "fill"), (40, 40)),
        ((300, 100, "fill"), (40, 13)),
    ],
)
def test_libvips_renders_upright_and_never_larger(photo, arguments, size):
    picture = oracles.rendered(photo, *arguments)
    assert picture.size == size
    assert picture.getpixel((5, 0)) == (200, 0, 0)
    assert picture.getpixel((5, size[1] - 1)) == (0, 0, 200)


def test_libvips_crops_then_rotates(photo):
    picture = oracles.rendered(photo, 99, 99, "fit", crop=(0, 20, 40, 20), rotation=90)
    assert picture.size == (20, 40)
    assert picture.getpixel((2, 9)) == (0, 0, 200)
    assert picture.getpixel((17, 9)) == (200, 0, 0)


def test_difference_is_of_the_worst_channel():
    one = Image.new("RGB", (4, 4), (10, 20, 30))
    other = Image.new("RGB", (4, 4), (11, 20, 26))
    assert oracles.difference(one, one) == 0
    assert oracles.difference(one, other) == 4
    assert oracles.difference(Image.new("LA", (4, 4)), Image.new("L", (4, 4), 128)) == 0
    with pytest.raises(ValueError, match=r"\(4, 4\) is not \(4, 5\)"):
        oracles.difference(one, Image.new("L", (4, 5)))


def checked(told, folder):
    """The calls of SCRIPT, in the order that makes a file durable."""
    write, sync, rename, rename_at, sync_folder, answer = told[-6:]
    names = [call.name for call in (write, sync, rename, sync_folder, answer)]
    assert names == ["write", "fsync", "rename", "fsync", "write"]
    assert write.paths == sync.paths == (f"{folder}/a b",)
    assert rename.paths == (f"{folder}/a b", f'{folder}/é "c"')
    assert rename_at.paths == (f'{folder}/é "c"', f"{folder}/d")
    assert sync_folder.paths == (str(folder),)
    assert '"done"' in answer.arguments
    order = [write, sync, rename, rename_at, sync_folder, answer]
    for earlier, later in itertools.pairwise(order):
        assert earlier.before(later)
        assert not later.before(earlier)
    assert all(call.ok for call in order)
    assert answer.pid != write.pid


def test_strace_tells_the_order_of_calls_over_threads(tmp_path):
    command = [sys.executable, "-c", SCRIPT, tmp_path]
    checked(oracles.strace(command, calls=CALLS), tmp_path)


def test_strace_injects_a_fault(tmp_path):
    inject = ["-e", "inject=fsync:error=EIO:when=1"]
    command = [sys.executable, "-c", SCRIPT, tmp_path]
    told = oracles.strace(command, calls=CALLS, options=inject)
    assert [call.ok for call in told if call.name == "fsync"] == [False]


def test_strace_follows_what_runs_already(tmp_path):
    waiting = "import sys; sys.stdin.read();" + SCRIPT
    command = [sys.executable, "-c", waiting, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with oracles.traced(process.pid, calls=CALLS) as told:
            process.communicate()
        checked(told, tmp_path)


def test_syscalls_in_parts_are_joined():
    log = (
        '7  sendto(3<TCP:[127.0.0.1:80->127.0.0.1:4242]>, "HTTP/1.1 201"..., 22, 0 <unfinished ...>\n'
        '8  write(5</log>, "6</not-this> \\"7</nor-this>", 28) = 28\n'
        "8  fsync(4</db-wal> <unfinished ...>\n"
        "7  --- SIGCHLD {si_signo=SIGCHLD} ---\n"
        "7  <... sendto resumed>, NULL, 0) = 22\n"
        "9  +++ exited with 0 +++\n"
        '7  openat(AT_FDCWD</x>, "y/z", O_RDONLY) = -1 ENOENT (No such file or directory)\n'
    )
    sent, written, sync, opened = oracles.syscalls(log)
    assert sent == Syscall(
        7,
        "sendto",
        '3<TCP:[127.0.0.1:80->127.0.0.1:4242]>, "HTTP/1.1 201"..., 22, 0, NULL, 0',
        "22",
        ("TCP:[127.0.0.1:80->127.0.0.1:4242]",),
        0,
        4,
    )
    assert written.paths == ("/log",)
    assert (sync.name, sync.paths, sync.ok, sync.end) == ("fsync", ("/db-wal",), False, math.inf)
    assert (opened.paths, opened.ok) == (("/x/y/z",), False)
    assert not sent.before(sync)
    assert sent.before(opened)
