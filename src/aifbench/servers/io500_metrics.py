"""What an IO500 run means beside others: the score it printed itself, and public results."""

from collections.abc import Iterator

from aifbench.results.record import Metric
from aifbench.workloads.io500_ini import Io500Ini
from aifbench.workloads.io500_reference import MELUXINA_NODES, meluxina, shares_of_meluxina, standing
from aifbench.workloads.io500_score import BANDWIDTH_PHASES, Origin, origin_of, strict_score
from aifbench.workloads.io500_summary import Summary

# Directories are other ones in every run; who does not drop caches does not use the command for it.
_NO_WORK = frozenset(
    {
        "datadir",
        "resultdir",
        "timestamp-datadir",
        "timestamp-resultdir",
        "run",
        "verbosity",
        "drop-caches-cmd",
    }
)


def io500_metrics(summary: Summary, nodes: int, total: str) -> dict[str, list[Metric]]:
    """By phase its share of MeluXina's own entry; for `total` the printed score and the public standing.

    Bandwidth is compared per node, so without it where `nodes` is 0: not known.
    """
    scored = {phase.name: phase.score.value for phase in summary.phases if phase.is_scored}
    values = {name: value for name, value in scored.items() if nodes or name not in BANDWIDTH_PHASES}
    note = f"of MeluXina's own entry of {meluxina().year} ({MELUXINA_NODES} nodes)"
    found = {
        share.name: [Metric("reference_share", 100 * share.share, "%", n=1, note=note)]
        for share in shares_of_meluxina(values, max(nodes, 1))
    }
    return {**found, total: [*_of_total(summary)]}


def io500_settings(ini: Io500Ini) -> dict[str, dict[str, str]]:
    """The configuration by section: of the phases that ran, what decides their work."""
    settings: dict[str, dict[str, str]] = {}
    for (section, key), value in ini.values.items():
        if key not in _NO_WORK and ini.value(section, "run").lower() not in ("false", "0"):
            settings.setdefault(section, {})[key] = value
    return settings


def _of_total(summary: Summary) -> Iterator[Metric]:
    score = strict_score(summary.values)
    if summary.totals is not None:
        printed = summary.totals.total
        why = {
            Origin.STRICT: "",
            Origin.LENIENT: f"which left out {', '.join(score.lacking)}",
            Origin.PRODUCT: "which is BW times MD, the earliest formula",
            Origin.UNKNOWN: "which does not follow from its phases",
        }[origin_of(printed, summary.printed)]
        yield Metric("score_printed", printed.value, "", n=1, note=why)
    if not score.lacking:
        place = standing(score)
        words = f"{place.above} of {place.systems} public systems score lower, of all sizes"
        yield Metric("public_standing", place.percentile, "%", n=place.systems, note=words)
