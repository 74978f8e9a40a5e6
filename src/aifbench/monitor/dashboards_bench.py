"""Panels of what benchmarks tell (`bench_*`): rate, errors and duration as their clients see them."""

from aifbench.monitor.dashboards_model import Kind, Needs, Panel, Query, Row, Variable

RATE = "[$__rate_interval]"
_BY = "sum by (service, workload)"
_LEGEND = "{{service}} {{workload}}"
_CLIENT = "As the load generators see it, before answers are checked: the run's record counts."


def service_variable(kind: str = "") -> Variable:
    """The services that were loaded, or those of some kinds (a regular expression) of them."""
    chosen = f'{{kind=~"{kind}"}}' if kind else ""
    return Variable("service", "Service", f"bench_run_info{chosen}")


def quantile(share: float, histogram: str, by: str, more: str = "") -> str:
    """A quantile of a histogram of the chosen services; `more` are further matchers, after a comma."""
    rates = f'rate({histogram}_bucket{{service=~"$service"{more}}}{RATE})'
    return f"histogram_quantile({share:g}, sum by (le, {by}) ({rates}))"


def requests(more: str = "") -> str:
    return f'rate(bench_requests_total{{service=~"$service"{more}}}{RATE})'


def error_share() -> str:
    """Zero where all is well, and nothing where nothing is asked."""
    good = requests(', outcome="ok"')
    return (
        f"1 - ({_BY} ({good}) or 0 * {_BY} ({requests()}))"
        f" / ({_BY} ({requests()}) > 0)"
    )  # fmt: skip


def duration(share: float) -> str:
    return quantile(share, "bench_request_duration_seconds", "service, workload")


def bytes_rate(direction: str) -> str:
    return (
        f'{_BY} (rate(bench_transferred_bytes_total{{service=~"$service", direction="{direction}"}}{RATE}))'
    )


THROUGHPUT = Panel(
    "Operations per second",
    f"Operations that ended, and in open loop what was planned. {_CLIENT}",
    (
        Query(f"{_BY} ({requests()})", _LEGEND),
        Query('bench_offered_rate{service=~"$service"}', f"{_LEGEND}, planned", Needs.OPEN_LOOP),
    ),
    "ops",
)
ERRORS = Panel(
    "Failed operations",
    f"The share of operations that ended in any other way than well. {_CLIENT}",
    (Query(error_share(), _LEGEND),),
    "percentunit",
    is_share=True,
)
OUTCOMES = Panel(
    "How operations ended",
    f"Operations per second by outcome. {_CLIENT}",
    (Query(f"sum by (service, workload, outcome) ({requests()})", f"{_LEGEND} {{{{outcome}}}}"),),
    "ops",
    stacked=True,
)
DURATION = Panel(
    "Duration",
    "Response times of good operations, from when they were due; read from buckets, a quarter off at most.",
    tuple(Query(duration(share), f"{_LEGEND} p{share * 100:g}") for share in (0.5, 0.9, 0.99)),
    "s",
)
DURATIONS = Panel(
    "Durations of all good operations",
    "How many took how long.",
    (
        Query(
            f'sum by (le) (increase(bench_request_duration_seconds_bucket{{service=~"$service"}}{RATE}))',
            "{{le}}",
        ),
    ),
    "s",
    Kind.HEATMAP,
)
IN_FLIGHT = Panel(
    "Operations under way",
    "Their mean number, by Little's law from those that ended in the last second: long ones show late.",
    (Query('bench_inflight{service=~"$service"}', _LEGEND),),
)
LAG = Panel(
    "Lag of the load generators",
    "The longest time that an operation was sent after it was due: when it is long, the client is too slow.",
    (Query('bench_schedule_lag_seconds{service=~"$service"}', _LEGEND, Needs.OPEN_LOOP),),
    "s",
)
BYTES = Panel(
    "Bytes per second",
    "What clients send and receive, where the client of that kind counts it.",
    tuple(Query(bytes_rate(way), f"{_LEGEND} {way}") for way in ("sent", "received")),
    "Bps",
)
PHASES = Panel(
    "Phases",
    "What the benchmark is doing: a warm-up is recorded, and is not part of the result.",
    (Query('bench_phase{service=~"$service"}', "{{service}} {{phase}}: {{stage}}"),),
    "none",
    Kind.STATES,
    width=16,
    height=6,
)
RUNS = Panel(
    "Runs under way",
    "Their ids, the study that each belongs to, and the commit of the program.",
    (Query('max by (service, run, experiment, commit) (bench_run_info{service=~"$service"})'),),
    "none",
    Kind.TABLE,
    height=6,
)


def tile(title: str, about: str, query: Query, unit: str, warn_above: float | None = None) -> Panel:
    return Panel(title, about, (query,), unit, Kind.STAT, width=4, height=4, warn_above=warn_above)


RED = Row("What clients see", (THROUGHPUT, ERRORS, DURATION, IN_FLIGHT, OUTCOMES, DURATIONS))
