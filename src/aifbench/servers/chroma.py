"""Chroma, a vector data base: `chroma run` in a container or natively, on one node."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, UsageError
from aifbench.options import Option
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.units import parse_count, parse_rate_per_s

_PROBE_TIMEOUT_S = 2.0


def _parse_share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--recall-target {text!r} is not a share", hint="give 0 to 1, such as 0.95")
    return value


def _count(name: str, help_text: str, default: int | None, maximum: int = 10**9) -> Option:
    parse = partial(parse_count, what=f"--{name}", maximum=maximum)
    return Option(name, help_text, parse=parse, default=default, metavar="N")


class ChromaServer(SlurmServer):
    """One Chroma server, and its ingest, search, mixed, create and delete benchmarks."""

    kind: ClassVar[str] = "chroma"
    description: ClassVar[str] = "Chroma vector data base: ingest, search with recall, search while ingesting"
    script: ClassVar[str] = "start_chroma.sh"
    benches: ClassVar[tuple[str, ...]] = ("all", "ingest", "search", "mixed", "create", "delete")
    bench_options: ClassVar[tuple[Option, ...]] = (
        _count("vectors", "vectors to store (default: 20,000, or all of --dataset)", None),
        _count("dim", "dimensions of synthetic vectors (default: 128)", None, 65_536),
        _count("queries", "distinct queries (default: 1,000, or all of --dataset)", None, 10**7),
        _count("k", "neighbours per query", 10, 1000),
        _count("batch", "vectors per ingest or delete operation", 100, 100_000),
        _count("collections", "create: collections to make", 200, 100_000),
        _count("ingest-clients", "closed-loop clients of the ingest and delete phases", 2, 10_000),
        Option(
            "ingest-rate",
            "mixed: vectors ingested per second while searching",
            parse=partial(parse_rate_per_s, what="--ingest-rate"),
            default=500.0,
            metavar="R",
        ),
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
        Option(
            "recall-target", "mean recall below this is a WARN", parse=_parse_share, default=0.9, metavar="R"
        ),
        _count("ef-search", "HNSW search breadth (default: the server's)", None, 100_000),
        _count("ef-construction", "HNSW build breadth (default: the server's)", None, 100_000),
        _count("max-neighbors", "HNSW links per vector (default: the server's)", None, 1000),
        Option("via", "client: plain HTTP, or the vendor's SDK", default="http", choices=("http", "sdk")),
    )

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
