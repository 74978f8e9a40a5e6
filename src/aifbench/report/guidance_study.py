"""Advice that needs several runs: repeats, noise, knees, scaling, and what many runs of a study share."""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence

from aifbench.report.content import metric_words
from aifbench.report.guidance import Advice, Reason, advice, doubted, merged
from aifbench.report.study_axes import PARALLEL, RATES, SIZES, Series, series
from aifbench.report.study_content import comparisons, head_names
from aifbench.report.study_figures import served_share
from aifbench.report.study_history import drift
from aifbench.report.study_points import PointView, Spread, StudyView
from aifbench.report.study_scaling import law, levels
from aifbench.results.record import RunState
from aifbench.stats.comparison import Change
from aifbench.stats.power import repeats_for
from aifbench.stats.ranks import fewest
from aifbench.stats.scaling import Refusal
from aifbench.units import format_number

_LOUD_CV = 0.05
_EFFECT = 0.05  # the change that repeats are counted for
_SERVED, _LOST = 0.99, 0.95
_MOST_REPEATS = 1000  # more is no advice
_FLAT = 1.25
_MUCH = 4.0  # how far sizes must be apart to tell operations from bytes
_EFFICIENT = 0.7


def study_advice(study: StudyView) -> list[Advice]:
    """What the study as a whole says, then what its runs say, each once with how many runs say it."""
    return [*(each for rule in RULES for each in rule(study)), *_of_runs(study)]


def unfinished(study: StudyView) -> Iterator[Advice]:
    """Trials that failed or were never made."""
    left = len(study.failed) + study.pending
    if left and study.record.state is not RunState.RUNNING:
        because = (
            Reason("study", "trials failed", len(study.failed)),
            Reason("study", "trials not run", study.pending),
        )
        text = "The study has trials without a result: going on with it makes those that were not run."
        yield Advice("unfinished", text, because, _run(study, "--resume" if study.pending else ""))


def few_repeats(study: StudyView) -> Iterator[Advice]:
    """Fewer runs per point than any comparison needs."""
    counts = [(point, len(point.used)) for point in study.shown]
    least = min(counts, key=_second, default=None)
    needed = fewest(0.05)
    if least is None or len(study.shown) < 2 or least[1] >= needed:
        return
    text = (
        f"No test can tell two points apart with so few runs of each: set repeats: {max(needed, 5)} in the "
        "recipe and run it again."
    )
    yield Advice("repeats", text, (Reason(_name(least[0]), "runs that count", least[1]),), _run(study))


def noise(study: StudyView) -> Iterator[Advice]:
    """Runs of one point differ by more than what one looks for."""
    loud: list[tuple[PointView, Spread, float]] = []
    for name in head_names(study):
        for point in study.shown:
            spread = point.spread(name)
            if spread and spread.n >= 3 and spread.cv is not None and spread.cv > _LOUD_CV:
                loud.append((point, spread, spread.cv))
    if not loud:
        return
    point, spread, cv = max(loud, key=lambda each: each[2])
    needed = repeats_for(_EFFECT, cv)
    because = tuple(Reason(_name(p), f"CV of {metric_words(s.metric)}", 100 * c, "%") for p, s, c in loud[:3])
    text = f"Runs of one point differ a lot, most at {_name(point)} in {metric_words(spread.metric)}: "
    if needed <= _MOST_REPEATS:
        text += f"to see a change of {100 * _EFFECT:g} % there takes repeats: {needed}, or longer runs."
    else:
        text += "find out what disturbs them before measuring more."
    yield Advice("noise", text, because)


def undecided(study: StudyView) -> Iterator[Advice]:
    """Comparisons that more repeats would decide."""
    found = [
        (each, needed)
        for each in comparisons(study)
        if each.is_quotable
        and each.comparison.change is Change.UNDECIDED
        and (needed := each.comparison.repeats_needed)
        and needed <= _MOST_REPEATS
    ]
    if not found:
        return
    needed = max(found, key=_second)[1]
    because = tuple(
        Reason(_name(one.point), f"{metric_words(one.spread.metric)}, repeats needed", n)
        for one, n in found[:3]
    )
    text = (
        f"{len(found)} comparisons with the baseline are undecided: repeats: {needed} would decide all of "
        "them if the differences are as they look."
    )
    yield Advice("undecided", text, because, _run(study))


