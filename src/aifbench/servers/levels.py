"""Levels: the loads that a benchmark puts on its service one after another, and the plan of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import AnyArrivals, Closed
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.results.record import Role
from aifbench.results.slo import Slo


@dataclass(frozen=True, slots=True)
class Level:
    """One load: what arrives, and for how long it is measured. `limit` makes it fixed work instead."""

    name: str
    arrivals: AnyArrivals
    measure_s: float | None = None
    warmup_s: float = 0.0
    limit: int | None = None
    slo: Slo | None = None
    role: Role = Role.MEASURE
    is_measured: bool = True
    max_in_flight: int | None = None
    chain: int = 1

    @property
    def clients(self) -> int | None:
        """None in open loop."""
        return self.arrivals.clients if isinstance(self.arrivals, Closed) else None

    def workers(self, options: Mapping[str, Any]) -> int:
        """As many as asked for; in closed loop no more than clients."""
        workers: int = options["workers"]
        return min(workers, self.clients or workers)

    def plan(self, stream: StreamPlan, endpoint: Endpoint, options: Mapping[str, Any]) -> PhasePlan:
        """A phase of this load on that one stream."""
        stream = replace(
            stream,
            workers=self.workers(options),
            limit=self.limit,
            max_in_flight=self.max_in_flight,
            chain=self.chain,
        )
        return PhasePlan(
            self.name,
            (stream,),
            endpoint,
            warmup_s=self.warmup_s,
            measure_s=self.measure_s,
            drain_s=options["drain"],
            timeout_s=options["timeout"],
            seed=options["seed"],
        )
