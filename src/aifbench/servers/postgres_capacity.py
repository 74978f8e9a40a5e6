"""The highest rate of transactions that meets a limit on the response time."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aifbench.errors import WorkloadError
from aifbench.load.arrivals import Closed, Poisson
from aifbench.load.fleet import PhaseOutcome
from aifbench.results.record import Measurement, Role
from aifbench.results.slo import Slo
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.capacity import check_of, metric_of
from aifbench.servers.levels import Level
from aifbench.servers.postgres_phases import PhaseMaker, Seen, Work
from aifbench.stats.intervals import Estimate
from aifbench.stats.saturation import Capacity, RateSearch, Trial, blind_overload

_FINAL = 2  # times as long as a trial


class CapacitySearch:
    """Trials, and at the end a firm measurement at the rate that was found."""

    def __init__(
        self, maker: PhaseMaker, work: Work, slo: Slo, *, precision: float, trial_s: float, warmup_s: float,
        clients: int, seed: int,
    ) -> None:  # fmt: skip
        self._maker, self._work, self._slo = maker, work, slo
        self._precision, self._trial_s, self._warmup_s = precision, trial_s, warmup_s
        self._clients, self._seed = clients, seed

    def phases(self) -> Iterator[Phase]:
        estimate = Level(
            "estimate", Closed(self._clients), self._trial_s, self._warmup_s, slo=self._slo, role=Role.PROBE
        )
        yield self._maker.phase(self._work, estimate)
        start_per_s = self._maker.seen[-1].value("throughput")
        if not start_per_s:
            raise WorkloadError("no operation succeeded, so there is no capacity to search for")
        search = RateSearch(start_per_s / 2, precision=self._precision)
        number = 0
        while (rate_per_s := search.next_rate()) is not None:
            number += 1
            length_s = self._trial_s * (2 if search.attempt > 1 else 1)
            yield self._maker.phase(self._work, self._level(f"trial-{number}", rate_per_s, length_s))
            search.tell(rate_per_s, self._trial(self._maker.seen[-1], length_s))
        yield self._final(search.result, start_per_s)

    def _level(self, name: str, rate_per_s: float, measure_s: float, role: Role = Role.PROBE) -> Level:
        arrivals = Poisson(rate_per_s, self._seed)
        return Level(name, arrivals, measure_s, self._warmup_s, slo=self._slo, role=role)

    def _trial(self, seen: Seen, length_s: float) -> Trial:
        share = seen.measurement.metric("attainment")
        if share is None or share.value is None:
            attainment = Estimate(0.0, None, None, 0)
        else:
            low, high = (None if edge is None else edge / 100 for edge in (share.low, share.high))
            attainment = Estimate(share.value / 100, low, high, share.n)
        limit_s = (self._slo.e2e_ms or 0.0) / 1e3
        served_per_s = seen.value("throughput") or 0.0
        return Trial(attainment, self._slo.share, served_per_s, blind=blind_overload(limit_s, length_s))

    def _final(self, capacity: Capacity, start_per_s: float) -> Phase:
        rate_per_s = capacity.met_per_s or min((rate for rate, _ in capacity.trials), default=start_per_s)
        final_s = _FINAL * self._trial_s
        level = self._level("capacity", rate_per_s, final_s, Role.MEASURE)
        phase = self._maker.phase(self._work, level)
        inner = phase.verify

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            ((stream, evidence),) = inner(outcome, measured).items()
            attainment = next((m for m in evidence.metrics if m.name == "attainment"), None)
            check = check_of(capacity, self._slo, attainment, str(level.arrivals), final_s)
            metrics = (*evidence.metrics, metric_of(capacity, "tx/s"))
            return {stream: Evidence((*evidence.checks, check), metrics)}

        return replace(phase, verify=verify)
