"""What a comparison finds where there is nothing, and whether it finds what it says it would.

A against A: pairs of sides drawn from one distribution, in several shapes of noise. A pair counts as wrong
when any of its metrics is called improved or regressed. Power: the repeats announced for an effect, and by
undecided pilots, are made, and the share of studies that come to the announced end is counted.

`--real FILE ...` does A against A with measured runs: CSV files with the columns run, phase, stream, metric,
value and direction, of runs of one configuration. Runs in the order of their ids, ten in a row are one
pair, dealt out A B B A.
"""

import csv
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from test.perf.claims import options

from aifbench.stats.comparison import Change, Comparison, adjust, compare
from aifbench.stats.intervals import Estimate, proportion
from aifbench.stats.power import POWER, repeats_for

ALPHA = 0.05
NOISE = 0.05
RUNS_PER_SIDE = 5
FOUND = (Change.IMPROVED, Change.REGRESSED, Change.CHANGED)

Floats = NDArray[np.float64]
Random = np.random.Generator
# From the number of runs and of metrics to values of shape (runs, metrics), in the order of measurement.
Shape = Callable[[Random, int, int], Floats]


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the studies; `at_most` and `at_least` are what is claimed of the share."""

    what: str
    count: int
    studies: int
    at_most: float = 1.0
    at_least: float = 0.0

    @property
    def estimate(self) -> Estimate:
        estimate = proportion(self.count, self.studies)
        assert estimate is not None
        return estimate

    @property
    def holds(self) -> bool:
        """Whether the claim agrees with what was counted: the interval reaches it."""
        share = self.estimate
        assert share.low is not None and share.high is not None
        return share.low <= self.at_most and self.at_least <= share.high

    def __str__(self) -> str:
        share = self.estimate
        bound = f"  at most {self.at_most:.0%}" if self.at_most < 1 else ""
        bound += f"  at least {self.at_least:.0%}" if self.at_least > 0 else ""
        is_beyond = not self.at_least <= share.value <= self.at_most
        verdict = "  MISSED" if not self.holds else "  missed, within chance" if is_beyond else "  holds"
        return (
            f"  {self.what:<64} {share.value:6.1%} [{share.low:.1%}, {share.high:.1%}]"
            f"{bound + verdict if bound else ''}"
        )


def log_normal(rng: Random, runs: int, metrics: int) -> Floats:
    """Metrics of one run share half of their variance: a slow run is slow in most of them."""
    shared, own = rng.normal(size=(runs, 1)), rng.normal(size=(runs, metrics))
    return 100 * np.exp(NOISE * (shared + own) / math.sqrt(2))


def heavy_tail(rng: Random, runs: int, metrics: int) -> Floats:
    return 100 * np.exp(NOISE * rng.standard_t(2, (runs, metrics)))


def stalls(rng: Random, runs: int, metrics: int) -> Floats:
    """One run in eight is twice as slow in everything."""
    return log_normal(rng, runs, metrics) * np.where(rng.random((runs, 1)) < 1 / 8, 2.0, 1.0)


def drift(rng: Random, runs: int, metrics: int) -> Floats:
    """From the first run to the last by four times the noise."""
    return log_normal(rng, runs, metrics) * np.exp(NOISE * np.linspace(0, 4, runs))[:, None]


def coarse(rng: Random, runs: int, metrics: int) -> Floats:
    """A quantity of few steps: ties."""
    return np.maximum(1.0, np.round(log_normal(rng, runs, metrics) / 5))


def in_turn(values: Floats) -> tuple[Floats, Floats]:
    """The sides of rows measured A B B A A B B A ..."""
    is_b = np.arange(len(values)) % 4 % 3 > 0
    return values[~is_b], values[is_b]


def one_after_the_other(values: Floats) -> tuple[Floats, Floats]:
    half = len(values) // 2
    return values[:half], values[half:]


def is_wrong(a: Floats, b: Floats) -> bool:
    columns = range(a.shape[1])
    compared = [compare(a[:, k].tolist(), b[:, k].tolist(), direction="higher") for k in columns]
    return any(each.change in FOUND for each in adjust(compared))


def nothing(rng: Random, pairs: int) -> Iterator[Share]:
    for shape in (log_normal, heavy_tail, stalls, drift, coarse):
        for metrics, runs in ((1, 5), (6, 5), (20, 8)):
            wrong = sum(is_wrong(*in_turn(shape(rng, 2 * runs, metrics))) for _ in range(pairs))
            shown = "1 metric" if metrics == 1 else f"{metrics} metrics"
            what = f"{shape.__name__.replace('_', ' ')}, {shown}, {runs} runs a side"
            yield Share(what, wrong, pairs, at_most=ALPHA)
    wrong = sum(is_wrong(*one_after_the_other(drift(rng, 10, 1))) for _ in range(pairs))
    yield Share("drift, all runs of A before B: what no test can know", wrong, pairs)


def quiet(rng: Random, pairs: int) -> Iterator[Share]:
    for runs in (5, 8):
        for noise in (0.005, NOISE):
            drawn = (np.exp(rng.normal(0, noise, (2, runs))).tolist() for _ in range(pairs))
            found = sum(compare(a, b, direction="higher").change is Change.NO_CHANGE for a, b in drawn)
            yield Share(f"`no change` is said, noise {noise:.1%}, {runs} runs a side", found, pairs)


def pair(rng: Random, effect: float, noise: float, runs: int) -> Comparison:
    """Sides that differ by `effect`, both in logarithms."""
    a, b = np.exp(rng.normal(0, noise, (2, runs)))
    return compare(a.tolist(), (b * math.exp(effect)).tolist(), direction="higher")


def planned(rng: Random, studies: int) -> Iterator[Share]:
    for noise, effect in ((0.02, 0.10), (0.02, 0.05), (0.05, 0.10), (0.05, 0.05), (0.10, 0.08)):
        runs = repeats_for(math.log1p(effect), noise)
        drawn = (pair(rng, math.log1p(effect), noise, runs) for _ in range(studies))
        found = sum(each.change is Change.IMPROVED for each in drawn)
        what = f"{effect:.0%} better, noise {noise:.0%}: improved by {runs} runs a side"
        yield Share(what, found, studies, at_least=POWER)


def after_pilots(rng: Random, studies: int) -> Iterator[Share]:
    """Of each undecided pilot the announced repeats, where what it saw is what there is."""
    for runs in (3, 5):
        decided = 0
        for _ in range(studies):
            pilot = undecided(rng, runs)
            assert pilot.ratio is not None and pilot.repeats_needed is not None
            logs = [np.log(side.values) for side in (pilot.a, pilot.b)]
            noise = math.sqrt(sum(np.var(side, ddof=1) for side in logs) / 2)
            study = pair(rng, math.log(pilot.ratio.value), noise, pilot.repeats_needed)
            decided += study.change is not Change.UNDECIDED
        what = f"undecided after {runs} runs a side: decided by the announced repeats"
        yield Share(what, decided, studies, at_least=POWER)


def undecided(rng: Random, runs: int) -> Comparison:
    while True:
        pilot = pair(rng, rng.choice([0.0, 0.03, 0.08]), rng.uniform(0.01, 0.08), runs)
        if pilot.change is Change.UNDECIDED:
            return pilot


def measured(files: Sequence[Path]) -> Iterator[Share]:
    values: dict[tuple[str, str, str], dict[str, float | None]] = {}
    directions: dict[tuple[str, str, str], str] = {}
    for file in files:
        with file.open(newline="") as text:
            for row in csv.DictReader(text):
                key = row["phase"], row["stream"], row["metric"]
                values.setdefault(key, {})[row["run"]] = float(row["value"]) if row["value"] else None
                directions[key] = row["direction"]
    runs = sorted({run for of_runs in values.values() for run in of_runs})
    each = 2 * RUNS_PER_SIDE
    pairs = [runs[start : start + each] for start in range(0, len(runs) - each + 1, each)]
    if not pairs:
        raise SystemExit(f"{len(runs)} runs; {each} make one pair")
    by_pair = [
        [
            compare(
                [of_runs.get(run) for run in a], [of_runs.get(run) for run in b], direction=directions[key]
            )
            for key, of_runs in values.items()
        ]
        for a, b in ((in_order(in_pair, (0, 3)), in_order(in_pair, (1, 2))) for in_pair in pairs)
    ]
    wrong = sum(any(each.change in FOUND for each in adjust(judged)) for judged in by_pair)
    yield Share("pairs with any metric improved or regressed, by Holm", wrong, len(pairs), at_most=ALPHA)
    tested = [each for judged in by_pair for each in judged if each.p is not None]
    wrong = sum(each.change in FOUND for each in tested)
    yield Share("improved or regressed, each metric alone", wrong, len(tested), at_most=ALPHA)
    for change in (Change.NO_CHANGE, Change.WITHIN_NOISE, Change.UNDECIDED):
        count = sum(each.change is change for each in tested)
        yield Share(f"{change.value}, each metric alone", count, len(tested))


def in_order(runs: Sequence[str], places: tuple[int, int]) -> list[str]:
    return [run for index, run in enumerate(runs) if index % 4 in places]


def main() -> int:
    parser = options(__doc__.splitlines()[0], repeats=1_000)
    parser.add_argument("--real", type=Path, nargs="+", metavar="FILE", help="CSV files of measured runs")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    blocks: dict[str, Iterator[Share]] = {}
    if given.real:
        blocks["A against A, measured"] = measured(given.real)
    else:
        blocks["A against A: pairs with a metric improved or regressed"] = nothing(rng, given.repeats)
        blocks["A against A: said to be the same"] = quiet(rng, given.repeats)
        blocks["Power: of the repeats planned for an effect"] = planned(rng, given.repeats)
        blocks["Power: of the repeats that a pilot announces"] = after_pilots(rng, given.repeats)
    holds = True
    for title, shares in blocks.items():
        sys.stdout.write(f"{title} ({given.repeats:,} studies each)\n" if not given.real else f"{title}\n")
        for share in shares:
            sys.stdout.write(f"{share}\n")
            holds = holds and share.holds
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
