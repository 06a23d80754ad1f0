import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from imageapi.errors import (
    InvalidFields,
    PayloadTooLarge,
    StorageCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNotFound,
    StorageUnavailable,
)
from imageapi.geometry import Crop, Edit, Rendition, Size, effective_size, plan
from imageapi.imaging.limits import Limits
from imageapi.storage import cloudinary as module
from imageapi.storage.backend import Context, Picture, original_key
from imageapi.storage.cloudinary import CloudinaryBackend, CloudinaryOptions
from imageapi.storage.conformance import (
    Answer,
    Conformance,
    Harness,
    URLSuite,
    keys,
    picture,
    put,
    read,
    staged,
)
from imageapi.storage.storages import Storage, Storages
from tests.imaging.inprocess import render
from tests.servers.chromium import chromium
from tests.servers.cloudinary import API_KEY, API_SECRET, CLOUD, TOKEN_KEY, cloudinary
from tests.servers.ports import HOST, reserved

SECRET = "a secret of at least thirty-two bytes"
ALBUM = "an album"
FULL = Rendition("full", 1920, 1920, "fit")
LARGE = Rendition("large", 200, 200, "fill")
MINI = Rendition("mini", 100, 100, "fill")
SIZES = (FULL, LARGE, MINI)
RES = "https://res.cloudinary.com"


