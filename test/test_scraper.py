"""Sampling a real page beside a load: what is kept, and that nothing a server does can hurt."""

import json
import ssl
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from test import fakes  # noqa: F401 - puts src on the path
from test.fakes.metrics_page import MetricsService

from aifbench.errors import ConfigError, UsageError
from aifbench.workloads.engine_metrics import families, view
from aifbench.workloads.prometheus_text import Series
from aifbench.workloads.scraper import Scraper

PAGE = (Path(__file__).resolve().parent / "data/vllm_metrics_0.32_before.txt").read_text()
SMALL = (
    "vllm:num_requests_running 1\nvllm:generation_tokens_total %d\n"
    "other_total 7\nvllm:e2e_request_latency_seconds_sum NaN\n"
)


class ScraperTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "metrics.jsonl"
        self.service = MetricsService(SMALL % 1)
        self.addCleanup(self.service.close)

    def scraper(self, **options: Any) -> Scraper:
        defaults: dict[str, Any] = {"families": families(), "period_s": 0.01, "timeout_s": 2.0}
        return Scraper(options.pop("url", self.service.url), self.path, **{**defaults, **options})

    def sampled(self, pages: int = 2, **options: Any) -> Scraper:
        with self.scraper(**options) as scraper:
            self.service.wait_for(pages)
        return scraper


class Sampling(ScraperTest):
    def test_the_first_sample_is_there_before_the_load_and_the_last_one_after_it(self) -> None:
        with self.scraper(period_s=60) as scraper:
            self.assertEqual(len(scraper.snapshots), 1)
            before_s = time.time()
            self.service.text = SMALL % 9
        first, last = scraper.snapshots
        self.assertLessEqual(first.wall_s, before_s)
        self.assertGreaterEqual(last.wall_s, before_s)
        tokens = Series("vllm:generation_tokens_total")
        self.assertEqual((first.values()[tokens], last.values()[tokens]), (1, 9))
        self.assertEqual(view(scraper.snapshots, first.wall_s, last.wall_s).output_tokens, 8)
        self.assertEqual(scraper.report.told, "")

    def test_only_finite_values_of_what_was_asked_for_are_kept(self) -> None:
        names = [series.name for series in self.sampled().snapshots[0].series]
        self.assertEqual(names, ["vllm:num_requests_running", "vllm:generation_tokens_total"])

    def test_one_connection_serves_all_samples_and_clocks_go_forward(self) -> None:
        scraper = self.sampled(10)
        self.assertEqual(self.service.connections, 1)
        times = [(snapshot.wall_s, snapshot.perf_s) for snapshot in scraper.snapshots]
        self.assertEqual(times, sorted(times))
        self.assertEqual(scraper.report.samples, len(times))

    def test_the_file_gives_the_samples_back(self) -> None:
        self.service.text = PAGE
        scraper = self.sampled(5)
        first, *rest = self.path.read_text().splitlines()
        self.assertEqual(json.loads(first)["series"], [str(one) for one in scraper.snapshots[0].series])
        rows = [json.loads(line) for line in rest]
        self.assertEqual([row["values"] for row in rows], [list(one.numbers) for one in scraper.snapshots])
        self.assertAlmostEqual(rows[0]["wall_s"], scraper.snapshots[0].wall_s, places=5)
        self.assertLess(max(map(len, rest)), 2000)

    def test_series_that_come_later_are_told_apart(self) -> None:
        with self.scraper() as scraper:
            self.service.text += "vllm:num_preemptions_total 1\n"
            self.service.wait_for(3)
        self.assertEqual([len(one.series) for one in (scraper.snapshots[0], scraper.snapshots[-1])], [2, 3])
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.assertEqual([len(line["series"]) for line in lines if "series" in line], [2, 3])
        self.assertEqual(lines[-1]["values"], list(scraper.snapshots[-1].numbers))

    def test_memory_stays_small_however_long_it_takes(self) -> None:
        with self.scraper(period_s=0.0001, limit=8) as scraper:
            self.service.wait_for(40)
            self.service.text = SMALL % 2
            self.service.wait_for(2)
        kept = scraper.snapshots
        self.assertLess(len(kept), 9)
        self.assertGreater(scraper.report.samples, 30)
        self.assertEqual(kept[-1].values()[Series("vllm:generation_tokens_total")], 2)
        self.assertEqual([one.wall_s for one in kept], sorted(one.wall_s for one in kept))

    def test_the_callers_headers_are_sent_and_never_told(self) -> None:
        self.service.status = 401
        scraper = self.sampled(headers={"Authorization": "Bearer geheim"})
        self.assertEqual(self.service.headers["authorization"], "Bearer geheim")
        self.assertIn("HTTP 401", scraper.report.told)
        self.assertNotIn("geheim", scraper.report.told + self.path.read_text())

    def test_it_costs_little(self) -> None:
        self.service.text = PAGE
        scraper = self.sampled(20)
        self.assertLess(scraper.report.cpu_s / scraper.report.samples, 0.03)
        self.assertGreater(scraper.report.cpu_share, 0)


