"""Several services at once: one record, each load alone and beside the others, and what is refused."""

import json
import math
import unittest
from typing import Any

from test.fakes.chroma import FakeChroma, Faults
from test.fakes.clock import FastClock
from test.fakes.site import SiteCase, announce
from test.test_run import INSIDE_A_JOB, TINY, Script, press_ctrl_c

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, NotReady, ServiceDied, UsageError
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.results.record import Measurement, Metric, RunRecord, RunState, Verdict
from aifbench.servers.registry import kinds, server_class
from aifbench.servers.together_bench import _schedule
from aifbench.servers.together_metrics import slowdowns
from aifbench.session import Session
from aifbench.stats.rounds import ratio_of_rounds

LOAD = {key: value for key, value in TINY.items() if key not in ("duration", "warmup")}
SHORT = {"duration": "250ms", "warmup": "50ms", "rounds": "1"}
FIRST, SECOND = ("left", "right")


class TogetherCase(SiteCase):
    """Two ready Chromas, Slurm's jobs 1 and 2, and a shell inside an allocation."""

    def setUp(self) -> None:
        super().setUp()
        self.session = Session(
            self.config, scheduler=self.scheduler(), clock=FastClock(), environ=INSIDE_A_JOB
        )
        self.chromas = {name: FakeChroma() for name in (FIRST, SECOND)}
        for number, (name, chroma) in enumerate(self.chromas.items(), 1):
            self.enterContext(chroma)
            self.session.start("chroma", {"name": name})
            self.slurm.start(str(number))
            announce(self.session.server(name), chroma.endpoint)

    def members(self, bench: str = "search", **options: Any) -> dict[str, Any]:
        return {"a": (FIRST, "search", LOAD), "b": (SECOND, bench, {**LOAD, **options})}

    def bench(self, progress: Script | None = None, **options: Any) -> RunRecord:
        given = {**SHORT, **options}
        return self.session.bench_together(self.members(), "interference", given, progress or Script())

    def refused(self, words: str, members: Any, together: str = "interference", **options: Any) -> None:
        with self.assertRaises(UsageError) as caught:
            self.session.bench_together(members, together, {**SHORT, **options}, Script())
        self.assertIn(words, f"{caught.exception.message} {caught.exception.hint}")
        self.assertEqual(self.session.runs(), [])

    def assert_nothing_left(self) -> None:
        self.assertEqual([chroma.collections for chroma in self.chromas.values()], [{}, {}])


