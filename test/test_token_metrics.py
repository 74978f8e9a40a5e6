"""From token times to numbers, by hand: which clock starts, who still waits, and what meets the limits."""

import unittest
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.load.samples import Samples
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, OutcomeKind, TokenCount, TokenTimes
from aifbench.results.record import Metric
from aifbench.results.slo import Slo
from aifbench.results.token_metrics import token_metrics, tpot_ms
from aifbench.results.window import StreamFacts, View

MS, S = 1_000_000, 1_000_000_000
OK, TIMEOUT, UNFINISHED = OutcomeKind.OK, OutcomeKind.TIMEOUT, OutcomeKind.UNFINISHED

OPEN = StreamFacts("p", "s", "constant 1/s", True, measure_s=100.0, drain_s=10.0)
CLOSED = StreamFacts("p", "s", "closed 1", False, measure_s=100.0, drain_s=10.0)


@dataclass
class Answer:
    """Times in ms after the start; `at` are those of its pieces, `tokens` those in all of them."""

    intended: float
    at: Sequence[float] = ()
    lag: float = 0.0
    kind: OutcomeKind = OK
    finished: float | None = None
    tokens: int | None = None
    first_tokens: int = 1
    prompt: int = 10
    answer: float | None = None
    counted: TokenCount = TokenCount.USAGE

    @property
    def times(self) -> TokenTimes:
        begun = self.answer if self.answer is not None else (self.at[0] if self.at else None)
        return TokenTimes(
            content_ns=[round(ms * MS) for ms in self.at],
            answer_ns=NOT_SEEN if begun is None else round(begun * MS),
            first_tokens=self.first_tokens if self.at else 0,
            prompt_tokens=self.prompt,
            output_tokens=len(self.at) if self.tokens is None else self.tokens,
            counted=self.counted,
        )


def samples(answers: Sequence[Answer]) -> Samples:
    def ns(values: Sequence[float | None]) -> Any:
        return np.array([NOT_SEEN if value is None else round(value * MS) for value in values], np.int64)

    def end(answer: Answer) -> float | None:
        if answer.finished is not None or answer.kind is UNFINISHED:
            return answer.finished
        return answer.at[-1] if answer.at else None

    return replace(
        Samples.empty(len(answers)),
        intended_ns=ns([a.intended for a in answers]),
        sent_ns=ns([None if a.lag < 0 else a.intended + a.lag for a in answers]),
        finished_ns=ns([end(a) for a in answers]),
        outcome=np.array([a.kind for a in answers], np.uint8),
        tokens=Tokens.of([a.times for a in answers], 0),
    )


def metrics(answers: Sequence[Answer], facts: StreamFacts = OPEN) -> dict[str, Metric]:
    return {metric.name: metric for metric in token_metrics(View.of(samples(answers), facts))}


def value(found: dict[str, Metric], name: str) -> float:
    number = found[name].value
    assert number is not None, found[name]
    return number


def many(count: int = 99, **more: Any) -> list[Answer]:
    """One a second: first token after 100 ms, then 10 tokens 20 ms apart; each sent 5 ms late."""
    return [
        Answer(1000 * n, [1000 * n + 100 + 20 * k for k in range(11)], lag=5.0, **more) for n in range(count)
    ]


