"""Load by an external program: when it is started and ended, what it may know, and its log on our clock."""

import contextlib
import os
import signal
import sys
import tempfile
import time
import unittest
import unittest.mock
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from test.fakes.waiting import eventually

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.assignment import FOREVER_NS, Assignment
from aifbench.load.program_loop import ProgramCommand, ProgramLoop, ProgramPart, ProgramResult
from aifbench.load.recorder import Recorder, read_samples
from aifbench.load.samples import Samples
from aifbench.load.workload import NOT_SEEN, OutcomeKind

S = 1_000_000_000
IGNORES_TERM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(60)
"""


class Program:
    """Runs Python code; its operations are what `result` says."""

    is_program = True

    def __init__(
        self, code: str, result: Callable[[], ProgramResult] | None = None, **environment: str
    ) -> None:
        self._code = code
        self._result = result or (lambda: ProgramResult.nothing(""))
        self._environment = environment
        self.part: ProgramPart | None = None
        self.exit_code = 0
        self.output = ""

    def open(self, endpoint: Endpoint) -> None: ...

    def command(self, part: ProgramPart) -> ProgramCommand:
        self.part = part
        return ProgramCommand((sys.executable, "-S", "-c", self._code), self._environment)

    def operations(self, part: ProgramPart, exit_code: int, output: str) -> ProgramResult:
        assert replace(part, started_ns=0) == self.part
        self.exit_code, self.output = exit_code, output
        return self._result()

    def close(self) -> None: ...


def is_running(pid: int) -> bool:
    """Not gone, and not merely waiting for its parent to look at it."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class LoopCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.errors: dict[str, int] = {}

    def assignment(self, start_ns: int, *, seconds: float | None = None, drain_s: float = 5.0) -> Assignment:
        end_ns = FOREVER_NS if seconds is None else start_ns + round(seconds * S)
        return Assignment(start_ns, end_ns, round(drain_s * S), 30 * S, 0, 1, 1, None, FOREVER_NS)

    def loop(
        self, program: Program, assignment: Assignment, recorder: Recorder, **clock: object
    ) -> ProgramLoop:
        part = ProgramPart(self.dir / "program", 0, 1, 1, None, 1.0, None, 1)
        return ProgramLoop(program, recorder, assignment, part, **clock)  # type: ignore[arg-type]

    def run_loop(self, program: Program, assignment: Assignment) -> tuple[ProgramLoop, Samples]:
        recorder = Recorder(self.dir, "s-0", assignment.start_ns)
        try:
            loop = self.loop(program, assignment, recorder)
            loop.run()
        finally:
            recorder.close()
        self.errors = recorder.errors.counts
        return loop, read_samples(self.dir, "s-0", 0)


class Starting(LoopCase):
    def test_nothing_is_run_before_the_start(self) -> None:
        slept: list[float] = []
        now = {"ns": 0}

        def sleep(duration_s: float) -> None:
            self.assertFalse((self.dir / "program/output").exists())
            slept.append(duration_s)
            now["ns"] += round(duration_s * S)

        recorder = Recorder(self.dir, "s-0", 0)
        self.addCleanup(recorder.close)
        part = self.assignment(3 * S, seconds=1)
        self.loop(Program("print(1)"), part, recorder, now_ns=lambda: now["ns"], sleep=sleep).run()
        self.assertAlmostEqual(sum(slept), 3.0)
        self.assertTrue((self.dir / "program/output").exists())

    def test_it_works_in_a_directory_of_its_own_and_its_command_is_made_before(self) -> None:
        program = Program("import os; print(os.getcwd())")
        recorder = Recorder(self.dir, "s-0", 0)
        self.addCleanup(recorder.close)
        loop = self.loop(program, self.assignment(time.perf_counter_ns()), recorder)
        assert program.part
        self.assertEqual(program.part.directory, self.dir / "program")
        loop.run()
        self.assertEqual(program.output.strip(), str(self.dir / "program"))

    def test_a_secret_is_in_its_environment_and_on_no_command_line(self) -> None:
        code = (
            "import os, sys; own = open('/proc/self/cmdline').read();"
            "print(os.environ['SECRET'][::-1], 'emasesnepo'[::-1] in own, 'HOME' in os.environ)"
        )
        program = Program(code, SECRET="opensesame")
        self.run_loop(program, self.assignment(time.perf_counter_ns()))
        self.assertEqual(program.output.split(), ["emasesnepo", "False", str("HOME" in os.environ)])

    def test_a_program_that_is_not_there(self) -> None:
        program = Program("")
        program.command = lambda _: ProgramCommand(("/nowhere/pgbench",))  # type: ignore[method-assign]
        with self.assertRaises(FileNotFoundError):
            self.run_loop(program, self.assignment(time.perf_counter_ns()))


