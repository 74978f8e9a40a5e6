"""What a benchmark tells while it runs: counted right, readable by Prometheus, gone afterwards."""

import contextlib
import io
import json
import socket
import struct
import tempfile
import threading
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from test.fakes.chroma import FakeChroma
from test.fakes.waiting import eventually
from test.test_session import SessionCase

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.load.arrivals import Constant, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import LoadStatus, Silent, StreamStatus
from aifbench.load.recorder import ROW, UNCHECKED, Rows, pack_row
from aifbench.load.workload import NOT_SEEN, OutcomeKind
from aifbench.monitor.bench_export import LOOPBACK, MetricsPage, exported, own_address
from aifbench.monitor.bench_metrics import BenchMetrics, MeasuredProgress, stage_of
from aifbench.monitor.exposition import Family, buckets, number, page
from aifbench.workloads.prometheus_text import Page, Series, parse

MS = 1_000_000


def rows(*each: tuple[int, int, int, OutcomeKind]) -> Rows:
    """Of (intended, sent, finished, outcome), in milliseconds; -1 for what did not happen."""
    packed = [
        pack_row(
            k,
            intended * MS,
            sent * MS if sent >= 0 else NOT_SEEN,
            0,
            finished * MS if finished >= 0 else NOT_SEEN,
            kind,
            0,
            1,
            100,
            1000,
            UNCHECKED,
            UNCHECKED,
            0,
            0,
        )
        for k, (intended, sent, finished, kind) in enumerate(each)
    ]
    return np.frombuffer(b"".join(packed), ROW)


def status(*streams: StreamStatus, **other: Any) -> LoadStatus:
    made = {
        "phase": "search", "elapsed_s": 3.0, "planned_s": 10.0, "operations": 0, "planned_operations": None,
        "rate_per_s": 0.0, "errors": 0, "warmup_s": 2.0, "passed_s": 1.0, "streams": streams,
    }  # fmt: skip
    return LoadStatus(**{**made, **other})


GOOD = rows((0, 0, 4, OutcomeKind.OK), (10, 12, 20, OutcomeKind.OK), (20, 20, 23, OutcomeKind.OK))


