"""The numbers that people quote of a run."""

import unittest
from dataclasses import replace

from test.fakes.records import capacity_record, level, levels_record, sample_record

from aifbench.results.headline import headline_text, main_measurement, measures_itself, short_name
from aifbench.results.record import Measurement, Metric, RunRecord


def main(record: RunRecord) -> str:
    found = main_measurement(record)
    return found.phase if found else ""


class Headline(unittest.TestCase):
    def test_streamed_answers(self) -> None:
        steady = level("steady", "poisson 12.3/s seed 1", load=12.3)
        record = sample_record(measurements=(level("alone", "closed loop, 1 client", load=80.0), steady))
        self.assertEqual(
            headline_text(record), "steady: 12.3 req/s, 1,574 tok/s, TTFT p99 180 ms, TPOT p99 9 ms"
        )

    def test_levels_are_remembered_by_their_highest_goodput(self) -> None:
        self.assertEqual(main(levels_record(6)), "clients-16")
        without = tuple(
            replace(m, metrics=tuple(x for x in m.metrics if x.name != "goodput"))
            for m in levels_record(6).measurements
        )
        self.assertEqual(main(sample_record(measurements=without)), "clients-32")

    def test_capacity(self) -> None:
        expected = "capacity 46 req/s [45, 46.8] at TTFT <= 200 ms for 99 % of requests"
        self.assertEqual(headline_text(capacity_record()), expected)

    def test_a_capacity_that_was_not_found_is_not_quoted(self) -> None:
        record = capacity_record()
        final = record.measurements[-1]
        metrics = tuple(replace(m, value=None) if m.name == "capacity" else m for m in final.metrics)
        text = headline_text(replace(record, measurements=(replace(final, metrics=metrics),)))
        self.assertTrue(text.startswith("capacity: 45 req/s"), text)

    def test_what_ended_in_its_warm_up_measured_nothing(self) -> None:
        zero = Metric("throughput", 0.0, "ops/s", "higher")
        cut = replace(
            level("search", "poisson 50/s", load=0.0),
            metrics=(zero,), outcomes={}, samples_file="phases/samples-search.npz", stream="search",
        )  # fmt: skip
        record = sample_record(measurements=(cut,))
        self.assertEqual(headline_text(record), "search: nothing was measured")
        self.assertFalse(measures_itself(cut))

    def test_a_comparison_is_remembered_by_its_ratios(self) -> None:
        ratio = Metric("tpot_constrained_ratio", 1.08, "", "lower", 1.05, 1.11, 40)
        pair = (
            level("free-1", "closed loop, 16 clients", load=30.0),
            level("constrained-2", "closed loop, 16 clients", load=20.0, more=(ratio,)),
        )
        record = sample_record(measurements=pair)
        self.assertEqual(headline_text(record), "constrained-2: TPOT 1.08 times that of free answers")

    def test_levels_of_one_work_come_before_what_prepared_them(self) -> None:
        def measured(
            phase: str, stream: str, rate: float, arrivals: str = "closed loop, 4 clients"
        ) -> Measurement:
            kept = [m for m in level(phase, arrivals, load=rate).metrics if m.name == "throughput"]
            offered = [Metric("offered_rate", rate, "ops/s", "none")] if "poisson" in arrivals else []
            return replace(level(phase, arrivals, load=rate), stream=stream, metrics=(*kept, *offered))

        load = measured("load", "load", 9000.0)
        levels = tuple(measured(f"clients-{n}", "select", 100.0 * n) for n in (1, 4, 2))
        other = measured("tpcb", "tpcb", 50.0)
        steady = measured("steady", "select", 280.0, "poisson 280/s seed 1")
        self.assertEqual(main(sample_record(measurements=(load, *levels, other))), "clients-4")
        self.assertEqual(main(sample_record(measurements=(load, *levels, other, steady))), "steady")
        self.assertEqual(main(sample_record(measurements=(load, other))), "load")

    def test_probes_are_remembered_only_where_there_is_nothing_else(self) -> None:
        record = capacity_record()
        self.assertEqual(main(replace(record, measurements=record.measurements[:2])), "trial-1")
        self.assertEqual(main(sample_record(measurements=())), "")

    def test_names_for_people(self) -> None:
        self.assertEqual(short_name("server_ttft_p50"), "server TTFT p50")
        self.assertEqual(short_name("recall@10"), "recall@10")


if __name__ == "__main__":
    unittest.main()
