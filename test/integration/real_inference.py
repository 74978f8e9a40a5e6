"""Runs against a real server process of known timing that has its bad days: nothing measured is lost."""

import json
import os
import re
import signal
import unittest
from collections import Counter
from collections.abc import Callable
from typing import Any

from test.fakes.clock import FastClock
from test.fakes.site import SHELL, SiteCase
from test.test_run import command_line

from aifbench.cluster import processes
from aifbench.errors import BenchError, FleetError
from aifbench.load.progress import LoadStatus, Progress, Silent
from aifbench.load.samples import Samples
from aifbench.load.workload import OutcomeKind
from aifbench.results.record import Check, Measurement, RunRecord, RunState, Verdict
from aifbench.session import Session
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_process import ReferenceServer

SMALL = {
    "input_tokens": "16",
    "output_tokens": "8",
    "warmup": "100ms",
    "duration": "600ms",
    "drain": "1s",
    "timeout": "10s",
    "no_calibration": True,
}
_SOME = 20
FAST = {"ttft_s": 0.01, "itl_s": 0.001}


class Event(Silent):
    """Something happens once a phase has some operations."""

    def __init__(self, phase: str, happens: Callable[[], object]) -> None:
        self._phase = phase
        self._happens = happens

    def update(self, status: LoadStatus) -> None:
        if status.phase == self._phase and status.operations > _SOME:
            self._phase = ""
            self._happens()


class InferenceRunCase(SiteCase):
    """Inside an allocation, where load is made by processes of this machine."""

    def setUp(self) -> None:
        super().setUp()
        environ = {**SHELL, "SLURM_JOB_ID": "1"}
        self.session = Session(self.config, scheduler=self.scheduler(), clock=FastClock(), environ=environ)

    def serve(self, **plan: Any) -> ReferenceServer:
        server = self.enterContext(ReferenceServer(ReferencePlan(**{**FAST, **plan})))
        self.session.attach("vllm", server.endpoint.url, {"name": "ref"})
        return server

    def bench(self, bench: str = "generate", progress: Progress | None = None, **options: Any) -> RunRecord:
        return self.session.bench("ref", bench, {**SMALL, **options}, progress or Silent())

    def ended_early(
        self,
        kind: type[BaseException],
        happens: Callable[[], object],
        *,
        bench: str = "generate",
        phase: str = "generate",
        **options: Any,
    ) -> tuple[str, RunRecord]:
        with self.assertRaises(kind) as caught:
            self.bench(bench, Event(phase, happens), **{"duration": "30s", **options})
        self.assert_nothing_left()
        return str(caught.exception), self.session.run("last")

    def check(self, measurement: Measurement, code: str) -> Check:
        return next(check for check in measurement.checks if check.code == code)

    def samples(self, record: RunRecord) -> Samples:
        return Samples.load(self.config.results_dir / record.run_id / record.measurements[-1].samples_file)

    def assert_nothing_left(self) -> None:
        mark = str(self.config.results_dir).encode()
        workers = [pid for pid in processes.descendants({os.getpid()}) if mark in command_line(pid)]
        self.assertEqual(workers, [])

    def workers(self) -> list[int]:
        paths = sorted(self.config.results_dir.glob("2*/phases/phase-01/ready-*.json"))
        return [int(json.loads(path.read_text())["pid"]) for path in paths]


class BadDays(InferenceRunCase):
    def test_a_server_that_dies_ends_the_run_and_what_it_answered_is_kept(self) -> None:
        server = self.serve()
        message, record = self.ended_early(
            BenchError,
            server.stop,
            bench="sweep",
            phase="clients-1",
            duration="3s",
            concurrency="1,2,4",
        )
        self.assertRegex(message, "could not prepare: cannot connect to 127.0.0.1")
        self.assertEqual((record.state, record.verdict), (RunState.FAILED, Verdict.INVALID))
        (first,) = record.measurements
        self.assertGreater(first.outcomes["OK"], 5)
        self.assertLessEqual({"OK", "CONNECT"}, {*first.outcomes})

    def test_a_worker_that_is_killed_loses_no_answers(self) -> None:
        self.serve()
        message, record = self.ended_early(
            FleetError, lambda: os.kill(self.workers()[0], signal.SIGKILL), workers="2", clients="4"
        )
        self.assertRegex(message, r"load worker 0 ended \(signal 9\)")
        (generate,) = record.measurements
        self.assertIs(self.check(generate, "WORKERS").verdict, Verdict.INVALID)
        samples = self.samples(record)
        for worker in (0, 1):
            mine = samples.select(samples.worker == worker)
            self.assertGreater(int(mine.ok.sum()), 5)
            assert mine.tokens is not None
            self.assertEqual(set(mine.tokens.output_tokens[mine.ok].tolist()), {8})

    def test_every_fault_is_counted_as_what_it_is(self) -> None:
        """A tenth of the requests each; also some of those that only warm up or ask what it can do."""
        shares = ("throttle", "error", "cut", "event_error", "wrong_length", "empty_delta")
        self.serve(**{f"{share}_share": 0.1 for share in shares})
        record = self.bench(rate="100", arrivals="constant", duration="1s", warmup="100ms")
        samples, (generate,) = self.samples(record), record.measurements
        counts = Counter(OutcomeKind(int(kind)).name for kind in samples.outcome)
        self.assertEqual(counts, {"OK": 66, "THROTTLED": 11, "SERVER_ERROR": 22, "BROKEN": 11})
        self.assertEqual(Counter(samples.qualities[samples.ok, 0].tolist()), {1.0: 55, 0.0: 11})
        self.assertIs(self.check(generate, "ERRORS").verdict, Verdict.INVALID)
        for text in (
            "HTTP 429 .Retry-After: 1. ",
            "HTTP 500 ",
            "error in the stream: ",
        ):
            self.assertTrue(any(re.match(text, error) for error in generate.errors), text)


if __name__ == "__main__":
    unittest.main()
