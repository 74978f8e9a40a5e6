"""One worker's part: load, interpret what was kept, report; through the real loops."""

import json
import tempfile
import time
import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from test.fakes import tls
from test.fakes.http import HttpService
from test.fakes.streams import StreamService, chat, chunked

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, to_json
from aifbench.load.assignment import StopFlag
from aifbench.load.engine import Engine, load_workload
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.interpretation import interpret
from aifbench.load.plan import PhasePlan, Quality, StreamPlan, WorkerReport
from aifbench.load.recorder import ErrorTally, Recorder, answers_path, pack_row, read_samples, rows_path
from aifbench.load.samples import Samples
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.prompts import PromptSpec, prepare

NUMBERED = "test.fakes.workloads:Numbered"
SLEEP = "test.fakes.workloads:Sleep"
GENERATE = "aifbench.workloads.inference:Generate"


class EngineCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.stop = StopFlag()

    def plan(
        self,
        workload: str,
        arrivals: AnyArrivals,
        *,
        params: Mapping[str, Any] | None = None,
        limit: int | None = None,
        address: tuple[str, int] = ("127.0.0.1", 1),
        **timing: Any,
    ) -> PhasePlan:
        stream = StreamPlan(
            "s", workload, params or {}, to_json(arrivals), limit=limit, qualities=(Quality("even"),)
        )
        return PhasePlan("p", (stream,), Endpoint(*address), **timing)

    def run_engine(self, plan: PhasePlan, *, lead_s: float = 0.0) -> tuple[WorkerReport, Samples]:
        engine = Engine(plan, plan.streams[0], 0, self.dir)
        engine.prepare()
        try:
            report = engine.run(time.perf_counter_ns() + round(lead_s * 1e9), self.stop)
        finally:
            engine.close()
        return report, read_samples(self.dir, "s-0", 0)


