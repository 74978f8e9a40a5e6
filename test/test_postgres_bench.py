"""PostgreSQL's benchmarks as phases: which follow one another, what makes the load, what is checked."""

import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.simulated_load import Done, Server, drive, simulate

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, ServiceError, UsageError, WorkloadError
from aifbench.load.progress import Silent
from aifbench.results.belongings import Belongings, LeftStore
from aifbench.results.definitions import definition
from aifbench.results.record import Metric, Role, Verdict
from aifbench.results.summary import summarise
from aifbench.servers import postgres_phases
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.postgres import PostgresServer
from aifbench.servers.postgres_bench import PostgresBenchmark
from aifbench.servers.postgres_log import Pooler, Storage
from aifbench.servers.postgres_metrics import scaling_metrics, server_metrics
from aifbench.servers.postgres_options import parse_clients, parse_methods, parse_response_slo, parse_scripts
from aifbench.servers.postgres_vector import refuse_index_options
from aifbench.servers.run import resolve_bench, stream_facts
from aifbench.workloads import pgvector
from aifbench.workloads.pgbench import Pgbench
from aifbench.workloads.postgres_control import Sizes
from aifbench.workloads.postgres_stats import Snapshot, read_snapshot

PGBENCH = Pgbench(("/usr/bin/pgbench",), 15)
COUNTERS = {
    "database": dict.fromkeys(
        (
            "xact_commit", "xact_rollback", "blks_read", "blks_hit", "temp_files", "temp_bytes", "deadlocks",
            "conflicts",
        ),
        0,
    ),
    "wal": {"wal_bytes": 0, "wal_fpi": 0},
    "checkpointer": dict.fromkeys(("num_timed", "num_requested", "write_time", "sync_time"), 0),
}  # fmt: skip


def snapshot(at_s: float, **changed: float) -> Snapshot:
    rows = {
        view: {name: changed.get(name, value) for name, value in row.items()}
        for view, row in COUNTERS.items()
    }
    return read_snapshot(rows, at_s)


class FakeTables:
    """Where our own engine's tables would be."""

    schema = "aifb_run1"

    def __init__(self) -> None:
        self.control = mock.Mock()
        self.control.value.return_value = 0
        self.execute = mock.Mock()
        self.table = mock.MagicMock()
        self.rows = 0

    def count(self, _: str) -> int:
        return self.rows

    def size_bytes(self) -> int:
        return 5_000_000


class FakeDatabase:
    """A run's database without a server. `grows` is by how much pgbench's history does in each phase."""

    name = "aifb_run1"
    belonging = "the database aifb_run1"
    remedy = "drop it"

    def __init__(self, endpoint: Endpoint, run_tag: str, pooler: Pooler | None = None) -> None:
        self.endpoint = endpoint
        self.direct_endpoint = replace(endpoint, port=5432)
        self.pooler = pooler
        self.run_tag = run_tag
        self.tables = FakeTables()
        self.settings = {"fsync": "on", "max_connections": "500"}
        self.control = mock.Mock()
        self.calls: list[str] = []
        self.snapshots: Iterator[Snapshot | None] = iter(
            snapshot(float(n), xact_commit=1000.0 * n, wal_bytes=2e6 * n) for n in range(1000)
        )
        self.left = ""

    def create(self) -> None:
        self.calls.append("create")

    def close(self) -> str:
        self.calls.append("close")
        return self.left

    def settle(self) -> None:
        self.calls.append("settle")

    def facts(self) -> dict[str, Any]:
        return {"database": self.name, "settings": self.settings}

    def sizes(self) -> Sizes:
        return Sizes(160 << 20, 128 << 20, 4 << 30)

    def set_default(self, settings: Mapping[str, str]) -> None:
        self.calls.append(f"default {dict(settings)}")

    def require_connections(self, clients: int, *, are_kept: bool) -> None:
        self.calls.append(f"clients {clients}{'' if are_kept else ' in turn'}")

    def history(self) -> int:
        return 0

    def snapshot(self) -> Snapshot | None:
        return next(self.snapshots)


class BenchCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.notes: list[str] = []
        self.enterContext(mock.patch.object(postgres_phases, "_discard_logs"))

    def benchmark(
        self, bench: str, find: Callable[[], Pgbench] = lambda: PGBENCH, **options: Any
    ) -> PostgresBenchmark:
        recipe = resolve_bench(PostgresServer, bench, {"duration": "12s", "warmup": "1s", **options})
        progress = Silent()
        progress.note = self.notes.append  # type: ignore[method-assign]
        endpoint = Endpoint("127.0.0.1", 1, "postgresql", secret_file=self.dir / "secret")
        belongings = Belongings(LeftStore(self.dir).note("run1"))
        context = BenchmarkContext(endpoint, self.dir / "data", "run1", progress, belongings)
        storage = Storage("scratch", "/scratch", "xfs", 1000)
        with mock.patch("aifbench.servers.postgres_bench.RunDatabase", FakeDatabase):
            return PostgresBenchmark(bench, recipe, context, storage=storage, find=find)

    def database(self, benchmark: PostgresBenchmark) -> FakeDatabase:
        database = benchmark._database
        assert isinstance(database, FakeDatabase)
        return database

    def drive(self, bench: str, server: Server | None = None, **options: Any) -> list[Done]:
        server = server or Server(slots=2, ttft_s=0.02, itl_s=0.0, tokens=1)
        return drive(self.benchmark(bench, **options), server)

    def phases(self, bench: str, **options: Any) -> dict[str, Phase]:
        return {done.name: done.phase for done in self.drive(bench, **options)}

    def refusal(self, bench: str, **options: Any) -> UsageError:
        with self.assertRaises(UsageError) as caught:
            self.benchmark(bench, **options)
        self.assertTrue(caught.exception.hint)
        return caught.exception


def no_pgbench() -> Pgbench:
    raise WorkloadError("there is no pgbench on this machine", hint="install it")


