"""One node of Ceph with its S3 gateway, on loopback, from the distribution's packages."""

import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from test.integration.dev_slurm import output_of, wait_until

ACCESS_KEY, SECRET_KEY = "integration", "opensesame-ceph"
_PACKAGES = ("radosgw", "ceph-osd", "ceph-mon", "ceph-mgr", "ceph-common")
_CONFIG = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{port}
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
ms bind msgr2 = false
public network = 127.0.0.0/8
bluestore block size = 4294967296
osd memory target = 939524096
pid file = {folder}/run/$name.pid
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
"""


def install() -> None:
    """Its packages, where they are not installed; as root."""
    if shutil.which("radosgw") and shutil.which("ceph-osd"):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]):
        subprocess.run(
            ["apt-get", *command], env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL
        )


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """The address of a new, empty one in `folder`; it is gone afterwards."""
    for name in ("run", "log", "mon", "mgr", "osd"):
        (folder / name).mkdir(parents=True)
    mon_port, port = _free_port(), _free_port()
    fsid, config = str(uuid.uuid4()), folder / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, port=mon_port, folder=folder))

    def run(program: str, *words: str) -> str:
        return output_of(program, "-c", str(config), *words)

    try:
        address = f"[v1:127.0.0.1:{mon_port}]"
        output_of("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, str(folder / "monmap"))
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"))
        run("ceph-mon", "-i", "a")
        run("ceph-mgr", "-i", "x")
        osd = str(uuid.uuid4())
        run("ceph", "osd", "new", osd, "0")
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        # Right after its making the first start fails: it does not know yet whose it is.
        wait_until(lambda: _succeeds(lambda: run("ceph-osd", "-i", "0")), "the store has started", 30)
        run("radosgw", "-n", "client.rgw", f"--rgw-frontends=beast endpoint=127.0.0.1:{port} tcp_nodelay=1")
        run(
            "radosgw-admin", "user", "create", "--uid=u", "--display-name=u",
            f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}",
        )  # fmt: skip
        wait_until(lambda: _answers(port), "the gateway answers", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(folder / "run")


def _succeeds(act: Callable[[], object]) -> bool:
    try:
        act()
    except AssertionError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _stop(run: Path) -> None:
    pids = [int(path.read_text()) for path in run.glob("*.pid")]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not any(map(_lives, pids)), "Ceph has ended", 30)


def _lives(pid: int) -> bool:
    """Nobody may be there to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