class Numbers(unittest.TestCase):
    def setUp(self) -> None:
        self.metrics = BenchMetrics("chroma")

    def page(self) -> Page:
        found = parse(self.metrics.text())
        self.assertEqual(found.bad_lines, 0)
        return found

    def value(self, name: str, **labels: str) -> float | None:
        every = {"service": "chroma", **labels}
        return self.page().values.get(Series(name, tuple(sorted(every.items()))))

    def test_before_anything_happens_there_is_nothing(self) -> None:
        self.assertEqual(self.metrics.text(), "")

    def test_outcomes_are_counted_over_the_whole_run(self) -> None:
        bad = rows((0, 0, 5, OutcomeKind.TIMEOUT), (5, -1, -1, OutcomeKind.UNFINISHED))
        self.metrics.update(status(StreamStatus("search", 3, GOOD)))
        self.metrics.update(status(StreamStatus("search", 2, bad)))
        counts = {
            kind: self.value("bench_requests_total", workload="search", outcome=kind)
            for kind in ("ok", "timeout", "unfinished", "wrong")
        }
        self.assertEqual(counts, {"ok": 3, "timeout": 1, "unfinished": 1, "wrong": None})

    def test_a_load_begins_at_zero_so_that_rates_miss_nothing(self) -> None:
        self.metrics.update(status(StreamStatus("search", 0, GOOD[:0])))
        self.assertEqual(self.value("bench_requests_total", workload="search", outcome="ok"), 0)

    def test_durations_are_those_of_good_operations_from_when_they_were_due(self) -> None:
        failed = rows((0, 0, 9000, OutcomeKind.TIMEOUT))
        self.metrics.update(status(StreamStatus("search", 4, np.concatenate([GOOD, failed]))))
        name = "bench_request_duration_seconds"
        self.assertEqual(self.value(f"{name}_count", workload="search"), 3)
        self.assertAlmostEqual(self.value(f"{name}_sum", workload="search") or 0, 0.017)
        below = {
            bound: self.value(f"{name}_bucket", workload="search", le=bound)
            for bound in ("0.002", "0.003", "0.005", "0.01", "100", "+Inf")
        }
        self.assertEqual(below, {"0.002": 0, "0.003": 1, "0.005": 2, "0.01": 3, "100": 3, "+Inf": 3})

    def test_of_very_many_operations_the_newest_stand_for_all(self) -> None:
        self.metrics.update(status(StreamStatus("search", 300, GOOD)))
        self.assertEqual(self.value("bench_requests_total", workload="search", outcome="ok"), 300)
        self.assertEqual(self.value("bench_request_duration_seconds_count", workload="search"), 300)
        sent = self.value("bench_transferred_bytes_total", workload="search", direction="sent")
        self.assertEqual(sent, 30_000)

    def test_work_under_way_is_the_busy_time_by_the_time_that_passed(self) -> None:
        self.metrics.update(status(StreamStatus("search", 3, GOOD), passed_s=0.015))
        self.assertAlmostEqual(self.value("bench_inflight", workload="search") or 0, 1.0)

    def test_an_open_loop_has_a_plan_and_a_lag_and_a_closed_one_neither(self) -> None:
        self.metrics.update(status(StreamStatus("search", 3, GOOD, 50.0), StreamStatus("ingest", 3, GOOD)))
        self.assertEqual(self.value("bench_offered_rate", workload="search"), 50)
        self.assertAlmostEqual(self.value("bench_schedule_lag_seconds", workload="search") or 0, 0.002)
        self.assertIsNone(self.value("bench_offered_rate", workload="ingest"))
        self.assertIsNone(self.value("bench_schedule_lag_seconds", workload="ingest"))

    def test_what_rests_is_not_under_way_and_keeps_its_sums(self) -> None:
        self.metrics.update(status(StreamStatus("search", 3, GOOD, 50.0)))
        self.metrics.prepare("next")
        self.assertEqual(self.value("bench_inflight", workload="search"), 0)
        self.assertIsNone(self.value("bench_offered_rate", workload="search"))
        self.assertEqual(self.value("bench_requests_total", workload="search", outcome="ok"), 3)

    def test_there_is_one_phase_at_a_time(self) -> None:
        self.metrics.prepare("data")
        self.assertEqual(self.value("bench_phase", phase="data", stage="prepare"), 1)
        self.metrics.update(status())
        phases = [series for series in self.page().values if series.name == "bench_phase"]
        self.assertEqual([series.label("stage") for series in phases], ["measure"])

    def test_stages_follow_the_plan(self) -> None:
        timed = [stage_of(status(elapsed_s=at_s)) for at_s in (0.0, 1.99, 2.0, 9.9, 10.0)]
        self.assertEqual(timed, ["warmup", "warmup", "measure", "measure", "cooldown"])
        self.assertEqual(stage_of(status(planned_s=None)), "work")

    def test_only_one_series_has_the_run(self) -> None:
        self.metrics.begin("run-1", "study", "abc")
        self.metrics.update(status(StreamStatus("search", 3, GOOD)))
        told = {series.name for series in self.page().values if series.label("run")}
        self.assertEqual(told, {"bench_run_info"})
        self.assertEqual(self.value("bench_run_info", run="run-1", experiment="study", commit="abc"), 1)

    def test_names_are_in_base_units(self) -> None:
        self.metrics.begin("run-1", "", "")
        self.metrics.update(status(StreamStatus("search", 3, GOOD, 50.0)))
        names = {line.split()[2] for line in self.metrics.text().splitlines() if line.startswith("# TYPE")}
        self.assertEqual([n for n in names if n.endswith(("_ms", "_percent", "_milliseconds", "_kb"))], [])
        self.assertTrue(all(name.startswith("bench_") for name in names))


class Text(unittest.TestCase):
    def test_labels_survive_whatever_they_hold(self) -> None:
        nasty = 'a"b\\c\nd'
        text = page([Family("m", "gauge", "two\nlines", [("", {"l": nasty}, 1.5)])])
        self.assertEqual(parse(text).values, {Series("m", (("l", nasty),)): 1.5})
        self.assertEqual(len(text.splitlines()), 3)

    def test_numbers_are_exact_and_special_ones_have_their_words(self) -> None:
        shown = [number(value) for value in (3.0, 0.1, 1e300, float("nan"), float("inf"), -float("inf"))]
        self.assertEqual(shown, ["3", "0.1", "1e+300", "NaN", "+Inf", "-Inf"])

    def test_a_histogram_is_cumulative(self) -> None:
        samples = buckets({}, (1.0, 2.0), (1, 0, 4), 9.0)
        self.assertEqual([value for _, _, value in samples], [1, 1, 5, 9.0, 5])

    def test_counts_must_fit_the_bounds(self) -> None:
        with self.assertRaises(ValueError):
            buckets({}, (1.0, 2.0), (1, 0), 9.0)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.updates: list[LoadStatus] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, status: LoadStatus) -> None:
        self.updates.append(status)


