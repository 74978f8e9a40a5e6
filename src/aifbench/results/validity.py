"""How far a measurement can be believed: every rule is one row of a table, applied to plain numbers.

A rule that does not apply says nothing; one that holds is listed too, with its value, so that a reader
sees what was looked at. Light to import (no numpy).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

from aifbench.load.plan import Quality
from aifbench.results.record import Check, Verdict
from aifbench.units import format_number


@dataclass(frozen=True, slots=True)
class Answers:
    """One quality: its mean over the `checked` of `answers` successful operations; None when unchecked."""

    quality: Quality
    mean: float | None
    checked: int
    answers: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rules look at, about one stream. None means not known or not applicable.

    `timed` is False for fixed work, `stationary` also where the work changes what it meets. `served_share` is
    the rate served by the rate offered. `steady` is None when too short to judge, `unsteady_share` the part
    before the steady state, and `shift` how far the latency moved where there was none. `cpu_share` is that
    of the busiest worker, of one core. `lost` and `limited` hold the workers' own words.
    """

    open_loop: bool = False
    timed: bool = True
    stationary: bool = True
    workers: int = 1
    operations: int = 0
    successes: int = 0
    latencies: int = 0
    duration_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    served_share: float | None = None
    steady: bool | None = None
    unsteady_share: float = 0.0
    shift: float = 0.0
    cpu_share: float | None = None
    loop_delay_s: float = 0.0
    hosts: int = 1
    clock_spread_s: float = 0.0
    clock_error_s: float = 0.0
    clock_step_s: float = 0.0
    lost: tuple[str, ...] = ()
    limited: tuple[str, ...] = ()
    answers: tuple[Answers, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule saw: the value to hold against its limits, in words, and what to do when it fails."""

    value: float
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Beyond `warn` is WARN and beyond `invalid` INVALID: above the limit, or below it for a `floor`."""

    code: str
    applies: Callable[[Seen], bool]
    look: Callable[[Seen], Finding]
    warn: float
    invalid: float
    unit: str = ""
    floor: bool = False

    def check(self, seen: Seen) -> Check:
        finding = self.look(seen)
        verdict, limit = _judge(finding.value, self.warn, self.invalid, floor=self.floor)
        advice = "" if verdict is Verdict.VALID else finding.advice
        return Check(self.code, verdict, finding.message, finding.value, limit, self.unit, advice)


def check(seen: Seen) -> tuple[Check, ...]:
    """The check of every rule that applies, in the order of the table, then one for each quality."""
    rules = [rule.check(seen) for rule in RULES if rule.applies(seen)]
    return (*rules, *(_answers(answers) for answers in seen.answers if seen.successes))


def check_duration(duration_s: float) -> Check:
    """DURATION of fixed work that another program timed."""
    rule = next(rule for rule in RULES if rule.code == "DURATION" and rule.applies is _fixed)
    return rule.check(Seen(timed=False, duration_s=duration_s))


def _judge(value: float, warn: float, invalid: float, *, floor: bool = False) -> tuple[Verdict, float | None]:
    """The verdict, and the limit that was crossed or, when none was, the first one that could be."""
    sign = -1 if floor else 1
    if sign * value > sign * invalid:
        return Verdict.INVALID, invalid
    if sign * value > sign * warn:
        return Verdict.WARN, warn
    return Verdict.VALID, next((limit for limit in (warn, invalid) if isfinite(limit)), None)


# When a rule applies. A stream without one success gets no verdict on numbers that it does not have.


def _always(_: Seen) -> bool:
    return True


def _measured(seen: Seen) -> bool:
    return seen.successes > 0


def _timed(seen: Seen) -> bool:
    return _measured(seen) and seen.timed


def _fixed(seen: Seen) -> bool:
    return _measured(seen) and not seen.timed


def _is_limited(seen: Seen) -> bool:
    return bool(seen.limited)


def _has_lag(seen: Seen) -> bool:
    return _measured(seen) and seen.open_loop and seen.lag_p99_ms is not None


def _has_lag_share(seen: Seen) -> bool:
    return _has_lag(seen) and bool(seen.p50_ms and seen.p99_ms)


def _is_late(seen: Seen) -> bool:
    return _has_lag_share(seen) and _lag_percent(seen.lag_p50_ms, seen.p50_ms) > _LAG_WARN_PERCENT


def _has_rate(seen: Seen) -> bool:
    return _measured(seen) and seen.served_share is not None


def _judged_stationary(seen: Seen) -> bool:
    return _measured(seen) and seen.stationary and seen.steady is True


def _never_settled(seen: Seen) -> bool:
    return _measured(seen) and seen.stationary and seen.steady is False


def _judged_changing(seen: Seen) -> bool:
    return _measured(seen) and not seen.stationary and seen.steady is not None


def _unjudged(seen: Seen) -> bool:
    return _measured(seen) and seen.steady is None


def _busy_and_late(seen: Seen) -> bool:
    return seen.cpu_share is not None and _is_late(seen)


def _busy_in_time(seen: Seen) -> bool:
    return seen.cpu_share is not None and not _is_late(seen)


def _clocks_surely_apart(seen: Seen) -> bool:
    return seen.hosts > 1 and 1000 * (seen.clock_spread_s - seen.clock_error_s) > _CLOCK_INVALID_MS


def _clocks_perhaps_apart(seen: Seen) -> bool:
    return seen.hosts > 1 and not _clocks_surely_apart(seen)


def _may_omit(seen: Seen) -> bool:
    return _timed(seen) and not seen.open_loop and seen.latencies >= _P99_MIN and bool(seen.p99_ms)


# What a rule sees.


def _successes(seen: Seen) -> Finding:
    return Finding(
        seen.successes,
        f"{seen.successes:,} of {seen.operations:,} operations succeeded in the measured window",
        "see the errors of this run and `logs` of the service; use a longer --duration if it had only begun",
    )


def _workers(seen: Seen) -> Finding:
    told = f": {'; '.join(seen.lost)}" if seen.lost else ""
    return Finding(
        len(seen.lost),
        f"{seen.workers - len(seen.lost)} of {seen.workers} load workers finished their part{told}",
        "run it again; with fewer --workers if memory ran out",
    )


def _limits(seen: Seen) -> Finding:
    words = "; ".join(sorted(set(seen.limited)))
    return Finding(len(seen.limited), f"load workers could not follow the plan: {words}", _spread(seen))


def _errors(seen: Seen) -> Finding:
    failed = seen.operations - seen.successes
    return Finding(
        100 * failed / seen.operations,
        f"{failed:,} of {seen.operations:,} operations failed",
        "see the errors of this run and `logs` of the service; lower --rate if it refuses or times out",
    )


def _rate(seen: Seen) -> Finding:
    percent = 100 * (seen.served_share or 0.0)
    return Finding(
        percent,
        f"{format_number(percent, 3)} % of the offered rate was served",
        "lower --rate to measure latency; quote this throughput only as the capacity of the service",
    )


def _lag(seen: Seen) -> Finding:
    lag_ms = seen.lag_p99_ms or 0.0
    message = f"99 % of operations were sent within {format_number(lag_ms, 3)} ms of their time"
    return Finding(lag_ms, message, _spread(seen))


def _lag_percent(lag_ms: float | None, latency_ms: float | None) -> float:
    return 100 * (lag_ms or 0.0) / (latency_ms or inf)


def _lag_at_median(seen: Seen) -> Finding:
    return _lag_share(seen, "median", _lag_percent(seen.lag_p50_ms, seen.p50_ms))


def _lag_in_tail(seen: Seen) -> Finding:
    return _lag_share(seen, "p99", _lag_percent(seen.lag_p99_ms, seen.p99_ms))


def _lag_share(seen: Seen, which: str, percent: float) -> Finding:
    """Like against like: a late send now and then spoils a tail, not a median. It can only lengthen it."""
    message = f"the generator's {which} lag is {format_number(percent, 2)} % of the {which} latency"
    return Finding(percent, message, _spread(seen))


def _steadiness(seen: Seen) -> Finding:
    percent = 100 * seen.unsteady_share
    message = f"steady after the first {format_number(percent, 2)} % of the time, which is left out"
    return Finding(percent, message, "let the service warm up for longer: --warmup")


def _unrest(seen: Seen) -> Finding:
    percent = 100 * seen.shift
    message = f"latency did not settle: it moved by {format_number(percent, 2)} % while it was measured"
    advice = "let the service warm up for longer with --warmup, or lower --rate if its queue was growing"
    return Finding(percent, message, advice)


def _constancy(seen: Seen) -> Finding:
    percent = 100 * seen.unsteady_share if seen.steady else 100
    if percent > _UNSTEADY_WARN_PERCENT:
        message = "the time per operation changed on the way: the numbers hold for this amount of work only"
    else:
        message = f"the time per operation was steady after {format_number(percent, 2)} % of the work"
    return Finding(percent, message, "compare only with runs of the same size and duration")


def _too_few_to_judge(seen: Seen) -> Finding:
    message = f"{seen.latencies:,} operations are too few to judge whether the service was steady"
    return Finding(seen.latencies, message, _more(seen))


def _samples(seen: Seen) -> Finding:
    needed = 3 * (_P99_MIN if seen.timed else _P50_MIN)
    fewer = f", fewer than {needed:,}" if seen.latencies < needed else ""
    return Finding(seen.latencies, f"{seen.latencies:,} operations carry the percentiles{fewer}", _more(seen))


def _duration(seen: Seen) -> Finding:
    needed_s = _TIMED_S if seen.timed else _FIXED_S
    less = f", less than {needed_s} s" if seen.duration_s < needed_s else ""
    message = f"measured for {format_number(seen.duration_s, 3)} s{less}"
    return Finding(seen.duration_s, message, f"{_more(seen)} {needed_s}" if seen.timed else _more(seen))


def _cpu(seen: Seen) -> Finding:
    percent = 100 * (seen.cpu_share or 0.0)
    message = f"the busiest load worker used {format_number(percent, 3)} % of a core"
    if percent > _CPU_WARN_PERCENT and not seen.open_loop:
        message += ": the measurement is client-bound"
    return Finding(percent, message, _spread(seen))


def _loop(seen: Seen) -> Finding:
    delay_ms = 1000 * seen.loop_delay_s
    return Finding(
        delay_ms,
        f"the longest a load worker was away from its clock was {format_number(delay_ms, 3)} ms",
        "leave a free core to each load worker, or measure from another node with --client-nodes 1",
    )


def _clock(seen: Seen) -> Finding:
    spread_ms, error_ms = 1000 * seen.clock_spread_s, 1000 * seen.clock_error_s
    apart = f"{format_number(spread_ms, 3)} ± {format_number(error_ms, 3)} ms apart"
    return Finding(
        spread_ms + error_ms,
        f"the clocks of {seen.hosts} client nodes are {apart}",
        "measure with --client-nodes 1, or ask the site about time synchronisation",
    )


def _step(seen: Seen) -> Finding:
    step_ms = 1000 * abs(seen.clock_step_s)
    return Finding(
        step_ms,
        f"the wall clock moved by {format_number(step_ms, 3)} ms during the load",
        "latencies are not affected; to join this run with other data by time, run it again",
    )


def _omission(seen: Seen) -> Finding:
    """The p99 that a fixed rate could have shown, had the slowest operation stalled the whole service.

    A stall of s in a window of w meets a share s/w of the arrivals, with waits from s down to 0; so the p99
    over all of them is s - w/100.
    """
    p99_ms, max_ms = seen.p99_ms or 0.0, seen.max_ms or 0.0
    unseen_ms = max(max_ms - 1000 * seen.duration_s / 100, p99_ms)
    message = (
        f"the slowest operation took {format_number(max_ms, 3)} ms and p99 is {format_number(p99_ms, 3)} ms"
    )
    if unseen_ms > _OMISSION_WARN * p99_ms:
        message += (
            ": clients that wait send nothing, so this p99 hides stalls; "
            f"at a fixed rate it could be {format_number(unseen_ms, 3)} ms"
        )
    return Finding(unseen_ms / p99_ms, message, "measure at a fixed rate: --rate")


def _answers(answers: Answers) -> Check:
    quality = answers.quality
    if answers.mean is None:
        message = f"none of {answers.answers:,} answers was checked for {quality.name}"
        advice = "do not quote the speed of answers that may be wrong"
        return Check("ANSWERS", Verdict.WARN, message, 0, 1, "answers", advice)
    verdict, limit = _judge(answers.mean, quality.warn_below, quality.invalid_below, floor=True)
    mean, share = format_number(answers.mean), f"{answers.checked:,} of {answers.answers:,}"
    message = f"{quality.name} is {mean}, the mean of {share} answers"
    advice = "" if verdict is Verdict.VALID else f"compare only with runs of the same {quality.name}"
    return Check("ANSWERS", verdict, message, answers.mean, limit, "", advice)


def _spread(seen: Seen) -> str:
    if seen.cpu_share is not None and seen.cpu_share < _CPU_IDLE_SHARE:
        return "leave a free core to each load worker, or make the load on other nodes: --client-nodes"
    return f"spread the load over more processes: --workers {2 * seen.workers}"


def _more(seen: Seen) -> str:
    return "measure for longer: --duration" if seen.timed else "give it more work"


_LAG_WARN_PERCENT = 5
_UNSTEADY_WARN_PERCENT = 25
_CPU_WARN_PERCENT = 85
_CPU_IDLE_SHARE = 0.5  # a worker that is late though it has time to spare waits for a core
_CLOCK_INVALID_MS = 10
_OMISSION_WARN = 2
_TIMED_S, _FIXED_S = 60, 10  # long enough to be VALID
_P50_MIN, _P99_MIN = 6, 368  # see stats.intervals.minimum_n

# SAMPLES: no percentile is printed below its minimum, and three times that is firm. A timed phase is asked
# for its p99, fixed work for its rate.
RULES = (
    Rule("SUCCESSES", _always, _successes, 1, 1, "operations", floor=True),
    Rule("WORKERS", _always, _workers, 0, 0, "lost"),
    Rule("LIMITED", _is_limited, _limits, 0, inf, "workers"),
    Rule("ERRORS", _measured, _errors, 0.1, 1, "%"),
    Rule("RATE", _has_rate, _rate, 99, 95, "%", floor=True),
    Rule("LAG", _has_lag, _lag, 1, inf, "ms"),
    Rule("LAG", _has_lag_share, _lag_at_median, _LAG_WARN_PERCENT, 25, "%"),
    Rule("LAG", _has_lag_share, _lag_in_tail, 2 * _LAG_WARN_PERCENT, 50, "%"),
    Rule("STEADY", _judged_stationary, _steadiness, _UNSTEADY_WARN_PERCENT, 50, "%"),
    Rule("STEADY", _never_settled, _unrest, 0, 50, "%"),
    Rule("STEADY", _judged_changing, _constancy, _UNSTEADY_WARN_PERCENT, inf, "%"),
    Rule("STEADY", _unjudged, _too_few_to_judge, 30, -inf, "operations", floor=True),
    Rule("SAMPLES", _timed, _samples, 3 * _P99_MIN, _P50_MIN, "operations", floor=True),
    Rule("SAMPLES", _fixed, _samples, 3 * _P50_MIN, -inf, "operations", floor=True),
    Rule("DURATION", _timed, _duration, _TIMED_S, 10, "s", floor=True),
    Rule("DURATION", _fixed, _duration, _FIXED_S, 1, "s", floor=True),
    Rule("CPU", _busy_in_time, _cpu, _CPU_WARN_PERCENT, inf, "%"),
    Rule("CPU", _busy_and_late, _cpu, _CPU_WARN_PERCENT, 97, "%"),
    Rule("LOOP", _measured, _loop, 100, 1000, "ms"),
    Rule("CLOCK", _clocks_perhaps_apart, _clock, 1, inf, "ms"),
    Rule("CLOCK", _clocks_surely_apart, _clock, 1, _CLOCK_INVALID_MS, "ms"),
    Rule("STEP", _measured, _step, 10, 1000, "ms"),
    Rule("OMISSION", _may_omit, _omission, _OMISSION_WARN, inf),
)
