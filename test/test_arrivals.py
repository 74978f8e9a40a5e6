"""Arrival processes: seeded and exact, of the rate and shape they name; and how workers share them."""

import math
import tempfile
import unittest
from pathlib import Path
from typing import Any, get_args

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.arrivals import (
    MAX_ARRIVALS,
    AnyArrivals,
    Closed,
    Constant,
    Gamma,
    Offsets,
    Poisson,
    Ramp,
    Trace,
    from_json,
    to_json,
)
from aifbench.load.assignment import FOREVER_NS, Assignment, assign
from aifbench.load.plan import PhasePlan, StreamPlan

START_NS = 5_000_000_000


def squared_variation(offsets: Offsets) -> float:
    gaps = np.diff(offsets)
    return float(gaps.var() / gaps.mean() ** 2)


class OpenProcesses(unittest.TestCase):
    def test_constant_is_evenly_spaced_and_ends_before_the_duration(self) -> None:
        self.assertEqual(Constant(4).offsets_s(1.0).tolist(), [0.0, 0.25, 0.5, 0.75])
        # 1.1 * 10 is a little over 11 in binary: the 12th would be due at the very end.
        self.assertEqual(len(Constant(1.1).offsets_s(10.0)), 11)

    def test_poisson_has_its_rate_and_exponential_gaps(self) -> None:
        offsets = Poisson(1000, seed=7).offsets_s(100.0)
        self.assertAlmostEqual(len(offsets) / 100_000, 1.0, delta=0.01)
        self.assertAlmostEqual(squared_variation(offsets), 1.0, delta=0.02)

    def test_gamma_keeps_the_rate_and_has_the_burstiness_it_names(self) -> None:
        for burstiness in (0.25, 1.0, 4.0):
            with self.subTest(burstiness):
                offsets = Gamma(1000, burstiness, seed=3).offsets_s(100.0)
                self.assertAlmostEqual(len(offsets) / 100_000, 1.0, delta=0.02)
                self.assertAlmostEqual(squared_variation(offsets) / burstiness, 1.0, delta=0.05)

    def test_gamma_with_burstiness_one_is_as_random_as_poisson(self) -> None:
        self.assertEqual(
            Gamma(50, 1.0, seed=9).offsets_s(10.0).tolist(), Poisson(50, seed=9).offsets_s(10.0).tolist()
        )

    def test_the_seed_decides_exactly(self) -> None:
        for make in (lambda seed: Poisson(100, seed), lambda seed: Gamma(100, 4.0, seed)):
            first, again, other = (make(seed).offsets_s(10.0).tolist() for seed in (1, 1, 2))
            self.assertEqual(first, again)
            self.assertNotEqual(first, other)

    def test_a_schedule_is_the_same_on_every_machine(self) -> None:
        first = np.random.default_rng(1).gamma(1.0, 0.01, 3).cumsum()
        np.testing.assert_allclose(Poisson(100, seed=1).offsets_s(1.0)[:3], first, rtol=1e-12)

    def test_a_longer_phase_continues_the_same_schedule(self) -> None:
        short, long = (Poisson(2000, seed=5).offsets_s(duration_s) for duration_s in (2.0, 9.0))
        np.testing.assert_allclose(long[: len(short)], short, rtol=1e-12)

    def test_ramp_inverts_its_rate(self) -> None:
        """Operation n is due when the integral of the rate reaches n."""
        for start, end in ((0.0, 100.0), (100.0, 0.0), (10.0, 30.0), (20.0, 20.0), (20.0, 20.0 + 1e-9)):
            with self.subTest(start=start, end=end):
                offsets = Ramp(start, end).offsets_s(10.0)
                passed = start * offsets + (end - start) / 10.0 * offsets**2 / 2
                np.testing.assert_allclose(passed, np.arange(len(offsets)), atol=1e-6)
                self.assertEqual(len(offsets), math.ceil((start + end) / 2 * 10))

    def test_every_process_is_ascending_within_its_duration(self) -> None:
        for process in self.processes():
            offsets = process.offsets_s(3.0)
            with self.subTest(str(process)):
                self.assertTrue((np.diff(offsets) >= 0).all())
                self.assertTrue(((offsets >= 0) & (offsets < 3.0)).all())
                self.assertGreater(len(offsets), 0)

    def test_the_mean_rate_is_the_planned_one(self) -> None:
        for process in self.processes():
            rate = process.mean_rate_per_s(200.0)
            assert rate is not None
            self.assertAlmostEqual(len(process.offsets_s(200.0)) / 200.0 / rate, 1.0, delta=0.1)

    def test_a_schedule_too_long_for_memory_is_refused(self) -> None:
        for process in (Constant(1e6), Poisson(1e6), Gamma(1e6), Ramp(1e6, 2e6)):
            with self.assertRaisesRegex(UsageError, f"at most {MAX_ARRIVALS:,}"):
                process.offsets_s(3600.0)

    def processes(self) -> list[Constant | Poisson | Gamma | Ramp]:
        return [Constant(30), Poisson(30), Gamma(30, 2.0), Ramp(10, 50), Ramp(50, 10)]


