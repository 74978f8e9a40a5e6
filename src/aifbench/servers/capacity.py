"""What a search for the highest rate came to, as a metric and as a check."""

from aifbench.results.record import Check, Metric, Verdict
from aifbench.results.slo import Slo
from aifbench.stats.saturation import Capacity, State


def metric_of(capacity: Capacity, unit: str = "req/s") -> Metric:
    """The estimate with its interval; the bracket that it lies in is told beside it."""
    met, failed = (_rate(value) for value in (capacity.met_per_s, capacity.failed_per_s))
    note = f"met at {met}, not at {failed}, in {len(capacity.trials)} trials"
    return Metric(
        "capacity", capacity.estimate_per_s, unit, "higher", capacity.low_per_s, capacity.high_per_s,
        len(capacity.trials), "; ".join((note, *capacity.notes)),
    )  # fmt: skip


def check_of(capacity: Capacity, slo: Slo, attainment: Metric | None, load: str, final_s: float) -> Check:
    """What the search came to, and whether its rate held in the last and longest load."""
    if capacity.met_per_s is not None and attainment is not None and _missed(attainment, slo):
        return Check(
            "CAPACITY",
            Verdict.WARN,
            f"at {load} the limits were met in a trial, and for {final_s:g} s only "
            f"{attainment.value or 0:.3g} % of requests met them: it does not hold",
            advice="see whether something disturbed the service, or search with a longer --duration",
        )
    words = {
        State.BRACKETED: f"the search closed in on the highest rate that meets {slo.words}",
        State.UNBOUNDED: "every rate that was tried met the limits: this is a lower bound",
        State.NEVER: f"even {_rate(min((r for r, _ in capacity.trials), default=None))} missed {slo.words}",
        State.UNDECIDED: "the search ran out of trials before its bracket was narrow",
    }
    verdicts = {State.BRACKETED: Verdict.VALID, State.NEVER: Verdict.INVALID}
    verdict = verdicts.get(capacity.state, Verdict.WARN)
    advice = "" if verdict is Verdict.VALID else "loosen --slo, or search with a longer --duration"
    return Check("CAPACITY", verdict, words[capacity.state], advice=advice)


def _missed(attainment: Metric, slo: Slo) -> bool:
    return attainment.high is not None and attainment.high < 100 * slo.share


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}/s"
