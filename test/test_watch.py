"""`watch`: a benchmark that runs, read from its files by somebody else, and what of it is on screen."""

import json
import tempfile
import unittest
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest import mock

from test.fakes.clock import FakeClock
from test.fakes.shell import ShellCase, Terminal

from aifbench.cluster.endpoint import Endpoint
from aifbench.load import rendezvous as rv
from aifbench.load.arrivals import Closed, Constant, to_json
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.recorder import UNCHECKED, pack_row, rows_path, unfinished_row
from aifbench.load.workload import NOT_SEEN
from aifbench.monitor.live import NodeView, PhaseView, RunView, RunWatch, nodes_now
from aifbench.repl.exit_codes import SUCCESS, USAGE
from aifbench.repl.watch_screen import run_lines, spark, watch_lines
from aifbench.results.record import RunState
from aifbench.results.store import RunStore
from aifbench.servers.status import Stage

ORIGIN_NS = 7_000_000_000_000
LEAD_S = 0.1


class FilesCase(unittest.TestCase):
    """One run of a Chroma, of one phase with one worker; time is the test's."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clock = FakeClock()
        self.runs = RunStore(Path(folder.name), self.clock)
        self.record = self.runs.create({"kind": "chroma", "name": "chroma"}, {"bench": "search"})
        self.watch = RunWatch(self.runs, "chroma", self.clock)
        self.root = self.watch.client_directory(self.record.run_id)

    def phase(self, arrivals: Constant | Closed, *, limit: int | None = None, number: int = 0) -> Path:
        """A phase that is prepared: 2 s of warm-up and 28 s, or a number of operations."""
        stream = StreamPlan("search", "x:Y", {}, to_json(arrivals), limit=limit)
        measure_s = None if limit else 28.0
        plan = PhasePlan(
            "search", (stream,), Endpoint("h", 1), warmup_s=0.0 if limit else 2.0, measure_s=measure_s
        )
        directory = rv.phase_dir(self.root, number)
        directory.mkdir(parents=True)
        rv.write_json(directory / rv.PLAN, plan.to_json())
        return directory

    def begin(self, directory: Path) -> None:
        rv.write_json(directory / rv.START, {"start_wall_s": self.clock.wall_s()})
        rows_path(directory, "search-0").write_bytes(pack_row(NOT_SEEN, ORIGIN_NS, *[0] * 12))

    def answered(self, directory: Path, at_s: Iterable[float], ms: float = 10.0, outcome: int = 0) -> None:
        """Operations that were due at these times since the phase's start."""
        with rows_path(directory, "search-0").open("ab") as file:
            for index, due_s in enumerate(at_s):
                due_ns = ORIGIN_NS + round(due_s * 1e9)
                end_ns = due_ns + round(ms * 1e6)
                beside = (outcome, 200, 1, 10, 10, UNCHECKED, UNCHECKED, 0, 0)
                file.write(pack_row(index, due_ns, due_ns, end_ns, end_ns, *beside))

    def look(self) -> PhaseView:
        view = self.watch.look()
        assert view is not None
        assert view.phase is not None
        return view.phase


