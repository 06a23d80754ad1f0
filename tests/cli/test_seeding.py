"""`flask albums seed`: what it takes in, skips, refuses, and how it stops."""

import contextlib
import hashlib
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from imageapi import create_app
from imageapi.catalog import albums, images, seeding
from imageapi.errors import StorageFull
from imageapi.extensions import read
from imageapi.imaging import helper, places
from imageapi.models import Album, Image
from imageapi.storage.local import LocalBackend
from tests.cli.conftest import assert_told
from tests.conftest import REPOSITORY, SECRET, bearing, close, jpeg

SUMMARY = re.compile(r"added (\d+), skipped (\d+), refused (\d+); (\d+) bytes in \d+\.\d s\n")


@pytest.fixture
def folder(tmp_path):
    """`folder({path: bytes, …})`: a folder of files."""

    def make(files):
        for name, data in files.items():
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "pictures"

    return make


@pytest.fixture
def seed(flask):
    """`seed(folder)`: the result, and the four numbers of the summary."""

    def run(path, *options):
        done = flask("albums", "seed", path, "--album", "holidays", "--owner", "anna", *options)
        match = SUMMARY.fullmatch(done.stdout)
        assert match, done.output
        return done, tuple(map(int, match.groups()))

    return run


def rows(app):
    with app.app_context():
        return read(sa.select(*Image.__table__.columns).order_by(Image.file_name))


def test_a_folder_is_seeded_with_all_below_it(app, seed, folder):
    one, two = jpeg(seed=1), jpeg(40, 30, seed=2)
    done, numbers = seed(folder({"a.jpg": one, "deep/er/b.jpg": two}))
    assert numbers == (2, 0, 0, len(one) + len(two))
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = rows(app)
    infos = json.loads(first.infos)
    assert infos["etag"] == hashlib.md5(one, usedforsecurity=False).hexdigest()
    assert (infos["bytes"], infos["tags"]) == (len(one), ["holidays"])
    assert (first.file_name, second.file_name) == ("a.jpg", "b.jpg")
    assert (second.width, second.height) == (40, 30)
    assert first.rendered == "jpg"
    with app.app_context():
        album = read(sa.select(Album.images_count, Album.bytes, Album.owner))[0]
    assert tuple(album) == (2, len(one) + len(two), "anna")


def test_what_is_stored_already_is_skipped_and_never_decoded(seed, folder, monkeypatch):
    path = folder({"a.jpg": jpeg(seed=1), "b.jpg": jpeg(seed=2), "same.jpg": jpeg(seed=1)})
    assert seed(path)[1][:3] == (2, 1, 0)
    monkeypatch.setattr(images.imaging, "take_in", lambda *_: pytest.fail("decoded"))
    done, numbers = seed(path)
    assert (done.exit_code, numbers) == (0, (0, 3, 0, 0))