class Plans(BenchCase):
    def test_the_server_must_have_connections_for_every_load_of_the_run(self) -> None:
        for bench, options, most in (
            ("point", {"clients": "4"}, 4),
            ("point", {"clients": "4", "concurrency": "2,64"}, 64),
            ("point", {"rate": "100"}, postgres_phases.OPEN_CONNECTIONS),
            ("point", {"rate": "100", "clients": "50"}, 50),
            ("all", {}, postgres_phases.OPEN_CONNECTIONS),
        ):
            benchmark = self.benchmark(bench, **options)
            next(benchmark.phases())
            self.assertIn(f"clients {most}", self.database(benchmark).calls, (bench, options))

    def test_each_benchmark_has_its_phases_and_says_what_makes_the_load(self) -> None:
        for bench, names, via in (
            ("tpcb", ["fill", "tpcb"], "pgbench"),
            ("simple-update", ["fill", "simple-update"], "pgbench"),
            ("select-only", ["fill", "select-only"], "pgbench"),
            ("load", ["load-copy-binary", "load-multi-row", "load-single-row"], "psycopg"),
            ("point", ["point"], "psycopg"),
            ("range", ["range"], "psycopg"),
            ("metadata", ["metadata"], "psycopg"),
            ("analytics", ["analytics"], "psycopg"),
            ("storm", ["storm"], "psycopg"),
        ):
            phases = self.phases(bench)
            self.assertEqual(list(phases), names)
            self.assertEqual({phase.plan.streams[0].via for phase in phases.values()}, {via}, bench)
            measured = [name for name, phase in phases.items() if phase.is_measured]
            self.assertEqual(measured, [name for name in names if name != "fill"])

    def test_all_loads_climbs_writes_and_holds_seventy_percent(self) -> None:
        done = {each.name: each for each in self.drive("all")}
        ladder = [f"clients-{n}" for n in (1, 2, 4, 8, 16)]
        self.assertEqual(list(done), ["load", "fill", *ladder, "tpcb", "steady"])
        best = max(done[name].measurement.metric("throughput").value or 0 for name in ladder)  # type: ignore[union-attr]
        self.assertAlmostEqual(done["steady"].stream.arrivals["rate_per_s"], 0.7 * best)

    def test_pgbench_gets_the_runs_database_and_what_was_asked_for(self) -> None:
        phases = self.phases(
            "tpcb", scale="7", query_mode="simple", max_tries="3", rate="50", latency_limit="100ms"
        )
        (fill,), (stream,) = phases["fill"].plan.streams, phases["tpcb"].plan.streams
        self.assertEqual((fill.params, fill.limit), ({"database": "aifb_run1", "scale": 7}, 1))
        self.assertEqual(stream.params["scripts"], [("tpcb-like", 1)])
        self.assertEqual((stream.params["query_mode"], stream.params["max_tries"]), ("simple", 3))
        self.assertEqual(stream.params["latency_limit_ms"], 100)
        self.assertEqual(phases["tpcb"].parameters["engine"], "pgbench 15")

    def test_preparation_goes_past_a_pooler(self) -> None:
        ports = {name: phase.plan.endpoint.port for name, phase in self.phases("tpcb").items()}
        self.assertEqual(ports, {"fill": 5432, "tpcb": 1})

    def test_own_scripts_with_weights(self) -> None:
        path = self.dir / "a.sql"
        path.write_text("SELECT 1;\n")
        (stream,) = self.phases("script", file=f"{path}:3,{path}")["script"].plan.streams
        self.assertEqual(stream.params["scripts"], [(str(path), 3), (str(path), 1)])

    def test_clients_are_shared_by_workers_and_each_has_a_connection(self) -> None:
        (stream,) = self.phases("point", clients="9", workers="4")["point"].plan.streams
        self.assertEqual((stream.workers, stream.params["connections"]), (4, 3))
        (stream,) = self.phases("point", clients="2", workers="4")["point"].plan.streams
        self.assertEqual((stream.workers, stream.params["connections"]), (2, 1))
        (stream,) = self.phases("point", rate="50", workers="2")["point"].plan.streams
        self.assertEqual((stream.workers, stream.params["connections"]), (2, 16))

    def test_single_rows_are_fewer_and_multi_rows_fit_a_statement(self) -> None:
        phases = self.phases("load", rows="100000", batch="50000", methods="copy-text,multi-row,single-row")
        seen = {
            name: (phase.plan.streams[0].params["batch"], phase.plan.streams[0].limit)
            for name, phase in phases.items()
        }
        self.assertEqual(seen["load-copy-text"], (50_000, 2))
        self.assertEqual(seen["load-multi-row"], (16_383, 6))
        self.assertEqual(seen["load-single-row"], (1, 2000))

    def test_no_secret_is_in_what_is_planned_or_kept(self) -> None:
        (self.dir / "secret").write_text("opensesame")
        benchmark = self.benchmark("all")
        server = Server(slots=2, ttft_s=0.02, tokens=1)
        plans = [str(done.phase.plan.to_json()) for done in drive(benchmark, server)]
        self.assertNotIn("opensesame", f"{plans}{benchmark.facts()}")
        self.assertEqual(benchmark.facts()["storage"]["file_system"], "xfs")
        self.assertEqual(benchmark.facts()["engine"]["version"], 15)


