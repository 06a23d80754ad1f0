import contextlib
import errno
import os
import random
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import imageapi
from imageapi.errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from imageapi.storage.backend import Context, original_key
from imageapi.storage.conformance import (
    Conformance,
    Harness,
    kept,
    keys,
    picture,
    put,
    read,
    served,
    staged,
)
from imageapi.storage.local import LocalBackend, LocalOptions
from imageapi.storage.storages import Storage
from tests.servers.need import need

SECRETS = ("a newest secret of at least 32 bytes", "an older secret of at least 32 bytes")


class LocalHarness(Harness):
    page = 300
    backend = LocalBackend

    def __init__(self, folder):
        self.root = folder / "root"
        self.root.mkdir()
        self.context = Context("local", folder / "instance", SECRETS)

    def open(self):
        return self.backend(LocalOptions(root=self.root), self.context)

    def absent(self):
        file = self.root.parent / "a file"
        file.touch()
        return self.backend(LocalOptions(root=file / "root"), self.context)

    def fetch(self, url):
        return served(self.open(), url)

    @contextlib.contextmanager
    def denied(self):
        with without_rights(self.root):
            yield self.open()

    @contextlib.contextmanager
    def unavailable(self):
        pytest.skip("a disk that is not mounted: test_a_root_that_is_not_there")
        yield

    @contextlib.contextmanager
    def hanging(self):
        pytest.skip("no disk of a test machine hangs on demand")
        yield

    @contextlib.contextmanager
    def full(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            yield self.open()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def without_rights(folder):
    """No right on the folder, for root too, who must become someone else for it."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


@pytest.fixture
def harness(tmp_path):
    return LocalHarness(tmp_path)


@pytest.fixture
def storage(harness):
    return Storage(harness.open())


class TestConformance(Conformance):
    @pytest.fixture
    def harness(self, tmp_path):
        return LocalHarness(tmp_path)


class TestLinks:
    """Links that someone planted below the root lead nowhere."""

    @pytest.fixture
    def outside(self, tmp_path):
        folder = tmp_path / "outside"
        folder.mkdir()
        (folder / "canary").write_bytes(b"canary")
        yield folder
        assert [path.name for path in folder.iterdir()] == ["canary"]
        assert (folder / "canary").read_bytes() == b"canary"
        assert stat.S_IMODE((folder / "canary").stat().st_mode) == 0o644

    def test_in_the_place_of_a_file(self, harness, storage, outside):
        image = picture()
        key, rendition = original_key(), kept(image)
        for planted in (key, rendition):
            (harness.root / planted[:2]).mkdir(exist_ok=True)
            (harness.root / planted).symlink_to(outside / "canary")
            for call in (storage.open, storage.stat):
                with pytest.raises(StorageCorrupt):
                    call(planted)
        assert keys(storage) == []
        storage.keep(image, {"full": b"a rendition"})  # replaces the link itself
        assert read(storage, rendition) == b"a rendition"
        storage.delete(key)
        assert not (harness.root / key).is_symlink()

    def test_in_the_place_of_a_folder(self, harness, storage, outside):
        key, image = original_key(), picture()
        for planted in (key, kept(image)):
            (harness.root / planted[:2]).symlink_to(outside)
            (outside / planted[3:]).write_bytes(b"a file elsewhere")
        for planted in (key, kept(image)):
            for call in (storage.open, storage.stat, storage.delete):
                with pytest.raises(StorageCorrupt):
                    call(planted)
        assert keys(storage) == []
        with pytest.raises(StorageCorrupt):
            put(storage, b"some bytes", key)
        with pytest.raises(StorageCorrupt):
            storage.keep(image, {"full": b"a rendition"})
        for planted in (key, kept(image)):
            (outside / planted[3:]).unlink()

    def test_in_the_place_of_staging(self, harness, storage, outside):
        (harness.root / "staging").symlink_to(outside)
        for call in (storage.stage, storage.check, lambda: storage.clear_staging(0)):
            with pytest.raises(StorageCorrupt):
                call()
        with pytest.raises(StorageCorrupt):
            storage.keep(picture(), {"full": b"a rendition"})

    def test_staging_swapped_for_a_link_meanwhile(self, harness, storage, outside):
        with staged(storage, b"some bytes") as file:
            (harness.root / "staging").rename(harness.root / "moved")
            (harness.root / "staging").symlink_to(outside)
            with pytest.raises(StorageCorrupt):
                storage.put(file, [], original_key())
        assert list((harness.root / "moved").iterdir()) == []

    def test_a_staged_file_swapped_for_a_link(self, harness, storage, outside):
        with staged(storage, b"canary") as file:
            file.path.unlink()
            file.path.symlink_to(outside / "canary")
            with pytest.raises(StorageCorrupt):
                storage.put(file, [], original_key())
        assert keys(storage) == []

    def test_the_root_may_lie_behind_a_link(self, harness, tmp_path):
        (tmp_path / "link").symlink_to(harness.root)
        linked = LocalBackend(LocalOptions(root=tmp_path / "link"), harness.context)
        key = put(Storage(linked), b"some bytes")
        assert read(Storage(harness.open()), key) == b"some bytes"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_never_read(harness, storage, make):
    key = original_key()
    (harness.root / key[:2]).mkdir()
    make(harness.root / key)
    for call in (storage.open, storage.stat):
        with pytest.raises(StorageCorrupt):
            call(key)
    assert keys(storage) == []


def test_hostile_keys_reach_no_file(harness, tmp_path):
    backend = harness.open()
    (tmp_path / "canary").write_bytes(b"canary")
    (harness.root / "canary").write_bytes(b"canary")
    key = put(Storage(backend), b"some bytes")
    parts = [
        "..",
        ".",
        "",
        "/",
        "\\",
        "%2e",
        "\0",
        "canary",
        key,
        key[:2],
        key[3:],
        "~",
        "*",
        "\uff41\uff42",
    ]
    parts += [
        "staging",
        str(tmp_path),
        ".1.full.jpg",
        ".01.full.jpg",
        "\n",
        key.upper(),
        "\u2024\u2024",
    ]
    chance = random.Random(1)  # noqa: S311 - repeatable
    hostile = {"/".join(chance.choices(parts, k=chance.randint(1, 5))) for _ in range(10_000)}
    hostile |= {"".join(chance.choices(parts, k=chance.randint(1, 5))) for _ in range(10_000)}
    hostile -= {key, f"{key}.1.full.jpg"}
    assert len(hostile) > 9_000
    calls = (backend.stat, backend.delete, lambda key: next(backend.open(key)))
    for other in hostile:
        for call in calls:
            with pytest.raises(ValueError, match="is not a storage key"):
                call(other)
    assert (tmp_path / "canary").exists()
    assert keys(Storage(backend)) == [key]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("group", "file", "folder"), [(False, 0o600, 0o700), (True, 0o640, 0o750)])
def test_modes(tmp_path, umask, group, file, folder):
    context = Context("mine", tmp_path, SECRETS)
    storage = Storage(LocalBackend(LocalOptions(group=group), context))
    before = os.umask(umask)
    try:
        put(storage, b"some bytes")
        storage.keep(picture(), {"full": b"a rendition"})
    finally:
        os.umask(before)
    found = [*(tmp_path / "storage").rglob("*")]
    assert sum(path.is_file() for path in found) == 2
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path


def test_the_root_lies_in_the_instance_by_default(tmp_path):
    context = Context("mine", tmp_path / "not" / "there" / "yet", SECRETS)
    storage = Storage(LocalBackend(LocalOptions(), context))
    assert keys(storage) == []
    key = put(storage, b"some bytes")
    assert (tmp_path / "not/there/yet/storage/mine" / key).read_bytes() == b"some bytes"


def test_a_root_that_is_not_there(harness, storage):
    """A disk that is not mounted has lost nothing."""
    key = put(storage, b"some bytes")
    harness.root.rename(harness.root.with_name("away"))
    for call in (storage.open, storage.stat, storage.delete):
        with pytest.raises(StorageUnavailable):
            call(key)
    harness.root.with_name("away").rename(harness.root)
    assert read(Storage(harness.open()), key) == b"some bytes"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_fsync_is_no_success_and_never_tried_again(storage, monkeypatch, failing):
    """Of the file, then of its folder: the kernel may have dropped the pages."""
    put(storage, b"some bytes", key := original_key())  # its folder is known by now
    storage.delete(key)
    synced = []

    def fsync(fd):
        synced.append(fd)
        if len(synced) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError) as caught:
        put(storage, b"other bytes", key)
    assert type(caught.value) is StorageError
    assert len(synced) == failing
    assert keys(storage) == []


def test_folders_that_are_there_are_synced_together(harness, monkeypatch):
    """Another process may have made any of them just now, so the root is synced, but once for all."""
    for number in range(256):
        (harness.root / f"{number:02x}").mkdir()
    storage, synced, fsync = Storage(harness.open()), [], os.fsync

    def watched(fd):
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    stored = [put(storage, b"some bytes") for _ in range(20)]
    assert {str(harness.root / key[:2]) for key in stored} <= set(synced)
    assert synced.count(str(harness.root)) == 1


def test_a_small_disk_fills_and_recovers(tmp_path):
    """A file system of its own, full of bytes and then of files."""
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=64") as disk:
        storage = Storage(
            LocalBackend(LocalOptions(root=disk), Context("local", tmp_path, SECRETS))
        )
        for length in (1 << 20, 100):
            stored = until_full(storage, length)
            assert keys(storage) == sorted(stored)
            assert list((disk / "staging").iterdir()) == []
            assert all(read(storage, key) == bytes(length) for key in stored)
            with pytest.raises(StorageFull):
                storage.check()
            for key in stored:
                storage.delete(key)
            storage.delete(put(storage, bytes(length)))


def until_full(storage, length):
    stored = []
    with contextlib.suppress(StorageFull):
        while True:
            stored.append(put(storage, bytes(length)))
    return stored


@contextlib.contextmanager
def small_disk(folder, options):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("durable", [True, False])
def test_the_order_of_the_calls(tmp_path, durable):
    """fsync of the file, rename; for an original, the fsync of its folder before the return."""
    strace = need("strace", install="apt install strace")
    (tmp_path / "script.py").write_text(SCRIPT)
    log = tmp_path / "log"
    calls = "trace=write,fsync,fdatasync,rename,renameat,renameat2"
    command = [strace, "-f", "-y", "-e", calls, "-o", log]
    command += [sys.executable, tmp_path / "script.py", tmp_path, "put" if durable else "keep"]
    subprocess.run(command, check=True, cwd=Path(imageapi.__file__).parents[1], capture_output=True)
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    lines = lines[place(lines, r'write\(.*"start"') :]
    renamed = place(lines, "rename")
    (folder, name), (target, _) = re.findall(r'<([^>]+)>, "([^"]+)"', lines[renamed])
    written = place(lines, r'write\(.*"the bytes"')
    synced = place(lines, rf"fsync\(\d+<{folder}/{name}>")
    done = place(lines, r'write\(.*"done"')
    assert written < synced < renamed < done
    if durable:
        assert renamed < place(lines, rf"fsync\(\d+<{target}>") < done
        assert place(lines, rf"fsync\(\d+<{Path(target).parent}>") < done  # it was made just now


def place(lines, pattern):
    [found] = [number for number, line in enumerate(lines) if re.match(pattern, line)]
    return found


SCRIPT = """
import os, pathlib, sys
sys.path.insert(0, os.getcwd())
from imageapi.geometry import Edit, Size
from imageapi.storage.backend import Context, Picture, original_key
from imageapi.storage.local import LocalBackend, LocalOptions
from imageapi.storage.storages import Storage

storage = Storage(LocalBackend(LocalOptions(), Context("local", pathlib.Path(sys.argv[1]), ("s" * 32,))))
storage.check()
key = original_key()
os.write(1, b"start")
if sys.argv[2] == "put":
    with storage.stage() as staging:
        staging.write(b"the bytes")
        storage.put(staging.finish(), [], key)
        os.write(1, b"done")
else:
    storage.keep(Picture(key, key[3:], 1, Size(1, 1), Edit(), "jpg"), {"full": b"the bytes"})
    os.write(1, b"done")
"""
