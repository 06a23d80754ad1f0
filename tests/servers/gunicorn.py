"""The application itself, as its operators run it: `gunicorn wsgi:app`, a process of its own."""

import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import http
from .cgroup import Cgroup
from .ports import HOST, reserved
from .process import Process, Server, clean_environment, descendants, running, temporary

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Application(Server):
    """A gunicorn that serves the application.

    Args:
        url: where it answers, without a slash at the end.
        env: the whole environment of it and of its `flask` commands.
    """

    url: str
    env: Mapping[str, str]

    @property
    def workers(self) -> list[int]:
        """The processes that serve requests."""
        return descendants(self.pid)

    @property
    def instance(self) -> Path:
        """Its IMAGEAPI_INSTANCE."""
        return Path(self.env["IMAGEAPI_INSTANCE"])

    def flask(self, *arguments: str, check: bool = True, **options: Any) -> Any:
        """Run a `flask` command in the same environment.

        Args:
            arguments: `token`, `create`, `--user`, `u1`.
            check: whether another exit status than 0 is an error.
            options: of `subprocess.run`: `input`, `timeout`.
        Returns: the ended command (`subprocess.CompletedProcess` of text).
        """
        return flask(self.env, *arguments, check=check, **options)

    def kill9(self) -> None:
        """`kill -9` of the master and every worker, as a crash of the host but for its disk."""
        self.kill()


def flask(env: Mapping[str, str], *arguments: str, check: bool = True, **options: Any) -> Any:
    """Run a `flask` command of the repository in this environment."""
    command = [sys.executable, "-m", "flask", *arguments]
    options = {"timeout": 120, **options}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, **options
    )
    if check and done.returncode:
        raise RuntimeError(
            f"flask {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done


def environment(instance: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """A clean environment with a secret of its own, and what the caller gives on top."""
    return {
        **clean_environment(),
        "HOME": str(instance.parent),  # where gunicorn keeps its control socket
        "IMAGEAPI_SECRET_KEYS": secrets.token_urlsafe(48),
        "IMAGEAPI_INSTANCE": str(instance),
        **(env or {}),
    }


@contextmanager
def gunicorn(
    env: Mapping[str, str] | None = None,
    *options: str,
    directory: Path | None = None,
    migrate: bool = True,
    cgroup: Cgroup | None = None,
) -> Iterator[Application]:
    """Serve the application from this checkout until the block ends.

    Args:
        env: settings on top of a clean environment with a random secret and an instance folder.
        options: of gunicorn: `--workers`, `2`.
        directory: keep instance and log there, made if need be and left behind; a temporary one
            otherwise.
        migrate: whether `flask db upgrade` runs first.
        cgroup: that it runs in, from its first byte on.
    """
    with ExitStack() as stack:
        directory = directory or stack.enter_context(temporary("gunicorn"))
        (port,) = stack.enter_context(reserved())
        instance = directory / "instance"
        instance.mkdir(parents=True, exist_ok=True)
        whole = environment(instance, env) | {"PORT": str(port)}
        if migrate:
            flask(whole, "db", "upgrade")
        command = [sys.executable, "-m", "gunicorn", "wsgi:app", "--bind", f"{HOST}:{port}"]
        if cgroup:
            enter = 'echo $$ > "$0" && exec "$@"'
            command = ["/bin/sh", "-c", enter, str(cgroup.entrance), *command]
        process = Process(
            [*command, *options],
            log=directory / "log",
            ready=lambda: http.status(port, "/healthz") == 200,
            cwd=ROOT,
            env=whole,
        )
        with running(process):
            yield Application(
                process=process,
                port=port,
                directory=directory,
                url=f"http://{HOST}:{port}",
                env=whole,
            )