class Without(BenchCase):
    def test_our_own_engine_selects_where_there_is_no_pgbench_and_says_so(self) -> None:
        done = drive(self.benchmark("select-only", no_pgbench), Server(slots=2, tokens=1, ttft_s=0.02))
        self.assertEqual([each.name for each in done], ["select-only"])
        self.assertEqual(done[0].stream.workload, "aifbench.workloads.sql_points:PointRead")
        self.assertIn("our own engine makes the load", self.notes[0])

    def test_all_measures_a_metadata_mix_instead_of_tpcb(self) -> None:
        done = drive(self.benchmark("all", no_pgbench), Server(slots=2, tokens=1, ttft_s=0.02))
        names = [each.name for each in done]
        self.assertIn("metadata", names)
        self.assertNotIn("tpcb", names)

    def test_what_only_pgbench_can_do_is_refused(self) -> None:
        for bench in ("tpcb", "simple-update"):
            with self.assertRaisesRegex(WorkloadError, "no pgbench"):
                self.benchmark(bench, no_pgbench)
        with self.assertRaisesRegex(WorkloadError, "no pgbench"):
            self.benchmark("select-only", no_pgbench, engine="pgbench")
        with self.assertRaisesRegex(UsageError, "no --query-mode"):
            self.benchmark("select-only", no_pgbench, query_mode="simple")


class Ladder(BenchCase):
    def test_the_last_level_carries_the_law_through_all(self) -> None:
        done = self.drive("select-only", concurrency="1,2,4,8,4")
        self.assertEqual([each.name for each in done[1:]], [f"clients-{n}" for n in (1, 2, 4, 8)])
        found = [{m.name for m in each.found["select-only"].metrics} for each in done[1:]]
        self.assertTrue(all("scaling_peak" not in names for names in found[:-1]))
        self.assertIn("scaling_peak", found[-1])

    def test_a_dead_service_ends_the_ladder(self) -> None:
        server = Server(slots=2, ttft_s=0.02, tokens=1, fails=lambda phase, _: phase == "clients-2")
        with self.assertRaisesRegex(WorkloadError, "no operation of 2 clients"):
            self.drive("point", server, concurrency="1,2,4")

    def test_the_law_and_its_refusal(self) -> None:
        levels = [(n, 1000 * n / (1 + 0.05 * (n - 1) + 0.001 * n * (n - 1))) for n in (1, 2, 4, 8, 16, 32)]
        found = {metric.name: metric for metric in scaling_metrics(levels)}
        self.assertAlmostEqual(found["scaling_peak"].value or 0, (0.95 / 0.001) ** 0.5, places=3)
        self.assertAlmostEqual(found["scaling_contention"].value or 0, 0.05, places=5)
        (refused,) = scaling_metrics(levels[:3])
        self.assertEqual((refused.name, refused.value), ("scaling_peak", None))
        self.assertIn("4 are needed", refused.note)


class Capacities(BenchCase):
    def test_the_search_finds_what_the_service_serves_within_the_limit(self) -> None:
        server = Server(slots=2, ttft_s=0.02, itl_s=0.0, tokens=1)  # 100 a second
        done = self.drive("point", server, slo="p95=100ms", duration="20s", precision="0.1")
        self.assertEqual({each.phase.role for each in done[:-1]}, {Role.PROBE})
        last = done[-1]
        metrics = {metric.name: metric for metric in last.found["point"].metrics}
        self.assertTrue(75 < (metrics["capacity"].value or 0) < 105, metrics["capacity"])
        self.assertEqual(metrics["capacity"].unit, "tx/s")
        self.assertEqual(last.phase.parameters["slo"], "e2e=100ms,share=95%")
        self.assertIn("CAPACITY", [check.code for check in last.found["point"].checks])


class Checks(BenchCase):
    def checks(self, done: Done) -> dict[str, Verdict]:
        return {check.code: check.verdict for check in done.found[done.stream.name].checks}

    def test_fewer_branches_than_clients(self) -> None:
        done = self.drive("tpcb", scale="2", clients="4")[-1]
        self.assertEqual(self.checks(done)["SCALE"], Verdict.WARN)
        self.assertEqual(self.checks(self.drive("tpcb", scale="4", clients="4")[-1])["SCALE"], Verdict.VALID)
        self.assertNotIn("SCALE", self.checks(self.drive("simple-update", scale="2")[-1]))

    def test_data_in_memory_and_new_connections(self) -> None:
        checks = self.checks(self.drive("select-only", reconnect=True)[-1])
        self.assertEqual((checks["CACHED"], checks["CONNECTION"]), (Verdict.WARN, Verdict.WARN))
        self.assertNotIn("CONNECTION", self.checks(self.drive("storm")[-1]))

    def test_rows_that_are_missing(self) -> None:
        for bench in ("tpcb", "simple-update", "load"):
            self.assertEqual(self.checks(self.drive(bench)[-1])["COUNT"], Verdict.INVALID, bench)

    def test_pgbench_that_printed_no_totals(self) -> None:
        self.assertEqual(self.checks(self.drive("select-only")[-1])["PGBENCH"], Verdict.WARN)