def drawn(width=64, height=48, kind="JPEG", **options):
    """A picture whose every corner and side can be told from the others."""
    red = Image.linear_gradient("L").resize((width, height))
    green = Image.linear_gradient("L").rotate(90).resize((width, height))
    blue = Image.new("L", (width, height), 40)
    blue.paste(220, (0, 0, width // 3, height // 4))
    file = io.BytesIO()
    Image.merge("RGB", (red, green, blue)).save(file, kind, **options)
    return file.getvalue()


JPEG = drawn(quality=50)


def content(length):
    """A JPEG of so many bytes, others each time: decoders stop at its end."""
    return JPEG + os.urandom(length - len(JPEG))


class SmallPages(CloudinaryBackend):
    page = 20


class CloudinaryHarness(Harness):
    lengths = (len(JPEG), 4095, 256 * 1024, (1 << 20) + 1, (9 << 20) + 1, 64 << 20)
    page = 20
    tampered = 300

    def __init__(self, server, folder, **options):
        self.server = server
        self.folder = folder
        self.options = CloudinaryOptions(
            cloud_name=server.cloud_name,
            api_key=server.api_key,
            api_secret=server.api_secret,
            upload_prefix=server.url,
            **options,
        )

    def open(self, timeout=5, **changes):
        context = Context("cloudinary", self.folder, (SECRET,), timeout=timeout)
        return SmallPages(dataclasses.replace(self.options, **changes), context)

    def absent(self):
        return self.open(cloud_name="no-such-cloud")

    def fetch(self, url):
        answer = requests.get(url.replace(RES, self.server.url), timeout=10)
        return Answer(answer.status_code, answer.content)

    @contextlib.contextmanager
    def denied(self):
        yield self.open(api_secret="another secret")

    @contextlib.contextmanager
    def unavailable(self):
        with reserved() as ports:
            yield self.open(upload_prefix=f"http://{HOST}:{ports[0]}")

    @contextlib.contextmanager
    def hanging(self):
        with self.server.faults(hang=2):
            yield self.open(timeout=0.3)

    @contextlib.contextmanager
    def full(self):
        with self.server.faults(limit=1 << 20):
            yield self.open()

    def content(self, length):
        return content(length)

    def tamper(self, url, chance):
        """The version is not signed; it says nothing, as stored bytes never change."""
        while True:
            other = super().tamper(url, chance)
            if "/v1/" in other:
                return other

    def post(self, form, content):
        answer = requests.post(
            form["url"], data=form["params"], files={"file": ("a.jpg", content)}, timeout=10
        )
        said = answer.json() if answer.ok else {}
        return answer.status_code, {name: str(value) for name, value in said.items()}

    def signed(self, answer):
        return ("public_id", "signature")  # and the version, which has no case to swap


@pytest.fixture(scope="module")
def running():
    with cloudinary() as server:
        yield server


@pytest.fixture
def server(running):
    running.clear()
    return running


@pytest.fixture
def harness(server, tmp_path):
    return CloudinaryHarness(server, tmp_path)


@pytest.fixture
def storage(harness):
    return Storage(harness.open())


@pytest.fixture
def attempts():
    return []


@pytest.fixture
def watched(harness, attempts):
    """The storage, with each try of each call noted."""
    return Storage(harness.open(), lambda _, operation, *__: attempts.append(operation))


def no_end(self):
    pytest.skip("Cloudinary's signed URLs do not end, but with token-based access: TestTokens")


class TestConformance(Conformance):
    test_ended = no_end

    @pytest.fixture
    def harness(self, server, tmp_path):
        return CloudinaryHarness(server, tmp_path)

    def test_the_same_on_every_worker(self, harness, image, now):
        """In every window, too: nothing ends."""
        urls = set()
        for window in (now, now, now + 1):
            urls |= {harness.open().rendition_url(image, FULL, window) for _ in range(2)}
        assert len(urls) == 1

    def test_the_store_takes_what_the_form_says_alone(self, harness, form):
        """No field altered; the form that was recorded has none that limits the size."""
        for field, value in form["params"].items():
            altered = {"url": form["url"], "params": {**form["params"], field: f"{value}0"}}
            assert harness.post(altered, content(5000))[0] >= 400, field


class TestTokens(URLSuite):
    """With token-based access, on a host of the account's own."""

    @pytest.fixture
    def harness(self, server, tmp_path):
        harness = CloudinaryHarness(
            server,
            tmp_path,
            delivery_type="authenticated",
            delivery_url=server.url,
            token_key=TOKEN_KEY,
        )
        harness.tamper = super(CloudinaryHarness, harness).tamper
        return harness

    def test_a_token_needs_authenticated_assets(self, harness):
        with pytest.raises(StorageUnavailable, match="authenticated"):
            harness.open(delivery_type="private")


class TestRenditions:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        "edit",
        [
            Edit(),
            Edit(Crop(31.4, 10.5, 120.2, 301.0), 0),
            Edit(Crop(), 90),
            Edit(Crop(100, 0, 301, 17), 270),
            Edit(Crop(3, 5, 230, 231), 180),
        ],
    )
    def test_as_our_own_renderer_draws(self, harness, storage, tmp_path, orientation, edit):
        exif = Image.Exif()
        exif[0x0112] = orientation
        width, height = (450, 331) if orientation < 5 else (331, 450)
        data = drawn(width, height, quality=95, subsampling=0, exif=exif)
        path = tmp_path / "picture.jpg"
        path.write_bytes(data)
        sizes = (*SIZES, Rendition("small", 90, 70, "fit"), Rendition("wide", 200, 20, "fill"))
        with staged(storage, data) as file:
            key, _ = storage.put(dataclasses.replace(file, size=Size(450, 331)), [ALBUM])
        image = dataclasses.replace(picture(key), size=Size(450, 331), edit=edit)
        ours = render(path, edit, sizes, Limits())
        for size in sizes:
            answer = harness.fetch(storage.rendition_url(image, size, time.time()))
            assert answer.status == 200
            with Image.open(io.BytesIO(answer.body)) as theirs:
                assert theirs.format == "JPEG"
                assert theirs.size == plan(effective_size(image.size, edit), size).size
                assert theirs.size == ours.sizes[size.name]
                assert not theirs.getexif()
                with Image.open(io.BytesIO(ours.files[size.name])) as mine:
                    assert max(ImageStat.Stat(ImageChops.difference(theirs, mine)).mean) < 3

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.data())
    def test_cut_where_geometry_says(self, harness, data):
        """The steps, computed by hand, come to the size that rows and answers tell."""
        side = st.integers(1, 5000)
        size = Size(data.draw(side), data.draw(side))
        x, y = data.draw(st.integers(0, size.width - 1)), data.draw(st.integers(0, size.height - 1))
        w = data.draw(st.integers(1, size.width - x))
        h = data.draw(st.integers(1, size.height - y))
        crop = data.draw(st.sampled_from([Crop(), Crop(x, y, w, h)]))
        edit = Edit(crop, data.draw(st.sampled_from([0, 90, 180, 270])))
        rendition = data.draw(st.sampled_from(SIZES))
        image = dataclasses.replace(picture(), size=size, edit=edit)
        url = harness.open().rendition_url(image, rendition, 1)
        width, height = size
        for step in re.search(r"--/(.*)/v1/", url)[1].split("/"):
            given = dict(part.split("_", 1) for part in step.split(","))
            if given.get("c") == "crop":
                left, top = int(given["x"]), int(given["y"])
                assert left + int(given["w"]) <= width
                assert top + int(given["h"]) <= height
                width, height = int(given["w"]), int(given["h"])
            elif given.get("a") in ("90", "270"):
                width, height = height, width
            elif given.get("c") == "scale":
                assert int(given["w"]) <= width
                assert int(given["h"]) <= height
                width, height = int(given["w"]), int(given["h"])
            elif given.get("c") == "limit":
                assert (int(given["w"]), int(given["h"])) == (rendition.width, rendition.height)
                scale = min(1, rendition.width / width, rendition.height / height)
                width, height = (max(1, int(length * scale + 0.5)) for length in (width, height))
        assert (width, height) == plan(effective_size(size, edit), rendition).size

    def test_crop_then_rotation_then_size(self, harness):
        key = "ab/ab12ef34-0000-4000-8000-000000000000"
        edit = Edit(Crop(10, 20, 300, 200), 90)
        image = Picture(key, key[3:], 3, Size(640, 480), edit, "jpg")
        backend = harness.open()
        crop = "$revision_3/a_exif/c_crop,g_north_west,h_200,w_300,x_10,y_20/a_90"
        cut = "c_crop,g_north_west,h_200,w_200,x_0,y_50"
        assert [backend.rendition_url(image, size, 1) for size in SIZES] == [
            f"{RES}/demo/image/private/s--{signature}--/{crop}/{steps}/v1/{key}.jpg"
            for signature, steps in (
                (SIGNED[0], "c_limit,h_1920,w_1920/cs_srgb,q_85"),
                (SIGNED[1], f"{cut}/c_limit,h_200,w_200/cs_srgb,q_85"),
                (SIGNED[2], f"{cut}/c_scale,h_100,w_100/cs_srgb,q_85"),
            )
        ]

    def test_png_where_there_is_alpha(self, harness, storage):
        file = io.BytesIO()
        Image.new("RGBA", (64, 48), (255, 0, 0, 100)).save(file, "PNG")
        with staged(storage, file.getvalue()) as taken:
            key, infos = storage.put(dataclasses.replace(taken, format="png"), [ALBUM])
        assert infos["format"] == "png"
        image = dataclasses.replace(picture(key), extension="png")
        answer = harness.fetch(storage.rendition_url(image, MINI, time.time()))
        with Image.open(io.BytesIO(answer.body)) as shown:
            assert (shown.format, shown.size) == ("PNG", (48, 48))
            assert shown.getpixel((5, 5)) == (255, 0, 0, 100)

    def test_colours_are_srgb(self, harness, storage, shared):
        data = (shared / "corpus" / "gen-icc-swapped-channels.jpg").read_bytes()
        path = shared / "corpus" / "gen-icc-swapped-channels.jpg"
        with Image.open(path) as opened:
            size = Size(*opened.size)
        with staged(storage, data) as file:
            key, _ = storage.put(dataclasses.replace(file, size=size), [ALBUM])
        image = dataclasses.replace(picture(key), size=size)
        answer = harness.fetch(storage.rendition_url(image, FULL, time.time()))
        ours = render(path, Edit(), [FULL], Limits()).files["full"]
        with Image.open(io.BytesIO(answer.body)) as theirs, Image.open(io.BytesIO(ours)) as mine:
            assert max(ImageStat.Stat(ImageChops.difference(theirs, mine)).mean) < 3

    def test_reading_never_calls_cloudinary(self, server, harness, storage):
        image = picture(put(storage, JPEG))
        before = len(server.requests())
        fresh = Storage(harness.open())
        for size in SIZES:
            assert fresh.rendition_url(image, size, time.time())
        assert fresh.upload_form(ALBUM, 1000, time.time())
        assert len(server.requests()) == before

    def test_every_revision_has_its_own_url(self, harness):
        """Also one that comes back to an earlier edit."""
        backend = harness.open()
        images = [dataclasses.replace(picture(), revision=revision) for revision in range(12)]
        images = [dataclasses.replace(image, key=images[0].key) for image in images]
        assert len({backend.rendition_url(image, FULL, 1) for image in images}) == 12

    def test_over_https_unless_told_otherwise(self, harness):
        def place(**options):
            return harness.open(**options).rendition_url(picture(), FULL, 1).split("/image/")[0]

        assert place() == "https://res.cloudinary.com/demo"
        assert place(delivery_url="https://img.example.org") == "https://img.example.org"
        assert place(delivery_url="http://img.example.org") == "http://img.example.org"


