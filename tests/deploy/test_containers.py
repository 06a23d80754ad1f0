"""deploy/Dockerfile and deploy/compose.yaml: what can be known of them without a Docker daemon.

The image is rebuilt by hand: the files that it copies, its packages in an environment of its own, run
as its user, with no right, on a file system that can be written where the image can be.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from imageapi import settings
from imageapi.storage.cloudinary import CloudinaryBackend
from imageapi.storage.local import LocalBackend
from imageapi.storage.s3 import S3Backend
from tests.deploy.site import DEPLOY
from tests.faults.front import Front, form, picture
from tests.servers import http
from tests.servers.gunicorn import ROOT, Application, environment
from tests.servers.need import lacking, need
from tests.servers.ports import HOST, reserved
from tests.servers.process import Process, clean_environment, running, temporary

FULL = os.environ.get("FAULTS") == "full"
USER = "10001"


def dockerfile():
    """Its instructions, as (word, rest)."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def env_example():
    lines = (DEPLOY / "imageapi.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def declared():
    """The names of all settings; the storages under the names that they have by themselves."""
    names = {settings.variable(field) for field in fields(settings.Settings)}
    for name, backend in (
        ("S3", S3Backend),
        ("LOCAL", LocalBackend),
        ("CLOUDINARY", CloudinaryBackend),
    ):
        prefix = f"{settings.PREFIX}STORAGE_{name}_"
        names |= {settings.variable(field, prefix) for field in fields(backend.Options)}
    return names


def pulled():
    """The images that come from elsewhere."""
    ours = [rest.split()[0] for word, rest in dockerfile() if word == "FROM"]
    return [*ours, *(s["image"] for s in compose()["services"].values() if "build" not in s)]


def test_every_setting_that_is_named_is_one():
    texts = [path.read_text() for path in DEPLOY.iterdir() if path.is_file()]
    named = set(re.findall(r"IMAGEAPI_[A-Z0-9_]+", "\n".join(texts)))
    assert named
    assert named <= declared()


def test_the_images_are_pinned_and_named_as_all_name_them():
    for image in pulled():
        name, _, tag = image.partition(":")
        assert re.search(r"\d", tag), image
        assert "." not in name.split("/")[0], f"{image} names a registry"


class TestDockerfile:
    def test_two_stages_and_a_user_without_rights(self):
        words = [word for word, _rest in dockerfile()]
        assert words.count("FROM") == 2
        assert "ADD" not in words
        assert [rest for word, rest in dockerfile() if word == "USER"] == [USER]
        assert words.index("USER") > len(words) - 1 - words[::-1].index("COPY")
        assert words.index("USER") < words.index("CMD")

    def test_its_commands_are_in_exec_form_so_that_gunicorn_gets_the_signals(self):
        (command,) = (json.loads(rest) for word, rest in dockerfile() if word == "CMD")
        assert command == ["gunicorn", "wsgi:app"]
        (health,) = (rest for word, rest in dockerfile() if word == "HEALTHCHECK")
        assert json.loads(health.partition("CMD ")[2])[0] == "python"

    def test_it_holds_no_secret(self):
        text = (DEPLOY / "Dockerfile").read_text()
        assert not re.search(r"(?i)(secret|password|token|access_key)\S*=", text)

    def test_what_it_copies_is_let_in_and_there(self):
        let_in = {line.removeprefix("!") for line in ignored() if line.startswith("!")}
        copied = {name for line in copies() for name in line[:-1]}
        assert copied == let_in
        assert all((ROOT / name).exists() for name in copied)

    def test_its_extras_are_those_of_the_package(self):
        text = (DEPLOY / "Dockerfile").read_text()
        extras = re.search(r"'\.\[(.*)\]'", text)[1].split(",")
        declared = re.findall(
            r"^(\w+) ?=",
            (ROOT / "setup.cfg").read_text().partition("extras_require]")[2],
            re.MULTILINE,
        )
        assert set(extras) <= set(declared)


def ignored():
    return (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


def copies():
    return [
        rest.split()
        for word, rest in dockerfile()
        if word == "COPY" and not rest.startswith("--from")
    ]


class TestCompose:
    def test_every_file_that_it_names_is_there(self):
        for service in compose()["services"].values():
            if "build" in service:
                assert (
                    DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]
                ).exists()
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert (
                    (DEPLOY / source).exists()
                    if source.startswith(".")
                    else source in compose()["volumes"]
                )
            if "env_file" in service:
                assert (DEPLOY / f"{service['env_file']}.example").exists()

    def test_ours_can_write_nowhere_else_and_may_nothing(self):
        for name, service in compose()["services"].items():
            if "build" in service or name == "nginx":
                assert service["read_only"] is True
                assert service["cap_drop"] == ["ALL"]
                assert service["security_opt"] == ["no-new-privileges:true"]
                assert service["tmpfs"] == ["/tmp"]

    def test_only_nginx_and_the_pictures_are_reached_from_outside(self):
        outside = {name for name, service in compose()["services"].items() if "ports" in service}
        assert outside == {"nginx", "s3"}

    def test_who_waits_for_whom(self):
        services = compose()["services"]
        for service in services.values():
            for other, how in service.get("depends_on", {}).items():
                lasting = services[other].get("restart") != "no"
                once = how["condition"] == "service_completed_successfully"
                assert lasting != once
                if how["condition"] == "service_healthy" and "build" not in services[other]:
                    assert "test" in services[other]["healthcheck"]

    def test_its_secrets_come_from_the_file_alone(self):
        given = {
            k: v
            for s in compose()["services"].values()
            for k, v in s.get("environment", {}).items()
        }
        secret = re.compile("SECRET|PASSWORD|ACCESS_KEY|DATABASE_URL")
        assert not [name for name in given if secret.search(name)]
        assert all(
            not value
            for name, value in env_example().items()
            if "SECRET" in name or "PASSWORD" in name
        )

    def test_its_settings_are_accepted(self, monkeypatch, tmp_path):
        environment = {**env_example(), **compose()["services"]["app"]["environment"]}
        environment["IMAGEAPI_SECRET_KEYS"] = secrets.token_urlsafe(48)
        environment["IMAGEAPI_INSTANCE"] = str(tmp_path)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert settings.load().trusted_proxies == 1

    def test_its_commands_exist(self, tmp_path):
        broker = compose()["services"]["worker"]["environment"]["IMAGEAPI_BROKER_URL"]
        env = environment(tmp_path / "instance", {"IMAGEAPI_BROKER_URL": broker})
        for service in compose()["services"].values():
            command = service.get("command", [])
            if command[:1] in (["flask"], ["celery"]):
                words = [sys.executable, "-m", *command, "--help"]
                subprocess.run(
                    words, check=True, cwd=ROOT, capture_output=True, timeout=60, env=env
                )
            if command[:2] == ["python", "-c"]:
                compile(command[2], "bucket", "exec")

    def test_nginx_stands_in_front_of_the_service_of_that_name(self):
        assert "server app:8000 " in (DEPLOY / "nginx.conf").read_text()
        assert "app" in compose()["services"]
        assert "PORT=8000" in (DEPLOY / "Dockerfile").read_text()

    def test_who_stops_has_the_time_that_gunicorn_gives(self):
        text = (ROOT / "gunicorn.conf.py").read_text()
        graceful = int(re.search(r"^graceful_timeout = (\d+)", text, re.MULTILINE)[1])
        assert int(compose()["services"]["app"]["stop_grace_period"].rstrip("s")) > graceful


JAIL = """
set -e
mkdir -p "$STAGE"
mount --bind "$PYTHON" "$STAGE"
case "$PYTHON" in /root/*)  # a home that only root may enter
  mount -t tmpfs -o mode=755 none /root
  mkdir -p "$PYTHON"
  mount --bind "$STAGE" "$PYTHON" ;;
esac
mount --bind "$IMAGEAPI_INSTANCE" "$IMAGEAPI_INSTANCE"
mount --bind "$TMPDIR" "$TMPDIR"
mount -o remount,bind,ro /
if touch "$IMAGE/canary" 2>/dev/null; then echo "the image can be written"; exit 9; fi
exec setpriv --reuid "$IMAGE_USER" --regid "$IMAGE_USER" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.fixture(scope="module")
def image():
    """What the image's two stages leave: /opt/imageapi, /srv/imageapi; instance and tmp beside them."""
    if os.geteuid() != 0:
        lacking("only root may mount")
    need("unshare", install="apt install util-linux")
    probe = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "mount",
        "-o",
        "remount,bind,ro",
        "/",
    ]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        lacking("mounting is not allowed here")
    with temporary("image") as folder:
        source = folder / "src"
        for *names, target in copies():
            stage = folder / "srv" if names[0] == "gunicorn.conf.py" else source
            for name in names:
                into = stage / (target if (ROOT / name).is_dir() else f"{target}{name}")
                into.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, into)
        install(folder / "opt", source)
        for name in ("instance", "tmp"):
            (folder / name).mkdir(mode=0o700)
            os.chown(folder / name, int(USER), int(USER))
        yield folder