def knee(study: StudyView) -> Iterator[Advice]:
    """The offered rates between which the service saturates."""
    for along in series(study, RATES):
        shares = [(at, point, share) for at, point in along.at if (share := served_share(point)) is not None]
        lost = next((i for i, (_, _, share) in enumerate(shares) if share < _LOST), None)
        if not lost or shares[lost - 1][2] < _SERVED:
            continue
        (low, before, kept), (high, after, fell) = shares[lost - 1], shares[lost]
        between = ", ".join(format_number(low * (high / low) ** (i / 4), 3) for i in (1, 2, 3))
        text = (
            f"The service saturates between {format_number(low, 3)}/s and {format_number(high, 3)}/s: to "
            f"find where, vary {along.axis}: [{between}], or search with a limit (slo)."
        )
        because = (
            Reason(_name(before), "share of the offered rate that was served", 100 * kept, "%"),
            Reason(_name(after), "share of the offered rate that was served", 100 * fell, "%"),
        )
        yield Advice("knee", text, because)


def cache_full(study: StudyView) -> Iterator[Advice]:
    """From which load on the KV cache was full."""
    for along in series(study, (*RATES, *PARALLEL)):
        full = [(at, point) for at, point in along.at if _is_cache_full(point)]
        if not full or not _is_last(along, [point for _, point in full]):
            continue
        at, point = full[0]
        used = point.spread("kv_cache_max")
        if used is None:
            continue
        begins = f" from {along.axis} {format_number(at, 3)} on" if len(full) < len(along.at) else ""
        text = (
            f"The KV cache was full{begins}: more accelerator memory per replica, more replicas, shorter "
            "contexts or fewer requests at a time."
        )
        yield Advice("kv-cache", text, (Reason(_name(point), "KV cache max", used.median, "%"),))


def _is_cache_full(point: PointView) -> bool:
    found = point.measurements()
    return bool(found) and sum(doubted(m, "KVCACHE") is not None for m in found) > len(found) / 2


def _is_last(along: Series, found: Sequence[PointView]) -> bool:
    """Whether these are the points with the most load."""
    return list(found) == along.points[len(along.at) - len(found) :]


def scaling(study: StudyView) -> Iterator[Advice]:
    """Where more stop helping, and whether waiting or crosstalk is the cause."""
    for along in series(study, PARALLEL, least=4):
        drawn = levels(study, along)
        fitted = law(drawn) if len(drawn) >= 4 else Refusal("")
        if isinstance(fitted, Refusal):
            continue
        sigma, kappa, peak = fitted.sigma, fitted.kappa, fitted.peak
        because = [
            Reason(along.axis, "contention (sigma)", sigma.value),
            Reason(along.axis, "crosstalk (kappa)", kappa.value),
        ]
        if peak is not None and peak.high is not None and peak.value <= fitted.largest:
            because.append(Reason(along.axis, "peak", peak.value))
            text = (
                f"Throughput peaks near {format_number(peak.value, 2)} {along.axis}: more lower it, since "
                "keeping them consistent with one another costs more than they add."
            )
            yield Advice("scaling-peak", text, tuple(because))
        elif fitted.efficiency(fitted.largest) < _EFFICIENT:
            n = fitted.largest
            waits, talks = sigma.value * (n - 1), kappa.value * n * (n - 1)
            because.append(Reason(along.axis, "efficiency", 100 * fitted.efficiency(n), "%"))
            cause = (
                "they wait for something that only one can use at a time: look for a lock or a serial part"
                if waits > talks
                else "they pay for keeping consistent with one another: fewer and larger ones pay less"
            )
            text = f"At {format_number(n, 3)} {along.axis} scaling is far from ideal, mostly because {cause}."
            yield Advice("scaling-cost", text, tuple(because))