SIGNED = ("HwGpqEjd", "z6jvvMxS", "aJM7OBtR")  # by openssl dgst -sha1


class TestStoring:
    def test_infos_of_each_format(self, storage):
        for kind, word in (("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp"), ("TIFF", "tiff")):
            data = drawn(kind=kind)
            with staged(storage, data) as file:
                key, infos = storage.put(dataclasses.replace(file, format=word), [ALBUM])
            assert (infos["format"], infos["bytes"], infos["type"]) == (word, len(data), "private")
            assert infos["created_at"] == time.strftime(
                "%Y-%m-%dT%H:%M:%SZ", time.gmtime(storage.stat(key).created)
            )

    @pytest.mark.parametrize("delivery", ["private", "authenticated"])
    def test_as_what_was_configured(self, server, harness, delivery):
        storage = Storage(harness.open(delivery_type=delivery))
        with staged(storage, JPEG) as file:
            key, infos = storage.put(file, [ALBUM])
        assert infos["type"] == delivery
        assert read(storage, key) == JPEG
        other = {"private": "authenticated", "authenticated": "private"}[delivery]
        with pytest.raises(StorageNotFound):
            Storage(harness.open(delivery_type=other)).stat(key)

    @pytest.mark.parametrize("format_", ["png", "gif"])
    def test_another_format_than_was_probed_is_refused(self, storage, format_):
        with staged(storage, JPEG) as file, pytest.raises(StorageCorrupt):
            storage.put(dataclasses.replace(file, format=format_), [ALBUM])
        assert keys(storage) == []

    def test_other_bytes_than_were_sent_are_found_and_removed(self, server, storage):
        with server.faults(match="/upload", wrong=True), pytest.raises(StorageCorrupt):
            put(storage, content(50_000))
        assert keys(storage) == []

    def test_an_answer_that_was_lost_is_asked_for_again(self, server, watched, attempts):
        data, key = content(50_000), original_key()
        with server.faults(match="/upload", lose=True, times=1):
            assert put(watched, data, key) == key
        assert attempts.count("put") == 2
        assert read(watched, key) == data

    def test_what_is_there_is_never_overwritten(self, storage):
        first, second = content(5000), content(5000)
        key = put(storage, first)
        with pytest.raises(StorageCorrupt):
            put(storage, second, key)
        assert read(storage, key) == first

    def test_an_answer_without_etag_is_not_believed(self, server, storage):
        with server.faults(omit=["etag"]):
            key = put(storage, content(50_000))
            server.fail(match="/upload", omit=["etag"], wrong=True)
            with pytest.raises(StorageCorrupt):
                put(storage, content(50_000))
        assert keys(storage) == [key]

    @pytest.mark.parametrize(
        "field", ["public_id", "bytes", "created_at", "resource_type", "version"]
    )
    def test_half_an_answer_is_none(self, server, storage, field):
        with server.faults(omit=[field]), pytest.raises(StorageUnavailable):
            put(storage, JPEG)

    def test_large_files_in_chunks(self, server, harness, monkeypatch):
        monkeypatch.setattr(module, "_CHUNK", 300_000)
        monkeypatch.setattr(CloudinaryBackend, "whole", 500_000)
        storage = Storage(harness.open())
        for length in (500_000, 500_001, 1_200_000):
            data = content(length)
            before = len(server.requests())
            assert read(storage, put(storage, data)) == data
            sent = len(server.requests()) - before - 1
            assert sent == {500_000: 1, 500_001: 2, 1_200_000: 4}[length]

    def test_a_large_file_is_not_held_in_memory(self, storage):
        with staged(storage, content(30_000_000)) as file:
            tracemalloc.start()
            try:
                key, _ = storage.put(file, [ALBUM])
                with contextlib.closing(storage.open(key)) as pieces:
                    for _ in pieces:
                        pass
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert peak < 8_000_000

    def test_a_forked_worker_has_connections_of_its_own(self, server, storage):
        key = put(storage, JPEG)
        before = server.connections()
        child = os.fork()
        if child == 0:
            try:
                storage.stat(key)
            except BaseException:  # noqa: BLE001 - it must not return into the parent's tests
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.connections() == before + 1
        storage.stat(key)
        assert server.connections() == before + 1

    def test_renditions_are_not_ours_to_keep(self, storage):
        assert storage.renders
        with pytest.raises(StorageError):
            storage.keep(picture(), {"full": b"a rendition"})

    def test_the_account_survives_a_restart(self, server, storage):
        key = put(storage, JPEG)
        server.restart()
        assert read(storage, key) == JPEG