class FirstToken(unittest.TestCase):
    def test_open_loop_counts_from_the_schedule_and_tells_both(self) -> None:
        found = metrics(many())
        for suffix in ("p50", "p90", "mean"):
            self.assertEqual(value(found, f"ttft_{suffix}"), 100.0)
            self.assertEqual(value(found, f"ttft_send_{suffix}"), 95.0)
        self.assertEqual(value(found, "e2e_p50"), 300.0)

    def test_closed_loop_counts_from_sending(self) -> None:
        found = metrics(many(), CLOSED)
        self.assertEqual((value(found, "ttft_p50"), value(found, "e2e_p50")), (95.0, 295.0))
        self.assertNotIn("ttft_send_p50", found)

    def test_the_answer_after_reasoning_has_its_own_time(self) -> None:
        self.assertNotIn("ttfot_p50", metrics(many()))
        thinking = [replace(answer, answer=answer.at[4]) for answer in many()]
        self.assertEqual(value(metrics(thinking), "ttfot_p50"), 180.0)
        self.assertEqual(value(metrics(thinking), "ttft_p50"), 100.0)

    def test_who_still_waits_is_slower_than_everybody_else(self) -> None:
        waiting = [Answer(1000 * n, kind=TIMEOUT, finished=1000 * n + 50, lag=5.0) for n in range(50, 99)]
        found = metrics([*many(50), *waiting])
        self.assertEqual(value(found, "ttft_p50"), 100.0)
        # The 90th percentile falls among those that wait: no value but a lower bound.
        self.assertIsNone(found["ttft_p90"].high)
        self.assertIn(">=", found["ttft_p90"].note)
        self.assertIn(">=", found["ttft_mean"].note)

    def test_a_first_token_counts_though_the_rest_never_came(self) -> None:
        cut = [
            replace(answer, kind=TIMEOUT, at=answer.at[:3], finished=answer.intended + 9000)
            for answer in many()
        ]
        found = metrics(cut)
        self.assertEqual((value(found, "ttft_p50"), found["ttft_p50"].note), (100.0, ""))
        self.assertIn(">=", found["e2e_p50"].note)

    def test_what_was_never_sent_waits_from_its_schedule_and_not_from_sending(self) -> None:
        never = [Answer(1000 * n, kind=UNFINISHED, lag=-1) for n in range(50, 99)]
        found = metrics([*many(50), *never])
        self.assertEqual(found["ttft_p90"].n, 99)
        self.assertIn(">=", found["ttft_p90"].note)
        self.assertEqual((found["ttft_send_p50"].n, value(found, "ttft_send_mean")), (50, 95.0))

    def test_failures_by_an_answer_have_no_latency(self) -> None:
        failed = [Answer(1000 * n + 1, [1000 * n + 2], kind=OutcomeKind.SERVER_ERROR) for n in range(99)]
        both = sorted([*many(), *failed], key=lambda answer: answer.intended)
        self.assertEqual(metrics(both)["ttft_p50"].n, 99)
        self.assertEqual(value(metrics(both), "ttft_p50"), 100.0)

    def test_too_few_for_a_percentile_have_none(self) -> None:
        found = metrics(many(20))
        self.assertIsNone(found["ttft_p99"].value)
        self.assertIn("too small", found["ttft_p99"].note)


class PerToken(unittest.TestCase):
    def test_time_per_token_after_the_first_piece(self) -> None:
        """Four tokens a piece and 40 ms between pieces are 10 ms a token."""
        answers = [replace(answer, at=[answer.at[0] + 40 * k for k in range(11)], tokens=44, first_tokens=4)
                   for answer in many()]  # fmt: skip
        found = metrics(answers)
        for suffix in ("p50", "p90", "mean"):
            self.assertEqual(value(found, f"tpot_{suffix}"), 10.0)
        self.assertEqual(value(found, "gap_p50"), 40.0)
        self.assertEqual(value(found, "tokens_per_chunk"), 4.0)

    def test_answers_in_one_piece_have_none(self) -> None:
        some = samples(
            [Answer(0, [100.0]), Answer(0, [100.0], tokens=8, first_tokens=8), Answer(0), many(1)[0]]
        )
        assert some.tokens is not None
        np.testing.assert_array_equal(tpot_ms(some.tokens), [np.nan, np.nan, np.nan, 20.0])
        one_token = [replace(answer, at=answer.at[:1]) for answer in many()]
        self.assertEqual((metrics(one_token)["tpot_p50"].n, metrics(one_token)["tpot_p50"].value), (0, None))
        self.assertEqual(metrics(one_token)["gap_p50"].n, 0)

    def test_a_first_piece_said_to_hold_more_than_there_is_harms_nobody(self) -> None:
        some = samples([replace(many(1)[0], first_tokens=99)])
        assert some.tokens is not None
        self.assertTrue(np.isnan(tpot_ms(some.tokens)).all())

    def test_gaps_are_pooled_over_good_answers_of_the_window(self) -> None:
        bad = Answer(98_500, [98_600, 99_600], kind=OutcomeKind.BROKEN)
        found = metrics([*many(), bad])
        self.assertEqual((found["gap_p99"].n, value(found, "gap_p99")), (99 * 10, 20.0))