class Interference(TogetherCase):
    def test_each_alone_then_both_and_what_it_costs(self) -> None:
        self.chromas[SECOND].faults = Faults("/query$", wrong_neighbors=True)
        record = self.session.bench_together(
            self.members(), "interference", SHORT, Script(), study={"study": {"id": "s"}}
        )
        self.assertEqual(record.state, RunState.COMPLETE)
        self.assertEqual(
            [(m.phase, m.stream) for m in record.measurements],
            [
                ("alone-a-1", "a.search"),
                ("alone-b-1", "b.search"),
                ("together-1", "a.search"),
                ("together-1", "b.search"),
            ],
        )
        one, other = record.measurements[-2:]
        # Each stream went to its own service, and is judged by its own answers.
        self.assertEqual((self.recall(one), self.recall(other) < 0.5), (1.0, True))
        for measurement in (one, other):
            kept, slowdown = (measurement.metric(name) for name in ("throughput_kept", "slowdown_p50"))
            assert kept and kept.value and slowdown and slowdown.value
            self.assertGreater(kept.value, 0)
            self.assertEqual((kept.low, kept.note), (None, "one round: no interval; give more rounds"))
            alone = next(m for m in record.measurements if m.stream == measurement.stream)
            self.assertIsNone(alone.metric("slowdown_p50"))
            ratio = self.value(measurement, "service_p50") / self.value(alone, "service_p50")
            self.assertAlmostEqual(slowdown.value, ratio)
        self.assertEqual(record.service["name"], "a+b")
        self.assertEqual(record.service["members"]["b"]["name"], SECOND)
        self.assertEqual(record.recipe["study"], {"id": "s"})
        self.assertEqual(record.recipe["members"]["a"]["vectors"], 150)
        self.assertEqual(record.recipe["facts"]["order"], ["alone-a-1", "alone-b-1", "together-1"])
        self.assertIn("dataset", record.recipe["facts"]["b"])
        self.assertEqual(self.session.run(record.run_id), record)
        folder = self.config.results_dir / record.run_id
        self.assertTrue((folder / "service/a/job.log").exists() and (folder / "service/b/script.sh").exists())
        self.assert_nothing_left()
        text = self.session.run_text(record.run_id)
        self.assertIn("together (a+b)", text)
        for words in (one.stream, other.stream, "slowdown", "throughput kept", "chroma 1.0.0 (left)"):
            self.assertIn(words, text)

    def recall(self, measurement: Measurement) -> float:
        return self.value(measurement, "recall@10")

    def value(self, measurement: Measurement, name: str) -> float:
        metric = measurement.metric(name)
        assert metric and metric.value is not None, name
        return metric.value

    def test_a_service_that_dies_ends_the_run_and_is_named(self) -> None:
        progress = Script(phases={"together-1": lambda: self.slurm.end("2", "FAILED", exit_code=9)})
        with self.assertRaises(ServiceDied) as caught:
            self.bench(progress)
        self.assertIn(f"{SECOND} is gone", caught.exception.message)
        record = self.session.run("last")
        self.assertEqual(record.state, RunState.FAILED)
        self.assertIn("alone-a-1", [m.phase for m in record.measurements])
        self.assertEqual(self.chromas[FIRST].collections, {})

    def test_ctrl_c_keeps_what_was_measured_and_clears_all_services(self) -> None:
        with self.assertRaises(KeyboardInterrupt):
            self.bench(Script(phases={"alone-b-1": press_ctrl_c}))
        record = self.session.run("last")
        self.assertEqual(record.state, RunState.INTERRUPTED)
        self.assertEqual([m.phase for m in record.measurements], ["alone-a-1"])
        self.assert_nothing_left()

    def test_one_that_cannot_prepare_leaves_nothing_on_the_others(self) -> None:
        self.chromas[SECOND].faults = Faults("/add$", status=500)
        with self.assertRaises(BenchError):
            self.bench()
        self.assert_nothing_left()

    def test_all_have_to_be_ready(self) -> None:
        self.session.start("chroma", {"name": "late"})
        members = {"a": (FIRST, "search", LOAD), "b": ("late", "search", LOAD)}
        with self.assertRaises(NotReady) as caught:
            self.session.bench_together(members, "interference", SHORT, Script())
        self.assertIn("late", caught.exception.message)
        self.assertEqual(self.session.runs(), [])


class Refusals(TogetherCase):
    def test_what_cannot_be_done_together(self) -> None:
        alone = {"a": self.members()["a"]}
        for words, members in (
            ("of chroma these can: search", self.members("ingest")),
            ("of chroma these can: search", self.members("mixed")),
            ("valid: all, ingest", self.members("serach")),
            ("duration of b: it is of all services together", self.members(duration="5s")),
            ("at least two services", alone),
            ("a role cannot be called 'A b'", {**alone, "A b": self.members()["b"]}),
            ("unknown option 'vectorz'", self.members(vectorz=3)),
        ):
            with self.subTest(words):
                self.refused(words, members)
        self.refused("did you mean 'interference'", self.members(), "interferense")
        self.refused("unknown option 'round'", self.members(), round=3)
        self.refused("--rounds", self.members(), rounds=0)

    def test_what_rag_needs(self) -> None:
        search = (FIRST, "search", {})
        for words, members in (
            ("rag has no llm", {"store": search}),
            ("rag knows no 'c'", {"store": search, "llm": search, "c": search}),
            ("llm of rag cannot be search of chroma; it has to generate", {"store": search, "llm": search}),
        ):
            with self.subTest(words):
                with self.assertRaises(UsageError) as caught:
                    self.session.bench_together(members, "rag", {}, Script())
                self.assertIn(words, f"{caught.exception.message}; {caught.exception.hint}")

    def test_options_are_told_before_anything_runs(self) -> None:
        names = {option.key for option in self.session.together_options("interference")}
        self.assertLessEqual({"rounds", "duration", "warmup", "drain", "timeout", "client_nodes"}, names)
        names = {option.key for option in self.session.together_options("rag")}
        self.assertLessEqual({"rate", "arrivals", "duration", "document_words", "slo"}, names)