class TestReading:
    @pytest.mark.parametrize("fault", [{"plain": True}, {"redirect": True, "times": 1}])
    def test_from_a_server_that_knows_no_ranges_or_sends_us_on(self, server, storage, fault):
        data = content(700_001)
        key = put(storage, data)
        for start, length in ((0, None), (0, 10), (262_144, 300_000), (700_000, 1), (700_001, 0)):
            with server.faults(match="/download", **fault):
                stop = None if length is None else start + length
                assert read(storage, key, start, length) == data[start:stop]
        with server.faults(match="/download", **fault), pytest.raises(StorageCorrupt):
            read(storage, key, 700_000, 2)

    def test_a_body_that_ends_early_is_corrupt(self, server, storage):
        key = put(storage, content(700_000))
        for start in (0, 100):
            with server.faults(match="/download", cut=400_000), pytest.raises(StorageCorrupt):
                read(storage, key, start)

    def test_another_part_than_was_asked_for_is_corrupt(self, server, storage):
        key = put(storage, JPEG)
        for span in ("bytes 5-9/700", "bytes 10-14", ""):
            fault = {"status": 206, "body": "12345", "headers": {"Content-Range": span}}
            with server.faults(match="/download", **fault), pytest.raises(StorageCorrupt):
                read(storage, key, 10, 5)
        fault = {"status": 416, "body": "12345", "headers": {"Content-Range": "bytes */700"}}
        with server.faults(match="/download", **fault), pytest.raises(StorageCorrupt):
            read(storage, key, 10, 5)

    def test_the_link_is_ours_alone(self, server, harness, storage):
        """What we read through ends with the clock, and an altered one is worthless."""
        key = put(storage, JPEG)
        read(storage, key)
        link = server.url + server.requests()[-1].removeprefix("GET ")
        assert requests.get(link, timeout=10).content == JPEG
        ends = int(re.search(r"expires_at=(\d+)", link)[1])
        assert time.time() < ends < time.time() + 600
        assert not requests.get(link.replace(str(ends), str(ends + 99999)), timeout=10).ok


class TestListing:
    def test_many_pages_in_order(self, server, storage):
        """Cloudinary lists the newest first; 20 a page here, and a folder with more than that."""
        expected = [put(storage, JPEG) for _ in range(90)]
        crowded = [f"ab/ab{n:06x}-0000-4000-8000-000000000000" for n in range(45)]
        expected = sorted(expected + [put(storage, JPEG, key) for key in crowded[::-1]])
        assert keys(storage) == expected
        for place in (0, 20, 44, 60, 134):
            assert keys(storage, after=expected[place]) == expected[place + 1 :]
        for prefix in ("a", "ab", "ab/", "ab/ab0000", expected[70], "no such prefix"):
            below = [key for key in expected if key.startswith(prefix)]
            assert keys(storage, prefix) == below
            assert keys(storage, prefix, "ab/ab000010") == [
                key for key in below if key > "ab/ab000010"
            ]

    def test_what_comes_before_is_not_asked_for(self, server, storage):
        for n in range(60):
            put(storage, JPEG, f"{n % 16:x}0/{n % 16:x}0{n:06x}-0000-4000-8000-000000000000")
        before = len(server.requests())
        assert keys(storage, after="e") == [key for key in keys(storage) if key > "e"]
        asked = server.requests()[before:]
        assert len([line for line in asked if "prefix=" in line]) == 2 + 16

    def test_few_keys_take_one_call(self, server, storage):
        for _ in range(20):
            put(storage, JPEG)
        before = len(server.requests())
        assert len(keys(storage)) == 20
        assert len(server.requests()) == before + 1

    def test_what_is_not_ours_is_not_listed(self, harness, storage):
        key = put(storage, JPEG)
        harness.post(storage.upload_form(ALBUM, 1000, time.time()), JPEG)
        assert keys(storage) == [key]


