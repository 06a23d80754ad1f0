"""The suite itself: backends with one fault each, and the test that catches it."""

import dataclasses
import errno
import os
import time

from imageapi.errors import StorageError, StorageNotFound, StorageUnavailable
from imageapi.storage.backend import infos
from imageapi.storage.local import LocalBackend

pytest_plugins = ["pytester"]

SUITE = """
import pytest

pytest.register_assert_rewrite("imageapi.storage.conformance")

from imageapi.storage import conformance
from tests.storage import test_local, test_sabotage

conformance._PATIENCE = 3
"""
CASE = """
class Test{fault}(conformance.Conformance):
    @pytest.fixture
    def harness(self, tmp_path):
        harness = test_local.LocalHarness(tmp_path)
        harness.page, harness.tampered, harness.lengths = 40, 500, (0, 1, 300_000)
        harness.backend = test_sabotage.{fault}
        return harness
"""


def path_of(backend, key):
    return backend._root / key


class LosesTheLastByte(LocalBackend):
    caught_by = "test_what_is_put_is_read_at_any_length"

    def put(self, key, staged, tags):
        result = super().put(key, staged, tags)
        os.truncate(path_of(self, key), max(0, staged.length - 1))
        return result


class BelievesWhatIsStaged(LocalBackend):
    caught_by = "test_what_is_not_what_was_staged_is_refused[other]"

    def put(self, key, staged, tags):
        status = staged.path.stat()
        believed = dataclasses.replace(staged, changed=status.st_ctime_ns, length=status.st_size)
        return super().put(key, believed, tags)


class LeavesWhatItRefused(LocalBackend):
    caught_by = "test_a_wrong_hash_is_refused[md5]"

    def put(self, key, staged, tags):
        try:
            return super().put(key, staged, tags)
        except StorageError:
            path_of(self, key).write_bytes(staged.path.read_bytes())
            raise


class MixesUpTheSides(LocalBackend):
    caught_by = "test_infos_are_those_of_the_specification"

    def put(self, key, staged, tags):
        result = super().put(key, staged, tags)
        return {**result, "width": result["height"], "height": result["width"]}


class ReadsOneByteTooFar(LocalBackend):
    caught_by = "test_parts"

    def open(self, key, start=0, length=None):
        yield from super().open(key, start)


class FindsNothingEmpty(LocalBackend):
    caught_by = "test_nothing_is_found_under_a_new_key"

    def open(self, key, start=0, length=None):
        try:
            yield from super().open(key, start, length)
        except StorageNotFound:
            return


class DeletesByPrefix(LocalBackend):
    caught_by = "test_delete_takes_this_key_alone"

    def delete(self, key):
        for stored in list(self.list(key)):
            super().delete(stored.key)


class MindsDeletingTwice(LocalBackend):
    caught_by = "test_delete_twice"

    def delete(self, key):
        self.stat(key)
        super().delete(key)


class WritesInPlace(LocalBackend):
    caught_by = "test_never_torn"

    def keep(self, key, data, content_type):
        super().keep(key, data, content_type) if not path_of(self, key).exists() else None
        with path_of(self, key).open("r+b") as file:
            file.truncate()
            file.write(data[: len(data) // 2])
            file.flush()
            time.sleep(0.01)
            file.write(data[len(data) // 2 :])


class ListsOnePage(LocalBackend):
    caught_by = "test_more_than_a_page"

    def list(self, prefix="", after=""):
        for _, stored in zip(range(40), super().list(prefix, after), strict=False):
            yield stored


class ListsUnsorted(LocalBackend):
    caught_by = "test_more_than_a_page"

    def list(self, prefix="", after=""):
        yield from sorted(super().list(prefix, after), key=lambda stored: stored.key[::-1])


class SignsByTheClock(LocalBackend):
    caught_by = "test_the_same_on_every_worker"

    def rendition_url(self, picture, rendition, window):
        url = super().rendition_url(picture, rendition, window)
        return f"{url}&made={time.time()}"


class ForgetsTheRevision(LocalBackend):
    caught_by = "test_each_rendition_has_its_own"

    def rendition_url(self, picture, rendition, window):
        first = dataclasses.replace(picture, revision=1)
        return super().rendition_url(first, rendition, window)


class NeverEnds(LocalBackend):
    caught_by = "test_ended"

    def rendition_url(self, picture, rendition, window):
        return super().rendition_url(picture, rendition, window + 1_000_000)


class IsEmptyWhenItIsAbsent(LocalBackend):
    caught_by = "test_absent"

    def stat(self, key):
        try:
            return super().stat(key)
        except StorageUnavailable as error:
            raise StorageNotFound from error


class RaisesItsOwnErrors(LocalBackend):
    caught_by = "test_denied"

    def open(self, key, start=0, length=None):
        try:
            yield from super().open(key, start, length)
        except StorageError as error:
            raise OSError(errno.EACCES, "no") from error


class LeavesHalfOnAFullDisk(LocalBackend):
    caught_by = "test_full"

    def keep(self, key, data, content_type):
        try:
            super().keep(key, data, content_type)
        except StorageError:
            path_of(self, key).parent.mkdir(exist_ok=True)
            path_of(self, key).write_bytes(data[:1000])
            raise


class LeavesFilesOpen(LocalBackend):
    caught_by = "test_reading_can_end_early"

    def open(self, key, start=0, length=None):
        self.left = [*getattr(self, "left", ()), os.open(self._root, os.O_RDONLY)]
        yield from super().open(key, start, length)

    def __del__(self):
        for fd in getattr(self, "left", ()):
            os.close(fd)


class SharesOneName(LocalBackend):
    caught_by = "test_many_threads"

    def put(self, key, staged, tags):
        shared = self.staging.parent / "shared"
        shared.write_bytes(staged.path.read_bytes())
        time.sleep(0.002)
        path_of(self, key).parent.mkdir(exist_ok=True)
        path_of(self, key).write_bytes(shared.read_bytes())
        return infos(staged, tags, time.time())


class RemembersItsProcess(LocalBackend):
    caught_by = "test_fork_after_use"

    def put(self, key, staged, tags):
        self.pid = getattr(self, "pid", os.getpid())
        if self.pid != os.getpid():
            time.sleep(3600)
        return super().put(key, staged, tags)


FAULTS = [
    each
    for each in list(globals().values())
    if isinstance(each, type) and issubclass(each, LocalBackend) and each is not LocalBackend
]


def test_each_fault_is_caught(pytester):
    """Each by its test; and none of these tests fails without a fault."""
    cases = [(fault.__name__, fault.caught_by) for fault in FAULTS]
    cases += [("LocalBackend", test) for test in sorted({test for _, test in cases})]
    names = dict.fromkeys(name for name, _ in cases)
    pytester.makepyfile(test_it=SUITE + "".join(CASE.format(fault=name) for name in names))
    ids = [f"test_it.py::Test{name}::{test}" for name, test in cases]
    passed, skipped, failed = pytester.inline_run("-p", "no:cacheprovider", *ids).listoutcomes()
    assert [report.nodeid for report in skipped] == []
    caught = {report.nodeid for report in failed}
    assert caught == {node for node in ids if "LocalBackend" not in node}
    assert len(passed) + len(failed) == len(ids)
