"""Structured output as a paired experiment: the same prompts with and without constraint; first use apart."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aifbench.errors import UsageError
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import Quality, StreamPlan
from aifbench.load.samples import Samples
from aifbench.load.workload import NOT_SEEN
from aifbench.results.record import Measurement, Metric
from aifbench.results.token_metrics import tpot_ms
from aifbench.servers.benchmark import Evidence, Phase, Verify
from aifbench.servers.inference_options import slo_of
from aifbench.servers.inference_phases import STREAM, PhaseMaker
from aifbench.servers.inference_setup import Setup
from aifbench.servers.levels import Level
from aifbench.stats.intervals import Estimate
from aifbench.stats.paired import paired_summary
from aifbench.workloads.lengths import Lengths
from aifbench.workloads.structured_cases import Case, cases, load_cases

_FIRST_USES = 12
_VALID = Quality("valid", warn_below=0.999, invalid_below=0.9)
Column = list[float | None]


class StructuredPairs:
    """free, constrained, constrained, free: so that a drift of the service meets both alike."""

    def __init__(self, setup: Setup, maker: PhaseMaker) -> None:
        self._setup, self._maker, self._options = setup, maker, setup.options
        self._style = self._choose_style()
        self._rounds: dict[str, list[dict[str, Column]]] = {"free": [], "constrained": []}

    def phases(self) -> Iterator[Phase]:
        options = self._options
        kind, count, seed = options["constraint"], options["requests"], options["seed"]
        common = (
            load_cases(Path(options["cases"])) if options["cases"] else cases(kind, count, seed, unique=False)
        )
        path = self._write(common)
        # All of them, so that no side meets a prompt first, whose beginning the server does not know yet.
        yield self._phase(
            "warm-up",
            path,
            limit=len(common),
            clients=options["clients"],
            constrained=False,
            is_measured=False,
        )
        if not options["cases"]:
            fresh = cases(kind, min(count, _FIRST_USES), self._fresh_seed(), unique=True)
            twice = self._write([case for case in fresh for _ in range(2)])
            first = self._phase("first-use", twice, limit=2 * len(fresh), clients=1, constrained=True)
            yield replace(first, verify=self._verify_first_use)
        for name in ("free-1", "constrained-1", "constrained-2", "free-2"):
            side = name.partition("-")[0]
            phase = self._phase(
                name, path, limit=len(common), clients=options["clients"], constrained=side == "constrained"
            )
            yield replace(phase, verify=self._verifying(phase, side))

    def _choose_style(self) -> str:
        found, kind = self._setup.capabilities, self._options["constraint"]
        if found.structured_outputs:
            return "structured_outputs"
        if found.json_schema and kind == "json":
            return "response_format"
        raise UsageError(
            f"the server does not obey {kind} constraints",
            hint="it takes the fields and ignores them, or refuses",
        )

    def _fresh_seed(self) -> int:
        """Another one in every run: a server that lives on knows the constraints of earlier ones."""
        return int.from_bytes(hashlib.sha256(self._setup.context.run_tag.encode()).digest()[:4])

    def _write(self, chosen: Sequence[Case]) -> Path:
        lines = [
            json.dumps({"prompt": case.prompt, "constraint": case.constraint.to_json()}) for case in chosen
        ]
        text = "\n".join(lines)
        folder = self._setup.context.data_dir / "prompts"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"cases-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        return path

    def _phase(
        self, name: str, path: Path, *, limit: int, clients: int, constrained: bool, is_measured: bool = True
    ) -> Phase:
        params = {
            "cases": str(path),
            "model": self._setup.model,
            "output_tokens": Lengths.parse(self._options["output_tokens"], "--output-tokens").at(0.5),
            "constrained": constrained,
            "style": self._style,
            "api": self._setup.api,
            "extra": self._setup.plain,
        }
        arrivals = Closed(min(clients, limit))
        stream = StreamPlan(
            STREAM,
            "aifbench.workloads.inference:Constrained",
            params,
            to_json(arrivals),
            qualities=(_VALID if constrained else Quality("valid"),),
        )
        level = Level(name, arrivals, limit=limit, slo=slo_of(self._options), is_measured=is_measured)
        return self._maker.phase(level, stream)

    def _verify_first_use(self, outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        ttft = _columns(outcome.samples(outcome.plan.streams[0]))["ttft"]
        summary = paired_summary(ttft[1::2], ttft[::2])
        metric = _estimated("first_use_ttft_extra", "ms", summary.difference, summary.pairs)
        return {
            STREAM: Evidence((), [replace(metric, note="TTFT of a constraint's first use less its second")])
        }

    def _verifying(self, phase: Phase, side: str) -> Verify:
        inner = phase.verify

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            found = dict(inner(outcome, measured))
            self._rounds[side].append(_columns(outcome.samples(phase.plan.streams[0])))
            if all(len(rounds) == 2 for rounds in self._rounds.values()):
                found["constrained-2/" + STREAM] = Evidence((), self._compared())
            return found

        return verify

    def _compared(self) -> list[Metric]:
        metrics = []
        for name in ("ttft", "tpot", "e2e"):
            free, constrained = (
                _mean([columns[name] for columns in self._rounds[side]]) for side in ("free", "constrained")
            )
            summary = paired_summary(free, constrained)
            metric = _estimated(f"{name}_constrained_ratio", "", summary.ratio, summary.pairs)
            metrics.append(
                replace(metric, note="constrained / free, same prompts, pairs of means of two rounds")
            )
        return metrics


def _columns(samples: Samples) -> dict[str, Column]:
    """Times in milliseconds by the number of the request; None where there is none."""
    tokens = samples.tokens
    assert tokens is not None
    size = int(samples.index.max(initial=-1)) + 1
    seen = samples.ok & (tokens.first_ns != NOT_SEEN)
    spans = {
        "ttft": (tokens.first_ns - samples.sent_ns) / 1e6,
        "tpot": tpot_ms(tokens),
        "e2e": (tokens.last_ns - samples.sent_ns) / 1e6,
    }
    found: dict[str, Column] = {}
    for name, values in spans.items():
        column = np.full(size, np.nan)
        column[samples.index[seen]] = values[seen]
        found[name] = [None if np.isnan(value) else float(value) for value in column]
    return found


def _mean(rounds: Sequence[Column]) -> Column:
    return [
        None if None in pair else sum(v or 0.0 for v in pair) / len(pair)
        for pair in zip(*rounds, strict=False)
    ]


def _estimated(name: str, unit: str, estimate: Estimate | None, pairs: int) -> Metric:
    if estimate is None:
        return Metric(name, None, unit, "lower", n=pairs)
    return Metric(name, estimate.value, unit, "lower", estimate.low, estimate.high, pairs)
