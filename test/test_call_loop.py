"""The load loop for blocking calls: what is recorded, and that a stall cannot hide."""

import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from test.fakes.virtual_time import VirtualTime
from test.fakes.waiting import eventually

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.assignment import FOREVER_NS, Assignment
from aifbench.load.call_loop import OPEN_LOOP_THREADS, CallLoop, outcome_of
from aifbench.load.recorder import Recorder, read_samples
from aifbench.load.samples import Samples
from aifbench.load.workload import NOT_SEEN, Outcome, OutcomeKind, TokenTimes
from aifbench.stats.intervals import quantile_rank

MS = 1_000_000
S = 1_000_000_000


class Call:
    """A workload made of one function."""

    def __init__(self, perform: Callable[[int], Outcome]) -> None:
        self.perform = perform

    def open(self, endpoint: Endpoint) -> None: ...

    def close(self) -> None: ...


class LoopCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.errors: dict[str, int] = {}

    def part(
        self,
        start_ns: int,
        *,
        clients: int = 1,
        count: int = FOREVER_NS,
        due_ms: Sequence[float] | None = None,
        seconds: float | None = None,
        drain_s: float = 5.0,
        timeout_s: float = 30.0,
    ) -> Assignment:
        due_ns = None
        if due_ms is not None:
            due_ns = start_ns + np.array([round(ms * MS) for ms in due_ms], np.int64)
            seconds = seconds or (due_ms[-1] + 1) / 1000
        return Assignment(
            start_ns=start_ns,
            end_ns=FOREVER_NS if seconds is None else start_ns + round(seconds * S),
            drain_ns=round(drain_s * S),
            timeout_ns=round(timeout_s * S),
            first_index=0,
            stride=1,
            clients=0 if due_ms is not None else clients,
            due_ns=due_ns,
            count=count if due_ms is None else len(due_ms),
        )

    def run_loop(self, perform: Callable[[int], Outcome], **options: Any) -> Samples:
        """In real time."""
        self.assignment = self.part(time.perf_counter_ns(), **options)
        return self.record(perform, self.assignment)

    def record(self, perform: Callable[[int], Outcome], part: Assignment, **clock: Any) -> Samples:
        recorder = Recorder(self.dir, "x", part.start_ns)
        self.loop = CallLoop(Call(perform), recorder, part, **clock)
        self.loop.run()
        recorder.close()
        self.errors = recorder.errors.counts
        return read_samples(self.dir, "x", 0).sorted()


