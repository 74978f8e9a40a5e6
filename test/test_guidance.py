"""Every rule of the guidance: it fires where the numbers say so, cites them, and is silent elsewhere."""

import unittest
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from test.fakes.records import levels_record, sample_record, search, server_metrics
from test.fakes.studies import clients_study, rate_study, template

from aifbench.report.guidance import Advice, advice
from aifbench.report.guidance_study import study_advice
from aifbench.report.study_points import StudyView, view
from aifbench.results.record import Check, Measurement, Metric, RunRecord, RunState, Verdict
from aifbench.results.study import Point, StudyRecord, Trial, TrialState

SEARCH = search()
WARN, VALID, INVALID = Verdict.WARN, Verdict.VALID, Verdict.INVALID


def run(
    checks: Sequence[Check] = (), metrics: Sequence[Metric] = (), recipe: dict[str, Any] | None = None,
    service: dict[str, Any] | None = None, **changes: Any,
) -> RunRecord:  # fmt: skip
    base = replace(SEARCH, checks=tuple(checks), **changes)
    kept = tuple(m for m in base.metrics if m.name not in {each.name for each in metrics})
    record = replace(template(), measurements=(replace(base, metrics=(*kept, *metrics)),))
    return replace(
        record, recipe={**record.recipe, **(recipe or {})}, service={**record.service, **(service or {})}
    )


def closed_run(metrics: Sequence[Metric], **recipe: Any) -> RunRecord:
    made = Measurement(
        "search", "search", "closed loop, 4 clients", "http", 1, (5.0, 65.0), tuple(metrics), ()
    )
    record = replace(template(), measurements=(made,))
    return replace(record, recipe={**record.recipe, **recipe})


def of(code: str, found: Sequence[Advice]) -> Advice | None:
    return next((each for each in found if each.code == code), None)


def full(rate: float, percent: float) -> Measurement:
    verdict = WARN if percent > 5 else VALID
    check = Check("KVCACHE", verdict, f"the KV cache was over 95 % full for {percent} %", percent, 5, "%")
    metrics = (Metric("throughput", rate, "ops/s", "higher"), Metric("kv_cache_max", 99.0, "%"))
    return Measurement(f"level {rate}", "s", f"poisson {rate:g}/s", "http", 1, (0.0, 30.0), metrics, (check,))


