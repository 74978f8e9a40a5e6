"""Chroma, a vector data base: `chroma run` in a container or natively, on one node."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError
from aifbench.options import Option, count_option, number_option, rate_option
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.instrumented import INSTRUMENT_OPTION

_PROBE_TIMEOUT_S = 2.0


class ChromaServer(SlurmServer):
    """One Chroma server, and its ingest, search, mixed, create and delete benchmarks."""

    kind: ClassVar[str] = "chroma"
    description: ClassVar[str] = "Chroma vector data base: ingest, search with recall, search while ingesting"
    script: ClassVar[str] = "start_chroma.sh"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "log-level",
            "what Chroma logs; info is some 3 kB for every request",
            default="warn",
            choices=("error", "warn", "info", "debug"),
            metavar="LEVEL",
        ),
    )
    benches: ClassVar[tuple[str, ...]] = ("all", "ingest", "search", "mixed", "create", "delete")
    steady_benches: ClassVar[tuple[str, ...]] = ("search",)
    bench_options: ClassVar[tuple[Option, ...]] = (
        count_option("vectors", "vectors to store (default: 20,000, or all of --dataset)", maximum=10**9),
        count_option("dim", "dimensions of synthetic vectors (default: 128)", maximum=65_536),
        count_option("queries", "distinct queries (default: 1,000, or all of --dataset)", maximum=10**7),
        count_option("k", "neighbours per query", 10, maximum=1000),
        count_option("batch", "vectors per ingest or delete operation", 100, maximum=100_000),
        count_option("collections", "create: collections to make", 200, maximum=100_000),
        count_option(
            "ingest-clients", "closed-loop clients of the ingest and delete phases", 2, maximum=10_000
        ),
        rate_option("ingest-rate", "mixed: vectors ingested per second while searching", 500.0),
        Option("metric", "distance", default="", choices=("l2", "cosine", "ip"), metavar="M"),
        Option(
            "filter", "search only a part, such as bucket:10 (10 %) or cluster:3", default="", metavar="F"
        ),
        Option(
            "dataset",
            "folder with fvecs, fbin, HDF5 or Parquet files (default: synthetic)",
            default="",
            metavar="DIR",
        ),
        number_option("recall-target", "mean recall below this is a WARN", 0.9, minimum=0, maximum=1),
        count_option("ef-search", "HNSW search breadth (default: the server's)", maximum=100_000),
        count_option("ef-construction", "HNSW build breadth (default: the server's)", maximum=100_000),
        count_option("max-neighbors", "HNSW links per vector (default: the server's)", maximum=1000),
        Option("via", "client: plain HTTP, or the vendor's SDK", default="http", choices=("http", "sdk")),
        INSTRUMENT_OPTION,
    )

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        return {"AIFBENCH_LOG_LEVEL": options["log_level"]}

    def probe(self, endpoint: Endpoint) -> Probe:
        from aifbench.workloads.chroma_control import ChromaControl

        try:
            with closing(ChromaControl(endpoint, timeout_s=_PROBE_TIMEOUT_S)) as control:
                control.heartbeat()
                return Probe(is_ready=True, version=control.version())
        except ServiceError as error:
            return Probe(is_ready=False, detail=error.message)

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        from aifbench.servers.chroma_bench import ChromaBenchmark

        return ChromaBenchmark(bench, options, context)
