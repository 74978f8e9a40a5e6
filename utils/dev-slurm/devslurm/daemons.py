"""The login side's daemons: munged, MariaDB, slurmdbd, slurmctld, slurmrestd."""

import os
import socket
from pathlib import Path

from devslurm import config
from devslurm.cluster import DATABASE_PORT, LOGIN_IP, REST_PORT, ROOT, SLURM_CONF, Cluster
from devslurm.machine import run, start, succeeds, wait_for

MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
DATABASE_SOCKET = ROOT / "run/mariadb.sock"
REST_PLUGINS = "v0.0.36,v0.0.37,v0.0.38"
REST_ACCOUNTING_PLUGINS = "dbv0.0.36,dbv0.0.37,dbv0.0.38"


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def start_munge() -> None:
    MUNGE_SOCKET.parent.mkdir(mode=0o755, exist_ok=True)
    start(
        "munged",
        *("munged", "--force", "--foreground"),
        *("--key-file", f"{ROOT}/etc/munge.key"),
        *("--pid-file", "/run/munge/munged.pid"),
        *("--log-file", f"{ROOT}/log/munged.log"),
        *("--seed-file", f"{ROOT}/spool/munge.seed"),
    )
    wait_for("munge answers", lambda: succeeds("munge", "-n"))


def start_database(cluster: Cluster) -> None:
    """MariaDB with a throw-away database: safe writes would only cost time."""
    data = f"--datadir={ROOT}/database"
    run("mariadb-install-db", "--no-defaults", "--user=mysql", data, "--skip-test-db", "--skip-name-resolve")
    start(
        "mariadbd",
        *("mariadbd", "--no-defaults", "--user=mysql", data, f"--socket={DATABASE_SOCKET}"),
        *(f"--port={DATABASE_PORT}", "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"),
        *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"),
        *("--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF"),
    )
    wait_for("MariaDB listens", lambda: _listens(DATABASE_PORT), timeout_s=30)
    run("mariadb", f"--socket={DATABASE_SOCKET}", stdin=config.database_sql(cluster))


def start_accounting() -> None:
    """slurmdbd looks for its configuration beside the file that SLURM_CONF names."""
    start("slurmdbd", "slurmdbd", "-D", environ={"SLURM_CONF": str(SLURM_CONF)})
    wait_for("slurmdbd listens", lambda: _listens(6819))


def define_accounts() -> None:
    """Before slurmctld starts: it refuses for ever a QOS that appears while it is starting."""
    run("sacctmgr", "-i", "-Q", stdin=(config.TEMPLATES / "qos.txt").read_text())
    run("sacctmgr", "-i", "-Q", "load", f"file={config.TEMPLATES / 'accounts.txt'}")
    run("sacctmgr", "-i", "-Q", "modify", "user", "root", "set", "DefaultAccount=p200001")


def start_controller() -> None:
    start("slurmctld", "slurmctld", "-D", "-f", str(SLURM_CONF))
    wait_for("slurmctld answers", lambda: succeeds("scontrol", "ping"))


def start_rest(cluster: Cluster) -> None:
    """slurmrestd refuses to run as root or as Slurm's own user."""
    plugins = f"{REST_PLUGINS},{REST_ACCOUNTING_PLUGINS}" if cluster.accounting else REST_PLUGINS
    start(
        "slurmrestd",
        *("slurmrestd", "-f", str(SLURM_CONF), "-a", "rest_auth/jwt", "-s", plugins),
        *(f"{LOGIN_IP}:{REST_PORT}", f"127.0.0.1:{REST_PORT}"),
        environ={"SLURM_JWT": "daemon"},
        user="daemon",
    )
    wait_for("slurmrestd listens", lambda: _listens(REST_PORT))


def write_secret(path: Path, *, size: int, owner: str) -> None:
    path.touch(mode=0o600)
    path.write_bytes(os.urandom(size))
    run("chown", owner, str(path))