@pytest.fixture
def no_pauses(monkeypatch):
    """Tries follow one another at once."""
    monkeypatch.setattr("imageapi.storage.storages.random.uniform", lambda *_: 0)


def error(message):
    return json.dumps({"error": {"message": message}})


HTML = "<html><body><h1>Bad Gateway</h1></body></html>"
CALLS = {
    "put": lambda storage, key: put(storage, JPEG),
    "open": lambda storage, key: storage.open(key),
    "stat": lambda storage, key: storage.stat(key),
    "delete": lambda storage, key: storage.delete(key),
    "list": lambda storage, key: keys(storage),
    "check": lambda storage, key: storage.check(),
}


@pytest.mark.usefixtures("no_pauses")
class TestErrors:
    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (400, error("Invalid something"), StorageError),
            (400, error("Stale request - reported time is an hour ago"), StorageDenied),
            (401, error("Unknown API key 1"), StorageDenied),
            (401, HTML, StorageDenied),
            (403, error("Not allowed"), StorageDenied),
            (404, HTML, StorageUnavailable),
            (409, error("exists"), StorageError),
            (420, error("Rate Limit Exceeded"), StorageUnavailable),
            (429, error("Too many"), StorageUnavailable),
            (500, error("General error"), StorageUnavailable),
            (500, '{"result": "ok", "status": "ok", "resources": []}', StorageUnavailable),
            (502, HTML, StorageUnavailable),
            (503, "", StorageUnavailable),
            (507, HTML, StorageFull),
            (302, "", StorageUnavailable),
        ],
    )
    def test_statuses(self, server, harness, storage, call, status, body, kind):
        key = put(storage, JPEG)
        fault = {"status": status, "body": body, "headers": {"Location": "/elsewhere"}}
        before = len(server.requests())
        with server.faults(**fault), pytest.raises(StorageError) as caught:
            CALLS[call](Storage(harness.open()), key)
        assert type(caught.value) is kind
        tries = 3 if kind is StorageUnavailable and call != "list" else 1
        hops = 4 if (status, call) == (302, "open") else 1
        assert len(server.requests()) - before == tries * hops

    @pytest.mark.parametrize("call", ["put", "stat", "delete", "list", "check"])
    @pytest.mark.parametrize("body", [HTML, "", "[]", "7", '{"error": {"message": "no"}}'])
    def test_no_answer_of_cloudinary(self, server, storage, call, body):
        key = put(storage, JPEG)
        with server.faults(status=200, body=body), pytest.raises(StorageUnavailable):
            CALLS[call](storage, key)

    def test_a_404_of_theirs_is_not_found(self, storage):
        for call in ("open", "stat"):
            with pytest.raises(StorageNotFound):
                CALLS[call](storage, original_key())
        storage.delete(original_key())

    def test_an_answer_to_a_deletion_that_is_unknown_is_no_success(self, server, storage):
        with (
            server.faults(status=200, body='{"result": "maybe"}'),
            pytest.raises(StorageUnavailable),
        ):
            storage.delete(original_key())

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("fault", [{"late": 1}, {"drop": True}])
    def test_no_answer_is_waited_for_once_a_try(self, server, harness, storage, call, fault):
        """The SDK's own retries are off, and its uploads know a timeout."""
        key = put(storage, JPEG)
        attempts = []
        watched = Storage(
            harness.open(timeout=0.3), lambda _, operation, *__: attempts.append(operation)
        )
        before = len(server.requests())
        with server.faults(**fault), pytest.raises(StorageUnavailable):
            CALLS[call](watched, key)
        assert len(server.requests()) - before == max(1, len(attempts)) - attempts.count("stage")

    @pytest.mark.parametrize("status", [420, 429])
    def test_a_rate_limit_says_when_to_come_back(self, server, harness, status):
        backend = harness.open()
        for reset, low, high in (
            (time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 90)), 85, 90),
            ("Wed, 01 Jan 2020 00:00:00 GMT", 1, 1),
            ("Wed, 01 Jan 2200 00:00:00 GMT", 3600, 3600),
            ("soon", 60, 60),
        ):
            headers = {"X-FeatureRateLimit-Reset": reset}
            fault = server.faults(status=status, headers=headers)
            with fault, pytest.raises(StorageUnavailable) as caught:
                backend.stat(original_key())
            assert low <= int(caught.value.headers["Retry-After"]) <= high

    def test_a_file_that_the_plan_does_not_take(self, server, storage):
        with server.faults(limit=1000), pytest.raises(StorageFull):
            put(storage, content(5000))

    def test_what_is_no_picture_is_refused(self, storage):
        with pytest.raises(StorageError):
            put(storage, b"no picture at all")
        assert keys(storage) == []

    def test_a_clock_that_is_hours_off(self, storage, monkeypatch):
        monkeypatch.setattr(time, "time", lambda now=time.time: now() - 7200)
        with pytest.raises(StorageDenied):
            put(storage, JPEG)

    def test_check_says_what_is_wrong_in_words(self, server, harness):
        with pytest.raises(StorageDenied, match=r"refuses this service.*Invalid credentials"):
            Storage(harness.open(api_secret="wrong")).check()
        with pytest.raises(StorageDenied, match="cloud_name mismatch"):
            Storage(harness.absent()).check()
        Storage(harness.open()).check()

    def test_no_secret_in_what_is_said(self, harness):
        backend = harness.open(cloud_name="no-such-cloud")
        with pytest.raises(StorageDenied) as caught:
            backend.check()
        assert API_SECRET not in f"{caught.value} {backend.options!r}"


