"""Metrics as text: the Prometheus exposition format 0.0.4, values to text. Pure, standard library only.

The reverse of workloads.prometheus_text. What is shown are sums over many operations, made once a second;
client libraries count one operation at a time, and importing one costs more than this file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
# (suffix of the name, labels, value)
Sample = tuple[str, Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample] = ()


def buckets(labels: Labels, bounds: Sequence[float], counts: Sequence[float], total: float) -> list[Sample]:
    """The samples of one histogram: `counts` has one for each bound (at most that much) and one for the rest;
    `total` is the sum of all observations.
    """
    samples: list[Sample] = []
    below = 0.0
    for bound, count in zip((*bounds, inf), counts, strict=True):
        below += count
        samples.append(("_bucket", {**labels, "le": number(bound)}, below))
    return [*samples, ("_sum", labels, total), ("_count", labels, below)]


def page(families: Iterable[Family]) -> str:
    """The whole answer to a scrape; a family without samples is left out."""
    return "".join(_text(family) for family in families if family.samples)


def number(value: float) -> str:
    """A value as the format has it, exact: whole numbers without a fraction, and its words for the others."""
    if isnan(value):
        return "NaN"
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _text(family: Family) -> str:
    words = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {family.name} {words}", f"# TYPE {family.name} {family.kind}"]
    for suffix, labels, value in family.samples:
        lines.append(f"{family.name}{suffix}{_labels(labels)} {number(value)}")
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
