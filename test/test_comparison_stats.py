"""Two sides of repeated runs: tests, intervals and the words for them. Against scipy: oracle_comparison."""

import math
import unittest
from itertools import combinations

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.stats.comparison import Change, adjust, compare
from aifbench.stats.power import repeats_for, repeats_to_decide
from aifbench.stats.ranks import fewest, holm, rank_sum_p, shift

SLOW = [100.0, 101.0, 99.0, 100.5, 99.5]
FAST = [120.0, 121.0, 119.0, 120.5, 119.5]
QUIET = [100.1, 99.9, 100.0, 100.2, 99.8]


def p_by_dealing(a: list[float], b: list[float]) -> float:
    """The definition: of all ways to deal the values out, the share at least as far to one side, doubled."""
    pooled = np.array(a + b)
    ranks = (pooled[:, None] > pooled).sum(1) + (pooled[:, None] == pooled).sum(1) / 2
    seen = ranks[: len(a)].sum()
    dealt = np.array([ranks[list(hand)].sum() for hand in combinations(range(len(pooled)), len(a))])
    return min(1.0, 2 * min(np.mean(dealt <= seen), np.mean(dealt >= seen)))


class Ranks(unittest.TestCase):
    def test_p_is_that_of_all_ways_to_deal_the_values_out(self) -> None:
        for a, b in (
            ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]),
            ([1.0, 1.0, 2.0], [1.0, 2.0, 2.0, 3.0]),
            ([3.0, 3.0, 3.0, 4.0], [3.0, 3.0]),
            ([1.0], [2.0]),
            (SLOW, FAST),
        ):
            with self.subTest(a=a, b=b):
                self.assertAlmostEqual(p_by_dealing(a, b), rank_sum_p(np.array(a), np.array(b)), places=12)

    def test_the_smallest_p_of_few_repeats(self) -> None:
        for n, p in ((3, 0.1), (4, 0.0286), (5, 0.0079), (6, 0.0022)):
            self.assertAlmostEqual(p, rank_sum_p(np.arange(n) * 1.0, np.arange(n) + 100.0), places=4)

    def test_the_farthest_apart_are_never_impossible(self) -> None:
        for a, b in ((np.arange(50.0), np.arange(50.0) + 99), (np.arange(50.0) + 99, np.arange(50.0))):
            self.assertAlmostEqual(1, rank_sum_p(a, b) / (2 / math.comb(100, 50)))

    def test_equal_values_say_nothing(self) -> None:
        self.assertEqual(1.0, rank_sum_p(np.ones(5), np.ones(5)))
        self.assertEqual(1.0, rank_sum_p(np.ones(70), np.ones(70)))

    def test_sides_can_be_swapped(self) -> None:
        rng = np.random.default_rng(3)
        for n, m in ((3, 8), (60, 70)):
            a, b = rng.integers(0, 9, n) * 1.0, rng.integers(2, 11, m) * 1.0
            self.assertAlmostEqual(rank_sum_p(a, b), rank_sum_p(b, a))

    def test_shift_is_the_median_difference_within_its_table_ranks(self) -> None:
        a, b = np.array([1.0, 4.0, 6.0, 9.0, 15.0]), np.array([3.0, 8.0, 20.0, 24.0, 33.0])
        differences = np.sort([y - x for x in a for y in b])
        estimate = shift(a, b)
        assert estimate is not None
        # Tables: the critical value of U for 5 and 5 at 5 % is 2, so the 3rd smallest and largest bound it.
        self.assertEqual(
            (differences[2], differences[12], differences[-3]), (estimate.low, estimate.value, estimate.high)
        )

    def test_no_bounds_where_nothing_could_be_rejected(self) -> None:
        for n, m, is_sure in ((3, 3, False), (4, 4, True), (3, 5, True), (1, 38, False), (1, 39, True)):
            estimate = shift(np.arange(n) * 1.0, np.arange(m) * 1.0)
            assert estimate is not None
            self.assertEqual(is_sure, estimate.low is not None, (n, m))

    def test_one_run_against_many_is_exact(self) -> None:
        one, many = np.array([200.0]), np.arange(120.0)
        self.assertAlmostEqual(rank_sum_p(one, many), 2 / 121)
        estimate = shift(many, one)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        self.assertEqual((estimate.low, estimate.value, estimate.high), (83.0, 140.5, 198.0))
        beyond = shift(np.arange(9000.0), one)
        assert beyond is not None
        self.assertIsNone(beyond.low)

    def test_interval_holds_the_truth_in_95_of_100(self) -> None:
        rng = np.random.default_rng(5)
        for n, m in ((5, 5), (9, 6), (60, 60)):
            held = 0
            for _ in range(400):
                estimate = shift(rng.standard_t(3, n), rng.standard_t(3, m) + 2)
                assert estimate is not None and estimate.low is not None and estimate.high is not None
                held += estimate.low <= 2 <= estimate.high
            self.assertGreaterEqual(held / 400, 0.93, (n, m))

    def test_holm(self) -> None:
        for found, expected in zip(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], strict=True):
            self.assertAlmostEqual(expected, found)
        self.assertEqual(([], [0.2], [1.0, 1.0]), (holm([]), holm([0.2]), holm([0.9, 0.6])))


