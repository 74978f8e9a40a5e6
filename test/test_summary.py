"""From samples to numbers: exact small cases, stalls that must not hide, operations that never drop out."""

import json
import unittest
from dataclasses import replace

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.load.plan import Quality, WorkerReport
from aifbench.load.samples import Samples
from aifbench.load.workload import NOT_SEEN, OutcomeKind
from aifbench.results.record import Measurement, Metric, RunRecord, RunState, Verdict
from aifbench.results.summary import StreamFacts, summarise

MS, S = 1_000_000, 1_000_000_000

OPEN = StreamFacts("search", "queries", "constant 100/s", True, offered_rate_per_s=100.0, measure_s=60.0)
CLOSED = StreamFacts("search", "queries", "closed 1", False, measure_s=60.0)
FIXED = StreamFacts("ingest", "queries", "closed 1", False, items="vectors")
REPORT = WorkerReport("queries", 0, "node1", 17, 6_000, cpu_s=6.0, wall_s=60.0)


def operations(intended_ns: object, sent_ns: object, finished_ns: object) -> Samples:
    intended, sent, finished = np.broadcast_arrays(*map(np.asarray, (intended_ns, sent_ns, finished_ns)))
    samples = Samples.empty(len(intended))
    for column, values in (("intended_ns", intended), ("sent_ns", sent), ("finished_ns", finished)):
        getattr(samples, column)[:] = values
    return samples


def constant(n: int = 6_000, gap_ms: int = 10, service_ms: float = 5) -> Samples:
    due = np.arange(n) * gap_ms * MS
    return operations(due, due, due + int(service_ms * MS))


def fail(samples: Samples, rows: object, kind: OutcomeKind) -> Samples:
    samples.outcome[rows] = kind
    if kind is OutcomeKind.UNFINISHED:
        samples.finished_ns[rows] = NOT_SEEN
    return samples


class Case(unittest.TestCase):
    def value(self, measurement: Measurement, name: str) -> float:
        value = self.metric(measurement, name).value
        assert value is not None, name
        return value

    def metric(self, measurement: Measurement, name: str) -> Metric:
        metric = measurement.metric(name)
        assert metric is not None, name
        return metric

    def verdict(self, measurement: Measurement, code: str) -> Verdict:
        found = [check.verdict for check in measurement.checks if check.code == code]
        return max(found, key=list(Verdict).index)


class StallTest(Case):
    """100 requests/s for 60 s, 5 ms each, and one stall of 2 s: the analytic case of coordinated omission."""

    def test_open_loop_shows_it_in_p99(self) -> None:
        due = np.arange(6_000) * 10 * MS
        finished = due + 5 * MS
        stalled = (due >= 20 * S) & (due < 22 * S)
        finished[stalled] = 22 * S
        measurement = summarise(operations(due, due, finished), OPEN, [REPORT])
        self.assertEqual(1_400, self.value(measurement, "response_p99"))
        self.assertEqual(5, self.value(measurement, "response_p50"))
        self.assertEqual(2_000, self.value(measurement, "response_max"))
        self.assertEqual((0, 60), measurement.window_s)
        self.assertNotIn("OMISSION", {check.code for check in measurement.checks})

    def test_closed_loop_hides_it_and_says_so(self) -> None:
        service = np.full(11_600, 5 * MS)
        service[4_000] = 2 * S
        finished = np.cumsum(service)
        sent = finished - service
        measurement = summarise(operations(sent, sent, finished), CLOSED, [REPORT])
        self.assertEqual(5, self.value(measurement, "service_p99"))
        self.assertEqual(2_000, self.value(measurement, "service_max"))
        self.assertEqual(Verdict.WARN, self.verdict(measurement, "OMISSION"))
        self.assertIn("1,400 ms", next(c.message for c in measurement.checks if c.code == "OMISSION"))


