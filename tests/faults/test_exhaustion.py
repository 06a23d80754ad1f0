"""No descriptors, a disk that only reads, a folder that is closed to us: refused as such, no crash loop.

The very next request after the cause is gone is served, by the same worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import jpeg
from tests.faults import mounts
from tests.faults.front import FORM, PATH, form, front, picture
from tests.faults.injection import OPTIONS
from tests.faults.invariants import (
    assert_healthy,
    assert_kept,
    assert_problem,
    decoded,
)
from tests.servers.need import need
from tests.servers.ports import HOST

FULL = os.environ.get("FAULTS") == "full"
FILES = resource.RLIMIT_NOFILE


def upload(door, connection, data):
    connection.request("POST", PATH, form(data), {**door.headers, "Content-Type": FORM})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def shown(door, connection, image):
    """Metadata and thumbnail are there."""
    status, body = door.get(connection, f"/api/v1/images/{image}")
    assert status == 200
    status, data = door.get(connection, json.loads(body)["thumbnails"]["mini"])
    assert (status, decoded(data)) == (200, True)


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_each_number_of_descriptors_too_few():
    """From none to as many as an upload takes: an answer each time, and nothing stays."""
    statuses = Counter()
    with front(*OPTIONS) as door, door.connect() as connection:
        acknowledged = {}
        for seed in (1, 2):
            status, body = door.post(connection, form(picture(9000, seed=-seed)))
            assert status == 201
        image = body["public_id"]
        (worker, *_) = door.app.workers
        usual = resource.prlimit(worker, FILES)
        for few in range(0, 16, 1 if FULL else 3):
            resource.prlimit(worker, FILES, (descriptors(worker) + few, usual[1]))
            status, headers, body = upload(door, connection, picture(9000, seed=few))
            statuses[status] += 1
            if status != 201:
                assert_problem(status, headers, body, 503, 507)
            assert door.get(connection, f"/api/v1/images/{image}")[0] == 200
            resource.prlimit(worker, FILES, usual)
            assert upload(door, connection, picture(9000, seed=100 + few))[0] == 201
        assert door.app.workers[0] == worker
        acknowledged.update([assert_healthy(door)])
        assert_kept(door, acknowledged)
    sys.stdout.write(f"{statuses}\n")
    assert statuses[503] > 1
    assert statuses[201]


def test_more_connections_than_descriptors():
    """`ulimit -n 64` and a hundred idle connections: no more are taken than there is room for."""
    program = need("prlimit", install="apt install util-linux")
    with front("--workers", "1") as door:
        acknowledged = dict([assert_healthy(door)])
        door.app.stop()
        door.app.process.command[:0] = [program, "--nofile=64"]
        door.app.start()
        (worker, *_) = door.app.workers
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection((HOST, door.app.port)))
            time.sleep(1)
            assert door.app.workers[0] == worker
            assert 32 <= descriptors(worker) < 64
        acknowledged.update([assert_healthy(door)])
        assert door.app.workers[0] == worker
        assert_kept(door, acknowledged)


@contextlib.contextmanager
def read_only(place):
    mounts.remount(place, "ro")
    try:
        yield
    finally:
        mounts.remount(place, "rw")


@contextlib.contextmanager
def immutable(place):
    """What EPERM comes of, for root too: no file may be made in any folder."""
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    program = need("chattr", install="apt install e2fsprogs")
    try:
        subprocess.run([program, "+i", *folders], check=True)
        yield
    finally:
        subprocess.run([program, "-i", *folders], check=True)


@pytest.mark.parametrize("how", [read_only, immutable])
def test_a_disk_that_only_reads(how, tmp_path):
    place = tmp_path / "disk"
    env = {"IMAGEAPI_STORAGE_LOCAL_ROOT": str(place)}
    if how is read_only:
        disk = mounts.tmpfs(place, "size=64m")
    else:
        mounts.make_ext4(tmp_path / "image", 96 << 20)
        disk = mounts.ext4(tmp_path / "image", place, "noatime")
    with disk:
        shutil.rmtree(place / "lost+found", ignore_errors=True)
        with front("--workers", "1", env=env) as door, door.connect() as connection:
            acknowledged = {}
            images = [
                door.post(connection, form(jpeg(300, 200, seed=n)))[1]["public_id"]
                for n in range(4)
            ]
            (worker, *_) = door.app.workers
            with how(place):
                for seed in range(20):
                    answer = upload(door, connection, picture(9000, seed=seed))
                    assert_problem(*answer, 503, 507)
                    assert json.loads(answer[2])["code"] == "storage_denied"
                for image in images:
                    shown(door, connection, image)
                # The edit is kept; its renditions are blank until they can be.
                edited = edit(door, connection, images[1])
                assert decoded(door.get(connection, edited["thumbnails"]["mini"])[1])
                assert delete(door, connection, images[0]) == 204
                assert door.get(connection, "/healthz")[0] == 200
            answer = upload(door, connection, picture(9000, seed=0))
            assert answer[0] == 201
            shown(door, connection, images[1])
            assert door.app.workers[0] == worker
            acknowledged.update([assert_healthy(door)])
            assert_kept(door, acknowledged, {"local": place})


def edit(door, connection, image):
    headers = {**door.headers, "Content-Type": "application/json"}
    connection.request("PUT", f"/api/v1/images/{image}", b'{"rotation":90}', headers)
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return json.loads(body)


def delete(door, connection, image):
    connection.request("DELETE", f"/api/v1/images/{image}", headers=door.headers)
    response = connection.getresponse()
    response.read()
    return response.status


def test_a_folder_that_is_closed_to_the_user(tmp_path):
    """EACCES, which root meets only without its right to pass over modes."""
    program = need("setpriv", install="apt install util-linux")
    place = tmp_path / "root"
    env = {"IMAGEAPI_STORAGE_LOCAL_ROOT": str(place)}
    with front("--workers", "1", env=env) as door:
        acknowledged = dict([assert_healthy(door)])
        door.app.stop()
        door.app.process.command[:0] = [program, "--bounding-set=-dac_override,-dac_read_search"]
        door.app.start()
        acknowledged.update([assert_healthy(door)])
        (worker, *_) = door.app.workers
        folders = [place, *(path for path in place.iterdir() if path.is_dir())]
        with door.connect() as connection:
            for path in folders:
                path.chmod(0o500)
            for seed in range(20):
                answer = upload(door, connection, picture(9000, seed=seed))
                assert_problem(*answer, 503)
                assert json.loads(answer[2])["code"] == "storage_denied"
            for image in acknowledged:
                shown(door, connection, image)
            for path in folders:
                path.chmod(0o700)
            assert upload(door, connection, picture(9000, seed=0))[0] == 201
        assert door.app.workers[0] == worker
        assert_kept(door, acknowledged, {"local": place})