class Kinds(unittest.TestCase):
    def test_what_can_run_beside_others_is_one_of_its_benchmarks(self) -> None:
        for kind in kinds():
            server = server_class(kind)
            self.assertLessEqual(set(server.steady_benches), set(server.benches), kind)


class Rounds(unittest.TestCase):
    def test_they_go_forth_and_back(self) -> None:
        names = [name for name, _ in _schedule(["a", "b"], 3)]
        self.assertEqual(
            names,
            [
                *("alone-a-1", "alone-b-1", "together-1"),
                *("together-2", "alone-b-2", "alone-a-2"),
                *("alone-a-3", "alone-b-3", "together-3"),
            ],
        )

    def test_the_ratio_over_rounds_against_students_t_by_hand(self) -> None:
        # Logs of the ratios: ln 2 and ln 8; mean ln 4, standard error ln 2; t(1) = 12.7062.
        found = ratio_of_rounds([1.0, 1.0], [2.0, 8.0])
        assert found and found.low and found.high
        self.assertAlmostEqual(found.value, 4)
        self.assertAlmostEqual(math.log(found.high / found.value), 12.7062 * math.log(2), places=6)
        self.assertAlmostEqual(found.low * found.high, 16)

    def test_too_little_to_go_by(self) -> None:
        self.assertIsNone(ratio_of_rounds([], []))
        self.assertIsNone(ratio_of_rounds([None, 0.0], [1.0, 1.0]))
        one = ratio_of_rounds([2.0, None], [3.0, 1.0])
        assert one
        self.assertEqual((one.value, one.low, one.high, one.n), (1.5, None, None, 1))
        with self.assertRaises(ValueError):
            ratio_of_rounds([1.0], [])

    def measured(self, p50: float, verdict: Verdict = Verdict.VALID, note: str = "") -> Measurement:
        from aifbench.results.record import Check

        metrics = (
            Metric("throughput", 100.0, "ops/s"),
            Metric("response_p50", p50, "ms", note=note),
            Metric("ttft_p50", p50 / 2, "ms"),
        )
        return Measurement("p", "s", "poisson", "http", 1, (0, 1), metrics, (Check("X", verdict, ""),))

    def test_slowdowns_name_what_they_rest_on(self) -> None:
        alone = [self.measured(10), self.measured(10, Verdict.INVALID)]
        found = slowdowns(alone, [self.measured(20), self.measured(30)])
        metrics = {metric.name: metric for metric in found.metrics}
        self.assertAlmostEqual(metrics["slowdown_p50"].value or 0, math.sqrt(6))
        self.assertAlmostEqual(metrics["slowdown_ttft_p50"].value or 0, math.sqrt(6))
        self.assertEqual(metrics["throughput_kept"].value, 1)
        self.assertIsNone(metrics["slowdown_p99"].value)
        self.assertIn("no round has response_p99", metrics["slowdown_p99"].note)
        self.assertEqual(found.checks[0].verdict, Verdict.WARN)
        self.assertIn("4 measurements, 1 of them INVALID", found.checks[0].message)

    def test_lower_bounds_make_no_ratio(self) -> None:
        bound = self.measured(30, note=">= value: operations without an answer")
        metrics = {m.name: m for m in slowdowns([self.measured(10)], [bound]).metrics}
        self.assertIsNone(metrics["slowdown_p50"].value)


class Plans(unittest.TestCase):
    def test_a_streams_own_endpoint_survives_json(self) -> None:
        own = Endpoint("other", 5432, prefix="/data")
        streams = tuple(
            StreamPlan(name, "m:C", {}, to_json(Closed(1)), endpoint=endpoint)
            for name, endpoint in (("one", None), ("two", own))
        )
        plan = PhasePlan("p", streams, Endpoint("first", 80))
        again = PhasePlan.from_json(json.loads(json.dumps(plan.to_json())))
        self.assertEqual(again, plan)
        self.assertEqual([again.endpoint_of(stream).host for stream in again.streams], ["first", "other"])


if __name__ == "__main__":
    unittest.main()