class Counters(BenchCase):
    def evidence(self, bench: str, **options: Any) -> dict[str, Metric]:
        """Of the last phase, with the server watched as BenchRun does it."""
        server = Server(slots=2, ttft_s=0.02, tokens=1)
        for phase in self.benchmark(bench, **options).phases():
            with phase.watching(self.dir):
                outcome = simulate(phase, server)
            (stream,) = phase.plan.streams
            facts = stream_facts(phase, stream, "", 0.0)
            measured = summarise(outcome.samples(stream), facts, outcome.reports(stream))
            found = phase.verify(outcome, {stream.name: measured})  # type: ignore[arg-type]
        return {metric.name: metric for metric in found[stream.name].metrics}

    def test_what_the_server_counted_is_told_by_the_time_of_the_load(self) -> None:
        metrics = self.evidence("select-only")
        self.assertAlmostEqual(metrics["commits"].value or 0, 1000 / 13, delta=0.5)
        self.assertAlmostEqual(metrics["wal_rate"].value or 0, 2 / 13, delta=0.01)
        self.assertAlmostEqual(metrics["wal_per_commit"].value or 0, 2.0)

    def test_a_server_that_is_silent_after_the_load(self) -> None:
        benchmark = self.benchmark("point")
        phase = next(benchmark.phases())
        with phase.watching(self.dir):
            outcome = simulate(phase, Server(slots=2, ttft_s=0.02, tokens=1))
            self.database(benchmark).snapshots = iter([None])
        facts = stream_facts(phase, phase.plan.streams[0], "", 0.0)
        measured = summarise(outcome.samples(phase.plan.streams[0]), facts, [])
        found = phase.verify(outcome, {"point": measured})  # type: ignore[arg-type]
        verdicts = {check.code: check.verdict for check in found["point"].checks}
        self.assertEqual(verdicts["SERVER"], Verdict.INVALID)

    def test_counters_that_began_anew_tell_nothing(self) -> None:
        self.assertEqual(server_metrics(None, 10.0), ())

    def test_each_metric_has_a_definition(self) -> None:
        found = self.evidence("select-only", concurrency="1,2,4,8")
        self.assertGreater(len(found), 5)
        for name in (*found, "scaling_single", "scaling_contention", "temp_files", "checkpoint_sync"):
            self.assertIsNotNone(definition(name), name)