class TestUploadForm:
    @pytest.mark.parametrize("name", ["album-create", "album-retrieve"])
    def test_as_recorded(self, shared, tmp_path, name):
        text = json.loads((shared / "contract" / f"{name}.json").read_text())["response"][
            "body_text"
        ]
        recorded = re.search(r'"upload_form":(\{.*?\}\})', text)[1]
        said = json.loads(recorded)
        options = CloudinaryOptions(cloud_name="demo", api_key="000000000000000", api_secret="x")
        backend = CloudinaryBackend(options, Context("cloudinary", tmp_path, (SECRET,)))
        params = said["params"]
        form = backend.upload_form(params["tags"], 1000, params["timestamp"] + 0.7)
        ours = json.dumps(form, separators=(",", ":"))
        assert re.fullmatch("[0-9a-f]{40}", form["params"]["signature"])
        assert ours.replace(form["params"]["signature"], "0" * 40) == recorded

    def test_the_callback_is_our_own_page(self, harness):
        backend = harness.open()
        backend.context = dataclasses.replace(backend.context, public_url="https://img.example.org")
        callback = backend.upload_form(ALBUM, 1000, 1)["params"]["callback"]
        assert callback == "https://img.example.org/cloudinary_cors.html"

    @pytest.mark.parametrize("album", ["a&b=c", "Été 2024 😀", "x" * 128, "a+b %20 'c' \"d\""])
    def test_whatever_the_album_is_called(self, harness, storage, album):
        status, answer = harness.post(storage.upload_form(album, 1000, time.time()), JPEG)
        assert status == 200
        name = storage.claim(album, answer, time.time())
        with staged(storage, JPEG) as file:
            key, infos = storage.adopt(name, file, [album])
        assert infos["tags"] == [album]
        assert read(storage, key) == JPEG

    def test_a_form_ends(self, harness, storage):
        form = storage.upload_form(ALBUM, 1000, time.time() - 4000)
        assert harness.post(form, JPEG)[0] == 400