class Served(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.targets = self.folder / "targets"
        self.progress = Noting()

    def listed(self) -> list[str]:
        return sorted(path.name for path in self.targets.glob("*"))

    def test_monitors_find_it_for_as_long_as_it_runs(self) -> None:
        with exported(self.progress, service="b", kind="chroma", targets_dir=self.targets) as progress:
            self.assertEqual(self.listed(), [])
            progress.phase("run", "r1")
            self.assertEqual(self.listed(), ["bench-r1.json"])
            (entry,) = json.loads((self.targets / "bench-r1.json").read_text())
            self.assertEqual((entry["labels"]["job"], entry["labels"]["kind"]), ("bench", "chroma"))
            self.assertNotIn("service", entry["labels"])  # it would rename the page's own
            text = get(f"http://{entry['targets'][0]}/metrics")
            self.assertIn('bench_run_info{service="b",run="r1"', text)
        self.assertEqual(self.listed(), [])
        with self.assertRaises(OSError):
            get(f"http://{entry['targets'][0]}/metrics")
        self.assertEqual(self.progress.notes, [])

    def test_it_is_gone_after_a_failure_too(self) -> None:
        with (
            self.assertRaises(KeyboardInterrupt),
            exported(self.progress, service="b", kind="chroma", targets_dir=self.targets) as progress,
        ):
            progress.phase("run", "r1")
            raise KeyboardInterrupt
        self.assertEqual(self.listed(), [])

    def test_without_monitors_whoever_asked_for_a_port_is_told_where(self) -> None:
        with MetricsPage(str) as taken:
            free = taken.port
        with exported(self.progress, service="b", kind="chroma", port=free) as progress:
            progress.update(status(StreamStatus("search", 3, GOOD)))
            self.assertIn("bench_requests_total", get(f"http://127.0.0.1:{free}/metrics"))
        self.assertEqual(self.progress.notes, [f"metrics of this benchmark: http://127.0.0.1:{free}/metrics"])
        self.assertEqual(len(self.progress.updates), 1)

    def test_a_port_that_is_taken_is_refused_before_anything_is_measured(self) -> None:
        with (
            MetricsPage(str) as taken,
            self.assertRaisesRegex(UsageError, f"127.0.0.1:{taken.port}.*in use"),
            exported(self.progress, service="b", kind="chroma", port=taken.port),
        ):
            self.fail("it began")

    def test_targets_that_cannot_be_written_end_no_benchmark(self) -> None:
        self.targets.write_text("a file where the folder should be")
        with exported(self.progress, service="b", kind="chroma", targets_dir=self.targets) as progress:
            progress.phase("run", "r1")
        self.assertEqual(len(self.progress.notes), 1)
        self.assertIn("the monitors will not see this run", self.progress.notes[0])

    def test_an_address_that_cannot_be_had_ends_no_benchmark(self) -> None:
        # An address of the documentation's range: no machine has it.
        with (
            mock.patch("aifbench.monitor.bench_export.own_address", return_value="192.0.2.1"),
            exported(self.progress, service="b", kind="chroma", targets_dir=self.targets) as progress,
        ):
            self.assertIs(progress, self.progress)
        self.assertIn("the monitors will not see this run", self.progress.notes[0])

    def test_other_pages_do_not_exist(self) -> None:
        with MetricsPage(str) as served, self.assertRaisesRegex(urllib.error.HTTPError, "404"):
            get(f"http://{served.authority}/")

    def test_whoever_goes_before_the_answer_shows_nothing_in_the_shell(self) -> None:
        is_gone = threading.Event()
        before = threading.active_count()

        def late() -> str:
            is_gone.wait(30)
            return "x 1\n" * 100_000

        with contextlib.redirect_stderr(io.StringIO()) as shown, MetricsPage(late) as served:
            for request in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET"):
                client = socket.create_connection((LOOPBACK, served.port))
                client.sendall(request)
                eventually(lambda: threading.active_count() > before + 1, "the request is taken")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                is_gone.set()
                eventually(lambda: threading.active_count() == before + 1, "the request is over")
        self.assertEqual(shown.getvalue(), "")

    def test_only_those_who_are_asked_for_can_reach_it(self) -> None:
        self.assertEqual(own_address("127.0.0.1"), LOOPBACK)
        self.assertEqual(own_address("no such host at all"), LOOPBACK)


class FromAFleet(unittest.TestCase):
    def test_every_operation_of_a_real_load_is_counted(self) -> None:
        metrics = BenchMetrics("s")
        stream = StreamPlan("s", "aifbench.load.null:Null", {}, to_json(Constant(1000.0)))
        plan = PhasePlan("p", (stream,), Endpoint(LOOPBACK, 1), measure_s=0.3)
        progress = MeasuredProgress(Silent(), metrics, lambda _: None)
        with tempfile.TemporaryDirectory() as root, Fleet(Path(root), LocalLauncher(), workers=1) as fleet:
            done = len(fleet.run(plan, progress, watch=str).samples(stream))
        series = Series("bench_requests_total", (("outcome", "ok"), ("service", "s"), ("workload", "s")))
        self.assertEqual(parse(metrics.text()).values[series], done)
        self.assertEqual(done, 300)


class InASession(SessionCase):
    def test_a_taken_port_is_refused_and_leaves_no_run(self) -> None:
        self.session.start("chroma", {})
        with FakeChroma() as chroma, MetricsPage(str) as taken:
            self.ready(chroma)
            with self.assertRaisesRegex(UsageError, "cannot serve metrics"):
                self.session.bench("chroma", "search", {"metrics_port": str(taken.port)}, Noting())
        self.assertEqual(list(self.config.results_dir.glob("2*")), [])


if __name__ == "__main__":
    unittest.main()
