"""Inference benchmarks as phases: which loads follow one another, for every server of a dialect we know."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from aifbench.errors import UsageError, WorkloadError
from aifbench.load.arrivals import AnyArrivals, Closed, Poisson, to_json
from aifbench.load.plan import StreamPlan
from aifbench.load.workload import OutcomeKind
from aifbench.results.record import Role
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.inference_calibration import calibration
from aifbench.servers.inference_capacity import TRIAL_S, CapacitySearch
from aifbench.servers.inference_options import parse_levels, slo_of
from aifbench.servers.inference_pairs import StructuredPairs
from aifbench.servers.inference_phases import PhaseMaker
from aifbench.servers.inference_setup import Setup
from aifbench.servers.instrumented import instrument_params
from aifbench.servers.levels import Level
from aifbench.servers.load_options import arrivals_of

_LADDER = (4, 16, 64)
_SWEEP = "1,2,4,8,16,32,64"
_QUICK_SWEEP = "1,8,32"
_BY_ARRIVALS = ("generate", "embed", "conversation")
_USED_BY = {
    "rate": ("generate", "embed"),
    "trace": ("generate", "embed"),
    "arrivals": ("generate", "embed", "sweep", "capacity"),
    "ramp_to": ("generate", "embed", "sweep"),
    "burstiness": ("generate", "embed", "sweep"),
    "rates": ("sweep",),
    "concurrency": ("sweep",),
    "precision": ("capacity",),
    "requests": ("average", "structured"),
    "turns": ("conversation",),
    "think": ("conversation",),
    "batch": ("embed",),
    "constraint": ("structured",),
    "cases": ("structured",),
    "via": ("generate", "average"),
    "instrument": ("generate", "average"),
}
_OPEN_SHARE = 0.7  # of the best throughput: a load that a service can be asked to carry all day
_WARM_REQUESTS = 4


class InferenceBenchmark:
    """One run against one server. `all` answers what most people ask in five minutes, or one (--quick)."""

    def __init__(
        self,
        bench: str,
        options: Mapping[str, Any],
        context: BenchmarkContext,
        *,
        find_out: Callable[[Mapping[str, Any], BenchmarkContext], Setup] = Setup,
    ) -> None:
        self._bench = bench
        self._options = options
        self._context = context
        self._quick = options["quick"]
        self._slo = slo_of(options)
        self._find_out = find_out
        self._setup: Setup | None = None
        self._maker: PhaseMaker
        _refuse_misplaced(bench, options)
        instrument_params(options)  # refuses what cannot be, before anything is measured
        self._arrivals: AnyArrivals = (
            arrivals_of(options) if bench in _BY_ARRIVALS else Closed(options["clients"])
        )

    @property
    def workers(self) -> int:
        return int(self._options["workers"])

    def phases(self) -> Iterator[Phase]:
        self._setup = setup = self._find_out(self._options, self._context)
        self._maker = PhaseMaker(setup)
        if not setup.api and self._bench not in ("all", "embed"):
            raise UsageError(
                f"{setup.model} generates nothing, it embeds", hint="`bench ... embed` measures that"
            )
        for phase in getattr(self, f"_{self._bench}")(setup):
            self._refuse_more_of_nothing()
            yield phase
        if not self._options["no_calibration"]:
            phase = calibration(self._maker, self._maker.seen, 5.0 if self._quick else 10.0)
            if phase is not None:
                yield phase

    def _refuse_more_of_nothing(self) -> None:
        """A service that answers nothing any more is not worth further phases. Trials may fail altogether."""
        for seen in self._maker.seen[-1:]:
            if seen.level.role is Role.MEASURE and not seen.measurement.outcomes.get(OutcomeKind.OK.name):
                why = next(iter(seen.measurement.errors), "see `logs` of the service")
                raise WorkloadError(f"no request of {seen.level.name} succeeded: {why}")

    def facts(self) -> dict[str, Any]:
        return self._setup.facts() if self._setup else {}

    def close(self) -> None:
        """Nothing is left on the server."""

    def _all(self, setup: Setup) -> Iterator[Phase]:
        if not setup.api:
            yield from self._embed(setup)
            return
        source = setup.source()
        yield self._warm(source)
        yield self._level("alone", Closed(1), source, default_s=10.0 if self._quick else 30.0)
        is_chosen = self._quick or "clients" in self._options["given"]
        ladder = (self._options["clients"],) if is_chosen else _LADDER
        for clients in ladder:
            yield self._level(
                f"clients-{clients}", Closed(clients), source, default_s=10.0 if self._quick else 60.0
            )
        best = max((seen.value("throughput") or 0.0 for seen in self._maker.seen), default=0.0)
        if best:
            arrivals = Poisson(max(_OPEN_SHARE * best, 0.01), self._options["seed"])
            yield self._level("steady", arrivals, source, default_s=15.0 if self._quick else 60.0)

    def _generate(self, setup: Setup) -> Iterator[Phase]:
        source = setup.source()
        yield self._warm(source)
        yield self._level("generate", self._arrivals, source, default_s=20.0 if self._quick else 60.0)

    def _sweep(self, setup: Setup) -> Iterator[Phase]:
        options = self._options
        levels: list[tuple[str, AnyArrivals]]
        if options["rates"]:
            rates = parse_levels(options["rates"], "--rates")
            levels = [(f"rate-{rate:.12g}", arrivals_of({**options, "rate": rate})) for rate in rates]
        else:
            typed = options["concurrency"] or (_QUICK_SWEEP if self._quick else _SWEEP)
            counts = parse_levels(typed, "--concurrency")
            levels = [(f"clients-{int(clients)}", Closed(int(clients))) for clients in counts]
        source = setup.source()
        yield self._warm(source)
        for name, arrivals in levels:
            yield self._level(name, arrivals, source, default_s=12.0 if self._quick else 30.0)

    def _capacity(self, setup: Setup) -> Iterator[Phase]:
        options = self._options
        assert self._slo is not None
        source = setup.source()
        yield self._warm(source)
        yield from CapacitySearch(
            self._maker,
            source,
            self._slo,
            precision=options["precision"],
            trial_s=options["duration"] or (12.0 if self._quick else TRIAL_S),
            final_s=2 * (options["duration"] or (10.0 if self._quick else 30.0)),
            warmup_s=options["warmup"],
            arrivals=options["arrivals"],
            seed=options["seed"],
            clients=options["clients"],
        ).phases()

    def _structured(self, setup: Setup) -> Iterator[Phase]:
        yield from StructuredPairs(setup, self._maker).phases()

    def _conversation(self, setup: Setup) -> Iterator[Phase]:
        options, turns = self._options, self._options["turns"]
        if setup.api != "chat":
            raise UsageError("conversations need chat", hint="use a server and model that offer it")
        kind = {"kind": "conversation", "turns": turns, "prefixes": options["prefixes"], "path": ""}
        kind["prefix_tokens"] = (
            options["prefix_tokens"] if "prefix_tokens" in (options.get("given") or ()) else 0
        )
        if options["prompts"] not in ("synthetic", "repeat", "prefix"):
            kind |= {"path": options["prompts"]}
        source = setup.source("conversation", **kind)
        level = Level(
            "conversation",
            self._arrivals,
            self._duration_s(20.0 if self._quick else 60.0),
            options["warmup"],
            slo=self._slo,
            chain=turns,
        )
        phase = self._maker.generate(
            level,
            source,
            name="converse",
            workload="aifbench.workloads.inference:Converse",
            think_s=options["think"] or 0.0,
            is_stationary=False,
        )
        (stream,) = phase.plan.streams
        params = {**stream.params, "turns": turns}
        yield replace(phase, plan=replace(phase.plan, streams=(replace(stream, params=params),)))

    def _embed(self, setup: Setup) -> Iterator[Phase]:
        if not setup.capabilities.embeddings:
            raise UsageError(
                f"the server offers no embeddings for {setup.model}", hint="serve an embedding model"
            )
        source = setup.source(output_tokens="")
        stream = StreamPlan(
            "embed",
            "aifbench.workloads.inference:Embed",
            {
                "source": source,
                "model": setup.model,
                "batch": self._options["batch"],
                "salt": f"{self._context.run_tag}-embed",
            },
            to_json(self._arrivals),
            items="texts",
        )
        level = Level(
            "embed", self._arrivals, self._duration_s(20.0 if self._quick else 60.0), self._options["warmup"]
        )
        yield self._maker.phase(level, stream)

    def _average(self, setup: Setup) -> Iterator[Phase]:
        """The simplest measurement there is: one prompt, one request at a time, averages."""
        kind = {"kind": "repeat"} if self._options["prompts"] == "synthetic" else {}
        source = setup.source("repeat", **kind)
        yield self._warm(source)
        level = Level("average", Closed(1), limit=self._options["requests"], slo=self._slo)
        yield self._maker.generate(level, source)

    def _warm(self, source: str) -> Phase:
        """First requests are slow for reasons of their own: compilation, caches, allocations."""
        level = Level("warm-up", Closed(2), limit=_WARM_REQUESTS, is_measured=False)
        return self._maker.generate(level, source)

    def _level(self, name: str, arrivals: AnyArrivals, source: str, *, default_s: float) -> Phase:
        warmup_s = min(self._options["warmup"], default_s / 4) if self._quick else self._options["warmup"]
        level = Level(name, arrivals, self._duration_s(default_s), warmup_s, slo=self._slo)
        return self._maker.generate(level, source)

    def _duration_s(self, default_s: float) -> float:
        return float(self._options["duration"] or default_s)


def _refuse_misplaced(bench: str, options: Mapping[str, Any]) -> None:
    """Nothing that was asked for is left out in silence. Raises UsageError."""
    if bench == "capacity" and not options["slo"]:
        raise UsageError(
            "capacity needs limits", hint="give --slo, such as --slo ttft=500ms,tpot=50ms,share=99%"
        )
    if bench == "conversation" and (options["rate"] or options["trace"]):
        raise UsageError("conversations are closed loop", hint="give --clients instead of --rate")
    if options["rates"] and options["concurrency"]:
        raise UsageError("--rates and --concurrency exclude each other", hint="give one of them")
    for key in options["given"]:
        users = _USED_BY.get(key, (bench,))
        if bench not in users:
            name = key.replace("_", "-")
            raise UsageError(f"{bench} does not use --{name}", hint=f"it is for {' and '.join(users)}")
    if bench == "capacity" and options["arrivals"] not in ("poisson", "constant"):
        raise UsageError(
            f"capacity is searched for at a steady rate, not with {options['arrivals']} arrivals",
            hint="give --arrivals poisson or constant",
        )
    if bench == "sweep" and not options["rates"] and options["arrivals"] != "poisson":
        raise UsageError(f"--arrivals {options['arrivals']} needs rates", hint="give --rates, such as 1,2,4")
