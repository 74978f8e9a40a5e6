"""The order of trials: nothing forgotten, the same every time, and few restarts of services."""

import unittest
from itertools import pairwise

from test.fakes.catalog import recipe_with

from aifbench.results.study import Trial
from aifbench.studies.matrix import points
from aifbench.studies.schedule import schedule

MATRIX = "matrix: {rate: [1, 2, 3], start.nodes: [1, 2]}\nrepeats: 4\n"  # points 0, 2, 4 on one node


def trials_of(text: str) -> tuple[Trial, ...]:
    recipe = recipe_with(text)
    return schedule(recipe, points(recipe))


def order_of(text: str) -> list[list[int]]:
    """Points, by round."""
    trials = trials_of(text)
    rounds = sorted({trial.repeat for trial in trials})
    return [[trial.point for trial in trials if trial.repeat == each] for each in rounds]


def restarts(trials: tuple[Trial, ...]) -> int:
    return 1 + sum(a.point % 2 != b.point % 2 for a, b in pairwise(trials))


class Schedule(unittest.TestCase):
    def test_every_point_as_often_as_asked(self) -> None:
        for order in ("shuffled", "interleaved", "sequential"):
            trials = trials_of(f"{MATRIX}order: {order}")
            wanted = {(point, repeat) for point in range(6) for repeat in (1, 2, 3, 4)}
            self.assertEqual({(trial.point, trial.repeat) for trial in trials}, wanted)
            self.assertEqual(len(trials), 24)

    def test_sequential_has_the_fewest_restarts(self) -> None:
        trials = trials_of(f"{MATRIX}order: sequential")
        self.assertEqual([trial.point for trial in trials], [p for p in (0, 2, 4, 1, 3, 5) for _ in range(4)])
        self.assertEqual(restarts(trials), 2)

    def test_interleaved_goes_back_and_forth(self) -> None:
        text = f"{MATRIX}order: interleaved"
        there, back = [0, 2, 4, 1, 3, 5], [5, 3, 1, 4, 2, 0]
        self.assertEqual(order_of(text), [there, back, there, back])
        self.assertEqual(restarts(trials_of(text)), 5)
        self.assertEqual(order_of("matrix: {rate: [1, 2]}\norder: interleaved\nrepeats: 2"), [[0, 1], [1, 0]])

    def test_interleaved_cancels_a_steady_drift(self) -> None:
        trials = trials_of(f"{MATRIX}order: interleaved")
        mean_time = [sum(i for i, trial in enumerate(trials) if trial.point == p) / 4 for p in range(6)]
        self.assertEqual(len(set(mean_time)), 1)

    def test_shuffled_is_the_same_for_a_seed_and_differs_between_seeds(self) -> None:
        self.assertEqual(trials_of(MATRIX), trials_of(f"{MATRIX}order: shuffled\nseed: 1"))
        self.assertNotEqual(trials_of(MATRIX), trials_of(f"{MATRIX}seed: 2"))
        self.assertEqual(
            order_of(MATRIX)[0], [2, 4, 0, 1, 3, 5]
        )  # so that a resumed study goes on as it began

    def test_shuffled_keeps_points_of_one_service_together_in_a_round(self) -> None:
        for seed in range(20):
            for each in order_of(f"{MATRIX}seed: {seed}"):
                self.assertEqual(sum(a % 2 != b % 2 for a, b in pairwise(each)), 1)

    def test_shuffled_favours_no_place(self) -> None:
        rounds = order_of("matrix: {rate: [1, 2, 3, 4]}\nrepeats: 1000\nlimits: {trials: 4000}")
        for place in range(4):
            for point in range(4):
                share = sum(each[place] == point for each in rounds) / len(rounds)
                self.assertAlmostEqual(share, 0.25, delta=0.06)  # over 4 standard errors


if __name__ == "__main__":
    unittest.main()