class TestDirectUpload:
    @pytest.fixture
    def form(self, storage):
        return storage.upload_form(ALBUM, 1 << 20, time.time())

    @pytest.fixture
    def answer(self, harness, form):
        return harness.post(form, JPEG)[1]

    def adopt(self, storage, name, data=JPEG):
        with staged(storage, data) as file:
            return storage.adopt(name, file, [ALBUM])

    def test_handed_in_twice(self, storage, answer):
        self.adopt(storage, storage.claim(ALBUM, answer, time.time()))
        with pytest.raises(StorageNotFound):
            storage.claim(ALBUM, answer, time.time())

    def test_handed_in_by_many_at_once(self, storage, answer):
        name, done = storage.claim(ALBUM, answer, time.time()), []

        def work():
            with contextlib.suppress(StorageNotFound):
                done.append(self.adopt(storage, name)[0])

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(done) == 1
        assert keys(storage) == done

    def test_an_answer_to_adopting_that_was_lost_is_asked_for_again(self, server, storage, answer):
        name = storage.claim(ALBUM, answer, time.time())
        with server.faults(match="/rename", lose=True, times=1):
            key, infos = self.adopt(storage, name)
        assert infos["bytes"] == len(JPEG)
        assert keys(storage) == [key]

    def test_of_another_album(self, harness, storage):
        _, answer = harness.post(storage.upload_form("theirs", 1000, time.time()), JPEG)
        with pytest.raises(InvalidFields) as caught:
            storage.claim("ours", answer, time.time())
        assert caught.value.errors[0].field == "public_id"

    def test_of_two_albums(self, server, harness, storage, answer):
        self.overwrite(server, answer["public_id"], tags=[ALBUM, "another"])
        with pytest.raises(InvalidFields):
            storage.claim(ALBUM, self.signed(server, answer["public_id"]), time.time())

    def test_swapped_before_it_is_handed_in(self, server, storage, answer):
        time.sleep(1.1)  # versions are seconds
        self.overwrite(server, answer["public_id"], tags=[ALBUM])
        with pytest.raises(InvalidFields) as caught:
            storage.claim(ALBUM, answer, time.time())
        assert caught.value.errors[0].field == "version"

    def test_swapped_after_it_was_read(self, server, storage, answer):
        name = storage.claim(ALBUM, answer, time.time())
        self.overwrite(server, answer["public_id"], tags=[ALBUM])
        with pytest.raises(StorageCorrupt):
            self.adopt(storage, name)
        assert keys(storage) == []

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("version", "1"),
            ("version", ""),
            ("version", "²"),
            ("signature", "0" * 40),
            ("signature", "\udc80"),
            ("public_id", "../../ping"),
            ("public_id", "a&version=1"),
            ("public_id", ""),
            ("resource_type", "any"),
            ("resource_type", "image/../raw"),
        ],
    )
    def test_altered(self, server, storage, answer, field, value):
        before = len(server.requests())
        with pytest.raises(InvalidFields):
            storage.claim(ALBUM, {**answer, field: value}, time.time())
        assert len(server.requests()) == before

    def test_signed_in_two_ways_of_writing_it(self, storage, server):
        """`public_id` and `version` run together are one string; only one reading is allowed."""
        signature = server_signature("abc", "5")
        for public_id, version in (("abc&version=5", ""), ("abc&version", "5"), ("", "abc")):
            said = {"public_id": public_id, "version": version, "signature": signature}
            with pytest.raises(InvalidFields):
                storage.claim(ALBUM, said, time.time())

    def test_a_stored_original_is_no_upload(self, server, storage):
        key = put(storage, JPEG)
        with pytest.raises(InvalidFields):
            storage.claim(ALBUM, self.signed(server, key), time.time())
        assert keys(storage) == [key]

    def test_too_large(self, harness, storage, form):
        _, answer = harness.post(form, content(2_000_000))
        name = storage.claim(ALBUM, answer, time.time())
        with (
            contextlib.closing(storage.incoming(name)) as pieces,
            storage.stage(1 << 20) as staging,
        ):
            data = b"".join(pieces)
            with pytest.raises(PayloadTooLarge):
                staging.write(data)
        storage.discard(name)
        with pytest.raises(StorageNotFound):
            storage.claim(ALBUM, answer, time.time())

    def test_no_picture_is_destroyed_at_once(self, harness, storage, form):
        _, answer = harness.post(form, b"#!/bin/sh\n")
        assert answer["resource_type"] == "raw"
        with pytest.raises(InvalidFields) as caught:
            storage.claim(ALBUM, answer, time.time())
        assert caught.value.errors[0].field == "resource_type"
        with pytest.raises(StorageNotFound):
            storage.claim(ALBUM, answer, time.time())

    def test_a_picture_sent_as_a_file_is_refused(self, harness, storage, form):
        """Only pictures are rendered; the path of the form is not signed."""
        raw = {**form, "url": form["url"].replace("/auto/", "/raw/")}
        _, answer = harness.post(raw, JPEG)
        with pytest.raises(InvalidFields):
            storage.claim(ALBUM, answer, time.time())
        with pytest.raises(StorageNotFound):
            storage.claim(ALBUM, {**answer, "resource_type": "image"}, time.time())

    def test_stored_upright(self, harness, storage, form):
        exif = Image.Exif()
        exif[0x0112] = 6
        _, answer = harness.post(form, drawn(64, 48, exif=exif))
        name = storage.claim(ALBUM, answer, time.time())
        with contextlib.closing(storage.incoming(name)) as pieces:
            data = b"".join(pieces)
        with Image.open(io.BytesIO(data)) as upright:
            assert upright.size == (48, 64)
        assert self.adopt(storage, name, data)[1]["bytes"] == len(data)

    def test_numbers_as_json_has_them(self, storage, answer):
        said = {**answer, "version": int(answer["version"])}
        assert storage.claim(ALBUM, said, time.time()) == answer["public_id"]

    def test_only_what_was_abandoned_is_swept(self, server, harness, storage, form):
        key = put(storage, JPEG)
        harness.post(form, JPEG)
        harness.post(form, b"#!/bin/sh\n")
        kept = ["logos/ours", "q" * 21, "r" * 19]
        for public_id in kept:
            self.overwrite(server, public_id, tags=[ALBUM])
        self.overwrite(server, "s" * 20, tags=["one", "two"])
        time.sleep(1.1)
        assert storage.clear_staging(3600) == 0
        assert storage.clear_staging(0) == 2
        assert storage.clear_staging(0) == 0
        assert keys(storage) == [key]
        for public_id in (*kept, "s" * 20):
            assert harness.open()._find(public_id)

    def overwrite(self, server, public_id, tags):
        """Whoever has the secret can."""
        fields = {
            "public_id": public_id,
            "tags": ",".join(tags),
            "timestamp": str(int(time.time())),
            "type": "private",
        }
        text = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
        fields |= {"signature": sha1(text + API_SECRET), "api_key": API_KEY}
        url = f"{server.url}/v1_1/{CLOUD}/image/upload"
        files = {"file": ("b.jpg", content(len(JPEG) + 1))}
        assert requests.post(url, data=fields, files=files, timeout=10).ok

    def signed(self, server, public_id):
        backend_view = requests.get(
            f"{server.url}/v1_1/{CLOUD}/resources/image/private/{public_id}",
            auth=(API_KEY, API_SECRET),
            timeout=10,
        ).json()
        version = str(backend_view["version"])
        return {
            "public_id": public_id,
            "version": version,
            "signature": server_signature(public_id, version),
        }


def sha1(text):
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def server_signature(public_id, version):
    return sha1(f"public_id={public_id}&version={version}{API_SECRET}")