class WindowTest(Case):
    def test_warm_up_is_left_out_by_intended_time(self) -> None:
        samples = constant()
        samples.finished_ns[:1_000] += 300 * MS
        measurement = summarise(samples, replace(OPEN, warmup_s=10, measure_s=50), [REPORT])
        self.assertEqual((10, 60), measurement.window_s)
        self.assertEqual({"OK": 5_000}, measurement.outcomes)
        self.assertEqual(5, self.value(measurement, "response_max"))

    def test_a_transient_beyond_the_warm_up_is_cut_and_reported(self) -> None:
        samples = constant()
        samples.finished_ns[:] += (50 * MS * np.exp(-np.arange(6_000) / 200)).astype(np.int64)
        samples.finished_ns[:] += np.random.default_rng(1).integers(0, 2 * MS, 6_000)
        measurement = summarise(samples, OPEN, [REPORT])
        start_s, end_s = measurement.window_s
        self.assertTrue(4 < start_s < 20, start_s)
        self.assertEqual(60, end_s)
        self.assertEqual(Verdict.VALID, self.verdict(measurement, "STEADY"))
        self.assertAlmostEqual(100, self.value(measurement, "throughput"), delta=0.1)
        self.assertAlmostEqual(60, next(c.value or 0 for c in measurement.checks if c.code == "DURATION"))

    def test_fixed_work_is_all_of_the_work_by_all_of_the_time(self) -> None:
        service = np.r_[np.full(100, 50 * MS), np.full(200, 10 * MS)]
        finished = np.cumsum(service)
        samples = operations(finished - service, finished - service, finished)
        samples.items[:] = 64
        measurement = summarise(samples, FIXED, [REPORT])
        self.assertEqual((0, 7), measurement.window_s)
        self.assertAlmostEqual(300 / 7, self.value(measurement, "throughput"))
        self.assertAlmostEqual(64 * 300 / 7, self.value(measurement, "item_rate"))
        self.assertEqual("vectors/s", self.metric(measurement, "item_rate").unit)
        self.assertEqual(Verdict.WARN, self.verdict(measurement, "STEADY"))

    def test_rates_count_what_finished_inside_latencies_what_began_inside(self) -> None:
        starts = np.arange(10) * S
        samples = operations(starts, starts, starts + 1_500 * MS)
        measurement = summarise(samples, replace(CLOSED, measure_s=10), [REPORT])
        self.assertEqual(0.9, self.value(measurement, "throughput"))
        self.assertEqual(10, self.metric(measurement, "service_max").n)

    def test_closed_loop_looks_at_service_open_loop_at_response(self) -> None:
        due = np.arange(6_000) * 10 * MS
        samples = operations(due, due + 3 * MS, due + 8 * MS)
        self.assertEqual(5, self.value(summarise(samples, CLOSED, [REPORT]), "service_p50"))
        opened = summarise(samples, OPEN, [REPORT])
        self.assertEqual(8, self.value(opened, "response_p50"))
        self.assertEqual(3, self.value(opened, "lag_p99"))
        self.assertEqual(Verdict.INVALID, self.verdict(opened, "LAG"))


class UnansweredTest(Case):
    def test_failing_fast_does_not_make_percentiles(self) -> None:
        samples = fail(constant(), slice(0, None, 50), OutcomeKind.SERVER_ERROR)
        samples.finished_ns[::50] = samples.sent_ns[::50] + 1
        measurement = summarise(samples, OPEN, [REPORT])
        self.assertEqual(5_880, self.metric(measurement, "response_p99").n)
        self.assertEqual(5, self.value(measurement, "response_mean"))
        self.assertEqual(2, self.value(measurement, "error_share"))
        self.assertEqual({"OK": 5_880, "SERVER_ERROR": 120}, measurement.outcomes)
        self.assertEqual(Verdict.INVALID, self.verdict(measurement, "ERRORS"))

    def test_unfinished_operations_are_the_slowest_and_a_lower_bound(self) -> None:
        samples = fail(constant(), slice(3_000, 3_120), OutcomeKind.UNFINISHED)
        measurement = summarise(samples, replace(OPEN, drain_s=10), [REPORT])
        p99 = self.metric(measurement, "response_p99")
        # Watching ended at 70 s; the 60 that waited longest are above p99.
        self.assertEqual(70_000 - 30_000 - 600, p99.value)
        self.assertTrue(p99.note.startswith(">= value"), p99)
        self.assertIsNone(p99.high)
        p90 = self.metric(measurement, "response_p90")
        self.assertEqual((5, ""), (p90.value, p90.note))

    def test_a_timeout_shorter_than_a_slow_answer_still_counts_as_slower(self) -> None:
        samples = constant()
        samples.finished_ns[::10] += 95 * MS
        fail(samples, slice(5, None, 50), OutcomeKind.TIMEOUT)
        measurement = summarise(samples, OPEN, [REPORT])
        p99 = self.metric(measurement, "response_p99")
        self.assertEqual(100, p99.value)
        self.assertTrue(p99.note.startswith(">= value"))

    def test_an_interval_that_reaches_the_unanswered_has_no_upper_end(self) -> None:
        samples = fail(constant(), slice(0, 6_000, 105), OutcomeKind.TIMEOUT)
        p99 = self.metric(summarise(samples, OPEN, [REPORT]), "response_p99")
        self.assertEqual((5, None), (p99.value, p99.high))
        self.assertIn("no upper limit", p99.note)

    def test_operations_never_sent_count_as_waiting_and_as_lag(self) -> None:
        samples = fail(constant(), slice(5_400, None), OutcomeKind.UNFINISHED)
        samples.sent_ns[5_400:] = NOT_SEEN
        measurement = summarise(samples, replace(OPEN, drain_s=5), [REPORT])
        self.assertGreater(self.value(measurement, "lag_p99"), 5_000)
        self.assertEqual(10, self.value(measurement, "error_share"))
        self.assertEqual(Verdict.INVALID, self.verdict(measurement, "RATE"))
        self.assertEqual(0, measurement.series["in_flight"][-1])

    def test_nothing_succeeded(self) -> None:
        samples = fail(constant(500), slice(None), OutcomeKind.CONNECT)
        measurement = summarise(samples, OPEN, [REPORT])
        self.assertIsNone(self.metric(measurement, "response_p50").value)
        self.assertEqual(0, self.value(measurement, "throughput"))
        self.assertEqual({}, measurement.latency_quantiles)
        self.assertEqual(Verdict.INVALID, self.verdict(measurement, "SUCCESSES"))

    def test_no_operation_at_all(self) -> None:
        for facts in (OPEN, CLOSED, FIXED):
            measurement = summarise(Samples.empty(0), facts, [REPORT])
            self.assertEqual(Verdict.INVALID, measurement.verdict)
            self.assertTrue(
                all(not metric.value for metric in measurement.metrics if "client" not in metric.name)
            )


