"""Virtual nodes: sets of namespaces that boot, run commands, lose power and come back."""

import os
import signal
import subprocess
from pathlib import Path

from devslurm import network
from devslurm.cluster import LOGIN_IP, ROOT, Cluster, DevSlurmError, Node
from devslurm.machine import keep_pid, pid_of, run, stop, wait_for

NODE_INIT = Path(__file__).parents[1] / "node-init.sh"
CGROUPS = Path("/sys/fs/cgroup")


def boot(cluster: Cluster, node: Node) -> None:
    """Start the node's first process in new namespaces, plug its network in, and let it continue."""
    tmp = "private" if cluster.private_tmp else "shared"
    new_namespaces = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--propagation", "private")
    process = subprocess.Popen(
        [*new_namespaces, str(NODE_INIT), node.name, node.ip, LOGIN_IP, str(ROOT), tmp],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin and process.stdout and process.stderr
    pid_line = process.stdout.readline()
    if not pid_line:
        raise DevSlurmError(f"{node.name} does not boot: {process.stderr.read().strip()}")
    keep_pid(node.name, int(pid_line))
    network.plug_in(node, int(pid_line))
    process.stdin.write("plugged in\n")
    process.stdin.close()


def command_inside(node: Node, command: list[str]) -> list[str]:
    """`command` wrapped so that it runs in the node's namespaces."""
    pid = pid_of(node.name)
    if pid is None:
        raise DevSlurmError(f"{node.name} is switched off; bring it back with: dev-slurm revive {node.name}")
    return ["nsenter", f"--target={pid}", "--net", "--uts", "--mount", "--pid", "--", *command]


def power_off(node: Node) -> None:
    """Kill pid 1 of the node; the kernel kills everything else in it, like a power cut."""
    stop(node.name, signal.SIGKILL)
    wait_for(f"{node.name} releases its control groups", lambda: remove_cgroups(node.name))


def remove_cgroups(node_name: str) -> bool:
    """True when none is left. Deepest first; a group is busy until its last process is gone."""
    groups = list(CGROUPS.glob(f"*/slurm_{node_name}"))
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            _try_rmdir(Path(directory))
    return not any(group.exists() for group in groups)


def _try_rmdir(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return


def cgroups_usable() -> bool:
    """Whether jobs can be put into version 1 control groups for memory and freezing here."""
    probes = [CGROUPS / name / "dev-slurm-probe" for name in ("memory", "freezer", "cpuacct", "cpuset")]
    try:
        for probe in probes:
            probe.mkdir()
            probe.rmdir()
    except OSError:
        return False
    return True


def wait_until_known(cluster: Cluster) -> None:
    """Until the controller has heard from every node that has power."""
    powered = {node.name for node in cluster.nodes if pid_of(node.name)}
    wait_for("all nodes are known to the controller", lambda: powered <= _known_nodes(), timeout_s=30)


def _known_nodes() -> set[str]:
    states = run("sinfo", "-h", "-N", "--responding", "-o", "%N %T").splitlines()
    return {line.split()[0] for line in states if "unk" not in line}


def available_nodes() -> set[str]:
    """Nodes that respond and take jobs."""
    usable = "idle,mixed,allocated,completing"
    return set(run("sinfo", "-h", "-N", "--responding", "-t", usable, "-o", "%N").split())
