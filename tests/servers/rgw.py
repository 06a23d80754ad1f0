"""Ceph RGW: the second S3 judge (Debian's radosgw, ceph-mon, ceph-osd), its objects in memory."""

import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import http
from .need import need
from .ports import HOST, reserved
from .process import Process, running, temporary
from .seaweedfs import ACCESS_KEY, SECRET_KEY, S3Server

_INSTALL = "apt install radosgw ceph-mon ceph-osd"
_CAPS = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *"],
    "client.rgw": ["mon", "allow rwx", "osd", "allow rwx"],
    "osd.0": ["mon", "allow profile osd", "osd", "allow *"],
}


@contextmanager
def rgw() -> Iterator[S3Server]:
    """Run a monitor, one object daemon and the gateway; faults hit the gateway alone.

    Objects outlive `kill` and `restart` of the gateway.
    """
    for program in ("radosgw", "ceph-mon", "ceph-osd"):
        need(program, install=_INSTALL)
    with temporary("rgw") as directory, reserved(20) as ports, ExitStack() as stack:
        cluster = _Cluster(directory, ports)
        cluster.make()
        stack.enter_context(running(cluster.daemon("ceph-mon", "-i", "a")))
        osd = str(uuid.uuid4())
        cluster.run("ceph", "osd", "new", osd)
        cluster.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        stack.enter_context(running(cluster.daemon("ceph-osd", "-i", "0")))
        gateway = cluster.daemon(
            "radosgw", "-n", "client.rgw", ready=lambda: http.status(ports[0]) == 200
        )
        stack.enter_context(running(gateway))
        account = ["--uid=t", "--display-name=t"]
        account += [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        cluster.run("radosgw-admin", "-n", "client.rgw", "user", "create", *account)
        yield S3Server(
            process=gateway, port=ports[0], directory=directory, url=f"http://{HOST}:{ports[0]}"
        )


class _Cluster:
    def __init__(self, directory: Path, ports: range) -> None:
        self.directory = directory
        self.configuration = directory / "c.conf"
        self.keyring = directory / "keyring"
        self.fsid = str(uuid.uuid4())
        self.monitors = f"[v2:{HOST}:{ports[1]},v1:{HOST}:{ports[2]}]"
        self.configuration.write_text(
            f"""[global]
            fsid = {self.fsid}
            mon_host = {self.monitors}
            public_addr = {HOST}
            cluster_addr = {HOST}
            ms_bind_port_min = {ports[3]}
            ms_bind_port_max = {ports[-1]}
            keyring = {self.keyring}
            run_dir = {directory}
            log_file = {directory}/$name.log
            mon_data = {directory}/mon
            osd_data = {directory}/osd
            osd_objectstore = memstore
            osd_pool_default_size = 1
            osd_pool_default_pg_num = 8
            osd_pool_default_pg_autoscale_mode = off
            osd_crush_chooseleaf_type = 0
            mon_allow_pool_size_one = true
            mon_max_pg_per_osd = 2000
            mon_data_avail_crit = 1
            [client.rgw]
            rgw_data = {directory}/rgw
            rgw_frontends = beast endpoint={HOST}:{ports[0]} tcp_nodelay=1
            """.replace("\n            ", "\n")
        )

    def make(self) -> None:
        """Write the keys and an empty monitor."""
        for name in ("mon", "osd", "rgw"):
            (self.directory / name).mkdir()
        new = ["-C"]
        for name, caps in _CAPS.items():
            pairs = [part for i in range(0, len(caps), 2) for part in ("--cap", *caps[i : i + 2])]
            _run("ceph-authtool", *new, self.keyring, "-g", "-n", name, *pairs)
            new = []
        monmap = self.directory / "map"
        _run("monmaptool", "--create", "--addv", "a", self.monitors, "--fsid", self.fsid, monmap)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of Ceph's commands on this cluster."""
        _run(program, "-c", self.configuration, *arguments)

    def daemon(self, program: str, *arguments: str, ready=lambda: True) -> Process:
        """One of Ceph's servers; clients wait by themselves for those that are not ready."""
        return Process(
            [need(program, install=_INSTALL), "-c", self.configuration, *arguments, "-f"],
            log=self.directory / f"{program}.out",
            ready=ready,
            deadline=60,
            gentle=signal.SIGKILL,  # nothing here outlives the block, and it takes 5 s on SIGTERM
            cwd=self.directory,
        )


def _run(program: str, *arguments: str | Path) -> None:
    command = [need(program, install=_INSTALL), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