def object_sizes(study: StudyView) -> Iterator[Advice]:
    """Whether operations or bytes limit, from rates at several object sizes."""
    for along in series(study, SIZES):
        rates = [
            (at, point, ops, data)
            for at, point in along.at
            if (ops := point.spread("throughput")) and (data := point.spread("data_rate"))
        ]
        if len(rates) < 2 or rates[-1][0] / max(rates[0][0], 1.0) < _MUCH:
            continue
        if any(point.spread("offered_rate") for _, point, _, _ in rates):
            continue  # in open loop rates are what was asked for
        small, large = _growth(rates[0], rates[1]), _growth(rates[-2], rates[-1])
        yield from _size_advice(along, rates[0], small, "operation-bound")
        yield from _size_advice(along, rates[-1], large, "bandwidth-bound")


_Rate = tuple[float, PointView, Spread, Spread]


def _growth(first: _Rate, second: _Rate) -> tuple[float, float]:
    """By how much operations and bytes per second differ between two neighbouring sizes."""
    ops = max(first[2].median, second[2].median) / (min(first[2].median, second[2].median) or math.inf)
    data = max(first[3].median, second[3].median) / (min(first[3].median, second[3].median) or math.inf)
    return ops, data


def _size_advice(along: Series, at: _Rate, growth: tuple[float, float], code: str) -> Iterator[Advice]:
    ops, data = growth
    because = (
        Reason(_name(at[1]), "throughput", at[2].median, at[2].metric.unit),
        Reason(_name(at[1]), "data rate", at[3].median, at[3].metric.unit),
    )
    if code == "operation-bound" and 0 < ops < _FLAT < data:
        text = f"Small objects are limited by operations: {along.axis} hardly changes their rate. Pack them."
        yield Advice(code, text, because)
    if code == "bandwidth-bound" and 0 < data < _FLAT < ops:
        text = f"Large objects are limited by bandwidth: {along.axis} hardly changes the bytes per second."
        yield Advice(code, text, because)


def drifting(study: StudyView) -> Iterator[Advice]:
    """Late runs differ from early ones."""
    found = drift(study)
    if found is None or found[1].change is not Change.CHANGED or found[1].ratio is None:
        return
    text = (
        "Late runs differ from early ones: something changed during the study. Compare only points whose "
        "runs were shuffled or interleaved (order), and look for what else ran."
    )
    yield Advice("drift", text, (Reason("study", "late by early runs", found[1].ratio.value),))


RULES: tuple[Callable[[StudyView], Iterator[Advice]], ...] = (
    unfinished, few_repeats, noise, undecided, knee, cache_full, scaling, object_sizes, drifting,
)  # fmt: skip


def _of_runs(study: StudyView) -> list[Advice]:
    """The advice of single runs, where most runs of a point give it; the study says the rest itself."""
    given: list[Advice] = []
    for point in study.shown:
        by_code: dict[str, list[Advice]] = {}
        for run in point.used:
            for each in advice(run):
                by_code.setdefault(each.code, []).append(each)
        for code, found in by_code.items():
            if code not in _SAID and len(found) > len(point.used) / 2:
                reason = found[0].because[0]
                where = Reason(f"{_name(point)}, {reason.where}", reason.name, reason.value, reason.unit)
                given.append(Advice(code, found[0].text, (where,)))
    return merged(given)


_SAID = ("kv-cache", "scaling-peak", "operation-bound", "bandwidth-bound")


def _run(study: StudyView, flag: str = "") -> str:
    """The command that goes on with the study, or makes it anew."""
    file = study.record.recipe_file
    words = ["run", file, flag] if file else []
    return shlex.join(word for word in words if word)


def _name(point: PointView) -> str:
    return point.label or "the only point"


def _second(pair: tuple[object, int]) -> int:
    return pair[1]
