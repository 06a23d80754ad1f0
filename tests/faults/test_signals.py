"""Signals, recycling and kills under load: what an operator does to gunicorn costs no request."""

from __future__ import annotations

import concurrent.futures
import os
import random
import runpy
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from gunicorn.workers.gthread import PollableMethodQueue

from tests.faults.front import Front, front
from tests.faults.load import HALF_A_HEAD, Load, silent, under_load
from tests.servers.gunicorn import ROOT
from tests.servers.ports import HOST
from tests.servers.postgres import postgres
from tests.servers.process import children, state

FULL = os.environ.get("FAULTS") == "full"
SIGNALS = 100 if FULL else 4
STOPS = 50 if FULL else 2
KILLS = 100 if FULL else 3
BOUND = 30
"""Seconds for a worker's start or orderly end on a busy machine."""


def wait_for(condition, seconds=BOUND):
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "not in time"
        time.sleep(0.01)
    return time.monotonic() - began


def workers(door: Front):
    """The workers alone, without the helpers that decode for them; the oldest first."""
    return sorted(children(door.app.pid))


def gone(pids):
    return lambda: all(state(pid) in "ZX" for pid in pids)


@pytest.fixture(scope="module")
def served():
    with front("--workers", "2", env={"IMAGEAPI_LOG_LEVEL": "WARNING"}) as door:
        yield door


def loaded(door: Front, **options):
    return under_load(Load(door.app.port, door.headers), **options)


def check(door: Front, load: Load):
    """Nothing failed, and what was acknowledged is there."""
    assert load.failures == []
    assert load.requests > 20
    kept = {row["id"]: row["sha256"] for row in door.rows()}
    assert load.acknowledged.items() <= kept.items()
    for row in door.rows():
        assert door.stored(row["key"]) == row["sha256"]
    assert not [name for name in door.files() if name.startswith("staging/")]


def test_reloading_and_ending_workers_under_load(served):
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)  # noqa: T201 - shown when it fails
    choice = random.Random(seed)  # noqa: S311
    with loaded(served) as load:
        for number in range(SIGNALS):
            time.sleep(choice.uniform(0, 0.5))
            before = workers(served)
            if number % 2:
                os.kill(before[0], signal.SIGTERM)
                wait_for(gone(before[:1]))
            else:
                os.kill(served.app.pid, signal.SIGHUP)
                wait_for(gone(before))
            wait_for(lambda: len(workers(served)) == 2)
    check(served, load)


def test_recycling_workers_under_load():
    options = ["--workers", "2", "--max-requests", "60", "--max-requests-jitter", "60"]
    with front(*options, env={"IMAGEAPI_LOG_LEVEL": "WARNING"}) as door:
        first, ended = set(workers(door)), 2 if not FULL else 30
        with loaded(door) as load:
            wait_for(lambda: door.app.log.count("Autorestarting worker") >= ended, 20 * BOUND)
            wait_for(lambda: first - set(workers(door)))  # it ends what it has under way
        check(door, load)


def test_a_new_master_takes_over_under_load():
    with front("--workers", "2", env={"PYTHONPATH": str(ROOT)}) as door:
        door.app.stop()
        # `python -m gunicorn` would run again as a file that finds gunicorn/http for http.
        door.app.process.command[:3] = [str(Path(sys.executable).with_name("gunicorn"))]
        door.app.start()
        wait_for(lambda: len(workers(door)) == 2)
        old, first = door.app.pid, set(workers(door))
        with loaded(door) as load:
            os.kill(old, signal.SIGUSR2)
            wait_for(lambda: any(len(children(p)) == 2 for p in set(workers(door)) - first))
            (new,) = set(workers(door)) - first
            try:
                wait_for(lambda: door.app.log.count("Booting worker") == 6)
                time.sleep(2)
                os.kill(old, signal.SIGTERM)
                assert door.app.process.wait(BOUND) == 0
                time.sleep(1)
                load.end()
            finally:
                os.kill(new, signal.SIGTERM)
                wait_for(gone([new]))
        check(door, load)


def test_a_stop_lets_uploads_end(served):
    for _ in range(STOPS):
        with loaded(served, readers=0, uploaders=0, slow=5) as load:
            wait_for(lambda: load.uploading >= 4)
            time.sleep(random.uniform(0, 1))  # noqa: S311
            ours = [served.app.pid, *workers(served)]
            load.over.set()
            os.kill(served.app.pid, signal.SIGTERM)
            began = time.monotonic()
            assert served.app.process.wait(BOUND) == 0
            assert time.monotonic() - began < 20
        assert gone(ours)()
        # Who had not been let in when it stopped is refused, never cut.
        cut = [f for f in load.failures if "refused" not in f.what and "reset" not in f.what]
        assert cut == []
        load.failures.clear()
        load.statuses["", 0] += 21
        check(served, load)
        served.app.start()