def test_hidden_files_and_links_are_left_out(app, seed, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(jpeg(seed=9))
    hidden = {".b.jpg": jpeg(seed=2), ".thumbs/c.jpg": jpeg(seed=3)}
    path = folder({"a.jpg": jpeg(seed=1), **hidden})
    (path / "file-link.jpg").symlink_to(outside / "secret.jpg")
    (path / "folder-link").symlink_to(outside)
    os.mkfifo(path / "pipe.jpg")
    done, numbers = seed(path)
    assert (done.exit_code, numbers[:3]) == (0, (1, 0, 0))
    assert done.stderr.splitlines() == [
        "file-link.jpg: ignored: a symbolic link",
        "folder-link: ignored: a symbolic link",
        "pipe.jpg: ignored: not a file",
    ]
    assert [row.file_name for row in rows(app)] == ["a.jpg"]


def test_the_folder_itself_may_be_a_link(seed, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder({"a.jpg": jpeg()}))
    assert seed(tmp_path / "link")[1][:3] == (1, 0, 0)


def test_what_is_no_picture_is_refused_with_its_reason(seed, folder):
    cut = jpeg(400, 300, quality=95)
    done, numbers = seed(
        folder({"a.txt": b"no", "b.jpg": cut[: len(cut) // 2], "c.jpg": jpeg(), "empty.jpg": b""})
    )
    assert (done.exit_code, numbers[:3]) == (1, (1, 0, 3))
    lines = dict(line.split(": refused: ") for line in done.stderr.splitlines())
    assert lines["a.txt"].startswith("415 unsupported_format: ")
    assert lines["b.jpg"].startswith("422 undecodable_picture: ")
    assert lines["empty.jpg"].startswith("415 unsupported_format: ")


@pytest.mark.configure(max_upload_bytes=300)
def test_a_file_over_the_limit_is_refused(app, seed, folder):
    done, numbers = seed(folder({"a.jpg": jpeg()}))
    assert (done.exit_code, numbers[2]) == (1, 1)
    assert "413 payload_too_large" in done.stderr
    assert rows(app) == []


def test_a_file_that_can_not_be_read_is_refused(seed, folder, monkeypatch):
    path = folder({"a.jpg": jpeg(seed=1), "b.jpg": jpeg(seed=2), "c/d.jpg": jpeg(seed=3)})
    real = os.open

    def fail(name, *arguments, **options):
        if name in ("a.jpg", "c"):
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", fail)
    done, numbers = seed(path)
    assert (done.exit_code, numbers[:3]) == (1, (1, 0, 2))
    assert done.stderr.splitlines() == [
        "a.jpg: refused: can not be read: Permission denied",
        "c: refused: can not be read: Permission denied",
    ]


@pytest.mark.parametrize(("name", "expected"), [("c", (2, 0, 1)), (".", (0, 0, 1))])
def test_a_folder_that_can_not_be_listed_is_refused(seed, folder, monkeypatch, name, expected):
    path = folder({"a/b.jpg": jpeg(seed=1), "c/d.jpg": jpeg(seed=2), "e.jpg": jpeg(seed=3)})
    real = os.scandir

    def fail(fd):
        if os.path.samestat(os.fstat(fd), (path / name).stat()):
            raise OSError(24, "Too many open files")
        return real(fd)

    monkeypatch.setattr(os, "scandir", fail)
    done, numbers = seed(path)
    assert (done.exit_code, numbers[:3]) == (1, expected)
    assert done.stderr == f"{name}: refused: can not be read: Too many open files\n"


def test_a_folder_that_is_gone_by_now_is_refused(app, tmp_path):
    with app.app_context():
        album = albums.ensure("holidays", "anna", "", None)
        (outcome,) = seeding.seed(album, tmp_path / "gone", "anna")
    assert (outcome.path, outcome.verdict) == (".", "refused")
    assert outcome.reason == "can not be read: No such file or directory"


def test_folders_below_the_deepest_are_refused(flask, seed, folder):
    deepest = "d/" * seeding.MAX_DEPTH
    path = folder({f"{deepest}a.jpg": jpeg(seed=1), "e.jpg": jpeg(seed=2)})
    below = path / deepest
    for _level in range(1100 - seeding.MAX_DEPTH):
        below /= "d"
        below.mkdir()
    try:
        done, numbers = seed(path)
    finally:
        (path / deepest / "a.jpg").unlink()
        os.removedirs(below)  # pytest's own removal would go too deep
    assert (done.exit_code, numbers[:3]) == (1, (2, 0, 1))
    reason = f"can not be read: it is more than {seeding.MAX_DEPTH} levels deep"
    assert done.stderr == f"{deepest}d: refused: {reason}\n"
    text = " ".join(flask("albums", "seed", "--help").stdout.split())
    assert f"more than {seeding.MAX_DEPTH} levels below FOLDER" in text


def test_a_folder_is_seeded_in_order_of_names(app, seed, folder):
    names = ("a.jpg", "b/c.jpg", "b/d/e.jpg", "b/f.jpg", "g.jpg")
    seed(folder({name: jpeg(seed=number) for number, name in enumerate(names)}))
    with app.app_context():
        order = read(sa.select(Image.file_name).order_by(Image.object_id))
    assert [row.file_name for row in order] == ["a.jpg", "c.jpg", "e.jpg", "f.jpg", "g.jpg"]


def test_a_link_that_takes_a_folders_place_meanwhile_is_not_followed(app, folder, tmp_path):
    path = folder({f"a/b/{name}.jpg": jpeg(seed=seed) for seed, name in enumerate("cd")})
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "d.jpg").write_bytes(jpeg(seed=9))
    with app.app_context():
        outcomes = seeding.seed(albums.ensure("holidays", "anna", "", None), path, "anna")
        assert next(outcomes).path == "a/b/c.jpg"
        (path / "a").rename(tmp_path / "a")
        (path / "a").symlink_to(tmp_path / "outside")
        assert [(one.path, one.verdict) for one in outcomes] == [("a/b/d.jpg", "refused")]


def test_no_file_name_reaches_the_terminal_raw(app, seed, tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    (path / "a\x1b[2J\n:smile: [red].txt").write_bytes(b"")
    (path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg())
    done, numbers = seed(path)
    assert numbers[:3] == (1, 0, 1)
    (line,) = done.stderr.splitlines()
    assert line.startswith(r"a\x1b[2J\n:smile: [red].txt: refused: 415")
    assert rows(app)[0].file_name == "caf�.jpg"


def test_an_album_of_another_user_or_storage_is_not_filled(flask, folder):
    path = folder({"a.jpg": jpeg()})
    assert flask("albums", "create", "holidays", "--owner", "anna").exit_code == 0
    done = flask("albums", "seed", path, "--album", "holidays", "--owner", "bob")
    assert_told(done, 1, "belongs to another user")
    seed = ("albums", "seed", path, "--album", "holidays", "--owner", "anna")
    assert_told(flask(*seed, "--storage", "attic"), 1, "is in the storage 'local'")


def test_a_storage_that_fails_ends_it_with_what_was_done(flask, folder, monkeypatch):
    real, calls = LocalBackend.put, []

    def put(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise StorageFull
        return real(self, *arguments)

    monkeypatch.setattr(LocalBackend, "put", put)
    path = folder({f"{name}.jpg": jpeg(seed=n) for n, name in enumerate("abc")})
    done = flask("albums", "seed", path, "--album", "holidays", "--owner", "anna")
    assert done.exit_code == 1
    assert SUMMARY.fullmatch(done.stdout)[1] == "1"
    assert done.stderr == "Error: The storage is full.\n"
    assert len(calls) == 2


def test_it_waits_for_a_decoder_while_others_have_them_all(seed, folder, monkeypatch):
    path = folder({"a.jpg": jpeg(seed=1), "b.jpg": jpeg(seed=2)})
    monkeypatch.setattr(helper, "HOST", f"\0imageapi-test-{os.getpid()}")
    monkeypatch.setattr(helper, "MAX_WAIT", 0.1)
    with contextlib.ExitStack() as taken:
        for number in range(helper.CORES):
            taken.enter_context(places.hold(f"{helper.HOST}-{number}"))
        given_back = threading.Timer(1.0, taken.close)
        given_back.start()
        done, numbers = seed(path)
        given_back.join()
    assert (done.exit_code, done.stderr, numbers[:3]) == (0, "", (2, 0, 0))


# as a process


@pytest.fixture
def environment(settings):
    """The environment of a `flask` of its own, with a migrated database."""
    return {
        "PATH": os.defpath,
        "IMAGEAPI_SECRET_KEYS": SECRET,
        "IMAGEAPI_INSTANCE": str(settings.instance),
        "IMAGEAPI_DATABASE_URL": settings.database_url,
    }


def start(environment, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "flask", *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def images_in(settings):
    engine = sa.create_engine(settings.database, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM image")).scalar_one()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_seeding_leaves_whole_pictures_and_goes_on(
    environment, settings, folder, number, code
):
    count = 24
    path = folder({f"{n}.jpg": jpeg(1200, 900, seed=n) for n in range(count)})
    command = ("albums", "seed", path, "--album", "holidays", "--owner", "anna")
    with start(environment, *command, stderr=subprocess.PIPE) as seeding:
        while not images_in(settings):
            time.sleep(0.01)
        os.killpg(seeding.pid, number)
        out, err = seeding.communicate(timeout=60)
    assert (seeding.returncode, err) == (code, "")
    added = int(SUMMARY.fullmatch(out)[1])
    assert 0 < added < count
    assert images_in(settings) == added
    storage = Path(environment["IMAGEAPI_INSTANCE"]) / "storage" / "local"
    assert list((storage / "staging").iterdir()) == []
    files = [file.name for file in storage.glob("[0-9a-f][0-9a-f]/*")]
    assert len(files) == 4 * added, "an original and three renditions each"
    with start(environment, *command, stderr=subprocess.PIPE) as again:
        out, err = again.communicate(timeout=60)
    assert (again.returncode, err) == (0, "")
    assert SUMMARY.fullmatch(out).groups()[:3] == (str(count - added), str(added), "0")


def test_deep_folders_need_no_more_descriptors(environment, folder):
    path = folder({"d/" * 90 + "a.jpg": jpeg()})
    command = ("albums", "seed", path, "--album", "holidays", "--owner", "anna")

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with start(environment, *command, stderr=subprocess.PIPE, preexec_fn=few) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert SUMMARY.fullmatch(out).groups()[:3] == ("1", "0", "0")


def test_a_terminal_shows_a_bar_with_a_rate_and_an_end_in_sight(environment, folder):
    path = folder({f"{n}.jpg": jpeg(seed=n) for n in range(3)})
    ours, theirs = pty.openpty()
    environment |= {"TERM": "xterm", "COLUMNS": "100"}
    command = ("albums", "seed", path, "--album", "holidays", "--owner", "anna")
    with start(environment, *command, stderr=theirs) as seeding:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 65536):
                shown += piece
        out = seeding.communicate(timeout=60)[0]
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"3/3 [\d.]+/s left 0:00:00", text)
    assert SUMMARY.fullmatch(out)


def test_a_picture_from_the_command_line_is_served(environment, settings, folder):
    path = folder({"a.jpg": jpeg()})

    def run(*arguments):
        with start(environment, *arguments, stderr=subprocess.PIPE) as command:
            out, err = command.communicate(timeout=60)
        assert (command.returncode, err) == (0, "")
        return out

    run("albums", "create", "holidays", "--owner", "anna")
    run("albums", "seed", path, "--album", "holidays", "--owner", "anna")
    text = run("token", "create", "--user", "anna")
    assert text.count("\n") == 1
    app = create_app(settings)
    answer = app.test_client().get("/api/v1/albums/holidays/images", headers=bearing(text.strip()))
    assert (answer.status_code, len(answer.json)) == (200, 1)
    close(app)
