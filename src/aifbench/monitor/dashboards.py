"""All dashboards; `python -m aifbench.monitor.dashboards [FOLDER]` writes their files anew."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from aifbench.monitor import dashboards_bench as bench
from aifbench.monitor import dashboards_nodes as nodes
from aifbench.monitor.dashboards_json import grafana_json
from aifbench.monitor.dashboards_model import Dashboard, Kind, Needs, Panel, Query, Row, Variable
from aifbench.monitor.dashboards_vllm import VLLM

FOLDER = Path(__file__).resolve().parents[3] / "utils/grafana-dashboards"
_NO_SERVER_METRICS = "{} tells nothing to Prometheus itself: this is what clients and machines see."
_NODE = Variable("node", "Node", 'node_uname_info{service=~"$service"}')
_LOG = '{service=~"$service", node=~"$node"}'
_TROUBLE = '|~ "(?i)error|exception|traceback|fatal|out of memory"'

CAMPAIGN = Dashboard(
    "campaign",
    "Campaign",
    "All benchmarks under way: which phase, how much, how fast, how many failures. Start here.",
    (bench.service_variable(),),
    (
        Row(
            "Now",
            (
                bench.tile(
                    "Benchmarks",
                    "How many are under way.",
                    Query('count(bench_run_info{service=~"$service"})'),
                    "none",
                ),
                bench.tile(
                    "Operations per second", "All together.", Query(f"sum({bench.requests()})"), "ops"
                ),
                bench.tile(
                    "Failed operations",
                    "The largest share among all loads.",
                    Query(f"max({bench.error_share()})"),
                    "percentunit",
                    warn_above=0.01,
                ),
                bench.tile(
                    "Slowest p99", "The largest among all loads.", Query(f"max({bench.duration(0.99)})"), "s"
                ),
                bench.tile(
                    "Services and exporters",
                    "How many answer Prometheus.",
                    Query("sum(up)", needs=Needs.NODES),
                    "none",
                ),
                bench.tile(
                    "Not answering",
                    "Services and exporters that should answer Prometheus and do not.",
                    Query("count(up) - sum(up)", needs=Needs.NODES),
                    "none",
                    warn_above=1,
                ),
            ),
        ),
        Row("Runs", (bench.PHASES, bench.RUNS)),
        bench.RED,
        Row("The load generators themselves", (bench.LAG, bench.BYTES)),
    ),
)


def _service_dashboard(name: str, title: str, kind: str, server: str, first: Row) -> Dashboard:
    """A service that publishes no metrics: its clients' view, and the machines it runs on."""
    about = _NO_SERVER_METRICS.format(server)
    machines = (nodes.CPU, nodes.MEMORY, nodes.DISK_WAIT, nodes.DISK_BYTES, nodes.NETWORK, nodes.DISK)
    return Dashboard(
        name,
        title,
        about,
        (bench.service_variable(kind), _NODE),
        (
            first,
            Row("More of the clients' view", (bench.OUTCOMES, bench.DURATIONS, bench.LAG)),
            Row("The machines below", tuple(_with_words(panel, about) for panel in machines)),
        ),
    )


def _with_words(panel: Panel, words: str) -> Panel:
    return replace(panel, about=f"{panel.about} {words}")


_CLIENT_VIEW = (bench.THROUGHPUT, bench.ERRORS, bench.DURATION)

LOGS = Dashboard(
    "logs",
    "Logs",
    "What services write, as Loki keeps it: all nodes in one place.",
    (
        Variable("service", "Service", '{service=~".+"}', is_loki=True),
        Variable("node", "Node", '{service=~"$service"}', is_loki=True),
        Variable("search", "Search (regular expression)"),
    ),
    (
        Row(
            "How much",
            (
                Panel(
                    "Lines per second",
                    "By service and stream.",
                    (
                        Query(
                            f"sum by (service, stream) (rate({_LOG} [$__auto]))",
                            "{{service}} {{stream}}",
                            Needs.LOKI,
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Lines that tell of trouble",
                    "Per interval: those with error, exception, traceback, fatal or out of memory.",
                    (
                        Query(
                            f"sum by (service, node) (count_over_time({_LOG} {_TROUBLE} [$__auto]))",
                            "{{service}} {{node}}",
                            Needs.LOKI,
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "Lines",
            (
                Panel(
                    "Trouble",
                    "The lines that tell of it.",
                    (Query(f"{_LOG} {_TROUBLE}", needs=Needs.LOKI),),
                    kind=Kind.LOGS,
                    width=24,
                ),
                Panel(
                    "All lines",
                    "Those in which the search text is found, or all.",
                    (Query(f'{_LOG} |~ "(?i)$search"', needs=Needs.LOKI),),
                    kind=Kind.LOGS,
                    width=24,
                    height=16,
                ),
            ),
        ),
    ),
    has_phases=False,
)

DASHBOARDS = (
    CAMPAIGN,
    VLLM,
    _service_dashboard(
        "vector",
        "Vector search",
        "chroma|together",
        "Chroma",
        Row("What clients see", (*_CLIENT_VIEW, bench.IN_FLIGHT, bench.BYTES)),
    ),
    _service_dashboard(
        "postgres",
        "PostgreSQL",
        "postgres|together",
        "PostgreSQL",
        Row("What clients see", (*_CLIENT_VIEW, bench.IN_FLIGHT)),
    ),
    _service_dashboard(
        "storage",
        "S3 and files",
        "s3|lustre|together",
        "The store",
        Row("What clients see", (bench.BYTES, *_CLIENT_VIEW, bench.IN_FLIGHT)),
    ),
    nodes.NODES,
    LOGS,
)


def file_text(dashboard: Dashboard) -> str:
    """What the dashboard's file holds."""
    return json.dumps(grafana_json(dashboard), indent=1, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    """Write every dashboard's file."""
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.name}.json").write_text(file_text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