class Traces(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "arrivals.csv"

    def offsets(self, text: str, *, duration_s: float = 100.0, **options: Any) -> list[float]:
        self.path.write_text(text)
        return Trace(str(self.path), **options).offsets_s(duration_s).tolist()

    def test_first_numbers_from_the_first_time_on_in_order(self) -> None:
        text = "# seconds, tokens\n\n10.5, 7\n12 # a comment\n11.5\tx\n"
        self.assertEqual(self.offsets(text), [0.0, 1.0, 1.5])

    def test_speed_divides_the_times(self) -> None:
        self.assertEqual(self.offsets("0\n1\n4\n", speed=2.0), [0.0, 0.5, 2.0])

    def test_the_duration_cuts_it(self) -> None:
        self.assertEqual(self.offsets("0\n1\n2\n", duration_s=2.0), [0.0, 1.0])

    def test_its_rate_is_what_it_holds(self) -> None:
        self.offsets("0\n1\n2\n3\n")
        self.assertEqual(Trace(str(self.path)).mean_rate_per_s(2.0), 1.0)

    def test_a_bad_line_is_named(self) -> None:
        for word in ("soon", "nan", "inf", "1.2.3"):
            with self.assertRaisesRegex(WorkloadError, f"line 2 of the trace .* starts with '{word}'"):
                self.offsets(f"0\n{word} 1\n")

    def test_an_empty_one_is_refused(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "holds no times"):
            self.offsets("# nothing\n")

    def test_a_missing_or_unreadable_file_is_named(self) -> None:
        for path in (self.path, self.path.parent):
            with self.assertRaisesRegex(WorkloadError, f"cannot read the trace {path}"):
                Trace(str(path)).offsets_s(1.0)

    def test_bytes_that_are_not_text_are_a_bad_line(self) -> None:
        self.path.write_bytes(b"\xff\xfe0\x001\n")
        with self.assertRaisesRegex(WorkloadError, "line 1"):
            Trace(str(self.path)).offsets_s(1.0)


class Names(unittest.TestCase):
    def test_a_process_prints_itself_with_its_parameters(self) -> None:
        for process, text in (
            (Closed(1), "closed loop, 1 client"),
            (Closed(2000), "closed loop, 2,000 clients"),
            (Constant(12.5), "constant 12.5/s"),
            (Poisson(40, 7), "poisson 40/s seed 7"),
            (Gamma(40, 4.0, 7), "gamma 40/s burstiness 4 seed 7"),
            (Ramp(10, 80), "ramp 10/s to 80/s"),
            (Trace("/data/day.csv"), "trace day.csv"),
            (Trace("/data/day.csv", 2.0), "trace day.csv x2"),
        ):
            self.assertEqual(str(process), text)

    def test_json_and_back(self) -> None:
        processes = (Closed(3), Constant(2.5), Poisson(40, 7), Gamma(4, 2.0, 3), Ramp(1, 2), Trace("a", 2.0))
        self.assertEqual({type(process) for process in processes}, set(get_args(AnyArrivals)))
        for process in processes:
            self.assertEqual(from_json(to_json(process)), process)

    def test_unknown_kinds_and_parameters(self) -> None:
        for data in ({"kind": "weibull"}, {}, {"kind": "closed", "users": 3}, {"kind": "closed"}):
            with self.assertRaisesRegex(WorkloadError, "unknown arrivals"):
                from_json(data)

    def test_values_out_of_range(self) -> None:
        for make in (
            lambda: Closed(0),
            lambda: Closed(100_001),
            lambda: Gamma(1, 0.0),
            lambda: Gamma(1, 1e9),
        ):
            with self.assertRaisesRegex(UsageError, "out of range"):
                make()


class Assignments(unittest.TestCase):
    def assign(
        self,
        arrivals: Any,
        workers: int,
        *,
        limit: int | None = None,
        measure_s: float | None = 5.0,
        warmup_s: float = 1.0,
    ) -> list[Assignment]:
        stream = StreamPlan("s", "m:C", {}, to_json(arrivals), workers=workers, limit=limit)
        plan = PhasePlan("p", (stream,), Endpoint("h", 1), warmup_s, measure_s, drain_s=2.0, timeout_s=3.0)
        return [assign(plan, stream, worker, START_NS) for worker in range(workers)]

    def test_the_workers_schedules_together_are_exactly_the_process(self) -> None:
        for arrivals in (Constant(100), Poisson(100, 3), Gamma(100, 9.0, 3), Ramp(10, 90)):
            for workers in (1, 2, 3, 7):
                with self.subTest(str(arrivals), workers=workers):
                    parts = self.assign(arrivals, workers)
                    due: dict[int, int] = {}
                    for part in parts:
                        assert part.due_ns is not None
                        self.assertEqual(part.count, len(part.due_ns))
                        due |= {part.index(number): int(ns) for number, ns in enumerate(part.due_ns)}
                    expected = START_NS + np.rint(arrivals.offsets_s(6.0) * 1e9).astype(np.int64)
                    self.assertEqual([due[index] for index in range(len(due))], expected.tolist())
                    self.assertEqual(sum(part.count for part in parts), len(expected))

    def test_a_limit_cuts_the_whole_schedule_not_each_workers(self) -> None:
        parts = self.assign(Constant(100), 3, limit=10)
        self.assertEqual([part.count for part in parts], [4, 3, 3])

    def test_closed_loop_deals_out_clients_and_operations(self) -> None:
        parts = self.assign(Closed(5), 2, limit=7, measure_s=None)
        self.assertEqual([part.clients for part in parts], [3, 2])
        indices = sorted(part.index(number) for part in parts for number in range(part.count))
        self.assertEqual(indices, list(range(7)))

    def test_more_workers_than_clients_still_issue_every_operation(self) -> None:
        parts = self.assign(Closed(2), 4, limit=7, measure_s=None)
        self.assertEqual([part.clients for part in parts], [1, 1, 0, 0])
        indices = sorted(part.index(number) for part in parts for number in range(part.count))
        self.assertEqual(indices, list(range(7)))
        self.assertEqual([part.count for part in parts[2:]], [0, 0])

    def test_times_are_on_the_workers_clock(self) -> None:
        part = self.assign(Closed(1), 1)[0]
        self.assertEqual((part.start_ns, part.end_ns), (START_NS, START_NS + 6_000_000_000))
        self.assertEqual((part.drain_ns, part.timeout_ns), (2_000_000_000, 3_000_000_000))

    def test_fixed_work_has_no_end(self) -> None:
        self.assertEqual(self.assign(Closed(1), 1, limit=1, measure_s=None)[0].end_ns, FOREVER_NS)

    def test_a_part_made_ahead_begins_when_told(self) -> None:
        for arrivals in (Constant(100), Closed(3)):
            (told,) = self.assign(arrivals, 1)
            (ahead,) = self.assign(arrivals, 1)
            ahead.begin_at(START_NS + 5)
            self.assertEqual((ahead.start_ns, ahead.end_ns), (told.start_ns + 5, told.end_ns + 5))
            if told.due_ns is not None and ahead.due_ns is not None:
                self.assertEqual((ahead.due_ns - told.due_ns).tolist(), [5] * len(told.due_ns))
        (endless,) = self.assign(Closed(1), 1, limit=1, measure_s=None)
        endless.begin_at(START_NS + 5)
        self.assertEqual(endless.end_ns, FOREVER_NS)


if __name__ == "__main__":
    unittest.main()
