"""Debian's Slurm packages, installed without letting any of their daemons start."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devslurm.cluster import DevSlurmError
from devslurm.machine import run, say, step

PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurmrestd",
    "slurm-client",
    "slurm-wlm-mysql-plugin",
    "slurm-wlm-jwt-plugin",
    "munge",
    "mariadb-server",
    "iproute2",
)
POLICY = Path("/usr/sbin/policy-rc.d")


def install() -> None:
    if shutil.which("apt-get") is None:
        raise DevSlurmError("no apt-get here: dev-slurm installs Debian's packages; use a Debian 12 machine")
    missing = missing_packages()
    if not missing:
        say(f"installed already: {run('slurmctld', '-V').strip()}")
        return
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    with step(f"packages: {' '.join(missing)}"[:58]), _no_daemon_starts():
        run("apt-get", "update", "-qq", timeout_s=300)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, timeout_s=900)
    say(run("slurmctld", "-V").strip())


def missing_packages() -> list[str]:
    listing = run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n").splitlines()
    return [name for name in PACKAGES if f"{name} installed" not in listing]


@contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a daemon; 101 means no. An existing policy is kept."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