class Looking(FilesCase):
    def test_from_preparation_to_the_end(self) -> None:
        self.assertIsNone(self.watch.look().phase)
        directory = self.phase(Constant(50.0))
        self.assertEqual(self.look().stage, "preparing")
        self.begin(directory)
        stages = []
        for _ in range(33):
            self.clock.sleep(1.0)
            stages.append(self.look().stage)
        self.assertEqual(stages, ["warm-up"] + ["measuring"] * 29 + ["finishing"] * 3)
        self.runs.write(replace(self.record, state=RunState.COMPLETE))
        self.assertIsNone(self.watch.look())

    def test_rate_and_percentiles_are_of_the_last_seconds(self) -> None:
        directory = self.phase(Constant(50.0))
        self.begin(directory)
        for second in range(10):
            self.clock.sleep(1.0)
            ms = 10.0 if second < 5 else 30.0
            self.answered(directory, (second + k / 50 for k in range(50)), ms)
            view = self.look()
        self.assertEqual((view.operations, view.planned_s, view.offered_per_s), (500, 30.0, 50.0))
        self.assertAlmostEqual(view.rate_per_s, 50.0, places=3)
        self.assertAlmostEqual(view.p50_ms, 30.0)
        self.assertEqual(len(view.rates_per_s), 10)
        self.assertLessEqual(view.in_flight, 2)  # 30 ms at 50 a second

    def test_whoever_comes_late_sees_the_same(self) -> None:
        directory = self.phase(Constant(50.0))
        self.begin(directory)
        self.clock.sleep(20.0)
        self.answered(directory, (k / 50 for k in range(500)), 10.0, outcome=1)
        self.answered(directory, (10 + k / 50 for k in range(499)), 20.0)
        view = self.look()
        self.assertAlmostEqual(view.rate_per_s, 50.0, delta=2.0)
        self.assertAlmostEqual(view.p99_ms, 20.0)
        self.assertEqual((view.errors, view.recent_errors), (500, 0))

    def test_a_service_that_stands_still_is_seen_to(self) -> None:
        directory = self.phase(Constant(50.0))
        self.begin(directory)
        for second in range(5):
            self.clock.sleep(1.0)
            self.answered(directory, (second + k / 50 for k in range(50)))
            self.look()
        for _ in range(6):
            self.clock.sleep(1.0)
            view = self.look()
        self.assertEqual((view.rate_per_s, view.p99_ms), (0.0, None))
        # Those due since then wait: 11 s of 50 a second, of which 250 were answered.
        self.assertAlmostEqual(view.in_flight, 550 - 250, delta=1)

    def test_errors_and_operations_without_an_answer(self) -> None:
        directory = self.phase(Constant(50.0))
        self.begin(directory)
        self.clock.sleep(1.0)
        self.look()
        self.answered(directory, [0.1, 0.2], outcome=2)
        with rows_path(directory, "search-0").open("ab") as file:
            file.write(unfinished_row(9, ORIGIN_NS, NOT_SEEN))
            file.write(b"torn")
        self.clock.sleep(1.0)
        view = self.look()
        self.assertEqual((view.operations, view.errors, view.p50_ms), (3, 3, None))

    def test_a_closed_loop_has_its_clients_in_flight_until_its_work_is_done(self) -> None:
        directory = self.phase(Closed(8), limit=100)
        self.begin(directory)
        self.clock.sleep(1.0)
        self.answered(directory, (k / 100 for k in range(95)))
        view = self.look()
        self.assertEqual((view.in_flight, view.planned_operations, view.planned_s), (5, 100, None))
        self.assertIsNone(view.offered_per_s)

    def test_the_newest_phase_counts_and_files_that_vanish_do_no_harm(self) -> None:
        first = self.phase(Constant(50.0))
        self.begin(first)
        self.answered(first, [0.1])
        self.clock.sleep(1.0)
        self.assertEqual(self.look().operations, 1)
        rows_path(first, "search-0").unlink()
        self.assertEqual(self.look().operations, 1)
        self.phase(Constant(50.0), number=1)
        self.assertEqual((self.look().number, self.look().stage), (1, "preparing"))

    def test_plans_that_cannot_be_read(self) -> None:
        directory = rv.phase_dir(self.root, 0)
        directory.mkdir(parents=True)
        for text in ("", "{", "[]", '{"schema": "aifbench.plan/9"}'):
            (directory / rv.PLAN).write_text(text)
            self.assertIsNone(RunWatch(self.runs, "chroma", self.clock).look().phase, text)

    def test_which_run_is_meant(self) -> None:
        self.assertIsNone(RunWatch(self.runs, "other", self.clock).look())
        members = {"a": {"name": "llm"}, "b": {"name": "store"}}
        self.clock.sleep(1.0)
        self.runs.create({"kind": "together", "members": members}, {"bench": "rag"})
        self.assertEqual(RunWatch(self.runs, "store", self.clock).look().services, ("llm", "store"))
        self.assertEqual(self.watch.look().bench, "search")

    def test_a_run_whose_owner_is_gone_is_no_running_one(self) -> None:
        self.clock.sleep(3600.0)
        self.assertIsNone(self.watch.look())


