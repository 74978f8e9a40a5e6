"""The levels of load that a benchmark of a database has: one, a ladder of clients, or a search for a rate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aifbench.errors import WorkloadError
from aifbench.load.arrivals import AnyArrivals, Closed
from aifbench.results.record import Measurement, Metric
from aifbench.servers.benchmark import Phase
from aifbench.servers.levels import Level
from aifbench.servers.postgres_capacity import CapacitySearch
from aifbench.servers.postgres_metrics import scaling_metrics
from aifbench.servers.postgres_options import parse_response_slo
from aifbench.servers.postgres_phases import PhaseMaker, Work

_DEFAULT_S = 60.0
_TRIAL_S = 15.0

Further = Callable[[Measurement], Sequence[Metric]]


def nothing_more(_: Measurement) -> Sequence[Metric]:
    return ()


class Loading:
    """Phases of any work as the options ask for them; `ladder` is empty where they ask for none.

    `more` makes further metrics of each measurement.
    """

    def __init__(
        self, maker: PhaseMaker, options: Mapping[str, Any], arrivals: AnyArrivals, ladder: Sequence[int]
    ) -> None:
        self._maker = maker
        self._options = options
        self._arrivals = arrivals
        self._ladder = ladder

    def timed(self, work: Work, more: Further = nothing_more) -> Iterator[Phase]:
        options = self._options
        if options["slo"]:
            yield from CapacitySearch(
                self._maker,
                work,
                parse_response_slo(options["slo"]),
                precision=options["precision"],
                trial_s=options["duration"] or _TRIAL_S,
                warmup_s=options["warmup"],
                clients=options["clients"],
                seed=options["seed"],
            ).phases()
        elif self._ladder:
            yield from self.levels(work, _DEFAULT_S, more)
        else:
            yield self.single(work, self._arrivals, _DEFAULT_S, more=more)

    def levels(self, work: Work, default_s: float, more: Further = nothing_more) -> Iterator[Phase]:
        """One level after another; the last one carries the scaling law through all of them."""
        seen = self._maker.seen
        first = len(seen)

        def last(measurement: Measurement) -> Sequence[Metric]:
            rates = [(level.level.clients or 1, level.value("throughput") or 0.0) for level in seen[first:]]
            return (*more(measurement), *scaling_metrics(rates))

        for clients in self._ladder:
            extra = last if clients == self._ladder[-1] else more
            yield self.single(work, Closed(clients), default_s, name=f"clients-{clients}", more=extra)
            if not seen[-1].value("throughput"):
                why = next(iter(seen[-1].measurement.errors), "see `logs` of the service")
                raise WorkloadError(f"no operation of {clients} clients succeeded: {why}")

    def single(
        self,
        work: Work,
        arrivals: AnyArrivals,
        default_s: float,
        *,
        name: str = "",
        more: Further = nothing_more,
    ) -> Phase:
        measure_s = self._options["duration"] or default_s
        return self._maker.phase(
            work, Level(name or work.name, arrivals, measure_s, self._options["warmup"]), more
        )
