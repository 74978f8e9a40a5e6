"""The benchmark of vector search in PostgreSQL: its data with exact answers, its table, index and work."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aifbench.errors import UsageError
from aifbench.load.arrivals import Closed
from aifbench.load.plan import Quality
from aifbench.results.record import Metric
from aifbench.servers.benchmark import BenchmarkContext
from aifbench.servers.levels import Level
from aifbench.servers.postgres_phases import Work
from aifbench.workloads import pgvector
from aifbench.workloads.datasets import Dataset, DatasetSpec, load_dataset, parse_filter
from aifbench.workloads.preparation import prepare_dataset
from aifbench.workloads.sql_control import SqlNamespace

Own = Callable[[Mapping[str, Any]], Work]  # from a workload's parameters


class VectorSearch:
    """`create`, the phase of `ingest`, `build_index`, and then phases of `search`."""

    def __init__(self, tables: SqlNamespace, options: Mapping[str, Any], context: BenchmarkContext) -> None:
        self._tables = tables
        self._options = options
        self._context = context
        self.kind: str = options["index"]
        self._build_s = 0.0

    def create(self) -> None:
        """The data, and a table for it. Raises WorkloadError without the extension, UsageError."""
        options, kind = self._options, self.kind
        self._version = pgvector.require_extension(self._tables)
        refuse_index_options(kind, options)
        self._data = self._load()
        self._built = {name: options[name] for name in pgvector.INDEXES[kind] if options[name] is not None}
        self._asked = {name: options.get(name) for name in pgvector.SEARCH_OPTIONS[kind] if options.get(name)}
        self.settings = pgvector.search_settings(kind, self._asked)
        pgvector.create_vectors(self._tables, self._data.dim)

    def _load(self) -> Dataset:
        options = self._options
        self._context.progress.phase("data", "vectors, queries and exact answers")
        spec = DatasetSpec(
            vectors=options["vectors"],
            dim=options["dim"],
            queries=options["queries"],
            k=options["k"],
            metric=options["metric"],
            seed=options["seed"],
            folder=options["dataset"],
            filter=parse_filter(options["filter"]),
        )
        return load_dataset(prepare_dataset(spec, self._context.data_dir))

    def facts(self) -> dict[str, Any]:
        return {
            "dataset": self._data.describe(),
            "index": {"kind": self.kind, **self._built, **self._asked},
            "pgvector": self._version,
        }

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            "vectors": self._data.base,
            "dim": self._data.dim,
            "metric": self._data.metric,
            "index": self.kind,
            **self._built,
            **self._asked,
        }

    @property
    def _where(self) -> dict[str, Any]:
        return {"dataset": str(self._data.path), "schema": self._tables.schema}

    @property
    def ingest_level(self) -> Level:
        limit = math.ceil(self._data.base / self._options["batch"])
        return Level("ingest", Closed(min(self._options["clients"], limit)), limit=limit)

    def ingest(self, own: Own) -> Work:
        batch = self._options["batch"]
        return replace(
            own({**self._where, "batch": batch, "last": self._data.base}),
            items="vectors",
            stored=lambda: int(self._tables.count(pgvector.TABLE)),
            rows_each=batch,
            is_stationary=False,
            parameters=self._parameters,
        )

    def build_index(self) -> None:
        began_s = time.monotonic()
        pgvector.create_index(self._tables, self.kind, self._data.metric, self._data.dim, self._built)
        self._build_s = time.monotonic() - began_s

    def search(self, own: Own) -> Work:
        target, k = self._options["recall_target"], self._options["k"]
        return replace(
            own({**self._where, "k": k, "search": self.settings}),
            qualities=(
                Quality(f"recall@{k}", warn_below=target, invalid_below=target / 2),
                Quality(f"recall@{k} tie-aware"),
            ),
            parameters={**self._parameters, "k": k},
        )

    def index_metrics(self) -> Sequence[Metric]:
        size_mb = self._tables.size_bytes() / 1e6
        return (
            Metric("index_build", self._build_s, "s", "lower"),
            Metric("stored_size", size_mb, "MB", "lower"),
        )


def refuse_index_options(kind: str, options: Mapping[str, Any]) -> None:
    """What an index of another kind has. Raises UsageError."""
    known = {*pgvector.INDEXES[kind], *pgvector.SEARCH_OPTIONS[kind]}
    for key in ("m", "ef_construction", "ef_search", "lists", "probes"):
        if key in options["given"] and key not in known:
            names = ", ".join(name.replace("_", "-") for name in sorted(known))
            raise UsageError(
                f"an index {kind} has no --{key.replace('_', '-')}", hint=f"valid: {names or 'none'}"
            )
