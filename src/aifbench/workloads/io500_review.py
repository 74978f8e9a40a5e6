"""How far an IO500 run can be believed, from what it printed: it ends with 0 even when it is INVALID."""

import re
from collections.abc import Iterator

from aifbench.workloads.findings import Finding
from aifbench.workloads.io500_ini import LIST_STONEWALL_S
from aifbench.workloads.io500_score import SCORED_PHASES, WRITE_PHASES, Origin, origin_of, strict_score
from aifbench.workloads.io500_summary import Summary

_OF_SHORT_RULES = re.compile(r"stonewall-time\b|\bscc\b", re.IGNORECASE)


def review(summary: Summary, stonewall_s: int = LIST_STONEWALL_S) -> tuple[Finding, ...]:
    """Findings, the fatal ones first. `stonewall_s` is what the run was configured with."""
    found = (
        *_of_start(summary),
        *_of_end(summary),
        *_of_marks(summary, stonewall_s),
        *_of_times(summary, stonewall_s),
        *_of_totals(summary),
    )
    return tuple(sorted(found, key=lambda finding: not finding.is_fatal))


def _of_start(summary: Summary) -> Iterator[Finding]:
    if not summary.phases:
        yield Finding("IO500_NO_RESULT", True, "IO500 printed no result", "read the job's log: `logs`")
    if summary.repeated:
        yield Finding(
            "IO500_NOT_ONE_RUN",
            True,
            f"{summary.repeated[0]} was printed with different values: each process ran its own benchmark",
            "start it with the launcher of the MPI that the program was built with",
        )


def _of_end(summary: Summary) -> Iterator[Finding]:
    if not summary.phases:
        return
    lacking = [name for name in SCORED_PHASES if summary.phase(name) is None]
    if summary.totals is None or lacking:
        last = summary.phases[-1].name
        what = f"without {', '.join(lacking)}" if lacking else "without its score"
        yield Finding(
            "IO500_TRUNCATED",
            True,
            f"the output ends after {last}, {what}",
            "the job was cut, or a phase was switched off: give it more time, and run every phase",
        )
    if summary.damaged:
        yield Finding(
            "IO500_DAMAGED_LINES", False, f"{summary.damaged} result lines are damaged and could not be read"
        )
    zero = [phase.name for phase in summary.phases if phase.name in SCORED_PHASES and not phase.score.value]
    if zero:
        yield Finding(
            "IO500_ZERO_PHASE",
            True,
            f"{', '.join(zero)} gave 0: IO500 leaves it out of its mean, the strict score is 0",
            "find out why the phase failed",
        )


def _of_marks(summary: Summary, stonewall_s: int) -> Iterator[Finding]:
    """A run that was asked to be shorter than the rules is measured well enough, but not for the list."""
    if not summary.is_marked_invalid:
        return
    asked = [reason for reason in summary.reasons if _OF_SHORT_RULES.search(reason)]
    others = [reason for reason in summary.reasons if reason not in asked]
    # Older summaries mark every line, and say no reason: then only the shorter time can be the cause.
    is_asked = stonewall_s < LIST_STONEWALL_S and not others
    why = f": {'; '.join(others or asked)}" if summary.reasons else ""
    if is_asked:
        yield Finding(
            "IO500_NOT_FOR_THE_LIST",
            False,
            f"IO500 marks it INVALID{why}: {stonewall_s} s of writing instead of {LIST_STONEWALL_S} s",
            "use the profile list-valid for a score to quote as IO500's",
        )
    else:
        yield Finding(
            "IO500_INVALID",
            True,
            f"IO500 marks it INVALID{why}",
            "give the processes more to write (blockSize, segmentCount, n), so that they reach the stonewall",
        )


def _of_times(summary: Summary, stonewall_s: int) -> Iterator[Finding]:
    """A write phase that ended early wrote all it had before time was called: a burst, not a rate."""
    short = [
        f"{phase.name} {phase.time_s:.1f} s"
        for name in WRITE_PHASES
        if (phase := summary.phase(name)) and phase.time_s is not None and phase.time_s < stonewall_s - 0.5
    ]
    if short:
        yield Finding(
            "IO500_SHORT_WRITE",
            True,
            f"written in less than the {stonewall_s} s asked: {', '.join(short)}",
            "raise blockSize, segmentCount or n",
        )


def _of_totals(summary: Summary) -> Iterator[Finding]:
    if summary.totals is None:
        return
    total = summary.totals.total
    origin = origin_of(total, summary.printed)
    strict = strict_score(summary.values).total
    if origin is Origin.PRODUCT:
        yield Finding(
            "IO500_FIRST_FORMULA",
            False,
            f"its total {total.value:g} is BW times MD, the earliest formula; today's gives {strict:.6g}",
        )
    elif origin is Origin.UNKNOWN:
        yield Finding(
            "IO500_TOTAL_DIFFERS",
            True,
            f"its total {total.value:g} does not follow from its phases, which give {strict:.6g}",
            "the file was changed, or lines of several runs are mixed",
        )
