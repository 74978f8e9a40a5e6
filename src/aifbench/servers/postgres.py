"""PostgreSQL, a relational data base: in a container or natively, on one node, with a new data directory."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, ClassVar

from aifbench.cluster.announce import Announcement
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo
from aifbench.errors import ServiceError
from aifbench.options import Option
from aifbench.servers import postgres_log
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.log_news import LogNews
from aifbench.servers.postgres_options import (
    BENCH_OPTIONS,
    BENCHES,
    START_POSTGRES,
    pooler_variables,
    server_settings,
)
from aifbench.servers.status import ServiceStatus, Stage

_PROBE_TIMEOUT_S = 2.0
_LOG_HEAD_BYTES = 1 << 16


class PostgresServer(SlurmServer):
    """One PostgreSQL server, empty at its start, and gone with its data at its end."""

    kind: ClassVar[str] = "postgres"
    description: ClassVar[str] = "PostgreSQL data base: transactions, queries, bulk loads"
    script: ClassVar[str] = "start_postgres.sh"
    options: ClassVar[tuple[Option, ...]] = START_POSTGRES
    benches: ClassVar[tuple[str, ...]] = BENCHES
    steady_benches: ClassVar[tuple[str, ...]] = (
        "tpcb", "simple-update", "select-only", "script", "point", "range", "metadata", "analytics", "storm",
        "vector",
    )  # fmt: skip
    bench_options: ClassVar[tuple[Option, ...]] = BENCH_OPTIONS

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        settings = server_settings(options)
        return {
            "AIFBENCH_POSTGRES_STORAGE": options["storage"],
            "AIFBENCH_POSTGRES_SETTINGS": "\n".join(f"{name}={value}" for name, value in settings.items()),
            **pooler_variables(options),
        }

    def observe(self, job: JobInfo) -> ServiceStatus:
        status = super().observe(job)
        pooler = self.pooler() if status.stage is Stage.READY else None
        if pooler is None:
            return status
        return replace(status, detail=f"{status.detail}, through {pooler}", parts=f"through {pooler}")

    def probe(self, endpoint: Endpoint) -> Probe:
        from aifbench.workloads.postgres_control import PostgresControl

        try:
            with closing(PostgresControl(endpoint, timeout_s=_PROBE_TIMEOUT_S)) as control:
                control.ready()
                return Probe(is_ready=True, version=control.version())
        except ServiceError as error:
            return Probe(is_ready=False, detail=error.message)

    def read_log(self, lines: Sequence[str]) -> LogNews:
        return postgres_log.read_log(lines)

    def _endpoint(self, announced: Announcement) -> Endpoint:
        return replace(super()._endpoint(announced), scheme="postgresql")

    def storage(self) -> postgres_log.Storage | None:
        """Where its data lies, as its batch script found it; None when that is not known."""
        return postgres_log.read_storage(self._log_head())

    def pooler(self) -> postgres_log.Pooler | None:
        """What answers clients in its place, as its batch script started it."""
        return postgres_log.read_pooler(self._log_head()) if self.instance.options.get("pooler") else None

    def _log_head(self) -> str:
        try:
            with self.log_path.open(encoding="utf-8", errors="replace") as file:
                return file.read(_LOG_HEAD_BYTES)
        except OSError:
            return ""

    def describe(self) -> dict[str, Any]:
        storage, pooler = self.storage(), self.pooler()
        return {
            **super().describe(),
            "authentication": "scram-sha-256" if self.instance.endpoint.get("secret_file") else "none",
            "storage": asdict(storage) if storage else None,
            "pooler": asdict(pooler) if pooler else None,
        }

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        from aifbench.servers.postgres_bench import PostgresBenchmark

        return PostgresBenchmark(bench, options, context, storage=self.storage(), pooler=self.pooler())
