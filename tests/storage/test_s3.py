import contextlib
import dataclasses
import itertools
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest
import requests
import time_machine

from imageapi.errors import StorageCorrupt, StorageDenied, StorageError, StorageUnavailable
from imageapi.geometry import Rendition
from imageapi.storage import s3 as module
from imageapi.storage.backend import Context, original_key
from imageapi.storage.conformance import (
    Answer,
    Conformance,
    Harness,
    kept,
    keys,
    picture,
    put,
    read,
    staged,
)
from imageapi.storage.s3 import S3Backend, S3Options
from imageapi.storage.storages import Storage
from tests.servers.fault_proxy import fault_proxy
from tests.servers.rgw import rgw
from tests.servers.seaweedfs import seaweedfs

SECRET = "a secret of at least thirty-two bytes"
BUCKET = "photos-of-the-tests"
FULL = Rendition("full", 1920, 1920, "fit")
NUMBERS = itertools.count()
NO_SPACE = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: 46\r\n\r\n<Error><Code>QuotaExceeded</Code></Error>     "
)


class SmallPages(S3Backend):
    page = 20


class S3Harness(Harness):
    page = 20
    tampered = 300

    def __init__(self, server, folder, **options):
        self.server = server
        self.folder = folder
        self.options = S3Options(
            bucket=BUCKET,
            endpoint_url=server.url,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
            prefix=f"photos/of us +%é/{next(NUMBERS)}/",
            addressing_style="path",
            **options,
        )

    def open(self, timeout=5, **changes):
        context = Context("s3", self.folder, (SECRET,), timeout=timeout)
        return SmallPages(dataclasses.replace(self.options, **changes), context)

    def absent(self):
        return self.open(bucket="no-such-bucket")

    def fetch(self, url):
        try:
            answer = requests.get(url, timeout=10)
        except requests.ConnectionError:  # SeaweedFS hangs up on some malformed credentials
            return Answer(502, b"")
        return Answer(answer.status_code, answer.content)

    def post(self, form, content):
        answer = requests.post(form["url"], form["params"], files={"file": content}, timeout=10)
        return answer.status_code, {"key": form["params"]["key"]}

    @contextlib.contextmanager
    def denied(self):
        yield self.open(secret_access_key="another secret")

    @contextlib.contextmanager
    def unavailable(self):
        with self.faults(refuse=True) as backend:
            yield backend

    @contextlib.contextmanager
    def hanging(self):
        with self.faults(hang=True) as backend:
            yield backend

    @contextlib.contextmanager
    def full(self):
        """As Ceph answers when a quota is reached: writes are refused, reads go on."""
        with fault_proxy(self.server.port) as proxy:
            backend = self.open(endpoint_url=proxy.url)
            api = backend._client.api
            for call in ("PutObject", "CreateMultipartUpload"):
                api.meta.events.register(
                    f"before-send.s3.{call}", lambda **_: proxy.set(fail=100, answer=NO_SPACE)
                )
            for call in ("GetObject", "HeadObject"):
                api.meta.events.register(f"before-send.s3.{call}", lambda **_: proxy.set())
            yield backend

    @contextlib.contextmanager
    def faults(self, **faults):
        with fault_proxy(self.server.port) as proxy, proxy.faults(**faults):
            yield self.open(timeout=0.5, endpoint_url=proxy.url)


def make_bucket(server):
    options = S3Options(
        bucket=BUCKET,
        endpoint_url=server.url,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
    )
    api = S3Backend(options, Context("s3", server.directory, (SECRET,)))._client.api
    api.create_bucket(Bucket=BUCKET)


@pytest.fixture(scope="module")
def weed():
    with seaweedfs() as server:
        make_bucket(server)
        yield server


@pytest.fixture(scope="module")
def ceph():
    with rgw() as server:
        make_bucket(server)
        yield server


class TestSeaweedFS(Conformance):
    @pytest.fixture
    def harness(self, weed, tmp_path):
        return S3Harness(weed, tmp_path)


class TestCeph(Conformance):
    @pytest.fixture
    def harness(self, ceph, tmp_path):
        return S3Harness(ceph, tmp_path)