class RunRules(unittest.TestCase):
    def fires(self, code: str, record: RunRecord, *words: str) -> Advice:
        found = of(code, advice(record))
        assert found is not None, f"{code} said nothing; said: {[each.code for each in advice(record)]}"
        self.assertTrue(found.because)
        for reason in found.because:
            self.assertRegex(reason.words, r"\d")
        said = f"{found.text} {found.reasons} {found.command}"
        for word in words:
            self.assertIn(word, said)
        return found

    def silent(self, code: str, *records: RunRecord) -> None:
        for record in records:
            self.assertIsNone(of(code, advice(record)))

    def test_a_busy_client_is_told_to_spread(self) -> None:
        cpu = Metric("client_cpu", 98.0, "%", "lower")
        busy = Check("CPU", WARN, "the busiest load worker used 98 % of a core", 98, 85, "%")
        self.fires("client", run([busy], [cpu]), "--workers 4", "CPU 98 %")
        late = Check("LAG", WARN, "late", 12.0, 5, "%")
        idle = run([late], [replace(cpu, value=9.0)], {"client_nodes": None})
        self.fires("client", idle, "other nodes", "--client-nodes 1")
        self.assertEqual(self.fires("client", replace(idle, service={"kind": "x", "name": "x"})).command, "")
        self.silent("client", run([replace(busy, verdict=VALID)], [cpu]), run([replace(late, value=None)]))

    def test_a_full_cache_is_told_with_the_load_it_begins_at(self) -> None:
        record = sample_record(measurements=(full(6.0, 0), full(12.0, 40), full(20.0, 90)))
        found = self.fires("kv-cache", record, "from 12 req/s on", "KVCACHE 40 %", "99 %")
        self.assertEqual(len(found.because), 3)
        always = sample_record(measurements=(full(6.0, 20), full(12.0, 40)))
        self.assertNotIn("on:", self.fires("kv-cache", always).text)
        mixed = sample_record(measurements=(full(6.0, 20), full(12.0, 0)))
        self.assertNotIn("req/s on", self.fires("kv-cache", mixed).text)
        self.silent("kv-cache", sample_record(measurements=(full(6.0, 0),)), sample_record())

    def test_preemptions(self) -> None:
        self.fires("preemptions", run(metrics=[Metric("preemptions", 7.0, "", "lower")]), "preemptions 7")
        self.silent("preemptions", run(metrics=server_metrics()), run())

    def test_prompts_that_repeat(self) -> None:
        hits = Check("PREFIXHITS", WARN, "cached", 40.0, 1.0, "%")
        self.fires("prefix-hits", run([hits]), "--seed 8", "40 %")
        self.silent("prefix-hits", run([replace(hits, verdict=VALID)]))

    def test_queueing_needs_both_numbers_and_a_large_share(self) -> None:
        queue, whole = Metric("server_queue_mean", 80.0, "ms"), Metric("server_ttft_mean", 100.0, "ms")
        self.fires("queue", run(metrics=[queue, whole]), "80 % of the time", "server queue mean 80 ms")
        self.silent("queue", run(metrics=[queue]), run(metrics=[replace(queue, value=20.0), whole]))
        self.silent("queue", run(metrics=[replace(queue, value=0.5), replace(whole, value=0.6)]))

    def test_recall_below_its_target(self) -> None:
        low = Check("ANSWERS", WARN, "recall@10 is 0.85, the mean of 9 of 9 answers", 0.85, 0.9)
        self.fires("recall", run([low], recipe={"ef_search": 64}), "below 0.9", "--ef-search 128")
        self.assertEqual(self.fires("recall", run([low])).command, "")
        self.silent("recall", run([replace(low, verdict=VALID)]), run([replace(low, message="valid is 0.5")]))

    def test_cached_data_say_how_much_is_needed(self) -> None:
        inside = Check("CACHED", WARN, "reads come from memory", 0.5, 2.0)
        self.fires("cached", run([inside], recipe={"scale": 100}), "--scale 441", "CACHED 0.5")
        self.assertEqual(self.fires("cached", run([inside])).command, "")
        self.silent("cached", run([replace(inside, verdict=VALID)]), run())

    def test_fewer_rows_than_clients(self) -> None:
        rows = Check("SCALE", WARN, "scale 10 is below 32 clients", 10 / 32, 1.0)
        self.fires("contention", run([rows], recipe={"scale": 10}), "--scale 32")
        self.silent("contention", run([rows]), run([replace(rows, verdict=VALID)], recipe={"scale": 10}))

    def test_not_steady(self) -> None:
        moving = Check(
            "STEADY",
            WARN,
            "steady after the first 40 % of the time",
            40.0,
            25,
            "%",
            "warm up longer: --warmup",
        )
        self.fires("warm-up", run([moving]), "--warmup 30", "40 %")
        few = Check("STEADY", WARN, "too few", 9, 30, "operations")
        fixed = replace(moving, advice="compare only with runs of the same size and duration")
        self.silent("warm-up", run([few]), run([replace(moving, verdict=VALID)]), run([fixed]))

    def test_too_few_samples_say_how_long_would_do(self) -> None:
        few = Check("SAMPLES", WARN, "480 operations", 480, 1104, "operations", "measure longer: --duration")
        self.fires("samples", run([few]), "1,104", "--duration 160")
        self.silent("samples", run([replace(few, advice="give it more work")]))
        self.silent("samples", run([replace(few, verdict=VALID)]))

    def test_a_short_run(self) -> None:
        short = Check("DURATION", WARN, "measured for 20 s", 20, 60, "s", "measure for longer: --duration")
        self.fires("duration", run([short]), "--duration 60")
        self.silent("duration", run([replace(short, advice="give it more work")]))

    def test_overload(self) -> None:
        fell = Check("RATE", INVALID, "60 % served", 60, 95, "%")
        self.fires("overload", run([fell]), "--rate 160", "throughput 199.8 ops/s")
        self.silent("overload", run([replace(fell, verdict=VALID)]))
        self.silent("overload", run([fell], [Metric("throughput", None, "ops/s", "higher")]))

    def test_failures_by_kind(self) -> None:
        failed = Check("ERRORS", WARN, "5 % failed", 5, 1, "%")
        throttled = run([failed], outcomes={"OK": 95, "THROTTLED": 5})
        self.fires("errors-THROTTLED", throttled, "asked for less 5 times", "--rate 100")
        broken = self.fires("errors-CONNECT", run([failed], outcomes={"OK": 95, "CONNECT": 5}), "CONNECT (5)")
        self.assertEqual(broken.command, "")
        self.silent("errors-CONNECT", run([failed], outcomes={"OK": 9}), run(outcomes={"CONNECT": 1}))

    def test_coordinated_omission(self) -> None:
        hid = Check("OMISSION", WARN, "this p99 hides stalls", 9.0, 2.0)
        self.fires("omission", run([hid]), "coordinated omission", "--rate 160")
        self.silent("omission", run([replace(hid, verdict=VALID)]), run())

    def test_a_client_that_costs_much(self) -> None:
        cost, median = Metric("client_cpu_per_op", 0.6, "ms/op"), Metric("service_p50", 2.0, "ms")
        self.fires("client-cost", closed_run([cost, median], via="sdk"), "--via http", "0.6 ms/op")
        self.assertEqual(self.fires("client-cost", closed_run([cost, median])).command, "")
        self.silent("client-cost", closed_run([cost]), closed_run([cost, replace(median, value=20.0)]))

    def test_durability(self) -> None:
        off = Check("DURABLE", WARN, "fsync is off")
        self.fires("durability", run([off]), "without durability")
        self.silent("durability", run([replace(off, verdict=VALID)]))

    def test_operations_or_bytes(self) -> None:
        def sizes(small_ms: float, large_ms: float) -> RunRecord:
            return closed_run(
                [
                    Metric("service_p50 [<=4 KiB]", small_ms, "ms"),
                    Metric("service_p50 [<=1 MiB]", large_ms, "ms"),
                ]
            )

        self.fires("operation-bound", sizes(5.0, 5.5), "256 times as large", "1.1 times as long")
        self.fires("bandwidth-bound", sizes(5.0, 1000.0), "200 times as long")
        self.silent("operation-bound", sizes(5.0, 50.0), closed_run([]))
        self.silent("bandwidth-bound", sizes(5.0, 50.0))

    def test_a_fitted_peak(self) -> None:
        peak = Metric("scaling_peak", 24.0, "clients", low=20.0, high=30.0)
        self.fires("scaling-peak", run(metrics=[peak]), "24 clients")
        self.silent("scaling-peak", run(metrics=[replace(peak, high=None)]))
        self.silent("scaling-peak", run(metrics=[replace(peak, note="the peak: extrapolated")]))

    def test_a_run_without_faults_gets_no_advice(self) -> None:
        self.assertEqual(advice(run()), [])
        self.assertEqual(advice(sample_record(measurements=())), [])
        self.assertEqual([each.code for each in advice(levels_record())], ["duration"])

    def test_commands_have_only_options_the_benchmark_has(self) -> None:
        busy = Check("CPU", WARN, "busy", 98, 85, "%")
        record = run([busy])
        recipe = {key: value for key, value in record.recipe.items() if key != "workers"}
        found = of("client", advice(replace(record, recipe=recipe)))
        assert found is not None
        self.assertEqual(found.command, "")

    def test_what_several_measurements_say_is_said_once(self) -> None:
        off = Check("DURABLE", WARN, "fsync is off")
        several = tuple(replace(search(), phase=f"p{i}", checks=(off,)) for i in range(5))
        found = [each for each in advice(sample_record(measurements=several)) if each.code == "durability"]
        self.assertEqual(len(found), 1)
        self.assertIn("and 2 more", found[0].reasons)


