"""ChromaServer's probe, and its benchmarks as phases: what is planned, made, verified and cleaned up."""

import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from test.fakes.chroma import FakeChroma

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, ServiceError, UsageError
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.progress import Silent
from aifbench.results.record import Verdict
from aifbench.servers.base import Probe
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.chroma import ChromaServer
from aifbench.servers.chroma_bench import ChromaBenchmark
from aifbench.servers.counting import count_check
from aifbench.servers.run import resolve_bench
from aifbench.workloads.datasets import parse_filter

TINY = {"vectors": "200", "dim": "8", "queries": "10", "duration": "1s", "warmup": "1s", "ingest_rate": "100"}


class ChromaCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.chroma = FakeChroma()
        self.enterContext(self.chroma)


class Probing(ChromaCase):
    def probe(self, endpoint: Endpoint | None = None) -> Probe:
        # A probe needs nothing but the endpoint.
        return ChromaServer.probe(object.__new__(ChromaServer), endpoint or self.chroma.endpoint)

    def test_a_server_that_answers_is_ready(self) -> None:
        self.assertEqual(self.probe(), Probe(is_ready=True, version="1.0.0"))

    def test_what_does_not_answer_as_it_should_is_not_ready_and_says_why(self) -> None:
        self.chroma.faults.where = "/heartbeat$"
        for fault, words in (
            ({"status": 500}, "answered 500"),
            ({"garbage": True}, "is not JSON"),
            ({"drop": True}, "cannot reach"),
        ):
            for name, value in fault.items():
                setattr(self.chroma.faults, name, value)
            probe = self.probe()
            self.assertEqual(probe.is_ready, False)
            self.assertIn(words, probe.detail)
            self.chroma.faults = type(self.chroma.faults)(where="/heartbeat$")

    def test_nobody_there(self) -> None:
        probe = self.probe(Endpoint("127.0.0.1", 1))
        self.assertEqual((probe.is_ready, probe.detail), (False, "cannot reach http://127.0.0.1:1"))

    def test_the_secret_of_the_job_opens_it(self) -> None:
        self.chroma.token = "opensesame"
        self.chroma.secret_file = self.dir / "secret"
        self.chroma.secret_file.write_text("opensesame\n")
        self.assertTrue(self.probe().is_ready)
        self.chroma.secret_file.write_text("wrong\n")
        self.assertIn("refused the credentials (403", self.probe().detail)

    def test_a_secret_that_cannot_be_read_is_told(self) -> None:
        self.chroma.secret_file = self.dir / "secret"
        self.assertIn("cannot read the secret", self.probe().detail)
        self.chroma.secret_file.write_bytes(b"\xff\xfe")
        self.assertIn("cannot read the secret", self.probe().detail)


class BenchCase(ChromaCase):
    def benchmark(self, bench: str = "all", **options: Any) -> ChromaBenchmark:
        recipe = resolve_bench(ChromaServer, bench, {**TINY, **options})
        context = BenchmarkContext(self.chroma.endpoint, self.dir / "data", "run1", Silent())
        benchmark = ChromaBenchmark(bench, recipe, context)
        self.addCleanup(benchmark.close)
        return benchmark

    def phases(self, bench: str = "all", **options: Any) -> dict[str, Phase]:
        return {phase.plan.name: phase for phase in self.benchmark(bench, **options).phases()}

    def refusal(self, bench: str = "search", **options: Any) -> BenchError:
        with self.assertRaises(BenchError) as caught:
            self.phases(bench, **options)
        return caught.exception

    def folder(self, rows: int) -> str:
        """A data set of files, in the format of the big-ann-benchmarks."""
        vectors = np.random.default_rng(1).normal(size=(rows, 8)).astype("<f4")
        for name, part in (("base", vectors), ("query", vectors[:10])):
            header = np.array(part.shape, "<u4").tobytes()
            (self.dir / f"{name}.fbin").write_bytes(header + part.tobytes())
        return str(self.dir)


