"""The whole service on loopback: two hosts behind nginx, two workers, PostgreSQL, Redis, SeaweedFS.

`python -m tests.faults.cluster` runs it until Ctrl-C.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.deploy.site import site
from tests.servers.celery import Worker, celery
from tests.servers.gunicorn import Application, gunicorn
from tests.servers.nginx import Nginx, nginx
from tests.servers.postgres import Postgres, postgres
from tests.servers.process import Process
from tests.servers.redis import Redis, redis
from tests.servers.seaweedfs import S3Server, seaweedfs
from tests.storages import s3_api

BUCKET = "pictures"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """All parts, running.

    Args:
        token: may do everything in the album `holidays`.
    """

    nginx: Nginx
    hosts: list[Application]
    workers: list[Worker]
    database: Postgres
    redis: Redis
    storage: S3Server
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """The token's header."""
        return {"Authorization": f'Token token="{self.token}"'}

    @property
    def parts(self) -> Mapping[str, Process]:
        """What can be killed and brought back, by name."""
        several = {"host": self.hosts, "worker": self.workers}
        return {
            **{
                f"{kind} {number}": part.process
                for kind, parts in several.items()
                for number, part in enumerate(parts)
            },
            "database": self.database.process,
            "redis": self.redis.process,
            "storage": self.storage.process,
            "nginx": self.nginx.process,
        }


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run all of it until the block ends."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres(durable=True, max_connections=60))
        url = stack.enter_context(database.database())
        cache = stack.enter_context(redis())
        storage = stack.enter_context(seaweedfs())
        s3_api(storage).create_bucket(Bucket=BUCKET)
        env = {
            "IMAGEAPI_SECRET_KEYS": secrets.token_urlsafe(48),
            "IMAGEAPI_DATABASE_URL": url.replace("postgresql", "postgresql+psycopg", 1),
            "IMAGEAPI_BROKER_URL": cache.url,
            "IMAGEAPI_REDIS_URL": cache.url.removesuffix("/0") + "/1",
            "IMAGEAPI_RATE_LIMIT": "100000/minute",
            "IMAGEAPI_TRUSTED_PROXIES": "1",
            "IMAGEAPI_LOG_LEVEL": "WARNING",
            "IMAGEAPI_STORAGE": "s3",
            "IMAGEAPI_STORAGE_S3_BUCKET": BUCKET,
            "IMAGEAPI_STORAGE_S3_ENDPOINT_URL": storage.url,
            "IMAGEAPI_STORAGE_S3_REGION": storage.region,
            "IMAGEAPI_STORAGE_S3_ACCESS_KEY_ID": storage.access_key,
            "IMAGEAPI_STORAGE_S3_SECRET_ACCESS_KEY": storage.secret_key,
            "IMAGEAPI_STORAGE_S3_ADDRESSING_STYLE": "path",
        }
        hosts = [stack.enter_context(gunicorn(env, migrate=number == 0)) for number in range(2)]
        told = {
            **hosts[0].env,
            "IMAGEAPI_LOG_LEVEL": "INFO",
        }  # a worker's log says when it is ready
        workers = [stack.enter_context(celery(told)) for _ in range(2)]
        front = stack.enter_context(nginx(site([host.port for host in hosts])))
        hosts[0].flask("albums", "create", "holidays", "--owner", "anna")
        token = hosts[0].flask("token", "create", "--user", "anna").stdout.strip()
        yield Cluster(
            nginx=front,
            hosts=hosts,
            workers=workers,
            database=database,
            redis=cache,
            storage=storage,
            token=token,
        )


def main() -> None:
    """Run it by hand."""
    with cluster() as running:
        sys.stdout.write(f"{running.nginx.url}\n{running.headers['Authorization']}\n")
        for name, part in running.parts.items():
            sys.stdout.write(f"{name}: pid {part.pid}, {part.log}\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