class CoordinatedOmission(LoopCase):
    """100 operations a second of 5 ms each for 10 s, and a stall of 2 s in it, in exact time."""

    STALL_NS = (4 * S, 6 * S)

    def stalling(self, clock: VirtualTime) -> Callable[[int], Outcome]:
        def perform(_: int) -> Outcome:
            now_ns, (begin_ns, end_ns) = clock.now_ns(), self.STALL_NS
            clock.sleep((end_ns - now_ns if begin_ns <= now_ns < end_ns else 5 * MS) / 1e9)
            return Outcome()

        return perform

    def load(self, clock: VirtualTime, part: Assignment) -> Samples:
        return self.record(self.stalling(clock), part, now_ns=clock.now_ns, sleep=clock.sleep)

    def p99_ms(self, latency_ns: np.ndarray) -> float:
        return float(np.sort(latency_ns)[quantile_rank(len(latency_ns), 0.99) - 1]) / MS

    def test_open_loop_shows_it_exactly_as_arithmetic_says(self) -> None:
        part = self.part(0, due_ms=range(0, 10_000, 10), seconds=10.0)
        samples = self.load(VirtualTime(OPEN_LOOP_THREADS), part)
        self.assertEqual(len(samples), 1000)
        # The 200 due in the stall end with it, so 10 of 1,000 take longer than 2 s - 0.1 s.
        self.assertEqual(self.p99_ms(samples.response_ns), 1900.0)
        caught = samples.select(slice(400, 400 + OPEN_LOOP_THREADS))
        self.assertEqual((caught.response_ns // MS).tolist(), [2000 - 10 * n for n in range(len(caught))])
        # The others found all clients waiting; that is lag, and part of the response as well.
        waited = samples.select(slice(400 + OPEN_LOOP_THREADS, 600))
        self.assertTrue((waited.sent_ns >= self.STALL_NS[1]).all())
        self.assertTrue((waited.response_ns == waited.lag_ns + 5 * MS).all())
        self.assertEqual(self.loop.limited_by, f"all {OPEN_LOOP_THREADS} blocking clients were busy")
        self.assertEqual(set(samples.response_ns[:400].tolist()), {5 * MS})

    def test_closed_loop_does_not_see_it(self) -> None:
        samples = self.load(VirtualTime(1), self.part(0, clients=1, seconds=10.0))
        self.assertEqual(len(samples), 8 * 200 + 1)
        self.assertEqual(self.p99_ms(samples.response_ns), 5.0)
        self.assertEqual(int(samples.response_ns.max()), 2 * S)
        self.assertEqual(samples.intended_ns[1:].tolist(), samples.finished_ns[:-1].tolist())
        self.assertEqual(samples.intended_ns[0], 0)


class Endings(LoopCase):
    def test_exceptions_by_kind(self) -> None:
        for error, kind in (
            (TimeoutError("slow"), OutcomeKind.TIMEOUT),
            (ConnectionRefusedError("no"), OutcomeKind.CONNECT),
            (ConnectionResetError("gone"), OutcomeKind.BROKEN),
            (OSError(5, "I/O error"), OutcomeKind.BROKEN),
            (ValueError("our mistake"), OutcomeKind.HARNESS),
        ):
            outcome = outcome_of(error)
            self.assertEqual((outcome.kind, outcome.items), (kind, 0))
            self.assertEqual(outcome.error, f"{type(error).__name__}: {error}")

    def test_an_exception_is_a_row_and_the_load_goes_on(self) -> None:
        def perform(index: int) -> Outcome:
            if index % 3 == 0:
                raise ValueError("multiple of three")
            return Outcome(OutcomeKind.THROTTLED, error="slower") if index % 3 == 1 else Outcome()

        samples = self.run_loop(perform, clients=2, count=90)
        self.assertEqual(sorted(samples.index.tolist()), list(range(90)))
        kinds = [OutcomeKind.HARNESS, OutcomeKind.THROTTLED, OutcomeKind.OK]
        self.assertEqual(samples.outcome.tolist(), [kinds[i % 3] for i in samples.index])
        self.assertEqual(self.errors, {"ValueError: multiple of three": 30, "slower": 30})

    def test_everything_an_outcome_says_is_kept(self) -> None:
        def perform(_: int) -> Outcome:
            return Outcome(
                items=7,
                qualities=(0.5, 0.25),
                bytes_out=10,
                bytes_in=20,
                first_byte_ns=time.perf_counter_ns(),
            )

        samples = self.run_loop(perform, count=1)
        values = [samples.items, samples.bytes_out, samples.bytes_in]
        self.assertEqual([int(column[0]) for column in values], [7, 10, 20])
        self.assertEqual(samples.qualities.tolist(), [[0.5, 0.25]])
        self.assertTrue(samples.sent_ns[0] < samples.first_byte_ns[0] < samples.finished_ns[0])

    def test_token_times_are_kept_by_operation(self) -> None:
        def perform(index: int) -> Outcome:
            return Outcome(tokens=TokenTimes(output_tokens=index)) if index % 3 else Outcome()

        samples = self.run_loop(perform, clients=4, count=200)
        self.assertEqual(
            {index: times.output_tokens for index, times in self.loop.tokens.items()},
            {index: index for index in range(200) if index % 3},
        )
        self.assertEqual(len(samples), 200)

    def test_what_an_outcome_does_not_say_is_not_invented(self) -> None:
        samples = self.run_loop(lambda _: Outcome(qualities=(0.5,)), count=1)
        self.assertEqual(samples.first_byte_ns[0], NOT_SEEN)
        self.assertEqual(samples.qualities[0, 0], 0.5)
        self.assertTrue(np.isnan(samples.qualities[0, 1]))

    def test_a_refused_client_pauses(self) -> None:
        def perform(_: int) -> Outcome:
            raise ConnectionRefusedError

        clock = VirtualTime(1)
        samples = self.record(perform, self.part(0, seconds=0.5), now_ns=clock.now_ns, sleep=clock.sleep)
        self.assertEqual(samples.intended_ns.tolist(), list(range(0, 500 * MS, 50 * MS)))


class ManyThreads(LoopCase):
    def test_rows_keep_what_belongs_together(self) -> None:
        """Several threads at once: index, items and qualities of a row are those of one operation."""

        def perform(index: int) -> Outcome:
            return Outcome(items=index, qualities=(index / 8192, 1 - index / 8192), bytes_in=2 * index)

        samples = self.run_loop(perform, clients=8, count=8000)
        self.assertEqual(sorted(samples.index.tolist()), list(range(8000)))
        np.testing.assert_array_equal(samples.items, samples.index)
        np.testing.assert_array_equal(samples.bytes_in, 2 * samples.index)
        np.testing.assert_array_equal(samples.qualities[:, 0], samples.index / 8192)
        np.testing.assert_array_equal(samples.qualities[:, 1], 1 - samples.index / 8192)

    def test_exactly_as_many_as_clients_are_under_way(self) -> None:
        barrier = threading.Barrier(6)

        def perform(_: int) -> Outcome:
            barrier.wait(10)  # passes when six are inside, and breaks when there are fewer
            return Outcome()

        samples = self.run_loop(perform, clients=6, count=60)
        self.assertTrue(samples.ok.all(), self.errors)
        self.assertEqual(len(samples), 60)

    def test_open_loop_uses_a_limited_number_of_threads(self) -> None:
        gate, inside = threading.Semaphore(0), []

        def perform(index: int) -> Outcome:
            inside.append(index)
            gate.acquire(timeout=10)
            return Outcome()

        def watch() -> None:
            eventually(lambda: len(inside) == OPEN_LOOP_THREADS, "all threads are busy")
            gate.release()
            eventually(lambda: len(inside) == OPEN_LOOP_THREADS + 1, "the one that came free took the next")
            gate.release(100)

        watcher = threading.Thread(target=watch)
        watcher.start()
        samples = self.run_loop(perform, due_ms=[0] * 100)
        watcher.join()
        self.assertEqual(sorted(samples.index.tolist()), list(range(100)))
        self.assertTrue(samples.ok.all())
        late = np.sort(samples.sent_ns)[OPEN_LOOP_THREADS:]
        self.assertTrue((late >= samples.finished_ns.min()).all())
        self.assertEqual(self.loop.limited_by, f"all {OPEN_LOOP_THREADS} blocking clients were busy")

    def keeping_up(self, frozen_ms: tuple[int, int] | None = None) -> Samples:
        """200 operations that take no time, 1 ms apart; nobody wakes up while the machine is frozen."""
        clock = VirtualTime(OPEN_LOOP_THREADS)

        def sleep(duration_s: float) -> None:
            wake_ns = clock.now_ns() + round(duration_s * S)
            if frozen_ms and frozen_ms[0] * MS <= wake_ns < frozen_ms[1] * MS:
                wake_ns = frozen_ms[1] * MS
            clock.sleep((wake_ns - clock.now_ns()) / S)

        part = self.part(0, due_ms=range(1, 201))
        return self.record(lambda _: Outcome(), part, now_ns=clock.now_ns, sleep=sleep)

    def test_a_workload_that_keeps_up_is_not_limited(self) -> None:
        self.assertEqual(set(self.keeping_up().lag_ns.tolist()), {0})
        self.assertEqual(self.loop.limited_by, "")

    def test_a_machine_that_froze_did_not_want_for_clients(self) -> None:
        samples = self.keeping_up(frozen_ms=(50, 150))
        self.assertEqual((samples.lag_ns[49:151] // MS).tolist(), [*range(100, -1, -1), 0])
        self.assertEqual(self.loop.limited_by, "")


class Chains(LoopCase):
    """A client does the operations of a chain itself, one after the other."""

    def chained(self, perform: Callable[[int], Outcome], **options: Any) -> Samples:
        part = self.part(time.perf_counter_ns(), **options)
        part.chain = 5
        return self.record(perform, part)

    def test_a_chain_stays_with_its_client_and_in_order(self) -> None:
        done: dict[int, list[int]] = {}

        def perform(index: int) -> Outcome:
            done.setdefault(threading.get_ident(), []).append(index)
            time.sleep(0.0002)
            return Outcome()

        samples = self.chained(perform, clients=3, count=6)
        self.assertEqual(sorted(samples.index.tolist()), list(range(30)))
        for indices in done.values():
            for first in range(0, len(indices), 5):
                self.assertEqual(indices[first : first + 5], list(range(indices[first], indices[first] + 5)))

    def test_one_that_fails_ends_its_chain(self) -> None:
        samples = self.chained(
            lambda index: Outcome(OutcomeKind.WRONG if index in (2, 5) else OutcomeKind.OK),
            clients=1,
            count=3,
        )
        self.assertEqual(samples.index.tolist(), [0, 1, 2, 5, 10, 11, 12, 13, 14])

    def test_a_client_thinks_between_the_operations_of_a_chain(self) -> None:
        clock = VirtualTime(1)
        part = self.part(0, clients=1, count=2)
        part.chain, part.think_ns = 3, 10 * MS

        def perform(_: int) -> Outcome:
            clock.sleep(0.005)
            return Outcome()

        samples = self.record(perform, part, now_ns=clock.now_ns, sleep=clock.sleep)
        self.assertEqual((samples.sent_ns // MS).tolist(), [0, 15, 30, 35, 50, 65])
        self.assertEqual(set(samples.lag_ns.tolist()), {0})

    def test_an_outcome_given_again_and_again_is_recorded_each_time(self) -> None:
        good, bad = Outcome(items=3, bytes_in=7), Outcome(OutcomeKind.THROTTLED, 0, error="slower")
        samples = self.run_loop(lambda index: bad if index % 4 == 3 else good, count=100)
        self.assertEqual(samples.items.tolist(), [0 if index % 4 == 3 else 3 for index in range(100)])
        self.assertEqual(self.errors, {"slower": 25})


class Hanging(LoopCase):
    """Calls that do not return: their rows are there, once."""

    def setUp(self) -> None:
        super().setUp()
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)
        self.inside = 0

    def hang(self, _: int) -> Outcome:
        self.inside += 1
        self.gate.wait(60)
        return Outcome()

    def hang_at(self, *indices: int) -> Callable[[int], Outcome]:
        return lambda index: self.hang(index) if index in indices else Outcome()

    def test_closed_loop_ends_after_the_drain_time(self) -> None:
        for clients in (1, 3):
            samples = self.run_loop(self.hang, clients=clients, seconds=0.5, drain_s=0.1)
            self.assertEqual(samples.outcome.tolist(), [OutcomeKind.UNFINISHED] * clients)
            self.assertEqual(set(samples.finished_ns.tolist()), {NOT_SEEN})
            self.assertEqual(set(samples.items.tolist()), {0})

    def test_open_loop_ends_after_the_drain_time(self) -> None:
        samples = self.run_loop(self.hang_at(1, 3), due_ms=range(5), seconds=0.05, drain_s=0.1)
        self.assertEqual(samples.index.tolist(), list(range(5)))
        self.assertEqual(samples.ok.tolist(), [True, False, True, False, True])

    def test_every_due_operation_is_a_row_when_all_threads_hang(self) -> None:
        samples = self.run_loop(self.hang, due_ms=[0] * 100, seconds=0.05, drain_s=0.1)
        self.assertEqual(sorted(samples.index.tolist()), list(range(100)))
        self.assertEqual(set(samples.outcome.tolist()), {OutcomeKind.UNFINISHED})
        self.assertTrue(0 < int((samples.sent_ns != NOT_SEEN).sum()) <= OPEN_LOOP_THREADS)

    def test_fixed_work_ends_when_nothing_can_go_on(self) -> None:
        samples = self.run_loop(self.hang_at(1, 2), clients=2, count=10, timeout_s=0.1, drain_s=0.05)
        ok = dict(zip(samples.index.tolist(), samples.ok.tolist(), strict=True))
        self.assertEqual(ok, {0: True, 1: False, 2: False})

    def test_fixed_work_goes_on_beside_a_call_that_hangs(self) -> None:
        samples = self.run_loop(self.hang_at(1), clients=2, count=500, timeout_s=0.1, drain_s=0.05)
        self.assertEqual(sorted(samples.index.tolist()), list(range(500)))
        self.assertEqual(int(samples.ok.sum()), 499)

    def test_a_call_that_returns_too_late_makes_no_second_row(self) -> None:
        recorder = Recorder(self.dir, "x", 0)
        part = self.part(time.perf_counter_ns(), clients=2, seconds=0.02, drain_s=0.02)
        before = set(threading.enumerate())
        CallLoop(Call(self.hang), recorder, part).run()
        self.gate.set()
        for thread in set(threading.enumerate()) - before:
            thread.join()
        recorder.close()
        self.assertEqual(len(read_samples(self.dir, "x", 0)), 2)

    def test_a_stop_ends_at_once_and_leaves_out_what_was_not_due(self) -> None:
        def stop() -> None:
            eventually(lambda: self.inside == 2, "both operations are under way")
            self.assignment.stop.is_set = True

        stopper = threading.Thread(target=stop)
        stopper.start()
        samples = self.run_loop(self.hang, due_ms=[0, 1, 60_000])
        stopper.join()
        self.assertEqual(samples.index.tolist(), [0, 1])
        self.assertEqual(set(samples.outcome.tolist()), {OutcomeKind.UNFINISHED})


if __name__ == "__main__":
    unittest.main()