class Plans(BenchCase):
    def test_each_benchmark_has_its_phases_and_says_which_are_measured(self) -> None:
        expected = {
            "all": {"ingest": True, "search": True, "mixed": True},
            "ingest": {"ingest": True},
            "search": {"load": False, "search": True},
            "mixed": {"load": False, "mixed": True},
            "create": {"create": True},
            "delete": {"load": False, "delete": True},
        }
        self.assertEqual(set(expected), set(ChromaServer.benches))
        for bench, names in expected.items():
            found = {name: phase.is_measured for name, phase in self.phases(bench).items()}
            self.assertEqual(found, names)
            self.chroma.collections.clear()

    def test_work_is_fixed_where_it_can_be_and_timed_where_not(self) -> None:
        phases = self.phases(batch="30", rate="50")
        (ingest,) = phases["ingest"].plan.streams
        self.assertEqual((ingest.limit, phases["ingest"].plan.measure_s), (7, None))
        (search,) = phases["search"].plan.streams
        self.assertEqual((search.limit, phases["search"].plan.measure_s), (None, 1.0))
        self.assertEqual(search.arrivals["kind"], "poisson")

    def test_mixed_inserts_beyond_the_base_at_its_rate(self) -> None:
        searching, inserting = self.phases(batch="20")["mixed"].plan.streams
        self.assertEqual((searching.name, inserting.params["first"]), ("search", 200))
        self.assertEqual(inserting.arrivals, {"kind": "constant", "rate_per_s": 5.0})
        self.assertGreaterEqual((inserting.limit or 0) * 20, 200)

    def test_workers_cover_the_largest_phase(self) -> None:
        self.assertEqual(self.benchmark("search", workers="3").workers, 3)
        self.assertEqual(self.benchmark("all", workers="3").workers, 4)

    def test_the_vendors_client_is_a_choice(self) -> None:
        for via, module in (("http", "chroma_http"), ("sdk", "chroma_sdk")):
            (search,) = self.phases("search", via=via)["search"].plan.streams
            self.assertEqual((search.workload, search.via), (f"aifbench.workloads.{module}:Search", via))
            self.chroma.collections.clear()

    def test_facts_tell_data_index_and_server(self) -> None:
        benchmark = self.benchmark("ingest", ef_search="77")
        list(benchmark.phases())
        facts = benchmark.facts()
        self.assertEqual((facts["dataset"]["vectors"], facts["server_version"]), (200, "1.0.0"))
        self.assertEqual(facts["index"]["ef_search"], 77)

    def test_index_settings_that_the_server_ignores_end_the_run(self) -> None:
        self.chroma.index_settings_ignored = True
        with self.assertRaisesRegex(ServiceError, "ignored the index settings {'ef_search': 77}"):
            self.phases("ingest", ef_search="77")


