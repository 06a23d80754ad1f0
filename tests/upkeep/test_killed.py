"""fsck, collect and rebuild killed at work: nothing is lost, and the next run comes to its end."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time

import pytest

from tests.conftest import jpeg
from tests.servers.gunicorn import ROOT, environment, flask
from tests.upkeep.helpers import put_stray

IMAGES, STRAYS = 24, 400
TURNS = 5 if os.environ.get("FAULTS") == "full" else 1


class Instance:
    """An album of pictures in the local storage, and commands on it as processes of their own."""

    def __init__(self, folder):
        self.env = environment(folder)
        self.root = folder / "storage/local"
        pictures = folder.parent / "pictures"
        pictures.mkdir()
        for number in range(IMAGES):
            (pictures / f"{number}.jpg").write_bytes(jpeg(400, 300, seed=number))
        self.flask("db", "upgrade")
        self.flask("albums", "create", "holidays", "--owner", "anna")
        self.flask("albums", "seed", pictures, "--album", "holidays", "--owner", "anna")
        self.sha256 = self.digests()

    def flask(self, *arguments, **options):
        return flask(self.env, *map(str, arguments), **options)

    def files(self):
        return list(self.root.glob("??/*"))

    def renditions(self):
        return [file for file in self.files() if "." in file.name]

    def digests(self):
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in self.files()
            if "." not in file.name
        }

    def kill(self, *arguments, when):
        """Run a command, and kill -9 at work when `when` says so."""
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", *arguments],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None and not when():
            time.sleep(0.001)
        process.kill()
        told, _ = process.communicate()
        assert process.returncode == -9, told


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    return Instance(tmp_path_factory.mktemp("killed") / "instance")


@pytest.fixture
def choice():
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    return random.Random(seed)  # noqa: S311


@pytest.mark.parametrize("command", [("fsck", "--repair"), ("renditions", "rebuild")])
def test_what_renders(instance, choice, command):
    for file in instance.renditions():
        file.unlink()
    for turn in range(TURNS):
        enough = len(instance.renditions()) + choice.randrange(1, 3 * IMAGES // (TURNS + 1))
        instance.kill(*command, when=lambda enough=enough: len(instance.renditions()) > enough)
        assert instance.digests() == instance.sha256, turn
    done = instance.flask(*command)
    if command[0] == "renditions":
        # Those that were done before it was killed are not done again, but for a few.
        rendered = int(done.stdout.split()[1].rstrip(","))
        assert IMAGES - len(instance.renditions()) // 3 <= rendered < IMAGES + 1
    assert len(instance.renditions()) == 3 * IMAGES
    assert instance.digests() == instance.sha256
    assert instance.flask("fsck", "--json").stdout == "[]\n"


def test_collect(instance, choice):
    strays = []

    def left():
        return sum((instance.root / key).exists() for key in strays)

    for _ in range(TURNS):
        strays += [put_stray(instance.root) for _ in range(STRAYS)]
        enough = choice.randrange(left() // 2, left())
        instance.kill("collect", "--force", when=lambda enough=enough: left() < enough)
        kept = {key[3:] for key in strays}
        assert instance.digests().items() >= instance.sha256.items()
        assert instance.digests().keys() - instance.sha256.keys() <= kept
    done = instance.flask("collect", "--force")
    assert "noted 0" in done.stdout
    assert left() == 0
    assert instance.digests() == instance.sha256
    assert instance.flask("fsck", "--json").stdout == "[]\n"
