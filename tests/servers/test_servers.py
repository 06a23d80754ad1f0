"""Each server starts for real, does one thing that matters, and leaves nothing behind."""

import socket
import subprocess
import time
from contextlib import contextmanager

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from . import need
from .fault_proxy import fault_proxy
from .gunicorn import gunicorn
from .nginx import nginx
from .ports import HOST, reserved
from .postgres import postgres
from .process import Process, descendants, running, state
from .redis import ping, redis
from .rgw import rgw
from .seaweedfs import seaweedfs


@contextmanager
def leaving_nothing(server):
    """The server's block; afterwards its processes, port and folder are gone."""
    with server as running_server:
        yield running_server
        pids = [running_server.pid, *descendants(running_server.pid)]
    assert all(state(pid) in "ZX" for pid in pids)
    assert not running_server.directory.exists()
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, running_server.port)) != 0


def s3_client(server):
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        verify=str(server.certificate) if server.certificate else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"max_attempts": 1},
            connect_timeout=2,
            read_timeout=5,
        ),
    )


def check_s3(server):
    """Put, get, and a presigned URL that opens what it was signed for, nothing else."""
    s3 = s3_client(server)
    verify = str(server.certificate) if server.certificate else True
    s3.create_bucket(Bucket="pictures")
    for key in ("a", "b"):
        s3.put_object(Bucket="pictures", Key=key, Body=key.encode() * 1000)
    assert s3.get_object(Bucket="pictures", Key="a")["Body"].read() == b"a" * 1000
    signed = s3.generate_presigned_url("get_object", Params={"Bucket": "pictures", "Key": "a"})
    assert requests.get(signed, verify=verify, timeout=10).content == b"a" * 1000
    tampered = signed.replace("/pictures/a?", "/pictures/b?")
    assert requests.get(tampered, verify=verify, timeout=10).status_code == 403
    stranger = boto3.Session("testkey", "another-secret").client(
        "s3", endpoint_url=server.url, region_name=server.region, verify=verify
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.get_object(Bucket="pictures", Key="a")
    return s3


def test_seaweedfs_keeps_objects_over_a_crash():
    with leaving_nothing(seaweedfs()) as server:
        s3 = check_s3(server)
        server.kill()
        with pytest.raises(Exception, match="Could not connect"):
            s3.get_object(Bucket="pictures", Key="a")
        server.start()
        assert s3.get_object(Bucket="pictures", Key="a")["Body"].read() == b"a" * 1000


def test_seaweedfs_over_tls():
    with leaving_nothing(seaweedfs(tls=True)) as server:
        assert server.url.startswith("https://")
        check_s3(server)


def test_rgw_keeps_objects_over_a_crash_of_the_gateway():
    with leaving_nothing(rgw()) as server:
        s3 = check_s3(server)
        server.kill()
        server.start()
        assert s3.get_object(Bucket="pictures", Key="a")["Body"].read() == b"a" * 1000


def test_postgres_gives_databases_of_their_own():
    psycopg = need.need_module("psycopg", "pip install psycopg[binary]")
    prepared = []

    def prepare(url):
        prepared.append(url)
        with psycopg.connect(url) as connection:
            connection.execute("create table t (n int)")
            connection.execute("insert into t values (7)")

    with leaving_nothing(postgres()) as server:
        with server.database(prepare) as one, server.database(prepare) as two:
            with psycopg.connect(one) as connection:
                connection.execute("delete from t")
            with psycopg.connect(two) as connection:
                assert connection.execute("select n from t").fetchall() == [(7,)]
        assert len(prepared) == 1
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(one)


def test_postgres_comes_back_from_a_crash():
    psycopg = need.need_module("psycopg", "pip install psycopg[binary]")
    with leaving_nothing(postgres(durable=True, max_connections=7)) as server:
        with server.database() as url:
            with psycopg.connect(url) as connection:
                assert connection.execute("show max_connections").fetchall() == [("7",)]
                connection.execute("create table t (n int)")
            server.kill()
            with pytest.raises(psycopg.OperationalError, match="refused"):
                psycopg.connect(url)
            server.start()
            with psycopg.connect(url) as connection:
                assert connection.execute("select count(*) from t").fetchall() == [(0,)]
        server.kill()
    segments = subprocess.run(["ipcs", "-m", "-p"], capture_output=True, text=True, check=True)
    assert f" {server.pid} " not in segments.stdout


def test_redis_pauses_and_comes_back():
    with leaving_nothing(redis()) as server:
        assert ping(server.port)
        server.pause()
        assert not ping(server.port)
        server.resume()
        assert ping(server.port)
        server.restart()
        assert ping(server.port)


def test_nginx_stands_in_front_of_another():
    backend = "server { listen 127.0.0.1:@PORT@; return 200 from-behind; }"
    with leaving_nothing(nginx(backend)) as behind:
        front = f"server {{ listen {HOST}:@PORT@; location / {{ proxy_pass {behind.url}; }} }}"
        with leaving_nothing(nginx(front)) as server:
            assert requests.get(server.url, timeout=10).text == "from-behind"
            behind.stop()
            assert requests.get(server.url, timeout=10).status_code == 502
            server.stop()
            assert (server.directory / "access.log").read_text().count("\n") == 2


def test_gunicorn_serves_the_application():
    with leaving_nothing(gunicorn({"IMAGEAPI_LOG_LEVEL": "DEBUG"})) as server:
        assert requests.get(f"{server.url}/healthz", timeout=10).ok
        assert "routes" in server.flask("--help").stdout
        with pytest.raises(RuntimeError, match="No such command 'nonsense'"):
            server.flask("nonsense")
        assert server.instance.is_dir()
        workers = server.workers
        server.kill9()
        assert all(state(pid) in "ZX" for pid in workers)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{server.url}/healthz", timeout=10)
        server.start()
        assert requests.get(f"{server.url}/healthz", timeout=10).ok
        assert server.log.count("Listening at") == 2


_WEB = "server { listen 127.0.0.1:@PORT@; root @DIR@; dav_methods PUT; client_max_body_size 9m; }"


@pytest.fixture
def web():
    with nginx(_WEB) as server:
        (server.directory / "page").write_bytes(b"x" * 1_000_000)
        yield server


@pytest.fixture
def proxy(web):
    with fault_proxy(web.port) as proxy:
        yield proxy


def page(proxy, timeout=10.0, session=requests):
    return session.get(f"{proxy.url}/page", timeout=timeout)


def test_proxy_without_faults(proxy):
    with requests.Session() as session:
        for _ in range(3):
            assert page(proxy, session=session).content == b"x" * 1_000_000
    assert (proxy.counts.connections, proxy.counts.requests) == (1, 3)


def test_proxy_refuses_and_recovers(proxy):
    with requests.Session() as session:
        page(proxy, session=session)
        refused = pytest.raises(requests.ConnectionError, match="refused")
        with proxy.faults(refuse=True), refused:
            page(proxy, session=session)
        assert page(proxy, session=session).ok


def test_proxy_hangs_and_lets_go(proxy):
    with proxy.faults(hang=True), pytest.raises(requests.ReadTimeout):
        page(proxy, timeout=0.3)
    assert page(proxy).ok


def test_proxy_drops_handshakes(proxy):
    with proxy.faults(drop=True), pytest.raises(requests.ConnectTimeout):
        page(proxy, timeout=0.3)
    assert page(proxy).ok


def test_proxy_delays(proxy):
    with proxy.faults(delay=0.4), pytest.raises(requests.ReadTimeout):
        page(proxy, timeout=0.2)
    with proxy.faults(delay=0.2), socket.create_connection((HOST, proxy.port)) as client:
        start = time.monotonic()
        client.sendall(b"GET /none HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 404"
        assert time.monotonic() - start >= 0.2


def test_proxy_crawls(proxy):
    with proxy.faults(bandwidth=100_000):
        answer = requests.get(f"{proxy.url}/page", timeout=10, stream=True)
        start = time.monotonic()
        received = len(answer.raw.read(50_000))
        assert received == 50_000
        assert time.monotonic() - start >= 0.3
        answer.close()


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_proxy_cuts_answers(proxy, size):
    with proxy.faults(cut_answer=size), socket.create_connection((HOST, proxy.port)) as client:
        client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        received = []
        with pytest.raises(ConnectionResetError):
            received.extend(iter(lambda: client.recv(1 << 16), b""))
        assert sum(map(len, received)) <= size
    assert page(proxy).ok


def test_proxy_cuts_requests_once(proxy, web):
    body = b"y" * 300_000
    with proxy.faults(cut_request=100_000, times=1):
        with pytest.raises(requests.ConnectionError):
            requests.put(f"{proxy.url}/sent", body, timeout=10)
        assert not (web.directory / "sent").exists()
        assert requests.put(f"{proxy.url}/sent", body, timeout=10).status_code == 201
    assert (web.directory / "sent").read_bytes() == body


def test_proxy_fails_its_share_of_requests(proxy):
    with requests.Session() as session:
        with proxy.faults(fail=25):
            statuses = [page(proxy, session=session).status_code for _ in range(8)]
        assert sorted(statuses) == [200] * 6 + [503] * 2
        with proxy.faults(fail=100, times=2):
            statuses = [page(proxy, session=session).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]
        with proxy.faults(fail=100, answer=b"HTTP/1.1 429 Slow Down\r\nContent-Length: 0\r\n\r\n"):
            response = session.post(proxy.url, b"z" * 3_000_000, timeout=10)
            assert response.status_code == 429
    assert (proxy.counts.requests, proxy.counts.failed) == (12, 5)


def test_reserved_ports_are_not_given_twice():
    with reserved(3) as first, reserved(3) as second:
        assert not set(first) & set(second)


def test_a_server_that_cannot_start_says_why(tmp_path):
    process = Process(
        ["sh", "-c", "echo broken; exit 3"], log=tmp_path / "log", ready=lambda: False
    )
    with pytest.raises(RuntimeError, match="ended at once:\nbroken"):
        process.start()


def test_children_that_left_the_group_end_too(tmp_path):
    process = Process(
        ["sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & wait"],
        log=tmp_path / "log",
        ready=lambda: len(descendants(process.pid)) == 2,
    )
    with running(process):
        children = descendants(process.pid)
        process.pause()
        assert [state(pid) for pid in children] == ["T", "T"]
    assert all(state(pid) in "ZX" for pid in children)


def test_what_is_missing_skips_or_fails(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed: apt"):
        need.need("no-such-program", install="apt install it")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-module"):
        need.need_module("no-such-module", "pip install it")
