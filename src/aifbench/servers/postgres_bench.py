"""PostgreSQL's benchmarks as phases: pgbench's own transactions, and what it has none for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from aifbench.load.arrivals import AnyArrivals, Closed, Poisson
from aifbench.results.record import Check
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.levels import Level
from aifbench.servers.load_options import arrivals_of
from aifbench.servers.postgres_checks import (
    check_cached,
    check_connections,
    check_durability,
    check_scale,
)
from aifbench.servers.postgres_choices import (
    USED_BY,
    choose_engine,
    refuse_misplaced,
    refuse_stuck,
)
from aifbench.servers.postgres_database import RunDatabase
from aifbench.servers.postgres_loading import Loading
from aifbench.servers.postgres_log import Pooler, Storage
from aifbench.servers.postgres_options import (
    parse_clients,
    parse_methods,
    parse_scripts,
)
from aifbench.servers.postgres_phases import OWN, PGBENCH, PhaseMaker, Work, open_connections
from aifbench.servers.postgres_vector import VectorSearch
from aifbench.workloads import sql_bulk, sql_metadata, sql_points
from aifbench.workloads.pgbench import ROWS_PER_SCALE, Pgbench, find_pgbench

_FAMILY = {"tpcb": "tpcb-like", "simple-update": "simple-update", "select-only": "select-only"}
_LADDER = (1, 2, 4, 8, 16)
_ALL_ROWS = 1_000_000
_ALL_LEVEL_S = 20.0
_OPEN_SHARE = 0.7
# Single rows wait for the disk each: as many as for a batch would take hours.
_SINGLE_ROW_SHARE = 50

_GROWN_BY = {"metadata": "--runs", "analytics": "--runs", "vector": "--vectors"}


class PostgresBenchmark:
    """One run against one server, in a database of its own, which `close` removes."""

    def __init__(
        self,
        bench: str,
        options: Mapping[str, Any],
        context: BenchmarkContext,
        *,
        storage: Storage | None = None,
        pooler: Pooler | None = None,
        find: Callable[[], Pgbench] = find_pgbench,
    ) -> None:
        self._bench = bench
        self._options = options
        self._context = context
        self._storage = storage
        refuse_misplaced(bench, options)
        self._arrivals: AnyArrivals = arrivals_of(options)
        self._scripts = parse_scripts(options["file"]) if bench == "script" and options["file"] else []
        self._pgbench, self._without = choose_engine(bench, options, find)
        self._database = RunDatabase(context.endpoint, context.run_tag, pooler)
        self._maker = PhaseMaker(self._database, options)
        self._loading = Loading(self._maker, options, self._arrivals, self._ladder)
        self._checks: tuple[Check, ...] = ()
        self._facts: dict[str, Any] = {}

    @property
    def workers(self) -> int:
        return int(self._options["workers"])

    def phases(self) -> Iterator[Phase]:
        if self._without:
            self._context.progress.note(self._without)
        if self._pgbench and (pooler := self._database.pooler):
            refuse_stuck(self._bench, self._options, pooler, self._most_clients_writing)
        self._context.belongings.add(self._database.belonging, self._database.remedy)
        self._database.create()
        self._database.require_connections(self._most_connections, are_kept=not self._reconnects)
        engine: dict[str, Any] = {"command": OWN}
        if self._pgbench:
            engine = {"command": " ".join(self._pgbench.words), "version": self._pgbench.version}
        self._facts = {
            **self._database.facts(),
            "storage": asdict(self._storage) if self._storage else None,
            "engine": engine,
            "connections": "one for each transaction" if self._reconnects else "kept by each client",
            "pooler": asdict(pooler) if (pooler := self._database.pooler) else None,
        }
        yield from getattr(self, "_" + self._bench.replace("-", "_"))()

    def facts(self) -> dict[str, Any]:
        return self._facts

    def close(self) -> None:
        if left := self._database.close():
            self._context.progress.note(left)
        else:
            self._context.belongings.strike(self._database.belonging)

    @property
    def _reconnects(self) -> bool:
        return bool(self._options["reconnect"]) or self._bench == "storm"

    @property
    def _most_connections(self) -> int:
        """At once, of all the loads of the run."""
        options = self._options
        comes_at_a_rate = self._bench == "all" or options["slo"] or not isinstance(self._arrivals, Closed)
        opened = open_connections(options) if comes_at_a_rate else 0
        return max(int(options["clients"]), opened, *self._ladder)

    @property
    def _most_clients_writing(self) -> int:
        return int(self._options["clients"]) if self._bench == "all" else self._most_connections

    @property
    def _ladder(self) -> tuple[int, ...]:
        if self._options["concurrency"]:
            return parse_clients(self._options["concurrency"])
        return _LADDER if self._bench == "all" else ()

    # The benchmarks.

    def _all(self) -> Iterator[Phase]:
        given = self._options["given"]
        rows = self._options["rows"] if "rows" in given else _ALL_ROWS
        yield from self._bulk("copy-binary", rows, "load")
        yield from self._fill()
        reading = self._transactions("select-only")
        yield from self._loading.levels(reading, _ALL_LEVEL_S)
        best = max(seen.value("throughput") or 0.0 for seen in self._maker.seen[-len(self._ladder) :])
        if self._pgbench:
            writing = self._transactions("tpcb")
        else:
            writing = self._metadata_work()
            self._settle()
        yield self._loading.single(writing, Closed(self._options["clients"]), 2 * _ALL_LEVEL_S)
        if best:
            arrivals = Poisson(_OPEN_SHARE * best, self._options["seed"])
            yield self._loading.single(reading, arrivals, 2 * _ALL_LEVEL_S, name="steady")

    def _tpcb(self) -> Iterator[Phase]:
        yield from self._family("tpcb")

    def _simple_update(self) -> Iterator[Phase]:
        yield from self._family("simple-update")

    def _select_only(self) -> Iterator[Phase]:
        yield from self._family("select-only")

    def _script(self) -> Iterator[Phase]:
        yield from self._family("script")

    def _family(self, name: str) -> Iterator[Phase]:
        yield from self._fill()
        yield from self._loading.timed(self._transactions(name))

    def _load(self) -> Iterator[Phase]:
        for method in parse_methods(self._options["methods"]):
            rows = self._options["rows"]
            if method == "single-row":
                rows = max(1, rows // _SINGLE_ROW_SHARE)
            yield from self._bulk(method, rows, f"load-{method}")

    def _point(self) -> Iterator[Phase]:
        yield from self._accounts()
        yield from self._loading.timed(self._point_work("point"))

    def _range(self) -> Iterator[Phase]:
        yield from self._accounts()
        params = {"rows": self._account_rows, "span": self._options["span"], **self._own_params()}
        yield from self._loading.timed(self._own("range", "sql_points:RangeRead", params, items="rows"))

    def _metadata(self) -> Iterator[Phase]:
        work = self._metadata_work()
        self._settle()
        yield from self._loading.timed(work)

    def _analytics(self) -> Iterator[Phase]:
        self._make(
            "metadata tables", partial(sql_metadata.create_metadata, self._tables, self._options["runs"])
        )
        self._settle()
        params = {"schema": self._tables.schema, "timeout_s": self._options["timeout"]}
        yield from self._loading.timed(self._own("analytics", "sql_analytics:Analyse", params, items="rows"))

    def _storm(self) -> Iterator[Phase]:
        params = {"timeout_s": self._options["timeout"]}
        work = self._own("storm", "sql_storm:Storm", params)
        self._checks = self._load_checks()
        yield from self._loading.timed(replace(work, connections=False))

    def _vector(self) -> Iterator[Phase]:
        vectors = VectorSearch(self._tables, self._options, self._context)
        vectors.create()
        self._facts |= vectors.facts()
        self._checks = self._load_checks()
        yield self._maker.phase(
            vectors.ingest(partial(self._own, "ingest", "pgvector:Ingest")), vectors.ingest_level
        )
        self._make(f"index {vectors.kind}", vectors.build_index)
        self._settle()
        self._set_default(vectors.settings)
        search = vectors.search(partial(self._own, "search", "pgvector:Search"))
        built = vectors.index_metrics()
        yield from self._loading.timed(search, lambda _: built)

    # What they are made of.

    @property
    def _tables(self) -> Any:
        return self._database.tables

    @property
    def _account_rows(self) -> int:
        return int(self._options["scale"]) * ROWS_PER_SCALE

    def _own_params(self) -> dict[str, Any]:
        return {
            "schema": self._tables.schema,
            "seed": self._options["seed"],
            "timeout_s": self._options["timeout"],
        }

    def _own(self, name: str, workload: str, params: Mapping[str, Any], items: str = "") -> Work:
        kept = ("scale", "skew", "span", "runs", "isolation", "seed")
        parameters = {
            key: self._options[key] for key in kept if self._bench in USED_BY.get(key, (self._bench,))
        }
        return Work(
            name,
            f"aifbench.workloads.{workload}",
            params,
            OWN,
            items,
            checks=self._standing,
            parameters=parameters,
        )

    def _point_work(self, name: str) -> Work:
        params = {"rows": self._account_rows, "skew": self._options["skew"], **self._own_params()}
        return self._own(name, "sql_points:PointRead", params)

    def _metadata_work(self) -> Work:
        runs = self._options["runs"]
        self._make("metadata tables", partial(sql_metadata.create_metadata, self._tables, runs))
        params = {
            "runs": runs,
            "skew": self._options["skew"],
            "isolation": self._options["isolation"],
            **self._own_params(),
        }
        if self._options["isolation"]:
            self._set_default({"default_transaction_isolation": self._options["isolation"]})
        return self._own("metadata", "sql_metadata:Mix", params, items="rows")

    def _transactions(self, name: str) -> Work:
        """One of pgbench's, or our own select of the same kind."""
        if not self._pgbench:
            return self._point_work(name)
        options = self._options
        params = {
            "database": self._database.name,
            "scripts": self._scripts or [(_FAMILY[name], 1)],
            "query_mode": options["query_mode"],
            "connect": options["reconnect"],
            "max_tries": options["max_tries"],
            "latency_limit_ms": 1e3 * options["latency_limit"] if options["latency_limit"] else None,
            "scale": options["scale"],
        }
        kept = ("scale", "query_mode", "reconnect", "max_tries", "latency_limit", "file", "seed")
        writes = name in ("tpcb", "simple-update")

        def checks(clients: int) -> Sequence[Check]:
            scale = check_scale(options["scale"], clients, writes=name == "tpcb")
            return (*([scale] if scale else []), *self._standing(clients))

        return Work(
            name,
            "aifbench.workloads.pgbench:PgbenchLoad",
            params,
            PGBENCH,
            stored=self._database.history if writes else None,
            checks=checks,
            parameters={
                "engine": f"pgbench {self._pgbench.version}",
                **{key: options[key] for key in kept if options[key] not in ("", None)},
            },
        )

    def _standing(self, _: int) -> Sequence[Check]:
        return self._checks

    def _fill(self) -> Iterator[Phase]:
        """pgbench's tables; ours where there is no pgbench."""
        if not self._pgbench:
            yield from self._accounts()
            return
        params = {"database": self._database.name, "scale": self._options["scale"]}
        work = Work(
            "fill", "aifbench.workloads.pgbench:PgbenchInit", params, PGBENCH, items="rows", connections=False
        )
        yield self._maker.phase(work, Level("fill", Closed(1), limit=1, is_measured=False))
        self._settle()

    def _accounts(self) -> Iterator[Phase]:
        """Made by the server itself: no phase of load."""
        self._make("accounts", partial(sql_points.create_accounts, self._tables, self._account_rows))
        self._settle()
        yield from ()

    def _bulk(self, method: str, rows: int, name: str) -> Iterator[Phase]:
        options = self._options
        batch = 1 if method == "single-row" else min(options["batch"], rows)
        if method == "multi-row":
            batch = min(batch, 65_535 // 4)
        sql_bulk.check_load(method, batch, options["payload"])
        self._tables.execute("DROP TABLE IF EXISTS {t}", t=sql_bulk.TABLE)
        sql_bulk.create_bulk(self._tables)
        params = {
            "schema": self._tables.schema,
            "method": method,
            "batch": batch,
            "payload_bytes": options["payload"],
            "seed": options["seed"],
            "timeout_s": options["timeout"],
        }
        work = replace(
            self._own("load", "sql_bulk:Load", params, items="rows"),
            stored=lambda: int(self._tables.count(sql_bulk.TABLE)),
            rows_each=batch,
            is_stationary=False,
            parameters={"method": method, "batch": batch, "payload": options["payload"]},
        )
        limit = max(1, rows // batch)
        self._checks = self._load_checks()
        yield self._maker.phase(work, Level(name, Closed(min(options["clients"], limit)), limit=limit))

    def _set_default(self, settings: Mapping[str, str]) -> None:
        """Where a client's next transaction may have another connection than the one it has set them on."""
        if (pooler := self._database.pooler) and pooler.mode == "transaction":
            self._database.set_default(settings)

    def _make(self, what: str, make: Callable[[], None]) -> None:
        self._context.progress.phase("data", what)
        make()

    def _settle(self) -> None:
        """Let preparation be over before a load, and see how large the data has become."""
        self._database.settle()
        self._facts |= self._database.facts()
        grow = _GROWN_BY.get(self._bench, "--scale")
        self._checks = (check_cached(self._database.sizes(), grow=grow), *self._load_checks())

    def _load_checks(self) -> tuple[Check, ...]:
        durable = check_durability(self._database.settings, self._storage)
        if self._bench == "storm":
            return (durable,)
        return (
            durable,
            check_connections(reconnects=self._reconnects, pooler=str(self._database.pooler or "")),
        )