class RateTest(Case):
    def test_slow_answers_alone_are_no_saturation(self) -> None:
        samples = constant(480, gap_ms=125, service_ms=3_000)
        measurement = summarise(samples, replace(OPEN, drain_s=10), [REPORT])
        self.assertEqual(Verdict.VALID, self.verdict(measurement, "RATE"))
        self.assertEqual(8, self.value(measurement, "offered_rate"))
        self.assertAlmostEqual(456 / 60, self.value(measurement, "throughput"), delta=0.02)

    def test_a_growing_queue_is(self) -> None:
        due = np.arange(6_000) * 10 * MS
        finished = np.arange(1, 6_001) * 12_500_000
        measurement = summarise(operations(due, due, finished), replace(OPEN, drain_s=20), [REPORT])
        rate = next(check for check in measurement.checks if check.code == "RATE")
        self.assertEqual(Verdict.INVALID, rate.verdict)
        self.assertAlmostEqual(80, rate.value or 0, delta=2)
        self.assertAlmostEqual(80, self.value(measurement, "throughput"), delta=0.1)
        self.assertEqual(Verdict.INVALID, self.verdict(measurement, "STEADY"))


class NumbersTest(Case):
    def test_small_samples_print_no_high_percentile(self) -> None:
        measurement = summarise(constant(210), replace(OPEN, measure_s=2.1), [REPORT])
        p99 = self.metric(measurement, "response_p99")
        self.assertIsNone(p99.value)
        self.assertEqual("n = 210 is too small for p99 (needs 368)", p99.note)
        self.assertEqual(5, self.value(measurement, "response_p90"))
        self.assertLess(max(map(float, measurement.latency_quantiles)), 0.99)

    def test_every_value_lies_in_its_interval(self) -> None:
        samples = constant()
        samples.finished_ns[:] += np.random.default_rng(1).integers(0, 9 * MS, 6_000)
        for metric in summarise(samples, OPEN, [REPORT]).metrics:
            if metric.low is not None and metric.high is not None and metric.value is not None:
                self.assertTrue(metric.low <= metric.value <= metric.high, metric)

    def test_qualities_count_only_checked_successes(self) -> None:
        samples = constant()
        samples.qualities[::2, 0] = 0.9
        fail(samples, slice(0, 1_000), OutcomeKind.WRONG)
        facts = replace(OPEN, qualities=(Quality("recall@10", 0.95, 0.8), Quality("order")))
        measurement = summarise(samples, facts, [REPORT])
        recall = self.metric(measurement, "recall@10")
        self.assertAlmostEqual(0.9, recall.value or 0, places=6)
        self.assertEqual(2_500, recall.n)
        self.assertEqual("no answer was checked", self.metric(measurement, "order").note)
        verdicts = [check.verdict for check in measurement.checks if check.code == "ANSWERS"]
        self.assertEqual([Verdict.WARN, Verdict.WARN], verdicts)

    def test_bytes_and_client_cost(self) -> None:
        samples = constant()
        samples.bytes_in[:] = 20_000
        other = replace(REPORT, worker=1, cpu_s=54.0)
        measurement = summarise(samples, replace(OPEN, workers=2), [REPORT, other])
        self.assertAlmostEqual(2, self.value(measurement, "received_rate"), delta=0.001)
        self.assertIsNone(measurement.metric("sent_rate"))
        self.assertEqual(5, self.value(measurement, "client_cpu_per_op"))
        self.assertEqual(90, self.value(measurement, "client_cpu"))
        self.assertEqual(Verdict.WARN, self.verdict(measurement, "CPU"))

    def test_reports_of_other_streams_do_not_count_and_missing_ones_do(self) -> None:
        other = replace(REPORT, stream="ingest", cpu_s=59.0, failure="killed", errors={"boom": 3})
        failed = replace(REPORT, worker=1, failure="killed by signal 9", errors={"refused": 2})
        alone = summarise(constant(), OPEN, [REPORT, other])
        self.assertEqual(Verdict.VALID, self.verdict(alone, "WORKERS"))
        self.assertEqual({}, alone.errors)
        three = summarise(constant(), replace(OPEN, workers=3), [REPORT, failed])
        self.assertEqual(Verdict.INVALID, self.verdict(three, "WORKERS"))
        message = next(check.message for check in three.checks if check.code == "WORKERS")
        self.assertIn("1 of 3", message)
        self.assertIn("worker 1: killed by signal 9; a worker sent no report", message)
        self.assertEqual({"refused": 2}, three.errors)

    def test_a_good_run_is_valid_and_survives_json(self) -> None:
        facts = replace(OPEN, parameters={"k": 10}, samples_file="a.npz", started_utc="2026-01-01T00:00:00Z")
        measurement = summarise(constant(), facts, [REPORT])
        self.assertEqual(Verdict.VALID, measurement.verdict, measurement.checks)
        record = RunRecord("r", "now", RunState.COMPLETE, {}, {}, measurements=(measurement,))
        again = RunRecord.from_json(json.loads(json.dumps(record.to_json())))
        self.assertEqual(measurement, again.measurements[0])


