"""The flat table of a run: read back by the standard readers."""

import csv
import io
import json
import unittest
import zipfile
from dataclasses import replace

from test.fakes.records import empty_record, sample_record, search
from test.fakes.site import SHELL, SiteCase

from aifbench.results.export import COLUMNS, metric_rows, metrics_csv, metrics_json
from aifbench.results.record import Metric
from aifbench.results.store import RunStore
from aifbench.session import Session


class Export(unittest.TestCase):
    def test_one_row_per_metric(self) -> None:
        record = sample_record()
        rows = list(csv.DictReader(io.StringIO(metrics_csv(record))))
        self.assertEqual(len(rows), sum(len(each.metrics) for each in record.measurements))
        found = next(row for row in rows if row["stream"] == "search" and row["metric"] == "throughput")
        expected = {
            "run": record.run_id, "service": "chroma", "phase": "search", "role": "measure", "value": "199.8",
            "unit": "ops/s", "low": "198.1", "high": "201.6", "n": "11976", "direction": "higher",
            "verdict": "WARN", "arrivals": "poisson 200/s, seed 7",
        }  # fmt: skip
        self.assertEqual(expected, {key: found[key] for key in expected})
        self.assertTrue(found["vllm"].startswith("request_throughput; differs: "))
        self.assertEqual(found["guidellm"], "requests_per_second.successful.mean")

    def test_unknown_values_are_empty_and_null(self) -> None:
        odd = Metric("ttft_p99", None, "ms", "lower", n=3, note='too "few", 3\nneeds 368')
        record = sample_record(measurements=(replace(search(), metrics=(odd,)),))
        (row,) = csv.DictReader(io.StringIO(metrics_csv(record)))
        self.assertEqual((row["value"], row["low"], row["note"]), ("", "", odd.note))
        (value,) = json.loads(metrics_json(record))
        self.assertIsNone(value["value"])
        self.assertEqual(value["vllm"].split(";")[0], "p99_ttft_ms")

    def test_open_loop_shows_no_names_of_what_counts_from_sending(self) -> None:
        metrics = tuple(Metric(name, 1.0, "ms", "lower") for name in ("ttft_p50", "ttft_send_p50"))
        record = sample_record(measurements=(replace(search(), metrics=metrics),))
        from_schedule, from_send = metric_rows(record)
        self.assertEqual((from_schedule["aiperf"], from_schedule["formula"]), ("", "t1 - intended start"))
        self.assertEqual(
            (from_send["aiperf"], from_send["formula"]), ("time_to_first_token.p50", "t1 - sent")
        )

    def test_a_run_without_measurements_has_a_header(self) -> None:
        self.assertEqual(metrics_csv(empty_record()), ",".join(COLUMNS) + "\n")
        self.assertEqual(json.loads(metrics_json(empty_record())), [])


class Files(SiteCase):
    def test_the_tables_lie_beside_the_report_and_in_the_zip(self) -> None:
        session = Session(self.config, scheduler=self.scheduler(), clock=self.clock, environ=SHELL)
        store = RunStore(self.config.results_dir, self.clock)
        made = sample_record()
        run_id = store.create(made.service, made.recipe).run_id
        store.write(sample_record(run_id=run_id))
        directory = session.report(run_id)[0].parent
        (first, *_) = json.loads((directory / "metrics.json").read_text())
        self.assertEqual(first["run"], run_id)
        self.assertTrue((directory / "metrics.csv").read_text().startswith("run,service,"))
        with zipfile.ZipFile(session.save(run_id)) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        self.assertLessEqual({"report.html", "report.md", "metrics.csv", "metrics.json"}, names)


if __name__ == "__main__":
    unittest.main()