class BadInput(BenchCase):
    def test_numbers_that_cannot_be_are_refused_with_their_option(self) -> None:
        cases: list[tuple[str, str]] = [
            *(("vectors", bad) for bad in ("0", "-5", "many", "1.5", "1e30", "")),
            *((option, "0") for option in ("dim", "queries", "k", "batch", "collections", "ingest_clients")),
            *((option, "-1s") for option in ("duration", "warmup", "drain", "timeout")),
            *(
                (option, "0")
                for option in ("rate", "ingest_rate", "ramp_to", "clients", "workers", "duration")
            ),
            *(("recall_target", bad) for bad in ("1.1", "-0.1", "nan", "good")),
            *(("via", "grpc"), ("metric", "hamming"), ("arrivals", "uniform"), ("seed", "-1")),
        ]
        for option, value in cases:
            error = self.refusal("all", **{option: value})
            self.assertIsInstance(error, UsageError)
            self.assertIn(f"--{option.replace('_', '-')}", error.message, (option, value))
            self.assertTrue(error.hint, (option, value))
        self.assertEqual(self.chroma.requests, [])

    def test_options_that_contradict_are_refused(self) -> None:
        self.assertIn("exclude each other", self.refusal(rate="5", trace="t").message)
        self.assertIn("needs a rate", self.refusal(arrivals="gamma").message)
        self.assertIn("needs a rate", self.refusal(ramp_to="5").message)
        self.assertIn("--ramp-to is for a ramp", self.refusal(rate="5", ramp_to="50").message)
        self.assertIn("cannot read the trace", self.refusal(trace="/no/such/trace").message)

    def test_filters(self) -> None:
        self.assertIsNone(parse_filter(""))
        for bad in ("bucket", "bucket:", "bucket:-1", "bucket:x", "bucket:1.5", ":5"):
            self.assertTrue(self.refusal(filter=bad).hint, bad)
        for bad in ("nothing:5", "bucket:0", "bucket:101", "cluster:0"):
            self.assertIsInstance(self.refusal(filter=bad), BenchError, bad)

    def test_a_folder_that_is_not_there_or_holds_nothing(self) -> None:
        self.assertIn("/nowhere", self.refusal(dataset="/nowhere").message)
        self.assertIn("no vector files", self.refusal(dataset=str(self.dir)).message)

    def test_more_than_the_folder_holds(self) -> None:
        self.assertIn("300 vectors, not 400", self.refusal(dataset=self.folder(300), vectors="400").message)

    def test_mixed_without_vectors_to_insert_is_refused_before_anything_is_measured(self) -> None:
        benchmark = self.benchmark("all", dataset=self.folder(300), vectors=None, queries=None)
        with self.assertRaisesRegex(UsageError, "no 100 vectors to insert beyond the first 300.*--vectors"):
            next(benchmark.phases())


class Verification(BenchCase):
    def verify(self, phase: Phase) -> Mapping[str, Any]:
        """As after a phase in which no operation was answered."""
        return phase.verify(PhaseOutcome(self.dir, phase.plan, 0.0, ""), {})

    def test_vectors_that_nobody_ingested_are_found(self) -> None:
        phase = self.phases("ingest")["ingest"]
        self.assertEqual(self.verify(phase)["ingest"].checks[0].verdict, Verdict.VALID)
        stored = next(iter(self.chroma.collections.values()))
        stored.vectors["1"] = np.zeros(8)
        (check,) = self.verify(phase)["ingest"].checks
        self.assertEqual((check.code, check.verdict), ("COUNT", Verdict.INVALID))
        self.assertIn("1 vectors stored, 0 expected", check.message)

    def test_counts_that_agree_and_that_do_not(self) -> None:
        for stored, certain, possible, verdict in (
            (100, 100, 100, Verdict.VALID),
            (99, 100, 100, Verdict.INVALID),
            (101, 100, 100, Verdict.INVALID),
            (150, 100, 200, Verdict.VALID),  # failed operations may have taken effect
            (99, 100, 200, Verdict.INVALID),
            (50, 100, 0, Verdict.VALID),  # deleting counts down
        ):
            check = count_check(stored, certain, possible, "vectors")
            self.assertEqual(check.verdict, verdict, (stored, certain, possible))
            self.assertEqual(bool(check.advice), verdict is Verdict.INVALID)


class CleaningUp(BenchCase):
    def test_only_the_runs_own_collections_are_removed(self) -> None:
        self.chroma.create({"name": "precious"})
        benchmark = self.benchmark("search")
        list(benchmark.phases())
        self.assertEqual(len(self.chroma.collections), 2)
        benchmark.close()
        self.assertEqual([stored.name for stored in self.chroma.collections.values()], ["precious"])

    def test_a_server_that_died_does_not_matter(self) -> None:
        benchmark = self.benchmark("search")
        list(benchmark.phases())
        self.chroma.faults.where, self.chroma.faults.drop = ".", True
        benchmark.close()


if __name__ == "__main__":
    unittest.main()