def study(
    settings: Sequence[dict[str, Any]],
    measure: Callable[[dict[str, Any], int], Measurement],
    repeats: int = 5,
) -> StudyView:
    """A COMPLETE study whose runs are what `measure` gives for each point's settings and repeat."""
    points = tuple(Point(each, " ".join(f"{k}={v}" for k, v in each.items())) for each in settings)
    runs, trials = {}, []
    for i, point in enumerate(points):
        for repeat in range(1, repeats + 1):
            run_id = f"20261120-15{i:02d}{repeat:02d}-x-{i:02d}{repeat:02d}"
            trials.append(Trial(i, repeat, TrialState.DONE, run_id))
            made = measure(dict(point.settings), repeat)
            runs[run_id] = replace(
                template(),
                run_id=run_id,
                created_utc=f"2026-11-20T15:{i:02d}:{repeat:02d}Z",
                measurements=(made,),
            )
    record = StudyRecord("s", "s", "", RunState.COMPLETE, "study: s\n", "s.yaml", points, tuple(trials))
    return view(record, runs)


def sized(
    settings: dict[str, Any], repeat: int, bandwidth: float = 400.0, most_ops: float = 2000.0
) -> Measurement:
    mib = settings["size"] / 1024
    ops = min(most_ops, bandwidth / mib) * (1 + repeat / 1000)
    metrics = (
        Metric("throughput", ops, "ops/s", "higher"),
        Metric("data_rate", ops * mib, "MiB/s", "higher"),
    )
    return Measurement("get", "get", "closed loop", "http", 1, (0.0, 60.0), metrics, ())


def plain(rate: float) -> Measurement:
    return Measurement(
        "p", "s", "closed loop", "http", 1, (0.0, 60.0), (Metric("throughput", rate, "ops/s", "higher"),), ()
    )