class Words(unittest.TestCase):
    def test_a_clear_change_by_direction(self) -> None:
        for direction, change in (
            ("higher", Change.IMPROVED), ("lower", Change.REGRESSED), ("none", Change.CHANGED),
        ):  # fmt: skip
            seen = compare(SLOW, FAST, direction=direction)
            self.assertEqual((change, None), (seen.change, seen.repeats_needed))
        self.assertEqual(Change.REGRESSED, compare(FAST, SLOW, direction="higher").change)

    def test_ratio_is_b_over_a_with_its_interval(self) -> None:
        seen = compare(SLOW, FAST, direction="higher")
        assert seen.ratio is not None and seen.ratio.low is not None and seen.ratio.high is not None
        self.assertAlmostEqual(1.2, seen.ratio.value, places=2)
        self.assertTrue(1.18 < seen.ratio.low < 1.2 < seen.ratio.high < 1.22)
        assert seen.difference is not None
        self.assertEqual(20, seen.difference.value)

    def test_a_small_change_that_is_certain_is_within_noise(self) -> None:
        seen = compare(QUIET, [value * 1.01 for value in QUIET], direction="lower")
        self.assertEqual(Change.WITHIN_NOISE, seen.change)
        eager = compare(QUIET, [value * 1.01 for value in QUIET], direction="lower", least_effect=0.005)
        self.assertEqual(Change.REGRESSED, eager.change)

    def test_no_change_is_found_by_an_interval_within_the_margin(self) -> None:
        seen = compare(QUIET, QUIET, direction="lower")
        self.assertEqual((Change.NO_CHANGE, 0.02, None), (seen.change, seen.margin, seen.repeats_needed))

    def test_noisy_sides_widen_the_margin_but_not_the_threshold(self) -> None:
        noisy = [80.0, 90.0, 100.0, 110.0, 120.0]
        seen = compare(noisy, noisy, direction="lower")
        self.assertEqual(0.02, seen.threshold)
        self.assertTrue(0.3 < seen.margin < 0.45, seen.margin)

    def test_undecided_says_how_many_repeats_would_do(self) -> None:
        seen = compare([100.0, 105.0, 95.0, 100.0, 102.0], [104, 109, 99, 103, 113], direction="higher")
        self.assertEqual(Change.UNDECIDED, seen.change)
        assert seen.repeats_needed is not None
        self.assertTrue(5 < seen.repeats_needed <= 20, seen.repeats_needed)

    def test_few_runs_are_never_decided(self) -> None:
        for n in (1, 2, 3):
            for b in (FAST, SLOW):
                seen = compare(SLOW[:n], b[:n], direction="higher")
                self.assertEqual(Change.UNDECIDED, seen.change)
                assert seen.repeats_needed is not None
                self.assertGreaterEqual(seen.repeats_needed, 4)
        self.assertIsNone(compare([1.0], [2.0], direction="higher").a.cv)

    def test_the_same_number_of_units_does_not_matter(self) -> None:
        in_ms, in_s = compare(SLOW, FAST, direction="lower"), None
        in_s = compare([v / 1000 for v in SLOW], [v / 1000 for v in FAST], direction="lower")
        assert in_ms.ratio is not None and in_s.ratio is not None
        self.assertEqual((in_ms.p, in_ms.change), (in_s.p, in_s.change))
        self.assertAlmostEqual(in_ms.ratio.value, in_s.ratio.value)