class BadServers(ScraperTest):
    def fails(self, reason: str, **options: Any) -> Scraper:
        scraper = self.sampled(**options)
        self.assertEqual(scraper.snapshots, [])
        self.assertIn(reason, scraper.report.told)
        return scraper

    def test_what_is_no_page_of_metrics_is_counted(self) -> None:
        html = "<html>\n<body>not here</body>\n</html>\n"
        for text, reason in (
            (html, "no metrics"),
            ("", "the page was cut"),
            (SMALL[:-5], "the page was cut"),
        ):
            self.service.text = text
            self.fails(reason)
        self.service.text, self.service.status = html, 404
        self.assertEqual(set(self.fails("HTTP 404").report.failures), {"HTTP 404"})

    def test_answers_that_are_cut_or_not_http(self) -> None:
        self.service.mode = "cut"
        self.fails("the answer was cut")
        self.service.mode = "garbage"
        self.fails("not an HTTP answer")

    def test_chunked_answers_are_fine(self) -> None:
        self.service.mode = "chunked"
        self.assertEqual(self.sampled(3).report.failures, {})

    def test_a_server_that_does_not_answer_is_left_after_the_timeout(self) -> None:
        for mode in ("hang", "drip"):
            self.service.mode = mode
            begun_s = time.monotonic()
            scraper = self.scraper(timeout_s=0.05)
            with scraper:
                pass
            self.assertLess(time.monotonic() - begun_s, 1)
            self.assertEqual(set(scraper.report.failures), {"no answer in time"}, mode)

    def test_a_server_that_comes_back_is_sampled_again(self) -> None:
        with self.scraper() as scraper:
            self.service.mode = "cut"
            self.service.wait_for(2)
            self.service.mode = "whole"
            self.service.wait_for(3)
        self.assertGreater(len(scraper.snapshots), 1)
        self.assertGreater(scraper.report.failures["the answer was cut"], 0)
        self.assertIn("samples failed: the answer was cut", scraper.report.told)

    def test_no_server_at_all(self) -> None:
        self.service.close()
        with self.scraper() as scraper:
            pass
        self.assertEqual(set(scraper.report.failures), {"connection refused"})
        self.assertEqual(scraper.snapshots, [])

    def test_lines_that_cannot_be_read_are_told(self) -> None:
        self.service.text = "vllm:num_requests_running one\n" + SMALL % 1
        self.assertIn("could not be read", self.sampled().report.told)

    def test_a_full_disk_costs_the_file_only(self) -> None:
        self.path.mkdir()
        scraper = self.sampled()
        self.assertGreater(len(scraper.snapshots), 1)
        self.assertIn("cannot write the samples", scraper.report.told)

    def test_addresses_that_are_none_are_refused_at_once(self) -> None:
        for url in (
            "",
            "host:8000/metrics",
            "ftp://host/metrics",
            "http:///metrics",
            "http://host:many/metrics",
        ):
            with self.assertRaises(UsageError, msg=url):
                self.scraper(url=url)


class Tls(ScraperTest):
    """The certificate is made here; a site's own CA is a file like it."""

    def setUp(self) -> None:
        super().setUp()
        self.certificate, key = _certificate(self.path.parent)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.service = MetricsService(SMALL % 1, tls=context)
        self.addCleanup(self.service.close)

    def test_a_private_ca_is_trusted_when_given(self) -> None:
        scraper = self.sampled(ca_file=self.certificate)
        self.assertEqual(scraper.report.failures, {})
        self.assertTrue(scraper.snapshots)

    def test_and_not_otherwise(self) -> None:
        with self.scraper() as scraper:
            pass
        self.assertEqual(scraper.snapshots, [])
        self.assertIn("certificate", scraper.report.told)

    def test_a_ca_file_that_is_none_is_refused_at_once(self) -> None:
        self.path.write_text("no certificate")
        for path in (self.path, self.path.with_name("missing.pem")):
            with self.assertRaises(ConfigError):
                self.scraper(ca_file=path)


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    names = ["-subj", "/CN=aifbench test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


if __name__ == "__main__":
    unittest.main()
