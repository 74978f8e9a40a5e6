"""Whether a service holds as much as its answers said."""

from aifbench.results.record import Check, Verdict


def count_check(stored: int, certain: int, possible: int, unit: str) -> Check:
    """Does the service hold what its answers said? Operations that failed may or may not have counted."""
    low, high = sorted((certain, possible))
    expected = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    verdict = Verdict.VALID if low <= stored <= high else Verdict.INVALID
    return Check(
        "COUNT",
        verdict,
        f"{stored:,} {unit} stored, {expected} expected",
        value=float(stored),
        limit=float(certain),
        unit=unit,
        advice=""
        if verdict is Verdict.VALID
        else "the service lost or invented data: do not use these numbers",
    )