class OddValues(unittest.TestCase):
    def test_missing_values_are_left_out_and_counted(self) -> None:
        seen = compare([*SLOW, None, math.nan], [math.inf, *FAST], direction="higher")
        self.assertEqual((5, 2, 5, 1), (seen.a.n, seen.a.left_out, seen.b.n, seen.b.left_out))
        self.assertEqual(Change.IMPROVED, seen.change)

    def test_an_empty_side(self) -> None:
        for a, b in (([], FAST), (SLOW, [None, None]), ([], [])):
            seen = compare(a, b, direction="higher")
            self.assertEqual((Change.UNDECIDED, None, None), (seen.change, seen.p, seen.ratio))
            self.assertEqual(4, seen.repeats_needed)
        self.assertIsNone(compare([], [], direction="higher").a.median)

    def test_constant_sides(self) -> None:
        self.assertEqual(Change.NO_CHANGE, compare([7.0] * 4, [7.0] * 4, direction="lower").change)
        self.assertEqual(Change.REGRESSED, compare([7.0] * 4, [8.0] * 4, direction="lower").change)
        self.assertEqual(4, compare([7.0] * 3, [8.0] * 3, direction="lower").repeats_needed)

    def test_zeros_have_no_ratio(self) -> None:
        self.assertEqual(Change.NO_CHANGE, compare([0.0] * 5, [0.0] * 5, direction="lower").change)
        seen = compare([0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], direction="lower")
        self.assertEqual((Change.REGRESSED, None), (seen.change, seen.ratio))
        rare = compare([0.0, 0.0, 0.0, 0.0, 1.0], [0.0] * 5, direction="lower")
        self.assertEqual((Change.UNDECIDED, None), (rare.change, rare.repeats_needed))

    def test_a_ratio_beyond_all_numbers_is_none(self) -> None:
        for a, b in (([5e-324] * 5, [1e100] * 5), ([1e100] * 5, [5e-324] * 5)):
            judged = compare(a, b, direction="higher")
            self.assertIsNone(judged.ratio)
            self.assertIn(judged.change, (Change.IMPROVED, Change.REGRESSED))

    def test_negative_values_are_judged_by_their_difference(self) -> None:
        cold = [-50.0, -51.0, -49.0, -50.5, -49.5]
        self.assertEqual(Change.REGRESSED, compare(cold, [v - 10 for v in cold], direction="higher").change)
        self.assertEqual(
            Change.WITHIN_NOISE,
            compare([v / 100 - 50 for v in cold], [v / 100 - 49.6 for v in cold], direction="lower").change,
        )


class Families(unittest.TestCase):
    def test_one_false_alarm_among_many_is_taken_back(self) -> None:
        alarm = compare([100, 101, 102, 103, 105.5], [104, 105, 106, 107, 108], direction="higher")
        self.assertEqual(Change.IMPROVED, alarm.change)
        calm = [compare(QUIET, QUIET, direction="higher")] * 4
        judged = adjust([alarm, *calm])
        self.assertEqual([Change.UNDECIDED] + [Change.NO_CHANGE] * 4, [each.change for each in judged])
        self.assertEqual(alarm.raw_p, judged[0].raw_p)

    def test_seven_comparisons_of_five_runs_find_nothing_and_say_what_would(self) -> None:
        clear = compare(SLOW, FAST, direction="higher")
        self.assertEqual({Change.IMPROVED}, {each.change for each in adjust([clear] * 6)})
        seven = adjust([clear] * 7)
        self.assertEqual({Change.UNDECIDED}, {each.change for each in seven})
        self.assertTrue(all((each.repeats_needed or 0) >= 6 for each in seven))

    def test_comparisons_without_values_do_not_count(self) -> None:
        empty, clear = compare([], [], direction="higher"), compare(SLOW, FAST, direction="higher")
        judged = adjust([empty, clear])
        self.assertEqual([Change.UNDECIDED, Change.IMPROVED], [each.change for each in judged])
        self.assertEqual(clear.p, judged[1].p)
        self.assertEqual([], adjust([]))


class Repeats(unittest.TestCase):
    def test_smallest_numbers(self) -> None:
        self.assertEqual([4, 5, 6], [fewest(alpha) for alpha in (0.05, 0.02, 0.005)])

    def test_no_noise_needs_only_what_the_test_needs(self) -> None:
        self.assertEqual(4, repeats_for(0.05, 0.0))

    def test_follows_the_rule_of_thumb(self) -> None:
        """15.7 (cv / effect)²: 16 for 5 % at 5 %, 4 for 10 % at 5 %; ours adds what small samples cost."""
        self.assertTrue(16 < repeats_for(0.05, 0.05) < 21)
        self.assertTrue(4 < repeats_for(0.1, 0.05) < 9)
        self.assertAlmostEqual(1, repeats_for(0.01, 0.1) / (1570 / 0.955), places=1)

    def test_what_is_seen_clearly_or_excluded_clearly_needs_least(self) -> None:
        """With a margin of twice the noise, an effect of half the margin is hardest to place."""
        counts = [
            repeats_to_decide(effect, 0.05, least=0.02, margin=0.1) or 0 for effect in (0.0, 0.05, 0.15)
        ]
        self.assertLess(max(counts[0], counts[2]), counts[1])
        self.assertTrue(all(4 < count < 15 for count in counts), counts)

    def test_a_large_family_needs_more_and_a_hopeless_one_is_not_numbered(self) -> None:
        few, many = (repeats_to_decide(0.05, 0.05, least=0.02, margin=0.1, alpha=a) for a in (0.05, 0.001))
        assert few is not None and many is not None
        self.assertLess(few, many)
        self.assertIsNone(repeats_to_decide(0.002, 0.1, least=0.001, margin=0.002))

    def test_never_more_for_a_larger_effect(self) -> None:
        counts = [repeats_for(effect / 100, 0.04) for effect in range(1, 40)]
        self.assertEqual(sorted(counts, reverse=True), counts)


if __name__ == "__main__":
    unittest.main()
