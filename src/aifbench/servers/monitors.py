"""Monitors: Prometheus, Grafana, Loki and an OpenTelemetry Collector on one node, as far as they are here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, UsageError
from aifbench.options import Option, duration_option
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.log_news import LogNews
from aifbench.servers.monitors_log import read_log, read_parts
from aifbench.servers.site import Site
from aifbench.servers.status import Stage

if TYPE_CHECKING:
    from aifbench.servers.benchmark import Benchmark, BenchmarkContext
    from aifbench.workloads.monitors_control import MonitorsControl

_PROBE_TIMEOUT_S = 1.0
_RETENTION_S = 2 * 86_400.0
_LOG_HEAD_LINES = 5000


@dataclass(frozen=True, slots=True)
class Part:
    """One program: `port` is its name in the announcement, empty for the main one; `path` what it answers."""

    name: str
    port: str
    path: str = ""


# Loki listens on its node's loopback: Prometheus says whether it is up.
PARTS = (
    Part("prometheus", ""),
    Part("grafana", "grafana", "/api/health"),
    Part("loki", "loki"),
    Part("otel-collector", "otlp", "/v1/metrics"),
)


class MonitorServer(SlurmServer):
    """Watches every service its user starts. It has no benchmark: it is there to be looked at."""

    kind: ClassVar[str] = "monitors"
    description: ClassVar[str] = "Prometheus, Grafana, Loki and a Collector, which watch all your services"
    script: ClassVar[str] = "start_monitors.sh"
    options: ClassVar[tuple[Option, ...]] = (
        duration_option("retention", "how long Prometheus keeps what it has seen", _RETENTION_S),
    )

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        return {"AIFBENCH_RETENTION": f"{max(1, round(options['retention']))}s"}

    def probe(self, endpoint: Endpoint) -> Probe:
        """READY as soon as Prometheus is or, where there is none, what there is; `detail` is of all parts."""
        from aifbench.workloads.monitors_control import MonitorsControl

        control = MonitorsControl(endpoint, timeout_s=_PROBE_TIMEOUT_S)
        reasons = read_parts(self.log_lines(_LOG_HEAD_LINES))
        problems = {part.name: self._problem(part, endpoint, control, reasons) for part in PARTS}
        detail = ", ".join(f"{name} {problem or 'ready'}" for name, problem in problems.items())
        is_there = {part.name for part in PARTS if _port(part, endpoint)}
        deciding = {"prometheus"} & is_there or is_there
        return Probe(any(not problems[name] for name in deciding), detail=detail)

    def _problem(
        self, part: Part, endpoint: Endpoint, control: "MonitorsControl", reasons: Mapping[str, str]
    ) -> str:
        """Why a part cannot be used; empty when it can."""
        port = _port(part, endpoint)
        if not port or part.name in reasons:
            state, _, reason = reasons.get(part.name, "missing").partition(": ")
            return f"{state} ({reason})" if reason else state
        if part.name == "prometheus":
            problem = control.ready()
        elif part.name == "loki":
            problem = _loki_problem(endpoint, control)
        else:
            problem = control.answers(port, part.path)
        return f"starting ({problem})" if problem else ""

    def read_log(self, lines: Sequence[str]) -> LogNews:
        return read_log(lines)

    def benchmark(self, bench: str, options: Mapping[str, Any], context: "BenchmarkContext") -> "Benchmark":
        del bench, options, context
        raise UsageError("monitors have no benchmark", hint="they watch other services while those have")


def ready_monitors(site: Site) -> Iterator[Endpoint]:
    """Prometheus of each of this user's monitors that answers now."""
    for instance in site.instances.open_instances():
        if instance.kind == MonitorServer.kind:
            status = MonitorServer(site, instance).status()
            if status.stage is Stage.READY and status.endpoint and status.endpoint.port:
                yield status.endpoint


def _port(part: Part, endpoint: Endpoint) -> int:
    return endpoint.ports.get(part.port, 0) if part.port else endpoint.port


def _loki_problem(endpoint: Endpoint, control: "MonitorsControl") -> str:
    from aifbench.workloads.monitors_control import up

    if not endpoint.port:
        return ""  # nobody can be asked; its script would have told of its end
    try:
        return "" if any(up(control.query('up{job="loki"}'))) else "prometheus does not reach it yet"
    except ServiceError as error:
        return error.message
