"""What the virtual cluster is: its nodes, addresses, options and where it keeps its files."""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path("/run/dev-slurm")
"""Everything the cluster writes; one tmpfs, so that taking it down is one unmount."""
SLURM_CONF = ROOT / "etc/slurm.conf"
SYSTEM_SLURM_CONF = Path("/etc/slurm/slurm.conf")
"""Where Slurm's commands look by default; dev-slurm owns it when it links to SLURM_CONF."""

BRIDGE = "ib0"
LOGIN_IP = "10.77.0.1"
REST_PORT = 6820
DATABASE_PORT = 13306
USER = "alice"
FEWEST_NODES, MOST_NODES = 3, 20
GPU_NODES = 2
GPUS_PER_NODE = 4


class DevSlurmError(Exception):
    """Something the user can act on: shown as one line, never as a traceback."""


@dataclass(frozen=True, slots=True)
class Node:
    """One virtual node: a set of namespaces with its own address and its own slurmd."""

    number: int
    has_gpus: bool

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def ip(self) -> str:
        return f"10.77.0.{10 + self.number}"

    @property
    def cable(self) -> str:
        """The login end of the node's network link."""
        return f"dev-{self.name}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The options `up` was given and what the machine allows; kept in ROOT for the other commands."""

    node_count: int = 4
    accounting: bool = True
    private_tmp: bool = False
    cgroups: bool = False
    login: str = "login"
    database_password: str = ""

    @property
    def nodes(self) -> list[Node]:
        first_gpu_node = self.node_count - GPU_NODES + 1
        return [Node(number, number >= first_gpu_node) for number in range(1, self.node_count + 1)]

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise DevSlurmError(f"no node {name!r}; there are node1 to node{self.node_count}")

    def save(self) -> None:
        saved_cluster().touch(mode=0o600)
        saved_cluster().write_text(json.dumps(asdict(self)))


def saved_cluster() -> Path:
    return ROOT / "cluster.json"


def load_cluster() -> Cluster:
    """The cluster that is up. Raises DevSlurmError when there is none."""
    try:
        return Cluster(**json.loads(saved_cluster().read_text()))
    except FileNotFoundError:
        raise DevSlurmError("no cluster here; bring one up with: dev-slurm up") from None


def login_name() -> str:
    return socket.gethostname().split(".")[0]


def is_ours(slurm_conf: Path) -> bool:
    return slurm_conf.is_symlink() and slurm_conf.readlink() == SLURM_CONF


def refuse_foreign_machine() -> None:
    """Raise DevSlurmError where there are traces of a Slurm or a network that is not ours."""
    if SYSTEM_SLURM_CONF.exists() and not is_ours(SYSTEM_SLURM_CONF):
        raise DevSlurmError(f"{SYSTEM_SLURM_CONF} belongs to another Slurm; use a machine without one")
    if Path("/sys/class/net", BRIDGE).exists():
        raise DevSlurmError(f"a network interface {BRIDGE} exists already; use a machine without one")
    if Path("/run/munge/munge.socket.2").is_socket():
        raise DevSlurmError("a munge daemon runs here already (/run/munge/munge.socket.2); stop it first")