class Ending(LoopCase):
    def test_its_own_end_with_code_and_last_words(self) -> None:
        program = Program("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
        loop, _ = self.run_loop(program, self.assignment(time.perf_counter_ns()))
        self.assertEqual(program.exit_code, 3)
        self.assertEqual(sorted(program.output.split()), ["err", "out"])
        self.assertGreater(loop.cpu_s, 0)

    def test_only_the_end_of_what_it_printed_is_handed_in(self) -> None:
        program = Program("print('x' * 3_000_000); print('last words')")
        self.run_loop(program, self.assignment(time.perf_counter_ns()))
        self.assertEqual(len(program.output), 1 << 20)
        self.assertTrue(program.output.endswith("last words\n"))

    def test_the_stop_flag_ends_it(self) -> None:
        program = Program("import time; time.sleep(60)")
        part = self.assignment(time.perf_counter_ns(), seconds=60)
        part.stop.is_set = True
        self.run_loop(program, part)
        self.assertEqual(program.exit_code, -signal.SIGTERM)

    def test_the_end_of_the_drain_time_ends_it(self) -> None:
        program = Program("import time; time.sleep(60)")
        self.run_loop(program, self.assignment(time.perf_counter_ns(), seconds=0.1, drain_s=0.1))
        self.assertEqual(program.exit_code, -signal.SIGTERM)

    def test_one_that_ignores_the_request_is_killed_with_its_children(self) -> None:
        from aifbench.load import program_loop

        self.enterContext(unittest.mock.patch.object(program_loop, "_KILL_AFTER_S", 0.2))
        child = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-S', '-c', {IGNORES_TERM!r}])\n"
        program = Program(child + IGNORES_TERM)
        self.run_loop(program, self.assignment(time.perf_counter_ns(), seconds=0.4, drain_s=0.1))
        self.assertEqual(program.exit_code, -signal.SIGKILL)
        processes = [int(word) for word in program.output.split()]
        self.assertEqual(len(processes), 2)
        eventually(lambda: not any(map(is_running, processes)), "both have ended")


class Operations(LoopCase):
    def test_wall_clock_instants_are_moved_to_the_phases_clock(self) -> None:
        start_ns = time.perf_counter_ns()
        wall_ns = time.time_ns()

        def result() -> ProgramResult:
            due = wall_ns + np.array([S, 2 * S, 3 * S])
            sent = np.array([wall_ns + S + 5_000_000, wall_ns + 2 * S, NOT_SEEN])
            finished = np.array([wall_ns + S + 7_000_000, wall_ns + 2 * S + 1_000_000, NOT_SEEN])
            kinds = np.array([OutcomeKind.OK, OutcomeKind.SERVER_ERROR, OutcomeKind.UNFINISHED], np.uint16)
            return ProgramResult(due, sent, finished, kinds, errors={"deadlock detected": 1})

        loop, samples = self.run_loop(Program("pass", result), self.assignment(start_ns))
        self.assertEqual(loop.failure, "")
        np.testing.assert_allclose(samples.intended_ns / S, [1, 2, 3], atol=0.01)
        np.testing.assert_array_equal(samples.sent_ns[2:], [NOT_SEEN])
        self.assertEqual(int(samples.finished_ns[0] - samples.sent_ns[0]), 2_000_000)
        self.assertEqual(
            samples.outcome.tolist(), [OutcomeKind.OK, OutcomeKind.SERVER_ERROR, OutcomeKind.UNFINISHED]
        )
        self.assertEqual(samples.items.tolist(), [1, 1, 1])
        self.assertEqual(self.errors, {"deadlock detected": 1})

    def test_indices_are_dealt_out_as_to_any_worker(self) -> None:
        def result() -> ProgramResult:
            at = np.full(3, time.time_ns())
            return ProgramResult(at, at, at, np.zeros(3, np.uint16), np.array([7, 8, 9], np.uint32))

        part = self.assignment(time.perf_counter_ns())
        part.first_index, part.stride = 1, 4
        _, samples = self.run_loop(Program("pass", result), part)
        self.assertEqual(samples.index.tolist(), [1, 5, 9])
        self.assertEqual(samples.items.tolist(), [7, 8, 9])

    def test_a_run_that_cannot_be_used_says_why(self) -> None:
        loop, samples = self.run_loop(
            Program("pass", lambda: ProgramResult.nothing("pgbench gave up")),
            self.assignment(time.perf_counter_ns()),
        )
        self.assertEqual((loop.failure, len(samples)), ("pgbench gave up", 0))
