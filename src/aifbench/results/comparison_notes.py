"""What to bear in mind about a comparison: too few runs, runs that are no repeats, an order that misleads."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb

from aifbench.results.compared import Pair, Rank
from aifbench.results.differences import Difference
from aifbench.stats.power import ALPHA
from aifbench.stats.ranks import fewest

RECOMMENDED_REPEATS = 5
_ASKED = ("start options", "bench options")


def mixed_note(found: Iterable[Difference]) -> list[str]:
    """Runs of one side that were not asked the same are no repeats of each other."""
    names = [d.name for d in found if d.is_mixed and d.group in _ASKED]
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"runs of one side are no repeats of each other: they differ in {some}"] if names else []


def few_notes(pairs: Sequence[Pair]) -> list[str]:
    """Too few runs for any verdict; told once for pairs alike."""
    return [*dict.fromkeys(note for pair in pairs if (note := _few(pair)))]


def _few(pair: Pair) -> str:
    rows = pair.of_rank(Rank.PRIMARY)
    n = min(row.finding.a.n for row in rows)
    m = min(row.finding.b.n for row in rows)
    family = max(Counter(row.key[0] for row in rows).values())
    smallest_p = 2 / comb(n + m, n)
    if n == m == 1:
        return (
            "one run per side: no interval and no verdict; repeat each, "
            f"{RECOMMENDED_REPEATS} times are recommended"
        )
    if smallest_p >= ALPHA:
        runs = f"{n} runs per side" if n == m else f"{n} and {m} runs"
        return (
            f"{runs} can never reach p < {ALPHA:g}: that needs {fewest(ALPHA)} per side; "
            f"{RECOMMENDED_REPEATS} are recommended"
        )
    if family * smallest_p >= ALPHA:
        return (
            f"{family} primary metrics judged together can find nothing in {min(n, m)} runs per side: "
            f"that needs {fewest(ALPHA / family)}"
        )
    return ""


def order_note(pair: Pair) -> list[str]:
    """A machine that drifts between two blocks of runs looks like a difference between the sides."""
    sides = sorted((pair.base, pair.other), key=lambda side: min(r.created_utc for r in side.judged))
    earlier, later = sides
    if min(len(earlier.judged), len(later.judged)) < 2:
        return []
    if max(r.created_utc for r in earlier.judged) >= min(r.created_utc for r in later.judged):
        return []
    return [
        f"all runs of {earlier.label} were made before those of {later.label}: "
        "what changed on the machine meanwhile looks like a difference"
    ]
