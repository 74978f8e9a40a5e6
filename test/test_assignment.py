"""Who does what: all workers' parts together are exactly what was asked for."""

import itertools
import unittest
from typing import Any

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, to_json
from aifbench.load.assignment import FOREVER_NS, Assignment, assign
from aifbench.load.plan import PhasePlan, StreamPlan

MS, S = 1_000_000, 1_000_000_000


def parts(
    arrivals: AnyArrivals, workers: int, *, measure_s: float | None = None, **stream: Any
) -> list[Assignment]:
    streams = (StreamPlan("s", "m:C", {}, to_json(arrivals), workers=workers, **stream),)
    plan = PhasePlan("p", streams, Endpoint("h", 1), measure_s=measure_s)
    return [assign(plan, streams[0], worker, start_ns=7 * S) for worker in range(workers)]


class Limits(unittest.TestCase):
    def test_every_operation_is_done_once(self) -> None:
        for workers, limit in itertools.product((1, 2, 3, 7), (0, 1, 2, 20, 21)):
            some = parts(Closed(9), workers, limit=limit)
            done = sorted(part.index(number) for part in some for number in range(part.count))
            self.assertEqual(done, list(range(limit)), (workers, limit))

    def test_shares_differ_by_one_at_most(self) -> None:
        counts = [part.count for part in parts(Closed(9), 4, limit=30)]
        self.assertEqual(counts, [8, 8, 7, 7])

    def test_no_limit_is_work_without_end(self) -> None:
        some = parts(Closed(4), 2, measure_s=10.0)
        self.assertTrue(all(part.count > 2**60 for part in some))
        self.assertEqual([part.end_ns for part in some], [17 * S] * 2)

    def test_workers_without_a_client_have_nothing_to_do(self) -> None:
        some = parts(Closed(2), 3, limit=9)
        self.assertEqual([part.clients for part in some[:2]], [1, 1])
        self.assertEqual([part.count for part in some], [5, 4, 0])

    def test_an_open_loop_issues_its_first_ones(self) -> None:
        some = parts(Constant(100), 3, measure_s=1.0, limit=10)
        due = sorted(int(ns) for part in some for ns in part.due_ns)  # type: ignore[union-attr]
        self.assertEqual(due, [7 * S + 10 * MS * number for number in range(10)])


class Chains(unittest.TestCase):
    def test_a_limit_counts_operations_and_chains_are_not_torn(self) -> None:
        for limit, chains in ((12, 3), (10, 3), (4, 1), (1, 1), (0, 0)):
            some = parts(Closed(4), 2, limit=limit, chain=4)
            self.assertEqual(sum(part.count for part in some), chains, limit)

    def test_they_are_begun_in_the_order_of_first_indices(self) -> None:
        first, second = parts(Closed(4), 2, limit=12, chain=4)
        self.assertEqual(list(first.first_indices()), [0, 1, 2, 3, 8, 9, 10, 11])
        self.assertEqual(list(second.first_indices()), [4, 5, 6, 7])

    def test_the_first_of_endless_ones_come_at_once(self) -> None:
        (part,) = parts(Closed(1), 1, measure_s=10.0)
        self.assertEqual(list(itertools.islice(part.first_indices(), 3)), [0, 1, 2])

    def test_thinking(self) -> None:
        self.assertEqual(parts(Closed(1), 1, limit=4, think_s=0.25)[0].think_ns, 250 * MS)


class InFlight(unittest.TestCase):
    def test_it_is_shared_and_not_below_what_was_asked_for(self) -> None:
        for workers, limit, share in ((1, 100, 100), (3, 100, 34), (8, 1, 1)):
            some = parts(Constant(10), workers, measure_s=1.0, max_in_flight=limit)
            self.assertEqual([part.max_in_flight for part in some], [share] * workers)
        self.assertEqual(parts(Constant(10), 2, measure_s=1.0)[0].max_in_flight, FOREVER_NS)


class Beginning(unittest.TestCase):
    def test_all_instants_move_together(self) -> None:
        (part,) = parts(Constant(100), 1, measure_s=1.0)
        part.begin_at(100 * S)
        assert part.due_ns is not None
        self.assertEqual(
            (part.start_ns, part.end_ns, int(part.due_ns[1])), (100 * S, 101 * S, 100 * S + 10 * MS)
        )
        (part,) = parts(Closed(1), 1, limit=4)
        part.begin_at(100 * S)
        self.assertEqual(part.end_ns, FOREVER_NS)


if __name__ == "__main__":
    unittest.main()
