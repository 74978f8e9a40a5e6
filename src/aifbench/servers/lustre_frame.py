"""What all phases on a file system share: options, nodes, timing, and what the nodes saw of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aifbench.load.arrivals import AnyArrivals
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.servers.benchmark import BenchmarkContext
from aifbench.servers.load_options import arrivals_of, timing_of
from aifbench.servers.lustre_room import free_bytes, free_files


@dataclass(frozen=True, slots=True)
class Frame:
    """One run's settings; `seen` is what each node saw, see workloads.file_survey."""

    options: Mapping[str, Any]
    context: BenchmarkContext
    seen: Sequence[Mapping[str, Any]]

    @property
    def workers(self) -> int:
        return int(self.options["workers"])

    @property
    def clients(self) -> int:
        """At least one for each process."""
        return max(int(self.options["clients"]), self.workers)

    @property
    def nodes(self) -> int:
        return min(int(self.options["client_nodes"] or 1), self.workers)

    @property
    def arrivals(self) -> AnyArrivals:
        return arrivals_of({**self.options, "clients": self.clients})

    @property
    def memory_bytes(self) -> int | None:
        """Of all nodes that make load together, taking those that were looked at for typical."""
        each = [int(node["memory_bytes"]) for node in self.seen if node.get("memory_bytes")]
        return min(each) * self.nodes if each else None

    @property
    def free_bytes(self) -> int | None:
        """On the file system and within quotas, when it was looked at."""
        return free_bytes(self.seen[0])[0] if self.seen else None

    @property
    def free_files(self) -> int | None:
        """Room for files, where the file system counts them or a quota does."""
        return free_files(self.seen[0])[0] if self.seen else None

    @property
    def link_bytes_per_s(self) -> float | None:
        """What a node's fastest link carries, as told or as seen; None for a local file system."""
        if self.options["link"]:
            return float(self.options["link"])
        rates = [float(node["link_bytes_per_s"]) for node in self.seen if node.get("link_bytes_per_s")]
        is_remote = any(node.get("is_remote") for node in self.seen)
        return max(rates) if rates and is_remote else None

    def fixed(self, name: str, *streams: StreamPlan) -> PhasePlan:
        return PhasePlan(
            name,
            streams,
            self.context.endpoint,
            drain_s=self.options["drain"],
            timeout_s=self.options["timeout"],
            seed=self.options["seed"],
        )

    def timed(self, name: str, *streams: StreamPlan) -> PhasePlan:
        return PhasePlan(
            name, streams, self.context.endpoint, seed=self.options["seed"], **timing_of(self.options)
        )
