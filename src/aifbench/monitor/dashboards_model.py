"""What a dashboard is, without Grafana's words: panels with queries, in rows. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Needs(Enum):
    """What must be there for a query to have an answer; its words are for a panel's reader."""

    BENCH = "a benchmark that runs"
    OPEN_LOOP = "an open-loop load (--rate)"
    VLLM = "a vLLM server"
    NODES = "node exporters"
    GPU = "a GPU and NVIDIA's DCGM exporter"
    INFINIBAND = "an InfiniBand adapter"
    LOKI = "Loki with a log shipper"


class Kind(Enum):
    """Grafana's panel types, those that are used."""

    TIME = "timeseries"
    STAT = "stat"
    TABLE = "table"
    HEATMAP = "heatmap"
    STATES = "state-timeline"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression in PromQL, or LogQL where the panel is of Loki; `legend` is a template over labels."""

    expr: str
    legend: str = ""
    needs: Needs = Needs.BENCH


@dataclass(frozen=True, slots=True)
class Panel:
    """`about` tells what is shown; the names of the metrics and what they need are added to it.

    `unit` is Grafana's id of it. The grid is 24 wide; `height` is in its units of 30 pixels. `stacked` adds
    the curves up. `is_share` is a value between 0 and 1. `warn_above` colours a value.
    """

    title: str
    about: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = Kind.TIME
    width: int = 8
    height: int = 8
    stacked: bool = False
    is_share: bool = False
    warn_above: float | None = None

    @property
    def is_loki(self) -> bool:
        return any(query.needs is Needs.LOKI for query in self.queries)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """Something to choose at the top: the values of `label` of the series `series`, or a text to type."""

    name: str
    label: str
    series: str = ""
    is_loki: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page; `name` is its file's. `has_phases` marks the phases of benchmarks in all its panels."""

    name: str
    title: str
    about: str
    variables: Sequence[Variable]
    rows: Sequence[Row] = field(default=())
    has_phases: bool = True

    @property
    def uid(self) -> str:
        return f"bench-{self.name}"

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]
