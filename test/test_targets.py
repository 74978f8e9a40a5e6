"""Scrape targets: what their files say, and that it is true whatever becomes of jobs and shells."""

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.site import SiteCase, announce

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.targets import BENCH_EXPIRY_S, Target, remove_targets, write_targets
from aifbench.servers.chroma import ChromaServer
from aifbench.servers.monitor_targets import TargetKeeper
from aifbench.servers.vllm import VLLMServer


class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name) / "targets"

    def test_a_file_is_a_list_that_prometheus_reads(self) -> None:
        target = Target("n7:8000", {"job": "vllm"}, scheme="https", path="/x/metrics")
        path = write_targets(self.dir, "service-a", [target])
        labels = {"__scheme__": "https", "__metrics_path__": "/x/metrics", "job": "vllm"}
        self.assertEqual(json.loads(path.read_text()), [{"targets": ["n7:8000"], "labels": labels}])

    def test_nobody_else_can_read_it_and_nothing_else_is_left(self) -> None:
        path = write_targets(self.dir, "service-a", [Target("n7:1")])
        self.assertEqual((self.dir.stat().st_mode & 0o777, path.stat().st_mode & 0o777), (0o700, 0o600))
        self.assertEqual([each.name for each in self.dir.iterdir()], ["service-a.json"])

    def test_it_is_replaced_whole_and_only_when_it_changes(self) -> None:
        path = write_targets(self.dir, "service-a", [Target("n7:1")])
        first = path.stat().st_ino
        write_targets(self.dir, "service-a", [Target("n7:1")])
        self.assertEqual(path.stat().st_ino, first)
        write_targets(self.dir, "service-a", [Target("n7:2")])
        self.assertNotEqual(path.stat().st_ino, first)

    def test_a_damaged_one_is_mended(self) -> None:
        path = write_targets(self.dir, "service-a", [Target("n7:1")])
        whole = path.read_bytes()
        for damaged in (b"", whole[:20], b"\xff\xfe", b"[]"):
            path.write_bytes(damaged)
            write_targets(self.dir, "service-a", [Target("n7:1")])
            self.assertEqual(path.read_bytes(), whole)

    def test_removing_what_is_not_there_is_no_error(self) -> None:
        remove_targets(self.dir, "service-a")


class Keeping(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.targets = self.config.services_dir / "targets"
        self.keeper = TargetKeeper(self.site())

    def sync(self, after_s: float = 20.0) -> dict[str, list[dict[str, Any]]]:
        """The files, by name without ending."""
        self.clock.sleep(after_s)
        self.keeper.sync()
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.targets.glob("*.json"))}

    def vllm(self, *, ports: str = "", port: int = 8000) -> VLLMServer:
        server = VLLMServer.start(self.shell, {"name": f"v{port}", "model": "tiny"})
        self.slurm.start(server.instance.job_id)
        announce(server, Endpoint("10.3.0.7", port))
        if ports:
            text = server.log_path.read_text().replace("AUTH:", f"{ports}AUTH:")
            server.log_path.write_text(text)
        return server

    def test_a_service_is_a_target_once_it_is_announced(self) -> None:
        server = VLLMServer.start(self.shell, {"model": "tiny"})
        self.assertEqual(self.sync(), {})
        self.slurm.start(server.instance.job_id)
        announce(server, Endpoint("10.3.0.7", 8000))
        (entries,) = self.sync(after_s=0).values()
        self.assertEqual(entries[0]["targets"], ["10.3.0.7:8000"])
        labels = {name: word for name, word in entries[0]["labels"].items() if name[0] != "_"}
        job = server.instance.job_id
        expected = {"job": "vllm", "service": "vllm", "kind": "vllm", "job_id": job, "node": "10.3.0.7"}
        self.assertEqual(labels, expected)

    def test_exporters_have_a_file_of_their_own(self) -> None:
        server = self.vllm(ports="PORT node: 9100\nPORT gpu: 9400\n")
        found = self.sync()[f"exporter-{server.instance.job_name}"]
        self.assertEqual([entry["targets"] for entry in found], [["10.3.0.7:9100"], ["10.3.0.7:9400"]])
        self.assertEqual([entry["labels"]["job"] for entry in found], ["node", "gpu"])

    def test_exporters_on_further_nodes_are_told_by_files_of_this_run_only(self) -> None:
        server = self.vllm()
        told = server.directory / "exporters"
        told.mkdir()
        good = {"node": "n8", "host": "10.3.0.8", "restarts": 0, "ports": {"node": 9100}}
        (told / "n8-1.json").write_text(json.dumps(good))
        (told / "n9-2.json").write_text(json.dumps({**good, "restarts": 3}))
        (told / "torn.json").write_text(json.dumps(good)[:30])
        (told / "foreign.json").write_text("[1, 2]")
        (entry,) = self.sync()[f"exporter-{server.instance.job_name}"]
        self.assertEqual((entry["targets"], entry["labels"]["node"]), (["10.3.0.8:9100"], "n8"))

    def test_a_service_that_tells_nothing_is_no_target(self) -> None:
        server = ChromaServer.start(self.shell, {})
        self.slurm.start(server.instance.job_id)
        announce(server, Endpoint("10.3.0.7", 8000))
        self.assertEqual(self.sync(), {})

    def test_a_job_that_was_killed_while_no_shell_looked_is_none_any_more(self) -> None:
        server, other = self.vllm(), self.vllm(port=8001)
        self.assertEqual(len(self.sync()), 2)
        self.slurm.end(server.instance.job_id, "NODE_FAIL")
        self.assertEqual(list(self.sync()), [f"service-{other.instance.job_name}"])

    def test_a_job_that_slurm_forgot_has_ended(self) -> None:
        self.vllm()
        self.assertEqual(len(self.sync()), 1)
        self.slurm.jobs.clear()
        self.assertEqual(self.sync(), {})

    def test_while_slurm_does_not_answer_targets_stay(self) -> None:
        self.vllm()
        self.assertEqual(len(self.sync()), 1)
        self.slurm.controller = "down"
        self.assertEqual(len(self.sync()), 1)

    def test_files_of_nobody_are_removed_and_foreign_ones_stay(self) -> None:
        write_targets(self.targets, "service-aifb-gone-123456", [Target("n1:1")])
        (self.targets / "mine.json").write_text("[]")
        self.assertEqual(list(self.sync()), ["mine"])

    def test_a_benchmark_is_a_target_for_as_long_as_it_touches_its_file(self) -> None:
        path = write_targets(self.targets, "bench-1", [Target("n1:1")])
        for beat in range(4):
            self.assertEqual(len(self.sync(BENCH_EXPIRY_S / 2)), 1, beat)
            path.touch()
        self.sync(BENCH_EXPIRY_S / 2)
        self.assertEqual(self.sync(BENCH_EXPIRY_S + 1), {})

    def test_a_disk_that_takes_nothing_is_told(self) -> None:
        self.vllm()
        with (
            mock.patch("aifbench.servers.monitor_targets.write_targets", side_effect=OSError(28, "full")),
            self.assertRaises(OSError),
        ):
            self.sync()


if __name__ == "__main__":
    unittest.main()
