"""The dashboards: as their generator makes them, sound, honest without data, of metrics that exist."""

import copy
import json
import re
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.load.progress import LoadStatus, StreamStatus
from aifbench.load.recorder import ROW
from aifbench.monitor.bench_metrics import BenchMetrics
from aifbench.monitor.dashboards import DASHBOARDS, FOLDER, file_text, write
from aifbench.monitor.dashboards_check import problems
from aifbench.monitor.dashboards_json import grafana_json
from aifbench.monitor.dashboards_model import Dashboard, Needs, Query
from aifbench.monitor.promql import filled, metric_names, variables

DATA = Path(__file__).resolve().parent / "data"
# The default counters of NVIDIA's dcgm-exporter, etc/default-counters.csv.
DCGM = {
    "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE",
}  # fmt: skip
# Of an adapter that is not here; node_exporter's collector/infiniband_linux.go.
INFINIBAND = {
    "node_infiniband_port_data_received_bytes_total", "node_infiniband_port_data_transmitted_bytes_total"
}  # fmt: skip


def published(text: str) -> set[str]:
    """All series names that pages with these `# TYPE` lines have."""
    names = set()
    for name, kind in re.findall(
        r"^(?:# TYPE )?(\S+) (counter|gauge|histogram|summary|untyped)$", text, re.M
    ):
        names |= (
            {name + suffix for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
        )
    return names


def bench_names() -> set[str]:
    metrics = BenchMetrics("s")
    metrics.begin("r", "", "")
    row = np.zeros(1, ROW)
    stream = StreamStatus("s", 1, row, 1.0)
    metrics.update(LoadStatus("p", 0.0, None, 0, None, 0.0, 0, passed_s=1.0, streams=(stream,)))
    return published(metrics.text())


def queries() -> Iterator[tuple[str, Query]]:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                yield f"{dashboard.name}: {panel.title}", query


class Files(unittest.TestCase):
    def test_they_are_what_the_generator_makes(self) -> None:
        stored = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
        made = {f"{dashboard.name}.json": file_text(dashboard) for dashboard in DASHBOARDS}
        self.assertEqual(stored.keys(), made.keys())
        stale = [name for name in made if stored[name] != made[name]]
        self.assertEqual(stale, [], "write them anew: python -m aifbench.monitor.dashboards")

    def test_the_generator_writes_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            names = {path.name for path in Path(folder).iterdir()}
        self.assertEqual(names, {path.name for path in FOLDER.glob("*.json")})


class Sound(unittest.TestCase):
    def test_all_are(self) -> None:
        for dashboard in DASHBOARDS:
            self.assertEqual(problems(grafana_json(dashboard)), [], dashboard.name)

    def test_each_has_an_address_of_its_own(self) -> None:
        self.assertEqual(len({dashboard.uid for dashboard in DASHBOARDS}), len(DASHBOARDS))

    def test_every_panel_names_its_metrics(self) -> None:
        for dashboard in DASHBOARDS:
            described = {panel["id"]: panel for panel in grafana_json(dashboard)["panels"]}
            for panel in described.values():
                for target in panel.get("targets", []):
                    if target["datasource"]["type"] == "prometheus":
                        for name in metric_names(target["expr"]):
                            self.assertIn(name, panel["description"], dashboard.name)

    def test_missing_data_is_never_shown_as_zero(self) -> None:
        for dashboard in DASHBOARDS:
            for panel in grafana_json(dashboard)["panels"]:
                if panel["type"] != "row":
                    self.assertEqual(panel["fieldConfig"]["defaults"]["noValue"], "no data")
                for target in panel.get("targets", []):
                    self.assertNotIn("vector(0)", target["expr"])

    def test_phases_are_marked_without_a_right_to_write(self) -> None:
        for dashboard in DASHBOARDS:
            marks = grafana_json(dashboard)["annotations"]["list"]
            self.assertEqual([mark["expr"].split("{")[0] for mark in marks], ["bench_phase"] * len(marks))
            self.assertEqual(len(marks), int(dashboard.has_phases))

    def test_all_queries_of_prometheus_ask_for_the_chosen_service(self) -> None:
        free = [name for name, query in queries() if "$service" not in query.expr]
        self.assertEqual(free, ["campaign: Services and exporters", "campaign: Not answering"])


class Existing(unittest.TestCase):
    def test_every_metric_is_one_that_somebody_publishes(self) -> None:
        vllm = published((DATA / "vllm_metrics_0.32_full_after.txt").read_text())
        nodes = published((DATA / "node_exporter_1.5_types.txt").read_text())
        known = bench_names() | vllm | nodes | DCGM | INFINIBAND | {"up"}
        for place, query in queries():
            if query.needs is not Needs.LOKI:
                names = metric_names(query.expr)
                self.assertTrue(names, place)
                self.assertLessEqual(set(names), known, place)

    def test_a_query_needs_what_its_metric_comes_from(self) -> None:
        sources = (
            ("vllm:", {Needs.VLLM}),
            ("bench_", {Needs.BENCH, Needs.OPEN_LOOP}),
            ("node_infiniband", {Needs.INFINIBAND}),
            ("node_", {Needs.NODES}),
            ("DCGM_", {Needs.GPU}),
        )
        for place, query in queries():
            for name in metric_names(query.expr) if query.needs is not Needs.LOKI else ():
                needs = next((needs for start, needs in sources if name.startswith(start)), set(Needs))
                self.assertIn(query.needs, needs, place)


class Validator(unittest.TestCase):
    """Each of these breaks a sound dashboard in one way."""

    def setUp(self) -> None:
        self.good: dict[str, Any] = copy.deepcopy(json.loads(file_text(DASHBOARDS[0])))
        self.panel = next(panel for panel in self.good["panels"] if panel["type"] == "timeseries")

    def refused(self, words: str) -> None:
        self.assertTrue([p for p in problems(self.good) if words in p], problems(self.good))

    def test_the_whole(self) -> None:
        del self.good["uid"]
        self.refused("uid: no str")

    def test_uid(self) -> None:
        self.good["uid"] = "with blanks"
        self.refused("uid 'with blanks'")

    def test_old_schema(self) -> None:
        self.good["schemaVersion"] = 16
        self.refused("schemaVersion 16")

    def test_equal_ids(self) -> None:
        self.panel["id"] = self.good["panels"][0]["id"]
        self.refused("that of 2 panels")

    def test_overlap(self) -> None:
        self.panel["gridPos"]["x"] += 1
        self.refused("overlap")

    def test_outside(self) -> None:
        self.panel["gridPos"]["x"] = 20
        self.refused("outside of the 24 columns")

    def test_unknown_variable(self) -> None:
        self.panel["targets"][0]["expr"] = 'up{job="$nobody"}'
        self.refused("$nobody is used and not defined")

    def test_idle_variable(self) -> None:
        self.good["templating"]["list"].append({"name": "idle"})
        self.refused("$idle is defined and not used")

    def test_fixed_data_source(self) -> None:
        self.panel["datasource"]["uid"] = "abc"
        self.refused("'abc' is no variable")

    def test_missing_parts_of_a_panel(self) -> None:
        for key, words in (("unit", "no unit"), ("noValue", "nothing is shown")):
            del self.panel["fieldConfig"]["defaults"][key]
            self.refused(words)
        self.panel["targets"], self.panel["description"] = [], ""
        self.refused("no query")
        self.refused("no description")

    def test_brackets(self) -> None:
        for expr in ("sum(rate(x[1m])", 'x{a="b}', "x[1m)]"):
            self.panel["targets"][0]["expr"] = expr
            self.refused("do not match")

    def test_no_crosshair_and_no_links(self) -> None:
        self.good["graphTooltip"], self.good["links"] = 0, []
        self.refused("crosshair")
        self.refused("no link")


class PromQL(unittest.TestCase):
    def test_names(self) -> None:
        cases = {
            'sum by (le, service) (rate(a_bucket{x="b",service=~"$service"}[5m]))': ["a_bucket"],
            "1 - (a or 0 * b) / (c > 0)": ["a", "b", "c"],
            "vllm:x{} / on (service) group_left (run) y": ["vllm:x", "y"],
            'up{job="(not_me"}': ["up"],
        }
        for expr, names in cases.items():
            self.assertEqual(metric_names(expr), names)

    def test_variables_are_filled_in_or_missed(self) -> None:
        self.assertEqual(variables("$a ${b} {{c}}"), {"a", "b"})
        self.assertEqual(filled("x[$r] ${s}", {"r": "1m", "s": "y"}), "x[1m] y")
        with self.assertRaises(KeyError):
            filled("$missing", {})


class Readme(unittest.TestCase):
    def test_it_lists_every_dashboard(self) -> None:
        text = (FOLDER / "README.md").read_text(encoding="utf-8")
        for dashboard in DASHBOARDS:
            assert isinstance(dashboard, Dashboard)
            self.assertIn(f"`{dashboard.name}.json`", text)


if __name__ == "__main__":
    unittest.main()
