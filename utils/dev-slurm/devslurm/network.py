"""The cluster's network: one bridge on the login side, one cable per node, names in /etc/hosts.

Both ends are called ib0, so that "the interface named ib0" is right on every machine, as on a real fabric.
"""

from pathlib import Path

from devslurm.cluster import BRIDGE, LOGIN_IP, Cluster, Node
from devslurm.machine import run, succeeds

HOSTS = Path("/etc/hosts")
MARK = "dev-slurm"
HOSTS_MARK = f"# {MARK}"


def build(cluster: Cluster) -> None:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "alias", MARK)
    run("ip", "address", "add", f"{LOGIN_IP}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    lines = [f"{node.ip} {node.name} {HOSTS_MARK}\n" for node in cluster.nodes]
    _write_hosts(without_our_lines(HOSTS.read_text()) + "".join(lines))


def plug_in(node: Node, node_pid: int) -> None:
    """Lay a cable from the bridge into the network namespace of the node's first process."""
    succeeds("ip", "link", "delete", node.cable)
    peer = ("peer", "name", BRIDGE, "netns", str(node_pid))
    run("ip", "link", "add", node.cable, "type", "veth", *peer)
    run("ip", "link", "set", node.cable, "master", BRIDGE, "up")


def remove() -> None:
    for path in Path("/sys/class/net").glob("dev-node*"):
        succeeds("ip", "link", "delete", path.name)
    if _bridge_is_ours():
        run("ip", "link", "delete", BRIDGE)
    if HOSTS_MARK in HOSTS.read_text():
        _write_hosts(without_our_lines(HOSTS.read_text()))


def _bridge_is_ours() -> bool:
    alias = Path("/sys/class/net", BRIDGE, "ifalias")
    return alias.exists() and alias.read_text().strip() == MARK


def without_our_lines(hosts: str) -> str:
    lines = hosts.splitlines(keepends=True)
    return "".join(line for line in lines if not line.rstrip().endswith(HOSTS_MARK))


def _write_hosts(text: str) -> None:
    """In place: in containers /etc/hosts is a mount, which cannot be replaced by renaming."""
    HOSTS.write_text(text)