def install(target: Path, source: Path):
    """As the image does, from the index; in a sample the packages of the tests stand for those."""
    subprocess.run([sys.executable, "-m", "venv", target], check=True)
    packages = Path(
        subprocess.run(
            [target / "bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    options = []
    if not FULL:
        shutil.rmtree(packages / "setuptools")  # an old one, from the interpreter's bundle
        (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
        options = ["--no-deps", "--no-build-isolation", "--no-index"]
    (run,) = (rest for word, rest in dockerfile() if word == "RUN" and "pip install" in rest)
    command = shlex.split(run.replace("/opt/imageapi", str(target)))
    done = subprocess.run(
        [*command, *options], check=False, cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if not FULL:  # a script of the environment, as pip makes for gunicorn
        for name in ("gunicorn", "flask"):
            script = target / "bin" / name
            module = {"gunicorn": "gunicorn.app.wsgiapp:run", "flask": "flask.cli:main"}[name]
            package, function = module.split(":")
            script.write_text(
                f"#!{target}/bin/python\nfrom {package} import {function}\n{function}()\n"
            )
            script.chmod(0o755)


def test_the_image_s_steps_by_hand(image):
    """Migrate and serve as the image's user, with no rights, where only two folders can be written."""
    env = {
        **clean_environment(),
        "PATH": f"{image / 'opt/bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "IMAGEAPI_SECRET_KEYS": secrets.token_urlsafe(48),
        "IMAGEAPI_INSTANCE": str(image / "instance"),
        "TMPDIR": str(image / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "STAGE": str(image / "stage"),
        "PYTHON": sys.base_prefix,
        "IMAGE": str(image),
        "IMAGE_USER": USER,
    }
    jail = ["unshare", "--mount", "--propagation", "private", "sh", "-c", JAIL, "jail"]
    where = {"cwd": image / "srv", "env": env}
    migrated = subprocess.run(
        [*jail, "flask", "db", "upgrade"], check=False, capture_output=True, text=True, **where
    )
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    for words in (
        ["albums", "create", "holidays", "--owner", "anna"],
        ["token", "create", "--user", "anna"],
    ):
        made = subprocess.run(
            [*jail, "flask", *words], check=True, capture_output=True, text=True, **where
        )
    with reserved() as (port,):
        env |= {"HOST": HOST, "PORT": str(port)}
        process = Process(
            [*jail, "gunicorn", "wsgi:app"],
            log=image / "log",
            ready=lambda: http.status(port, "/healthz") == 200,
            **where,
        )
        with running(process):
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s", status, re.MULTILINE)
            assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
            app = Application(process=process, port=port, directory=image, url="", env=env)
            door, data = Front(app, made.stdout.strip()), picture(70_000)
            with door.connect() as connection:
                made_now, body = door.post(connection, form(data))
                assert made_now == 201, body
                assert door.get(connection, body["thumbnails"]["mini"])[0] == 200
                path = f"/api/v1/images/{body['public_id']}/original"
                assert door.get(connection, path) == (200, data)
            process.stop()
            assert process.wait() == 0
    assert {path.name for path in image.iterdir()} == {
        "src",
        "srv",
        "opt",
        "instance",
        "tmp",
        "stage",
        "log",
    }
