"""The error bar of the client itself: the heaviest load again, against a server of known timing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import StreamPlan
from aifbench.results.record import Check, Measurement, Metric, Role, Verdict
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.inference_phases import PhaseMaker, Seen
from aifbench.servers.levels import Level

CALIBRATION = "calibration"
_WARN_SHARE = 0.05  # of what was measured
_INVALID_SHARE = 0.25
_FLOOR_MS = 0.5  # below this an error is no matter, however short the times
_ANSWERS_MIN = 10
_WARMUP_S = 1.0


@dataclass(frozen=True, slots=True)
class ClientError:
    """What this client adds, in milliseconds, at most: the worst of all workers; and on how many answers."""

    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    answers: int

    @classmethod
    def of(cls, outcome: PhaseOutcome, stream: StreamPlan) -> "ClientError | None":
        notes = [report.notes for report in outcome.reports(stream) if report.notes]
        if len(notes) < stream.workers:
            return None

        def worst(name: str) -> float:
            return max(note.get(f"{name}_ms", 0.0) for note in notes)

        return cls(
            worst("ttft_error_p50"),
            worst("ttft_error_p99"),
            worst("gap_error_p50"),
            worst("gap_error_p99"),
            int(sum(note["answers"] for note in notes)),
        )


def heaviest(seen: Sequence[Seen]) -> Seen | None:
    """The load with the most tokens a second, which is where a client is the least exact."""
    generated = [one for one in seen if one.value("output_rate")]
    return max(generated, key=lambda one: one.value("output_rate") or 0.0, default=None)


def calibration(maker: PhaseMaker, seen: Sequence[Seen], measure_s: float) -> Phase | None:
    """A phase like the heaviest one; what it finds is told with every measurement of the run."""
    loudest = heaviest(seen)
    if loudest is None or loudest.stream.via != "http":
        return None
    plan = {
        "ttft_s": (loudest.value("ttft_send_p50") or loudest.value("ttft_p50") or 50.0) / 1e3,
        "itl_s": (loudest.value("tpot_p50") or 5.0) / 1e3,
        "output_tokens": max(1, round(loudest.value("output_tokens_mean") or 128)),
    }
    like = loudest.stream.params
    if "source" not in like or loudest.stream.chain > 1:
        source = maker.plain_source(max(1, round(loudest.value("prompt_tokens_mean") or 512)))
    else:
        source = like["source"]
    stream = replace(
        loudest.stream,
        workload="aifbench.workloads.calibration:Calibrated",
        params={"source": source, "api": like["api"], "salt": CALIBRATION, "plan": plan},
        qualities=(),
        is_stationary=True,
        think_s=0.0,
    )
    level = Level(CALIBRATION, loudest.level.arrivals, measure_s, _WARMUP_S, role=Role.PROBE)
    phase = maker.phase(level, stream)
    measured = [one.measurement for one in seen]

    def verify(outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        error = ClientError.of(outcome, stream)
        if error is None or error.answers < _ANSWERS_MIN:
            return {}
        return {
            f"{one.phase}/{one.stream}": _told(error, one, str(loudest.level.arrivals)) for one in measured
        }

    return replace(phase, verify=verify, parameters={**plan, "like": loudest.level.name})


def _told(error: ClientError, measurement: Measurement, load: str) -> Evidence:
    metrics = [
        Metric("client_adds_ttft_p50", error.ttft_p50_ms, "ms", "lower", n=error.answers),
        Metric("client_adds_ttft_p99", error.ttft_p99_ms, "ms", "lower", n=error.answers),
        Metric("client_adds_gap_p99", error.gap_p99_ms, "ms", "lower", n=error.answers),
    ]
    return Evidence([_check(error, measurement, load)], metrics)


def _check(error: ClientError, measurement: Measurement, load: str) -> Check:
    """Against the medians: a client that is late now and then spoils a tail, and that is told as well."""
    ttft = measurement.metric("ttft_send_p50") or measurement.metric("ttft_p50")
    ttft_ms = ttft.value if ttft else None
    share = error.ttft_p50_ms / ttft_ms if ttft_ms else 0.0
    message = (
        f"the client adds at most {max(error.ttft_p50_ms, 0):.2f} ms to the median TTFT, "
        f"{max(error.ttft_p99_ms, 0):.2f} ms to its p99, {max(error.gap_p99_ms, 0):.2f} ms to the gaps' p99 "
        f"(calibrated: {load})"
    )
    verdict = Verdict.VALID
    if error.ttft_p50_ms > _FLOOR_MS and share > _WARN_SHARE:
        verdict = Verdict.INVALID if share > _INVALID_SHARE else Verdict.WARN
    advice = (
        "" if verdict is Verdict.VALID else "leave a free core to each load worker, or use more --workers"
    )
    return Check("CLIENT", verdict, message, 100 * share, 100 * _WARN_SHARE, "%", advice)