class Ending(BenchCase):
    def test_the_runs_database_is_made_and_removed(self) -> None:
        benchmark = self.benchmark("point")
        self.assertEqual(self.database(benchmark).calls, [])
        next(benchmark.phases())
        benchmark.close()
        calls = self.database(benchmark).calls
        self.assertEqual((calls[0], calls[-1]), ("create", "close"))

    def test_it_is_noted_while_it_is_there(self) -> None:
        benchmark, store = self.benchmark("point"), LeftStore(self.dir)
        next(benchmark.phases())
        self.assertEqual(
            store.of("run1", ()).sentences(), ["run run1 may have left the database aifb_run1; drop it"]
        )
        benchmark.close()
        self.assertEqual(store.of("run1", ()).sentences(), [])

    def test_what_is_left_behind_is_told(self) -> None:
        benchmark = self.benchmark("point")
        self.database(benchmark).left = "the database aifb_run1 is left behind: gone"
        benchmark.close()
        self.assertEqual(self.notes, ["the database aifb_run1 is left behind: gone"])

    def test_vectors_need_the_extension(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "no extension `vector`"):
            self.drive("vector")

    def test_vectors_are_ingested_indexed_and_searched(self) -> None:
        with mock.patch.multiple(
            pgvector,
            require_extension=mock.Mock(return_value="0.8.5"),
            create_vectors=mock.DEFAULT,
            create_index=mock.DEFAULT,
        ) as made:
            phases = self.phases(
                "vector", vectors="60", dim="4", queries="5", k="3", batch="25", index="hnsw", ef_search="80"
            )
        (ingest,), (search,) = (phase.plan.streams for phase in phases.values())
        self.assertEqual(list(phases), ["ingest", "search"])
        self.assertEqual((ingest.limit, ingest.params["batch"], ingest.params["last"]), (3, 25, 60))
        self.assertEqual((search.params["k"], search.params["search"]), (3, {"hnsw.ef_search": "80"}))
        self.assertEqual([quality.name for quality in search.qualities], ["recall@3", "recall@3 tie-aware"])
        self.assertEqual(phases["search"].parameters["vectors"], 60)
        made["create_index"].assert_called_once()

    def test_a_server_that_refuses_ends_it(self) -> None:
        benchmark = self.benchmark("point")
        with (
            mock.patch.object(FakeDatabase, "create", side_effect=ServiceError("refuses the password")),
            self.assertRaisesRegex(BenchError, "refuses the password"),
        ):
            list(benchmark.phases())


class BadInput(BenchCase):
    def test_what_is_not_for_this_benchmark_is_refused(self) -> None:
        for bench, options, words in (
            ("load", {"rate": "10"}, "does not use --rate"),
            ("vector", {"rows": "5"}, "does not use --rows"),
            ("point", {"file": __file__}, "does not use --file"),
            ("all", {"rate": "10"}, "does not use --rate"),
            ("point", {"engine": "own"}, "does not use --engine"),
            ("tpcb", {"rate": "10", "concurrency": "1,2"}, "exclude each other"),
            ("point", {"slo": "p99=5ms", "concurrency": "1,2"}, "exclude each other"),
            ("script", {}, "needs SQL files"),
            ("tpcb", {"engine": "own"}, "is pgbench's"),
            ("tpcb", {"rate": "10", "arrivals": "constant"}, "constant arrivals"),
            ("tpcb", {"latency_limit": "1s"}, "needs a rate"),
            ("select-only", {"engine": "own", "max_tries": "2"}, "no --max-tries"),
        ):
            self.assertIn(words, self.refusal(bench, **options).message)

    def test_options_of_another_index(self) -> None:
        with self.assertRaises(UsageError) as caught:
            refuse_index_options("hnsw", {"given": ("probes",)})
        self.assertEqual(caught.exception.hint, "valid: ef-construction, ef-search, m")

    def test_objectives(self) -> None:
        self.assertEqual(
            (parse_response_slo("p99=20ms").e2e_ms, parse_response_slo("p95 = 1s").share), (20, 0.95)
        )
        for text in (
            "",
            "p99",
            "20ms",
            "p99=20",
            "p99=0ms",
            "p49=1s",
            "p9=1s",
            "p100=1s",
            "ttft=1s",
            "p99=x",
        ):
            with self.assertRaises(UsageError, msg=text):
                parse_response_slo(text)

    def test_files_methods_and_levels(self) -> None:
        for text in ("", "/nowhere.sql", f"{__file__}:0", f"{__file__}:x", ":3", f"{__file__},"):
            with self.assertRaises(UsageError, msg=text):
                parse_scripts(text)
        self.assertEqual(parse_methods("multi-row, copy-text,multi-row"), ("multi-row", "copy-text"))
        for text in ("", "copy", "copy-text,"):
            with self.assertRaises(UsageError, msg=text):
                parse_methods(text)
        self.assertEqual(parse_clients("8,1, 2,2"), (1, 2, 8))
        for text in ("", "0", "1,,2", "x", "1.5"):
            with self.assertRaises(UsageError, msg=text):
                parse_clients(text)
