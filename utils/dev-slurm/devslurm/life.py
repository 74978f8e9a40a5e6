"""The life of the cluster: up, status, down."""

import os
import pwd
import secrets
import signal
from functools import partial

from devslurm import config, daemons, network, nodes
from devslurm.cluster import (
    FEWEST_NODES,
    GPUS_PER_NODE,
    LOGIN_IP,
    MOST_NODES,
    REST_PORT,
    ROOT,
    SLURM_CONF,
    SYSTEM_SLURM_CONF,
    USER,
    Cluster,
    DevSlurmError,
    is_ours,
    load_cluster,
    login_name,
    refuse_foreign_machine,
    saved_cluster,
)
from devslurm.install import missing_packages
from devslurm.machine import kept_names, pid_of, process_state, run, say, step, stop, succeeds, wait_for

USER_MARK = "dev-slurm test user"
PUBLIC_DIRECTORIES = ("etc", "log", "run", "spool", "dev", "pid", "late")


def up(*, node_count: int = 4, accounting: bool = True, private_tmp: bool = False) -> None:
    if not FEWEST_NODES <= node_count <= MOST_NODES:
        raise DevSlurmError(f"--nodes {node_count}: from {FEWEST_NODES} to {MOST_NODES} are possible")
    if missing_packages():
        raise DevSlurmError("Slurm is not installed; run: dev-slurm install")
    if is_up():
        say("up already (for other options: dev-slurm down first)")
        show_nodes()
        return
    down()
    refuse_foreign_machine()
    cluster = Cluster(
        node_count=node_count,
        accounting=accounting,
        private_tmp=private_tmp,
        cgroups=nodes.cgroups_usable(),
        login=login_name(),
        database_password=secrets.token_hex(16),
    )
    _start(cluster)
    show_nodes()


def is_up() -> bool:
    """Whether `up` succeeded since the machine started; bad days do not count as down."""
    return saved_cluster().exists() and pid_of("munged") is not None


def _start(cluster: Cluster) -> None:
    with step(f"files in {ROOT}, user {USER}"):
        _make_files(cluster)
        _make_user()
    with step(f"network {LOGIN_IP}/24"):
        network.build(cluster)
    with step("munge"):
        daemons.start_munge()
    if cluster.accounting:
        _start_accounting(cluster)
    with step("slurmctld"):
        daemons.start_controller()
    with step(f"slurmrestd on {LOGIN_IP}:{REST_PORT}"):
        daemons.start_rest(cluster)
    with step(f"{cluster.node_count} nodes ({'cgroup v1' if cluster.cgroups else 'no cgroups'})"):
        for node in cluster.nodes:
            nodes.boot(cluster, node)
        nodes.wait_until_known(cluster)
    cluster.save()


def _start_accounting(cluster: Cluster) -> None:
    with step("MariaDB"):
        daemons.start_database(cluster)
    with step("slurmdbd"):
        daemons.start_accounting()
    with step("accounts p200001 p200002, QOS default test dev"):
        daemons.define_accounts()


def _make_files(cluster: Cluster) -> None:
    ROOT.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "dev-slurm", str(ROOT))
    for name in PUBLIC_DIRECTORIES:
        (ROOT / name).mkdir()
    for name, owner in (("state", "slurm"), ("log", "slurm"), ("run", "mysql"), ("database", "mysql")):
        (ROOT / name).mkdir(exist_ok=True)
        run("chown", owner, str(ROOT / name))
    daemons.write_secret(ROOT / "etc/munge.key", size=1024, owner="root")
    daemons.write_secret(ROOT / "etc/jwt.key", size=32, owner="slurm")
    for number in range(GPUS_PER_NODE):
        run("mknod", "-m", "666", str(ROOT / f"dev/nvidia{number}"), "c", "1", "3")
    _write_config(cluster)


def _write_config(cluster: Cluster) -> None:
    texts = {
        "slurm.conf": config.slurm_conf(cluster),
        "gres.conf": config.gres_conf(cluster),
        "cgroup.conf": config.cgroup_conf(),
        "mpi.conf": config.mpi_conf(),
        "job_submit.lua": config.job_submit_lua(),
        "slurmdbd.conf": config.slurmdbd_conf(cluster),
        "resolv.conf": "nameserver 127.0.0.1\n",
    }
    slurmdbd_conf = ROOT / "etc/slurmdbd.conf"
    slurmdbd_conf.touch(mode=0o600)
    run("chown", "slurm", str(slurmdbd_conf))
    for name, text in texts.items():
        (ROOT / "etc" / name).write_text(text)
    SYSTEM_SLURM_CONF.parent.mkdir(exist_ok=True)
    SYSTEM_SLURM_CONF.symlink_to(SLURM_CONF)


def _user_mark() -> str | None:
    try:
        return pwd.getpwnam(USER).pw_gecos
    except KeyError:
        return None


def _make_user() -> None:
    if _user_mark() is None:
        run("useradd", "--create-home", "--shell", "/bin/bash", "--comment", USER_MARK, USER)


def down() -> None:
    """Remove every trace of the cluster; also of one that broke half-way. Does nothing when there is none."""
    if ROOT.is_mount():
        _stop_everything()
        wait_for(f"nobody uses {ROOT}", lambda: succeeds("umount", str(ROOT)))
        ROOT.rmdir()
    network.remove()
    if is_ours(SYSTEM_SLURM_CONF):
        SYSTEM_SLURM_CONF.unlink()
    if _user_mark() == USER_MARK:
        run("userdel", "--remove", USER)


def _stop_everything() -> None:
    for name in kept_names():
        stop(name, signal.SIGKILL)
    for name in kept_names():
        wait_for(f"control groups of {name} removed", partial(nodes.remove_cgroups, name))
    for leftover in daemons.MUNGE_SOCKET.parent.glob("munge*"):
        leftover.unlink()


def status() -> None:
    """Raises DevSlurmError when no cluster is up."""
    cluster = load_cluster()
    for name in _expected(cluster):
        say(f"{name:<12} {_describe(pid_of(name))}")
    say("")
    show_nodes()


def _expected(cluster: Cluster) -> list[str]:
    accounting = ["mariadbd", "slurmdbd"] if cluster.accounting else []
    return ["munged", *accounting, "slurmctld", "slurmrestd", *(node.name for node in cluster.nodes)]


def _describe(pid: int | None) -> str:
    if pid is None:
        return "off"
    return f"hangs (pid {pid})" if process_state(pid) == "T" else f"runs (pid {pid})"


def show_nodes() -> None:
    try:
        say(run("sinfo", "-o", "%.10P %.6a %.11l %.6D %.10T %.20N %G").rstrip())
    except DevSlurmError as error:
        say(f"{error}\nto end bad days: dev-slurm heal")


def run_on_node(node_name: str, command: list[str]) -> None:
    """Become `command` on the node; returns only by an error."""
    argv = nodes.command_inside(load_cluster().node(node_name), command or ["bash"])
    os.execvp(argv[0], argv)