class Rates(unittest.TestCase):
    def test_tokens_count_where_their_answers_finished(self) -> None:
        found = metrics(many(tokens=50))
        self.assertAlmostEqual(value(found, "output_rate"), 99 * 50 / 100)
        self.assertAlmostEqual(value(found, "prompt_rate"), 99 * 10 / 100)
        self.assertEqual((value(found, "output_tokens_mean"), value(found, "prompt_tokens_mean")), (50, 10))

    def test_how_tokens_were_counted_is_told(self) -> None:
        self.assertIn("usage", metrics(many())["tokens_per_chunk"].note)
        guessed = [*many(98), replace(many()[-1], counted=TokenCount.CHUNKS)]
        self.assertIn("pieces", metrics(guessed)["tokens_per_chunk"].note)

    def test_a_stream_without_tokens_has_no_such_metrics(self) -> None:
        view = View.of(replace(samples(many()), tokens=None), OPEN)
        self.assertEqual(list(token_metrics(view)), [])

    def test_nothing_but_failures(self) -> None:
        found = metrics(
            [Answer(1000 * n, kind=OutcomeKind.CONNECT, finished=1000 * n + 1) for n in range(20)]
        )
        for name in ("ttft_p50", "tpot_p50", "gap_p50", "e2e_p50", "tokens_per_chunk"):
            self.assertIsNone(found[name].value, name)


class Objectives(unittest.TestCase):
    def with_limits(
        self, answers: Sequence[Answer], facts: StreamFacts = OPEN, **limits: float
    ) -> dict[str, Metric]:
        return metrics(answers, replace(facts, slo=Slo(**limits)))

    def test_without_limits_there_is_no_goodput(self) -> None:
        self.assertNotIn("goodput", metrics(many()))

    def test_every_request_that_was_due_counts(self) -> None:
        fates = [
            *many(90),
            Answer(90_000, [91_000, 91_020]),  # too late
            Answer(91_000, [91_100, 91_120], kind=OutcomeKind.BROKEN),
            Answer(92_000, kind=OutcomeKind.SERVER_ERROR, finished=92_001),
            Answer(93_000, kind=TIMEOUT, finished=94_000),
            Answer(94_000, kind=UNFINISHED, lag=-1),
        ]
        found = self.with_limits(fates, ttft_ms=200, tpot_ms=25)
        self.assertAlmostEqual(value(found, "attainment"), 100 * 90 / 95)
        self.assertAlmostEqual(value(found, "goodput"), 90 / 100)
        low, high = found["attainment"].low, found["attainment"].high
        assert low is not None and high is not None
        self.assertTrue(low < 100 * 90 / 95 < high)

    def test_each_limit_counts(self) -> None:
        for limits, share in (
            ({"ttft_ms": 100}, 100), ({"ttft_ms": 99}, 0), ({"tpot_ms": 20}, 100), ({"tpot_ms": 19}, 0),
            ({"e2e_ms": 300}, 100), ({"e2e_ms": 299}, 0), ({"ttft_ms": 100, "e2e_ms": 299}, 0),
        ):  # fmt: skip
            self.assertEqual(value(self.with_limits(many(), **limits), "attainment"), share, limits)

    def test_lag_counts_in_open_loop_only(self) -> None:
        self.assertEqual(value(self.with_limits(many(), OPEN, ttft_ms=97), "attainment"), 0)
        self.assertEqual(value(self.with_limits(many(), CLOSED, ttft_ms=97), "attainment"), 100)

    def test_an_answer_of_one_token_meets_a_limit_per_token_if_it_came_in_time(self) -> None:
        one = [replace(answer, at=answer.at[:1]) for answer in many()]
        self.assertEqual(value(self.with_limits(one, ttft_ms=100, tpot_ms=1), "attainment"), 100)
        self.assertEqual(value(self.with_limits(one, ttft_ms=99, tpot_ms=1), "attainment"), 0)


if __name__ == "__main__":
    unittest.main()