def test_kill_9_of_a_worker_costs_its_own_requests_alone(served):
    slowest, threads = 0.0, 4
    with loaded(served) as load:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.2, 0.6))  # noqa: S311
            victim, _other = workers(served)
            os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            wait_for(lambda victim=victim: len(set(workers(served)) - {victim}) == 2)
            slowest = max(slowest, time.monotonic() - began)
            answered = load.statuses["upload", 201]
            wait_for(lambda answered=answered: load.statuses["upload", 201] > answered + 2)
    print("respawned within", slowest)  # noqa: T201
    assert slowest < 5
    connections = 4
    assert len(load.failures) <= KILLS * (threads + connections), load.failures
    assert all("HTTPException" not in f.what or "Incomplete" in f.what for f in load.failures)
    load.failures.clear()
    time.sleep(1.1)
    served.app.flask("collect", "--older-than", "1s")  # what the killed were taking in
    check(served, load)


def test_ctrl_c_does_not_wait_for_clients_that_say_nothing(served):
    """It signals all processes of the terminal, and the master then signals its workers."""
    with silent(served.app.port, 2), silent(served.app.port, 1, HALF_A_HEAD):
        time.sleep(0.5)
        os.killpg(served.app.pid, signal.SIGINT)
        began = time.monotonic()
        assert served.app.process.wait(60) == 0
        assert time.monotonic() - began < 20
    served.app.start()


def test_an_end_does_not_wait_for_connections_without_a_request(served):
    with silent(served.app.port, 3):
        time.sleep(6)
        os.kill(served.app.pid, signal.SIGTERM)
        began = time.monotonic()
        assert served.app.process.wait(60) == 0
        assert time.monotonic() - began < 15
    served.app.start()


def test_slow_clients_hold_nobody_up(served):
    """As long as there are fewer than threads; more of them are the affair of nginx in front."""
    with silent(served.app.port, 30), silent(served.app.port, 30, HALF_A_HEAD):
        began = time.monotonic()
        for _ in range(20):
            with served.connect() as connection:
                assert served.get(connection, "/healthz")[0] == 200
        assert time.monotonic() - began < 5  # what one silent client holds its thread


@pytest.fixture
def conf(monkeypatch, tmp_path):
    """What gunicorn.conf.py defines; where it has metrics counted, it tells by the environment."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return runpy.run_path(str(ROOT / "gunicorn.conf.py"))


def test_a_second_signal_within_the_first_does_not_lock_a_worker_up(conf):
    """The handler runs while the main thread holds the locks of the thread pool."""
    worker = object.__new__(conf["Worker"])
    worker.alive, worker.method_queue = True, PollableMethodQueue()
    worker.method_queue.init()
    worker.tpool = concurrent.futures.ThreadPoolExecutor(1)
    ended = threading.Event()

    def signalled():
        worker.handle_quit(signal.SIGINT, None)
        worker.handle_quit(signal.SIGQUIT, None)
        ended.set()

    with worker.tpool._shutdown_lock:
        threading.Thread(target=signalled, daemon=True).start()
        assert ended.wait(10), "the handler waits for a lock that the main thread holds"
    assert not worker.alive
    worker.method_queue.close()


def test_a_late_thread_writes_into_no_other_file(conf, tmp_path):
    """It wakes the main thread through a pipe, after that has left; once it was the database."""
    wakeups = conf["Wakeups"]()
    wakeups.init()
    reader, writer = wakeups._read_fd, wakeups._write_fd
    wakeups.close()
    database = tmp_path / "database"
    database.write_bytes(b"SQLite format 3")
    with database.open("r+b"), database.open("r+b"):
        wakeups.defer(int)
    assert database.read_bytes() == b"SQLite format 3"
    os.close(reader)
    os.close(writer)


def test_nothing_is_open_in_the_master_that_preloads():
    with postgres() as server, server.database() as url:
        env = {
            "IMAGEAPI_DATABASE_URL": url.replace("postgresql", "postgresql+psycopg", 1),
            "IMAGEAPI_LOG_LEVEL": "WARNING",
        }
        with front("--workers", "3", "--preload", env=env) as door:
            master = psutil.Process(door.app.pid)
            with under_load(Load(door.app.port, door.headers), readers=3) as load:
                wait_for(lambda: load.requests > 60 and len(load.acknowledged) > 5, 4 * BOUND)
                assert master.num_threads() == 1
                assert {c.status for c in master.net_connections()} == {psutil.CONN_LISTEN}
                assert len(children(door.app.pid)) == 3, "a helper of the master's own"
                for worker in workers(door):
                    assert len(children(worker)) <= 1
                    assert psutil.Process(worker).num_threads() > 1
            assert load.failures == []
            os.kill(door.app.pid, signal.SIGHUP)
            time.sleep(1)
            assert socket.create_connection((HOST, door.app.port), timeout=10).close() is None
