"""The search for the highest rate that meets an objective: which load comes next, and what it all says."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aifbench.errors import WorkloadError
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, Poisson
from aifbench.load.fleet import PhaseOutcome
from aifbench.results.record import Measurement, Role
from aifbench.results.slo import Slo
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.capacity import check_of, metric_of
from aifbench.servers.inference_phases import PhaseMaker, Seen
from aifbench.servers.levels import Level
from aifbench.stats.intervals import Estimate
from aifbench.stats.saturation import Capacity, RateSearch, Trial, blind_overload, in_flight_limit

TRIAL_S = 20.0
_SLACK = 1.5


class CapacitySearch:
    """Trials, and at the end a firm measurement at the rate that was found."""

    def __init__(
        self, maker: PhaseMaker, source: str, slo: Slo, *, precision: float, trial_s: float, final_s: float,
        warmup_s: float, arrivals: str, seed: int, clients: int,
    ) -> None:  # fmt: skip
        self._maker, self._source, self._slo = maker, source, slo
        self._precision, self._trial_s, self._final_s = precision, trial_s, final_s
        self._warmup_s, self._kind, self._seed, self._clients = warmup_s, arrivals, seed, clients

    def phases(self) -> Iterator[Phase]:
        first = Level(
            "estimate",
            Closed(self._clients),
            self._trial_s / 3,
            self._warmup_s,
            slo=self._slo,
            role=Role.PROBE,
        )
        yield self._maker.generate(first, self._source)
        seen = self._maker.seen[-1]
        start_per_s = seen.value("throughput")
        if not start_per_s:
            raise WorkloadError("no request succeeded, so there is no capacity to search for")
        limit_s = self._latency_limit_s(seen)
        search = RateSearch(start_per_s, precision=self._precision)
        number = 0
        while (rate_per_s := search.next_rate()) is not None:
            number += 1
            measure_s = self._trial_s * (2 if search.attempt > 1 else 1)
            level = Level(
                f"trial-{number}",
                self._arrivals(rate_per_s),
                measure_s,
                self._warmup_s,
                slo=self._slo,
                role=Role.PROBE,
                max_in_flight=in_flight_limit(rate_per_s, limit_s, least=2 * self._clients),
            )
            yield self._maker.generate(level, self._source)
            seen = self._maker.seen[-1]
            search.tell(rate_per_s, self._trial(seen, limit_s))
            if seen.overloaded or seen.abandoned:
                self._maker.await_idle()
        yield self._final(search.result, start_per_s)

    def _arrivals(self, rate_per_s: float) -> AnyArrivals:
        return Constant(rate_per_s) if self._kind == "constant" else Poisson(rate_per_s, self._seed)

    def _latency_limit_s(self, seen: Seen) -> float:
        """How long a request may take in all: as limited, or the first token's limit and the rest as seen."""
        slo = self._slo
        tokens = seen.value("output_tokens_mean") or 1.0
        limits = []
        if slo.e2e_ms is not None:
            limits.append(slo.e2e_ms)
        e2e_ms = seen.value("e2e_mean") or 0.0
        rest_ms = slo.tpot_ms * tokens if slo.tpot_ms is not None else _SLACK * e2e_ms
        if slo.ttft_ms is not None or slo.tpot_ms is not None:
            limits.append((slo.ttft_ms or e2e_ms) + rest_ms)
        return min(limits) / 1e3

    def _trial(self, seen: Seen, limit_s: float) -> Trial:
        share = seen.measurement.metric("attainment")
        value, low, high = (
            (share.value, share.low, share.high) if share and share.value is not None else (0.0, None, None)
        )
        estimate = Estimate(value / 100, _hundredth(low), _hundredth(high), share.n if share else 0)
        queue_s = (self._slo.ttft_ms or self._slo.e2e_ms or 1e3 * limit_s) / 1e3
        return Trial(
            estimate,
            self._slo.share,
            seen.served_per_s,
            overloaded=seen.overloaded,
            blind=blind_overload(queue_s, seen.lasted_s),
        )

    def _final(self, capacity: Capacity, start_per_s: float) -> Phase:
        rate_per_s = capacity.met_per_s or min((rate for rate, _ in capacity.trials), default=start_per_s)
        level = Level("capacity", self._arrivals(rate_per_s), self._final_s, self._warmup_s, slo=self._slo)
        phase = self._maker.generate(level, self._source)
        inner = phase.verify

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            found = inner(outcome, measured)
            ((stream, evidence),) = found.items()
            attainment = measured[stream].metric("attainment")
            check = check_of(capacity, self._slo, attainment, str(level.arrivals), self._final_s)
            return {
                stream: Evidence(
                    (*evidence.checks, check),
                    (*evidence.metrics, metric_of(capacity)),
                )
            }

        return replace(phase, verify=verify)


def _hundredth(value: float | None) -> float | None:
    return None if value is None else value / 100