class SeriesTest(Case):
    def test_second_by_second(self) -> None:
        samples = fail(constant(service_ms=5), slice(1_000, 1_050), OutcomeKind.SERVER_ERROR)
        measurement = summarise(samples, OPEN, [REPORT])
        self.assertEqual(1, measurement.series_step_s)
        self.assertEqual({60}, {len(column) for column in measurement.series.values()})
        self.assertEqual(
            ([100, 50, 100], [0, 50, 0]), tuple(measurement.series[c][9:12] for c in ("rate", "errors"))
        )
        self.assertEqual(
            (5, None, 5), tuple(measurement.series[c][0] for c in ("p50_ms", "p99_ms", "max_ms"))
        )

    def test_in_flight_is_what_was_sent_and_did_not_end(self) -> None:
        measurement = summarise(constant(service_ms=2_005), OPEN, [REPORT])
        self.assertEqual([101, 201, 201], measurement.series["in_flight"][:3])

    def test_long_phases_get_wider_rows_and_short_ones_finer(self) -> None:
        for n, gap_ms, rows, step_s in ((4_000, 500, 499, 4), (300, 10, 29, 0.1), (3, 10, 1, 0.1)):
            measurement = summarise(constant(n, gap_ms), FIXED, [REPORT])
            self.assertEqual((rows, step_s), (len(measurement.series["rate"]), measurement.series_step_s))

    def test_quantile_curve_rises_to_the_last_reliable_quantile(self) -> None:
        samples = constant()
        samples.finished_ns[:] += np.random.default_rng(1).integers(0, 9 * MS, 6_000)
        curve = summarise(samples, OPEN, [REPORT]).latency_quantiles
        self.assertEqual(sorted(curve.values()), list(curve.values()))
        self.assertTrue({"0.5", "0.9", "0.99", "0.999"} <= set(curve))
        self.assertTrue(0.999 <= max(map(float, curve)) < 0.9995)

    def test_quantile_curve_ends_where_answers_end(self) -> None:
        samples = fail(constant(), slice(0, None, 20), OutcomeKind.TIMEOUT)
        curve = summarise(samples, OPEN, [REPORT]).latency_quantiles
        self.assertTrue(0.94 < max(map(float, curve)) <= 0.95, max(curve))


if __name__ == "__main__":
    unittest.main()