class OverHttp(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = HttpService()
        self.addCleanup(self.service.close)

    def load(self, arrivals: AnyArrivals, **options: Any) -> tuple[WorkerReport, Samples]:
        plan = self.plan(NUMBERED, arrivals, address=self.service.address, **options)
        return self.run_engine(plan, lead_s=0.02)

    def test_answers_are_interpreted_after_the_load(self) -> None:
        report, samples = self.load(Closed(4), limit=100)
        self.assertEqual(sorted(samples.index.tolist()), list(range(100)))
        expected = {3: OutcomeKind.WRONG, 7: OutcomeKind.HARNESS}
        self.assertEqual(
            samples.outcome.tolist(), [expected.get(i % 10, OutcomeKind.OK) for i in samples.index]
        )
        good = samples.select(samples.ok)
        np.testing.assert_array_equal(good.items, good.index)
        np.testing.assert_allclose(good.qualities[:, 0], good.index / 1000, rtol=1e-6)
        self.assertTrue(np.isnan(samples.select(~samples.ok).qualities).all())
        self.assertEqual(report.errors, {"ends in three": 10, "KeyError: 'an answer nobody thought of'": 10})
        self.assertEqual((report.operations, report.interpreted), (100, 100))
        self.assertFalse(answers_path(self.dir, "s-0").exists())

    def test_answers_of_a_bad_status_are_not_interpreted(self) -> None:
        report, samples = self.load(Closed(1), limit=3, params={"target": "/status/500"})
        self.assertEqual(samples.outcome.tolist(), [OutcomeKind.SERVER_ERROR] * 3)
        self.assertEqual((report.interpreted, report.errors), (0, {"HTTP 500 no": 3}))

    def test_open_loop_issues_its_schedule(self) -> None:
        report, samples = self.load(Constant(200), warmup_s=0.1, measure_s=0.2)
        self.assertEqual(samples.sorted().intended_ns.tolist(), [n * 5_000_000 for n in range(60)])
        self.assertEqual(report.operations, 60)

    def test_no_operations_at_all(self) -> None:
        report, samples = self.load(Closed(1), limit=0)
        self.assertEqual((report.operations, report.interpreted, len(samples)), (0, 0, 0))

    def test_a_service_that_is_gone_at_the_start_is_named(self) -> None:
        self.service.close()
        host, port = self.service.address
        with self.assertRaisesRegex(WorkloadError, f"cannot connect to {host}:{port}"):
            self.load(Closed(1), limit=1)

    def test_the_report_says_what_the_load_cost(self) -> None:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        report, samples = self.load(Closed(1), limit=300)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        busy_s = (samples.finished_ns.max() - samples.sent_ns.min()) / 1e9
        self.assertTrue(busy_s <= report.wall_s <= wall_s, (busy_s, report.wall_s, wall_s))
        self.assertTrue(0 < report.cpu_s <= cpu_s, (report.cpu_s, cpu_s))
        self.assertGreater(report.loop_delay_max_s, 0.0)
        self.assertLess(abs(report.clock_step_s), 0.01)
        self.assertEqual((report.stream, report.worker, report.operations), ("s", 0, len(samples)))
        self.assertEqual(WorkerReport.from_json(report.to_json()), report)


class ByCalls(EngineCase):
    def test_qualities_come_with_the_operation(self) -> None:
        report, samples = self.run_engine(self.plan(SLEEP, Closed(4), limit=100))
        np.testing.assert_array_equal(samples.qualities[:, 0], samples.index % 2)
        self.assertEqual((report.operations, report.interpreted), (100, 0))

    def test_nothing_begins_before_the_start(self) -> None:
        _, samples = self.run_engine(self.plan(SLEEP, Closed(2), limit=4), lead_s=0.1)
        self.assertTrue((samples.intended_ns >= 0).all())
        self.assertTrue((samples.sent_ns >= 0).all())

    def test_a_stop_before_the_start_leaves_nothing(self) -> None:
        self.stop.is_set = True
        report, samples = self.run_engine(self.plan(SLEEP, Closed(2), limit=4), lead_s=60.0)
        self.assertEqual((len(samples), report.operations, report.wall_s), (0, 0, 0.0))

    def test_a_full_disk_ends_the_load_and_is_told(self) -> None:
        rows_path(self.dir, "s-0").symlink_to("/dev/full")
        report, _ = self.run_engine(self.plan(SLEEP, Closed(1), measure_s=60.0))
        self.assertEqual(report.failure, "cannot write samples: No space left on device")
        self.assertLess(report.wall_s, 30.0)


class Interpretation(EngineCase):
    def record(self, count: int) -> None:
        recorder = Recorder(self.dir, "x", 0)
        for index in range(count):
            answer = b"%d" % index
            recorder.add_answer(answer)
            recorder.add(
                pack_row(index, 0, 0, 0, 0, 0, 200, 1, 0, len(answer), np.nan, np.nan, len(answer), 0)
            )
        recorder.close()

    def interpret(self, limit: int) -> tuple[int, Samples]:
        class Meaning:
            def interpret(self, index: int, _: int, body: bytes) -> Outcome:
                return Outcome(qualities=(float(int(body) == index),))

        read = interpret(self.dir, "x", Meaning(), ErrorTally(), limit=limit)
        return read, read_samples(self.dir, "x", 0)

    def test_of_too_many_answers_an_even_part_is_read(self) -> None:
        self.record(1000)
        read, samples = self.interpret(limit=300)
        self.assertEqual(read, 250)
        checked = np.flatnonzero(~np.isnan(samples.qualities[:, 0]))
        self.assertEqual(checked.tolist(), list(range(0, 1000, 4)))
        self.assertTrue((samples.qualities[checked, 0] == 1.0).all())
        self.assertTrue(samples.ok.all())
        self.assertEqual(len(samples), 1000)

    def test_up_to_the_limit_all_are_read(self) -> None:
        self.record(300)
        read, samples = self.interpret(limit=300)
        self.assertEqual(read, 300)
        self.assertTrue((samples.qualities[:, 0] == 1.0).all())


class Streams(EngineCase):
    """Generation from the plan to token columns, over TLS and with a key."""

    def setUp(self) -> None:
        super().setUp()
        self.key = self.dir / "key"
        self.key.write_text("sk-0123")
        self.source = str(prepare(PromptSpec(kind="repeat", text="hi", output_tokens="2"), self.dir))

    def generate(self, address: tuple[str, int], *, ca_file: Path | None = tls.CA_FILE) -> PhasePlan:
        params = {"source": self.source, "model": "m", "exact": True}
        plan = self.plan(GENERATE, Closed(2), params=params, limit=10)
        endpoint = Endpoint(*address, "https", secret_file=self.key, ca_file=ca_file)
        return replace(plan, endpoint=endpoint)

    def test_a_compressed_answer_is_called_one(self) -> None:
        squeezed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0"
        with StreamService(lambda *_: [squeezed], tls=tls.server_context()) as service:
            report, samples = self.run_engine(self.generate(service.address))
        self.assertEqual(report.errors, {"an answer is compressed (gzip), which nobody asked for": 10})
        self.assertEqual(set(samples.outcome.tolist()), {OutcomeKind.PROTOCOL})

    def test_from_plan_to_columns(self) -> None:
        with StreamService(lambda *_: chunked(chat("a", "b")), tls=tls.server_context()) as service:
            report, samples = self.run_engine(self.generate(service.address))
        self.assertEqual((report.errors, report.interpreted, report.failure), ({}, 10, ""))
        self.assertTrue(samples.ok.all())
        self.assertTrue((samples.qualities[:, 0] == 1.0).all())
        tokens = samples.tokens
        assert tokens is not None
        self.assertEqual((tokens.output_tokens.tolist(), tokens.chunks.tolist()), ([2] * 10, [2] * 10))
        self.assertTrue((tokens.first_ns > samples.sent_ns).all())
        self.assertTrue((tokens.last_ns <= samples.finished_ns).all())
        self.assertEqual(json.loads(service.requests[0])["messages"], [{"role": "user", "content": "hi"}])

    def test_a_server_that_is_not_trusted_is_named_before_the_load(self) -> None:
        service = self.enterContext(StreamService(lambda *_: [], tls=tls.server_context()))
        with self.assertRaisesRegex(WorkloadError, "cannot connect to .* is not trusted") as caught:
            self.run_engine(self.generate(service.address, ca_file=None))
        self.assertNotIn("0123", str(caught.exception))

    def test_what_a_lost_worker_left_is_read_with_its_tokens(self) -> None:
        plan = self.generate(("127.0.0.1", 1))
        stream = replace(plan.streams[0], workers=2)
        for worker, count in ((0, 3), (1, 1)):
            recorder = Recorder(self.dir, f"s-{worker}", 0)
            raw = b"".join(chunked(chat("a", "b")))
            for index in range(count):
                recorder.add_reads(np.array([5 + index, len(raw)], np.int64).tobytes())
                recorder.add_answer(raw)
                recorder.add(pack_row(index, 1, 2, 5, 9, 0, 200, 1, 1, len(raw), np.nan, np.nan, len(raw), 1))
            recorder.close()
        with answers_path(self.dir, "s-1").open("ab") as file:
            file.write(b"HTTP/1.1 200 OK\r\n")  # its row was never written
        outcome = PhaseOutcome(self.dir, plan, 0.0, "killed")
        outcome.recover(stream)
        tokens = outcome.samples(stream).tokens
        assert tokens is not None
        self.assertEqual(tokens.output_tokens.tolist(), [2] * 4)
        self.assertEqual(sorted(tokens.first_ns.tolist()), [5, 5, 6, 7])
        self.assertFalse(answers_path(self.dir, "s-1").exists())


class Workloads(unittest.TestCase):
    def test_a_workload_that_cannot_be_built_is_named(self) -> None:
        for name in ("no.such.module:C", "test.fakes.workloads:Missing", "test.fakes.workloads"):
            with self.assertRaisesRegex(WorkloadError, f"cannot build the workload '{name}'"):
                load_workload(StreamPlan("s", name, {}, {}))
        with self.assertRaisesRegex(WorkloadError, "unexpected keyword argument 'colour'"):
            load_workload(StreamPlan("s", NUMBERED, {"colour": 1}, {}))


if __name__ == "__main__":
    unittest.main()
