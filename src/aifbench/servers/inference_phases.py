"""Phases of inference load: how a level is loaded, watched, and held against the server's own view."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aifbench.load.arrivals import to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import Quality, StreamPlan
from aifbench.load.samples import Samples
from aifbench.load.workload import OutcomeKind
from aifbench.results.reconcile import Totals, account, reconcile, unseen
from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.inference_idle import await_idle
from aifbench.servers.inference_setup import Setup
from aifbench.servers.instrumented import instrument_params, via_of
from aifbench.servers.levels import Level
from aifbench.workloads import engine_metrics
from aifbench.workloads.openai_control import bearer_headers
from aifbench.workloads.scraper import Scraper

STREAM = "generate"
_CLIENT_LIMITED_PERCENT = 85
_ABANDONED = (OutcomeKind.TIMEOUT, OutcomeKind.UNFINISHED)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a level, for whoever decides about the next one.

    `served_per_s` counts good answers while the load lasted, `lasted_s`. `abandoned` requests got no answer
    in time, and may still keep the server busy.
    """

    level: Level
    stream: StreamPlan
    measurement: Measurement
    served_per_s: float = 0.0
    lasted_s: float = 0.0
    overloaded: bool = False
    abandoned: int = 0

    @classmethod
    def of(cls, level: Level, stream: StreamPlan, measurement: Measurement, outcome: PhaseOutcome) -> "Seen":
        samples = outcome.samples(stream)
        # An overloaded load ends early, perhaps while it warms up: its beginning is left out all the same.
        end_ns = int(samples.intended_ns.max(initial=0))
        begin_ns = min(round(level.warmup_s * 1e9), end_ns // 2)
        done_ns = samples.finished_ns[samples.ok]
        lasted_s = max((end_ns - begin_ns) / 1e9, 1e-3)
        return cls(
            level,
            stream,
            measurement,
            served_per_s=int(((done_ns > begin_ns) & (done_ns <= end_ns)).sum()) / lasted_s,
            lasted_s=lasted_s,
            overloaded=any(report.overloaded for report in outcome.reports(stream)),
            abandoned=int(sum((samples.outcome == kind).sum() for kind in _ABANDONED)),
        )

    def value(self, metric: str) -> float | None:
        found = self.measurement.metric(metric)
        return found.value if found else None


class PhaseMaker:
    """Makes phases of levels, and keeps what came of each in `seen`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._options = setup.options
        self._scraper: Scraper | None = None
        self.seen: list[Seen] = []

    def generate(self, level: Level, source: str, **changes: Any) -> Phase:
        """Load by generated answers to the prompts of `source`; each level has prompts of its own."""
        setup = self._setup
        params = {
            "source": source,
            "model": setup.model,
            "api": setup.api,
            "salt": f"{setup.context.run_tag}-{level.name}",
            "extra": setup.extra,
            "exact": setup.is_exact,
            **instrument_params(self._options),
        }
        via = self._options["via"]
        module = "inference_sdk" if via == "sdk" else "inference"
        quality = Quality("exact length", warn_below=0.99)
        stream = StreamPlan(
            STREAM,
            f"aifbench.workloads.{module}:Generate",
            params,
            to_json(level.arrivals),
            qualities=(quality,) if setup.is_exact else (),
            via=via_of(self._options),
        )
        return self.phase(level, replace(stream, **changes))

    def plain_source(self, input_tokens: int) -> str:
        """Random prompts of that length, whatever was asked for."""
        return self._setup.source(
            "calibration",
            kind="synthetic",
            input_tokens=str(input_tokens),
            path="",
            prefixes=0,
            prefix_tokens=0,
            how="words",
        )

    def phase(self, level: Level, stream: StreamPlan) -> Phase:
        """A phase of one stream, with the server watched beside it."""
        plan = level.plan(stream, self._setup.context.endpoint, self._options)
        (stream,) = plan.streams

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            (measurement,) = measured.values()
            self.seen.append(Seen.of(level, stream, measurement, outcome))
            return {stream.name: self._evidence(measurement, outcome, outcome.samples(stream))}

        return Phase(
            plan,
            self._parameters(level),
            verify,
            is_measured=level.is_measured,
            may_fail_in_part=True,
            role=level.role,
            slo=level.slo,
            watching=self._watching(level),
        )

    def await_idle(self) -> None:
        """Let the server get rid of what a load has left behind."""
        setup = self._setup
        setup.context.progress.phase("pause", "until the server has done with what it was asked")
        await_idle(setup.context.endpoint, has_metrics=setup.capabilities.metrics)

    def _parameters(self, level: Level) -> dict[str, Any]:
        keys = ("prompts", "input_tokens", "output_tokens", "via", "seed")
        named = {key: self._options[key] for key in keys}
        return {**named, "model": self._setup.model, "api": self._setup.api} | (
            {"slo": str(level.slo)} if level.slo else {}
        )

    def _watching(self, level: Level) -> Callable[[Path], AbstractContextManager[object]]:
        setup = self._setup

        @contextmanager
        def watch(directory: Path) -> Iterator[None]:
            self._scraper = None
            if not setup.capabilities.metrics or not level.is_measured:
                yield
                return
            endpoint = setup.context.endpoint
            directory.mkdir(parents=True, exist_ok=True)
            with Scraper(
                f"{endpoint.url}/metrics",
                directory / f"server-{level.name}.jsonl",
                families=engine_metrics.families(),
                headers=bearer_headers(endpoint),
                ca_file=endpoint.ca_file,
            ) as self._scraper:
                yield

        return watch

    def _evidence(self, measurement: Measurement, outcome: PhaseOutcome, samples: Samples) -> Evidence:
        metrics, checks = self._server_view(measurement, outcome, samples)
        limit = limited_by(measurement)
        return Evidence((*checks, *([limit] if limit else [])), metrics)

    def _server_view(
        self, measurement: Measurement, outcome: PhaseOutcome, samples: Samples
    ) -> tuple[list[Metric], list[Check]]:
        scraper = self._scraper
        if scraper is None:
            return [], [unseen("the server has no /metrics")]
        start_s, end_s = (outcome.start_wall_s + edge for edge in measurement.window_s)
        snapshots = scraper.snapshots
        view = engine_metrics.view(snapshots, start_s, end_s)
        if view is None:
            return [], [unseen(scraper.report.told or "its metrics are none that this program knows")]
        client = {metric.name: metric for metric in measurement.metrics}
        unique = self._options["prompts"] == "synthetic" and measurement.stream == STREAM
        metrics, checks = reconcile(client, view, unique_prompts=unique)
        whole = engine_metrics.view(snapshots, snapshots[0].wall_s, snapshots[-1].wall_s)
        if whole is not None and samples.tokens is not None and samples.ok.all():
            tokens = samples.tokens
            totals = Totals(len(samples), int(tokens.prompt_tokens.sum()), int(tokens.output_tokens.sum()))
            checks += account(totals, whole)
        return metrics, checks


def limited_by(measurement: Measurement) -> Check | None:
    """Who set the pace: in closed loop the server, unless the client had no time to spare."""
    cpu = measurement.metric("client_cpu")
    if cpu is None or cpu.value is None:
        return None
    used = f"the busiest load worker used {cpu.value:.0f} % of a core"
    closed = measurement.arrivals.startswith("closed")
    if cpu.value > _CLIENT_LIMITED_PERCENT:
        return Check(
            "LIMIT",
            Verdict.WARN,
            f"client-limited: {used}",
            cpu.value,
            _CLIENT_LIMITED_PERCENT,
            "%",
            f"spread the load over more processes: --workers {2 * measurement.workers}",
        )
    words = "server-limited" if closed else "not client-limited"
    return Check("LIMIT", Verdict.VALID, f"{words}: {used}", cpu.value, _CLIENT_LIMITED_PERCENT, "%")