class Nodes(unittest.TestCase):
    def test_the_last_second_of_each_node(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            head = {"schema": "aifbench.resources/1", "host": "mel7", "cpus": 4}
            samples = [
                {"t": 100.0 + k, "m": k, "cpu": {"user": 2.0 * k, "system": 0, "idle": 2.0 * k}}
                for k in (1, 2, 3)
            ]
            lines = [json.dumps(each, separators=(",", ":")) for each in (head, *samples)]
            # As a sampler begins a file, and more of it than is read at once.
            lines[1:1] = [lines[1].replace("101.0", "10.0").replace('"m":1', '"m":-90')] * 1000
            Path(folder, "resources-mel7.jsonl").write_text("\n".join(["", *lines, '{"t": torn']))
            Path(folder, "resources-mel8.jsonl").write_text("no json")
            ((node),) = nodes_now(Path(folder), 104.5)
        self.assertEqual((node.node, node.age_s), ("mel7", 1.5))
        self.assertAlmostEqual(node.values["cpu_percent"], 50.0)

    def test_where_nobody_samples(self) -> None:
        self.assertEqual(nodes_now(Path("/nonexistent"), 0.0), [])


PHASE = PhaseView(
    "search",
    1,
    "measuring",
    12.0,
    30.0,
    604,
    None,
    50.21,
    50.0,
    3.2,
    12.34,
    3,
    1,
    False,
    2,
    (10.0, 50.0, 40.0),
)
RUN = RunView("20261120-131455-chroma-a3f0", "search", ("chroma",), PHASE)


class OnScreen(unittest.TestCase):
    def test_a_phase_under_way(self) -> None:
        self.assertEqual(
            run_lines(RUN),
            [
                "bench search  20261120-131455-chroma-a3f0",
                "  search  measuring  00:12/00:30  00:18 left  604 operations",
                "  rate      50.2/s of 50/s  ▂█▇",
                "  p50       3.2 ms",
                "  p99       12.3 ms",
                "  errors    3, 1 in the last seconds",
                "  in flight 2",
            ],
        )

    def test_other_moments(self) -> None:
        counted = replace(
            PHASE, planned_s=None, planned_operations=1000, in_flight=None, has_more_errors=True
        )
        lines = run_lines(replace(RUN, services=("a", "b"), phase=counted))
        self.assertIn("with a, b", lines[0])
        self.assertIn("604 of 1,000 operations  60 %", lines[1])
        self.assertIn("at least 3", lines[5])
        self.assertEqual(run_lines(None), ["no benchmark of it runs now"])
        self.assertIn(
            "load workers prepare", run_lines(replace(RUN, phase=PhaseView("s", 0, "preparing")))[1]
        )
        self.assertIn("between two phases", run_lines(replace(RUN, phase=None))[1])

    def test_bars(self) -> None:
        self.assertEqual([spark([]), spark([1.0]), spark([0.0, 0.0]), spark([0.0, 1.0])], ["", "", "", "▁█"])
        self.assertEqual(spark([1.0, 2.0], ""), "")

    def test_the_log_gets_the_room_that_is_left_and_cannot_move_the_cursor(self) -> None:
        from test.fakes.session import FakeSession

        status = FakeSession("chroma").services["chroma"]
        nodes = {"service": [NodeView("mel1", {"cpu_percent": 37.0, "memory_bytes": 2.0**30}, 9.0)]}
        log = [f"line {number}" for number in range(100)] + ["\x1b[31mred\x1b[0m \x1b[2Jgone\r"]
        lines = watch_lines(status, RUN, nodes, log, height=24)
        self.assertLessEqual(len(lines), 24)
        self.assertEqual(lines[-1], "  red ·[2Jgone·")
        self.assertIn("  service mel1  CPU 37 %  memory 1 GiB  (9.0 s ago)", lines)
        self.assertIn("  56:48 of its job's time left", lines)


class Typed(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session = type(self.session)("chroma")
        self.session.run_views = [RUN]
        self.shell = self.make_shell()

    def test_once_and_anything_but_a_terminal_get_one_look(self) -> None:
        for line in ("watch chroma --once", "watch"):
            out, _ = self.run_line(line)
            self.assertIn("604 operations", out)
            self.assertIn("line 100", out)
            self.assertNotIn("\x1b", out)
        self.assertEqual(self.shell.outcome, SUCCESS)

    def test_on_a_terminal_until_ctrl_c_which_ends_nothing_else(self) -> None:
        self.shell.stdout = Terminal()
        later = replace(RUN, phase=replace(PHASE, operations=777))
        self.session.run_views = [RUN, later]
        presses = iter([None, KeyboardInterrupt])

        def sleep(_s: float) -> None:
            if pressed := next(presses):
                raise pressed

        with (
            mock.patch.dict("os.environ", TERM="xterm"),
            mock.patch("aifbench.repl.monitoring.time.sleep", sleep),
        ):
            out, error = self.run_line("watch chroma")
        drawn, _, kept = out.partition("\x1b[?1049l")
        self.assertIn("604 operations", drawn)
        self.assertIn("777 operations", kept)
        self.assertNotIn("\x1b", kept)
        self.assertEqual((error, self.shell.outcome), ("", SUCCESS))
        self.assertEqual(self.session.called("stop"), [])

    def test_it_ends_with_the_service(self) -> None:
        self.shell.stdout = Terminal()
        self.session.become("chroma", Stage.FAILED)
        with mock.patch.dict("os.environ", TERM="xterm"):
            out, _ = self.run_line("watch chroma")
        self.assertIn("FAILED", out)

    def test_what_cannot_be_watched(self) -> None:
        self.assert_fails("watch nothing", USAGE, "nothing")
        self.assert_fails("watch --interval 1ms", USAGE, "--interval", "200ms")
        self.assert_fails("watch --interval soon", USAGE, "--interval")


if __name__ == "__main__":
    unittest.main()
