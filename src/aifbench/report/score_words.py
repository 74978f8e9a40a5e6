"""What a score is made of, and how it stands beside others, in sentences."""

from collections.abc import Sequence

from aifbench.report.content import label, measured, value_text, with_unit
from aifbench.results.record import Measurement, RunRecord

# Metrics whose notes these sentences say.
TOLD = frozenset({"score_printed", "reference_share", "public_standing"})


def score_sentences(record: RunRecord) -> list[str]:
    """The score and its parts, its place among others, and what a node got; none without a score."""
    found = measured(record)
    score = next((m for m in found if m.metric("score")), None)
    return [] if score is None else [_score(score), *_standing(score), *_shares(record, found)]


def _score(measurement: Measurement) -> str:
    """`score 12.3 (io500's own: 12.9, which left out ior-hard-read): the root of ... times ...`."""
    score, printed = measurement.metric("score"), measurement.metric("score_printed")
    own = ""
    if printed is not None:
        own = ", ".join(filter(None, (value_text(printed), printed.note)))
        own = f" ({measurement.stream}'s own: {own})"
    means = [measurement.metric(name) for name in ("bandwidth_mean", "metadata_mean")]
    parts = " and ".join(with_unit(mean) for mean in means if mean)
    made_of = f": the geometric mean of {parts}, which are geometric means themselves" if parts else ""
    return f"score {value_text(score)}{own}{made_of}"


def _standing(measurement: Measurement) -> list[str]:
    found = measurement.metric("public_standing")
    return [found.note] if found and found.note else []


def _shares(record: RunRecord, measurements: Sequence[Measurement]) -> list[str]:
    """`per node: ior-easy-write 0.43 GiB/s = 50 %, ... of that other entry`; rates are compared in total."""
    found = [(m, share) for m in measurements if (share := m.metric("reference_share"))]
    parts, note = [], found[0][1].note if found else ""
    for measurement, share in found:
        each = measurement.metric("bandwidth_per_node") or measurement.metric("bandwidth")
        if each:
            parts.append(f"{label(record, measurement)} {with_unit(each)} = {value_text(share)} %")
    per_node = [f"per node: {', '.join(parts)} {note}"] if parts else []
    return [*per_node, f"rates, by their total: `of reference` is {note}"] if found else []