class StudyRules(unittest.TestCase):
    def fires(self, code: str, found: StudyView, *words: str) -> Advice:
        one = of(code, study_advice(found))
        assert one is not None, f"{code} said nothing; said: {[each.code for each in study_advice(found)]}"
        said = f"{one.text} {one.reasons} {one.command}"
        self.assertRegex(one.reasons, r"\d")
        for word in words:
            self.assertIn(word, said)
        return one

    def silent(self, code: str, *found: StudyView) -> None:
        for each in found:
            self.assertIsNone(of(code, study_advice(each)))

    def test_trials_without_a_result(self) -> None:
        record, runs = rate_study()
        self.fires("unfinished", view(record, runs), "trials failed 1", "run search-rate.yaml")
        trials = tuple(replace(trial, state=TrialState.PENDING) for trial in record.trials[:3])
        ended = replace(record, trials=trials + record.trials[3:], state=RunState.INTERRUPTED)
        self.fires("unfinished", view(ended, runs), "trials not run 3", "--resume")
        self.silent("unfinished", view(*clients_study()), view(replace(ended, state=RunState.RUNNING), runs))

    def test_too_few_repeats(self) -> None:
        self.fires("repeats", view(*clients_study(repeats=3)), "repeats: 5", "runs that count 3")
        self.silent("repeats", view(*clients_study(repeats=5)))

    def test_noise_says_how_many_repeats_it_takes(self) -> None:
        def measure(settings: dict[str, Any], repeat: int) -> Measurement:
            return plain(100.0 + settings["noise"] * (repeat - 3))

        self.fires(
            "noise", study([{"noise": 8}, {"noise": 0.1}], measure), "CV of throughput 12.6", "repeats: "
        )
        self.silent("noise", study([{"noise": 0.2}, {"noise": 0.1}], measure))
        self.silent("noise", study([{"noise": 9}, {"noise": 9}], measure, repeats=2))

    def test_undecided_comparisons(self) -> None:
        def measure(settings: dict[str, Any], repeat: int) -> Measurement:
            return plain(settings["base"] + 4 * ((repeat * 7) % 5))

        near = study([{"base": 100}, {"base": 105}], measure)
        self.fires("undecided", near, "repeats needed")
        self.silent("undecided", study([{"base": 100}, {"base": 300}], measure))

    def test_the_knee_lies_between_two_rates(self) -> None:
        self.fires("knee", view(*rate_study()), "between 200/s and 300/s", "76.", "rate: [221, 245, 271]")
        self.silent("knee", view(*rate_study(rates=(50, 100))), view(*rate_study(rates=(300, 400))))
        self.silent("knee", view(*clients_study()))

    def test_the_cache_by_points(self) -> None:
        def measure(settings: dict[str, Any], _: int) -> Measurement:
            return replace(full(settings["rate"], 60 if settings["rate"] >= 12 else 0), phase="p")

        rates = [{"rate": rate} for rate in (4, 8, 12, 16)]
        self.fires("kv-cache", study(rates, measure), "from rate 12 on", "99 %")
        self.silent("kv-cache", study(rates[:2], measure), view(*rate_study()))

    def test_scaling_peak_or_cost(self) -> None:
        self.fires("scaling-peak", view(*clients_study()), "near 22 clients", "crosstalk (kappa) 0.002")
        costly = self.fires("scaling-cost", view(*clients_study(kappa=0.0)), "serial part", "efficiency")
        self.assertIn("contention", costly.reasons)
        self.silent("scaling-peak", view(*clients_study(kappa=0.0)), view(*clients_study(clients=(1, 2, 4))))
        self.silent("scaling-cost", view(*clients_study(clients=(1, 2, 3, 4))))

    def test_small_objects_and_large_ones(self) -> None:
        found = study([{"size": size} for size in (4, 16, 4096, 16384)], sized)
        self.fires("operation-bound", found, "2,00")
        self.fires("bandwidth-bound", found, "MiB/s")
        between = study([{"size": size} for size in (64, 80)], sized)
        self.silent("operation-bound", between)
        self.silent("bandwidth-bound", between, view(*rate_study()))

    def test_drift(self) -> None:
        def measure(_: dict[str, Any], repeat: int) -> Measurement:
            return plain(100.0 * (1.2 if repeat > 5 else 1.0) + repeat / 100)

        self.fires("drift", study([{"a": 1}], measure, repeats=10), "late by early runs 1.2")
        self.silent("drift", study([{"a": 1}], lambda _, r: plain(100 + r % 2), repeats=10))
        self.silent("drift", study([{"a": 1}], measure, repeats=6))

    def test_what_most_runs_of_a_point_say(self) -> None:
        found = self.fires("overload", view(*rate_study()), "rate=300, search: RATE 76.")
        self.assertEqual(len(found.because), 1)
        self.silent("overload", view(*rate_study(rates=(50, 100))))

    def test_nothing_is_said_of_nothing(self) -> None:
        record, _ = rate_study()
        self.assertEqual([each.code for each in study_advice(view(record, {}))], ["unfinished"])


if __name__ == "__main__":
    unittest.main()