class TestSettings:
    NAMES = ("CLOUD_NAME", "API_KEY", "API_SECRET")

    @pytest.fixture
    def storages(self, tmp_path):
        return Storages({"pictures": "cloudinary"}, Context("", tmp_path, (SECRET,)))

    def test_missing_ones_are_told(self, storages):
        message = storages.check("pictures")
        for name in self.NAMES:
            assert f"IMAGEAPI_STORAGE_PICTURES_{name}" in message

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("UPLOAD_PREFIX", "ftp://example.org"),
            ("DELIVERY_URL", "https://example.org/path"),
            ("DELIVERY_TYPE", "public"),
            ("TOKEN_KEY", "no hex"),
        ],
    )
    def test_wrong_ones_are_told(self, storages, monkeypatch, name, value):
        for each in self.NAMES:
            monkeypatch.setenv(f"IMAGEAPI_STORAGE_PICTURES_{each}", "x" * 20)
        assert storages["pictures"]
        monkeypatch.setenv(f"IMAGEAPI_STORAGE_PICTURES_{name}", value)
        again = Storages({"pictures": "cloudinary"}, storages._context)
        assert f"IMAGEAPI_STORAGE_PICTURES_{name}" in again.check("pictures")

    def test_several_accounts_in_one_process(self, harness):
        good, bad = harness.open(), harness.open(api_secret="another", cloud_name="other")
        for _ in range(3):
            good.check()
            with pytest.raises(StorageDenied):
                bad.check()
        image = picture()
        urls = [each.rendition_url(image, FULL, 1) for each in (good, bad, good)]
        assert urls[0] == urls[2] != urls[1]
        assert "/other/" in urls[1]

    def test_what_others_tell_the_sdk_is_not_for_us(self, server, tmp_path):
        (tmp_path / "picture.jpg").write_bytes(JPEG)
        account = {"cloud_name": CLOUD, "api_key": API_KEY, "api_secret": API_SECRET}
        script = f"""
import contextlib, dataclasses, pathlib
from imageapi.geometry import Edit, Rendition, Size
from imageapi.storage.backend import Context, Picture
from imageapi.storage.cloudinary import CloudinaryBackend, CloudinaryOptions
from imageapi.storage.storages import Storage
folder = pathlib.Path({str(tmp_path)!r})
options = CloudinaryOptions(upload_prefix={server.url!r}, **{account!r})
storage = Storage(CloudinaryBackend(options, Context("cloudinary", folder, ("s" * 32,))))
storage.check()
picture = (folder / "picture.jpg").read_bytes()
with storage.stage() as staging:
    staging.write(picture)
    staged = dataclasses.replace(staging.finish(), format="jpg", size=Size(64, 48))
    key, _ = storage.put(staged, ["an album"])
with contextlib.closing(storage.open(key)) as pieces:
    assert b"".join(pieces) == picture
image = Picture(key, key[3:], 1, Size(64, 48), Edit(), "jpg")
print(storage.rendition_url(image, Rendition("full", 1920, 1920, "fit"), 1))
"""
        others = {
            "CLOUD_NAME": "evil",
            "API_KEY": "1",
            "API_SECRET": "2",
            "OAUTH_TOKEN": "3",
            "UPLOAD_PREFIX": "http://192.0.2.1",
            "UPLOAD_PRESET": "preset",
            "DPR": "2.0",
            "RESPONSIVE_WIDTH": "true",
            "SIGNATURE_ALGORITHM": "sha256",
            "CNAME": "evil.example.org",
            "SECURE_DISTRIBUTION": "evil.example.org",
            "PRIVATE_CDN": "true",
            "SHORTEN": "true",
            "LONG_URL_SIGNATURE": "true",
        }
        environment = {f"CLOUDINARY_{name}": value for name, value in others.items()}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shown = requests.get(done.stdout.strip().replace(RES, server.url), timeout=10)
        assert shown.ok

    def test_the_sdk_is_imported_when_it_is_needed(self):
        script = """
import pathlib, sys
from imageapi.storage.backend import Context
from imageapi.storage.cloudinary import CloudinaryBackend, CloudinaryOptions
options = CloudinaryOptions(cloud_name="a", api_key="b", api_secret="c")
CloudinaryBackend(options, Context("cloudinary", pathlib.Path(), ("s" * 32,)))
assert not {"cloudinary", "urllib3"} & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", script], check=True)


class TestCallbackPage:
    PAGE = Path(module.__file__).parents[1] / "assets" / "cloudinary_cors.html"

    def test_loads_nothing(self):
        text = self.PAGE.read_text()
        assert not re.search(r"src=|href=|https?:|//[a-z]+\.|innerHTML|eval|@import|fetch", text)

    def test_shows_the_answer_as_text(self):
        with chromium() as browser:
            page = browser.new_page()
            for sign in "?#":
                page.goto("about:blank")
                query = (
                    "public_id=abc&version=5&tags=%3Cimg%20src%3Dx%20onerror%3D%22alert(1)%22%3E"
                )
                page.goto(f"file://{self.PAGE}{sign}{query}")
                shown = json.loads(page.evaluate("document.body.textContent"))
                assert shown["public_id"] == "abc"
                assert shown["tags"] == '<img src=x onerror="alert(1)">'
                assert page.evaluate("document.body.children.length") == 0
