"""Monitors with the real Prometheus and node exporter: what they see, how soon, and on bad days."""

import gzip
import json
import os
import signal
import subprocess
import time
import unittest
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test.integration.dev_slurm import bring_up, wait_until
from test.integration.story import SMALL, Story

from aifbench.cluster.announce import Announcement, read_announcement
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.targets import Target, write_targets
from aifbench.servers.monitors_log import read_parts
from aifbench.workloads.monitors_control import MonitorsControl

VISIBLE_WITHIN_S = 10.0


class MonitorsStory(Story):
    def start_monitors(self) -> MonitorsControl:
        output = self.type("start monitors", "check monitors --wait 60s")
        self.assertIn("prometheus ready, grafana missing (no image grafana.sif", " ".join(output.split()))
        return MonitorsControl(self.endpoint(self.job("monitors")))

    def job(self, kind: str) -> dict[str, Any]:
        return [job for job in self.jobs() if job["kind"] == kind][-1]

    def directory(self, job: dict[str, Any]) -> Path:
        return self.results / "services" / str(job["job_name"])

    def log(self, job: dict[str, Any]) -> Path:
        return self.directory(job) / f"job-{job['job_id']}.log"

    def announced(self, job: dict[str, Any]) -> Announcement:
        found = read_announcement(self.log(job), job["job_id"])
        assert found is not None, self.log(job).read_text()
        return found

    def endpoint(self, job: dict[str, Any]) -> Endpoint:
        announced = self.announced(job)
        return Endpoint(announced.host, announced.port, secret_file=self.directory(job) / "secret")

    def is_up(self, control: MonitorsControl, selector: str) -> bool:
        return [series.samples[-1][1] for series in control.query(f"up{selector}")] == ["1"]

    def seconds_until(self, condition: Callable[[], bool], what: str) -> float:
        started_s = time.monotonic()
        wait_until(condition, what, timeout_s=30)
        return time.monotonic() - started_s

    def service_becomes_visible(self, control: MonitorsControl) -> None:
        """From the announcement in the log to the first good scrape."""
        program = self.start_program("start chroma", "quit")
        program.communicate(timeout=60)
        job = self.job("chroma")
        wait_until(
            lambda: read_announcement(self.log(job), job["job_id"]) is not None, "it announces", timeout_s=60
        )
        took_s = self.seconds_until(
            lambda: self.is_up(control, '{job="node",service="chroma"}'), "prometheus sees it"
        )
        print(f"visible in Prometheus {took_s:.1f} s after its address was announced")  # noqa: T201
        self.assertLess(took_s, VISIBLE_WITHIN_S)


class WithoutSlurm(MonitorsStory):
    def test_a_service_is_seen_benchmarked_kept_and_forgotten(self) -> None:
        control = self.start_monitors()
        self.service_becomes_visible(control)
        self.type("check chroma --wait 60s", f"bench chroma search {SMALL}", check=False)
        self.assertEqual(self.record()["state"], "COMPLETE")
        self.type("save last")
        self.snapshot_can_be_read_again()
        self.type("stop chroma")
        self.seconds_until(lambda: not control.query('up{service="chroma"}'), "it is a target no more")
        self.type("stop all")
        targets = [path.name for path in (self.results / "services/targets").glob("*.json")]
        self.assertEqual([name for name in targets if not name.startswith("exporter-web")], [])

    def snapshot_can_be_read_again(self) -> None:
        """By the real promtool, into a data base of its own."""
        (archive,) = self.results.glob("*.zip")
        with zipfile.ZipFile(archive) as stored:
            (name,) = [name for name in stored.namelist() if name.endswith(".om.gz")]
            text = gzip.decompress(stored.read(name))
        self.assertIn(b"node_cpu_seconds_total{", text)
        (self.results / "metrics.om").write_bytes(text)
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "metrics.om", "blocks"]
        done = subprocess.run(command, cwd=self.results, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        samples = sum(
            json.loads(path.read_text())["stats"]["numSamples"]
            for path in self.results.glob("blocks/*/meta.json")
        )
        self.assertEqual(samples, text.count(b"\n") - 1)
        print(f"snapshot: {samples:,} samples in {len(gzip.compress(text)):,} bytes")  # noqa: T201

    def test_damaged_targets_do_no_harm(self) -> None:
        control = self.start_monitors()
        directory = self.results / "services/targets"
        address = control._endpoint.authority
        path = write_targets(directory, "bench-x", [Target(address, {"job": "bench"})])
        self.seconds_until(lambda: len(control.query('up{job="bench"}')) == 1, "it is a target")
        for damaged in (path.read_bytes()[:30], b"", b"\xff\xfe", b'{"targets": 1}'):
            path.write_bytes(damaged)
            time.sleep(6)  # longer than its refresh interval
            self.assertEqual(len(control.query('up{job="bench"}')), 1, damaged)

    def test_prometheus_killed_comes_back_with_what_it_knew(self) -> None:
        control = self.start_monitors()
        self.seconds_until(lambda: self.is_up(control, '{job="prometheus"}'), "it has data")
        (pid,) = self.pids("--storage.tsdb.path=" + str(self.results))
        before_s = time.time()
        os.kill(pid, signal.SIGKILL)
        took_s = self.seconds_until(lambda: not control.ready(), "it is ready again")
        print(f"Prometheus was back {took_s:.1f} s after it was killed")  # noqa: T201
        self.assertTrue(control.query('up{job="prometheus"}', before_s))

    def test_an_edited_configuration_is_taken_only_when_it_is_right(self) -> None:
        control = self.start_monitors()
        job = self.job("monitors")
        path = self.directory(job) / "config/prometheus.yml"
        good = path.read_text()
        path.write_text("scrape_configs: [what]")
        self.seconds_until(lambda: "the changed one is refused" in self.log(job).read_text(), "it is refused")
        self.assertEqual(control.ready(), "")
        path.write_text(good.replace('"prometheus"', '"itself"'))
        self.seconds_until(lambda: self.is_up(control, '{job="itself"}'), "the new one is taken")

    def pids(self, words: str) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if words.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found


class OnTheCluster(MonitorsStory):
    scheduler = "slurm"

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def test_a_service_is_seen_and_a_killed_one_forgotten(self) -> None:
        control = self.start_monitors()
        self.assertNotEqual(control._endpoint.host, "127.0.0.1")
        self.service_becomes_visible(control)
        self.assertNotIn("prometheus", read_parts(self.log(self.job("monitors")).read_text().splitlines()))
        # Without a shell that might tell.
        subprocess.run(["scancel", "--signal=KILL", "--full", self.job("chroma")["job_id"]], check=True)
        took_s = self.seconds_until(lambda: not control.query('up{service="chroma"}'), "it is forgotten")
        print(f"a killed job was no target any more after {took_s:.1f} s")  # noqa: T201


if __name__ == "__main__":
    unittest.main()
