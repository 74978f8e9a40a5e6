"""MonitorServer and its batch script, with stand-ins for the programs; its configuration files as values."""

import configparser
import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.programs import install
from test.fakes.shell import ShellCase
from test.fakes.site import SiteCase, announce
from test.fakes.waiting import eventually
from test.test_batch_scripts import PROJECT, ServiceCase

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.targets import Target, write_targets
from aifbench.errors import UsageError
from aifbench.monitor import collector_config, grafana_config, loki_config, web_auth
from aifbench.monitor.configure import config_files
from aifbench.monitor.tailed_log import PIECE_BYTES, PIECE_LINES
from aifbench.servers.chroma import ChromaServer
from aifbench.servers.monitors import MonitorServer
from aifbench.servers.monitors_log import read_log, read_parts
from aifbench.servers.run import resolve_bench
from aifbench.workloads.monitors_control import MonitorsControl

ALL_PORTS = {"prometheus": 1001, "grafana": 1002, "loki": 1003, "loki-grpc": 1004, "otlp": 1005}


def status_without_password(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class Configuration(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.secret = self.dir / "secret"
        self.secret.write_text("hidden\n")

    def files(self, **ports: int) -> dict[str, str]:
        found = config_files(
            self.dir, self.dir / "data", self.dir / "targets", self.secret, self.dir / "d", "10.3.0.7", ports
        )
        return {str(path): text for path, text in found.items()}

    def everything(self) -> dict[str, str]:
        return self.files(**ALL_PORTS)

    def test_every_target_is_found_by_its_file_and_looked_for_every_five_seconds(self) -> None:
        config = json.loads(self.everything()["prometheus.yml"])
        found = {job["job_name"]: job for job in config["scrape_configs"]}
        for name in ("service", "exporter", "bench"):
            (files,) = found[name]["file_sd_configs"]
            expected = {"files": [f"{self.dir}/targets/{name}-*.json"], "refresh_interval": "5s"}
            self.assertEqual(files, expected)
        self.assertEqual(config["global"]["scrape_interval"], "5s")
        self.assertEqual(found["bench"]["scrape_interval"], "1s")

    def test_no_file_but_the_collectors_own_has_the_secret(self) -> None:
        holding = {name for name, text in self.everything().items() if "hidden" in text}
        self.assertEqual(holding, {"otlp-token"})

    def test_what_asks_for_no_password_listens_on_the_loopback(self) -> None:
        config = loki_config.loki_config(1, 2, self.dir)
        addresses = {value for key, value in config["server"].items() if key.endswith("_address")}
        self.assertEqual(addresses | {config["common"]["instance_addr"]}, {"127.0.0.1"})
        otlp = json.loads(self.everything()["otel-collector.yml"])["receivers"]["otlp"]["protocols"]
        self.assertEqual(otlp["http"]["auth"], {"authenticator": "bearertokenauth"})
        self.assertEqual(list(otlp), ["http"])

    def test_loki_takes_every_request_that_the_shipper_may_make(self) -> None:
        server = loki_config.loki_config(1, 2, self.dir)["server"]
        # Three pieces, in which each byte may become three, and what surrounds each line.
        largest = 3 * (3 * PIECE_BYTES + 24 * PIECE_LINES)
        self.assertGreater(server["grpc_server_max_recv_msg_size"], largest)

    def test_grafana_lets_nobody_in_without_a_password_and_asks_the_internet_for_nothing(self) -> None:
        ini = configparser.RawConfigParser()
        ini.read_string(self.everything()["grafana.ini"])
        self.assertFalse(ini.getboolean("auth.anonymous", "enabled"))
        self.assertFalse(ini.getboolean("users", "allow_sign_up"))
        self.assertFalse(ini.getboolean("analytics", "reporting_enabled"))
        self.assertEqual(ini["security"]["admin_password"], f"$__file{{{self.secret}}}")
        self.assertEqual(ini["server"]["http_addr"], "10.3.0.7")

    def test_data_sources_and_dashboards_are_provisioned(self) -> None:
        files = self.everything()
        sources = json.loads(files["grafana/datasources/aifbench.yaml"])["datasources"]
        found = {source["uid"]: source["url"] for source in sources}
        self.assertEqual(found, {"prometheus": "http://10.3.0.7:1001", "loki": "http://127.0.0.1:1003"})
        (provider,) = json.loads(files["grafana/dashboards/aifbench.yaml"])["providers"]
        self.assertEqual(provider["options"]["path"], str(self.dir / "d"))

    def test_each_part_does_without_the_others(self) -> None:
        self.assertEqual(list(self.files(prometheus=1)), ["prometheus.yml"])
        alone = self.files(grafana=2)
        self.assertEqual(json.loads(alone["grafana/datasources/aifbench.yaml"])["datasources"], [])
        pipelines = json.loads(self.files(otlp=3)["otel-collector.yml"])["service"]["pipelines"]
        self.assertEqual(list(pipelines), ["traces"])

    def test_every_component_of_the_collector_is_defined_and_used(self) -> None:
        config = collector_config.collector_config(
            "h:1", self.secret, self.dir / "t", prometheus="h:2", loki="h:3"
        )
        pipelines = config["service"]["pipelines"].values()
        for kind in ("receivers", "processors", "exporters"):
            self.assertEqual({name for each in pipelines for name in each[kind]}, set(config[kind]), kind)
        asked = {each["auth"]["authenticator"] for each in config["exporters"].values() if "auth" in each}
        self.assertLessEqual(asked, set(config["service"]["extensions"]))
        self.assertEqual(config["service"]["extensions"], list(config["extensions"]))

    def test_an_ipv6_address_is_bracketed(self) -> None:
        found = config_files(
            self.dir, self.dir, self.dir, self.secret, self.dir, "fe80::1", {"prometheus": 1, "grafana": 2}
        )
        (source,) = json.loads(found[Path("grafana/datasources/aifbench.yaml")])["datasources"]
        self.assertEqual(source["url"], "http://[fe80::1]:1")
        self.assertEqual(source["uid"], grafana_config.PROMETHEUS_UID)


class Passwords(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.secret, self.web = Path(folder.name) / "new/secret", Path(folder.name) / "new/web.yml"

    def test_both_files_are_made_once_for_their_owner_alone(self) -> None:
        web_auth.ensure(self.secret, self.web)
        before = self.secret.read_text(), self.web.read_text()
        web_auth.ensure(self.secret, self.web)
        self.assertEqual((self.secret.read_text(), self.web.read_text()), before)
        for path in (self.secret, self.web):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertNotIn(self.secret.read_text().strip(), self.web.read_text())
        self.assertEqual(sorted(path.name for path in self.secret.parent.iterdir()), ["secret", "web.yml"])

    def test_the_hash_is_of_the_secret(self) -> None:
        import bcrypt

        hashed = web_auth.bcrypt_hash("word").encode()
        self.assertTrue(bcrypt.checkpw(b"word", hashed))
        self.assertFalse(bcrypt.checkpw(b"other", hashed))

    def test_htpasswd_will_do_and_neither_is_said(self) -> None:
        program = Path(self.secret.parents[1]) / "htpasswd"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nassert sys.stdin.read() == 'word'\nprint('u:$2y$04$xyz')\n"
        )
        program.chmod(0o755)
        code = (
            "import sys; sys.modules['bcrypt'] = None\n"
            "from aifbench.monitor.web_auth import bcrypt_hash; print(bcrypt_hash('word'))"
        )
        environ = {"PYTHONPATH": str(PROJECT / "src"), "PATH": str(program.parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("$2y$04$xyz\n", ""))
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environ, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertIn("neither the Python package bcrypt nor htpasswd", done.stderr)


class Log(unittest.TestCase):
    def test_parts_that_do_not_run_say_why(self) -> None:
        lines = [
            "aifbench: part loki missing: no image",
            "part x missing: y",
            "aifbench: part a failed: it ended",
        ]
        self.assertEqual(read_parts(lines), {"loki": "missing: no image", "a": "failed: it ended"})

    def test_the_cause_of_an_end(self) -> None:
        error = 'ts=1 caller=main.go level=error msg="Opening storage failed" err="disk \\"a\\" is full"'
        for lines, cause in (
            (
                ["aifbench: prometheus refuses its configuration: FAILED: x"],
                "refuses its configuration: FAILED: x",
            ),
            ([error, "aifbench: prometheus ended at once"], 'ended at once: disk \\"a\\" is full'),
            (["aifbench: prometheus ended 5 times"], "prometheus ended 5 times"),
            (["aifbench: port 9090 is taken; choose another"], "port 9090 is taken"),
            (["aifbench: nothing to monitor with: pull"], "nothing to monitor with"),
        ):
            self.assertTrue(read_log(lines).cause.endswith(cause), (lines, read_log(lines)))
        self.assertEqual(read_log(["anything"]).cause, "")


class Asked(unittest.TestCase):
    def test_series_without_a_number_are_left_out(self) -> None:
        at_and_value = [1.5, "2"]
        result = [
            {"metric": {"a": "native"}, "histogram": [1.5, {"count": "3", "sum": "4"}]},
            {"metric": {"a": "natives"}, "histograms": []},
            {"metric": {"a": "plain"}, "value": at_and_value},
            {"metric": {"a": "range"}, "values": [at_and_value]},
        ]
        answer = json.dumps({"status": "success", "data": {"result": result}}).encode()
        control = MonitorsControl(Endpoint("127.0.0.1", 1))
        with mock.patch.object(control, "_ask", return_value=(200, answer)):
            found = [(series.labels["a"], series.samples) for series in control.query("x")]
        self.assertEqual(found, [("plain", [(1.5, "2")]), ("range", [(1.5, "2")])])


class InTheFrame(SiteCase):
    def test_services_that_start_while_monitors_run_have_exporters(self) -> None:
        def wants(**options: Any) -> bool:
            return "AIFBENCH_EXPORTERS" in ChromaServer.plan(self.shell, options).spec.environment

        self.assertEqual((wants(), wants(exporters="yes")), (False, True))
        monitors = MonitorServer.start(self.shell, {"retention": "1h"})
        self.assertEqual((wants(), wants(exporters="no")), (True, False))
        self.slurm.end(monitors.instance.job_id)
        monitors.status(max_age_s=0)
        self.assertFalse(wants())

    def test_retention_is_prometheuss(self) -> None:
        planned = MonitorServer.plan(self.shell, {"retention": "90m"})
        self.assertEqual(planned.spec.environment["AIFBENCH_RETENTION"], "5400s")
        self.assertEqual(planned.instance.options["retention"], 5400)

    def test_they_have_no_benchmark_and_say_so(self) -> None:
        with self.assertRaisesRegex(UsageError, "monitors has no benchmark"):
            resolve_bench(MonitorServer, "all", {})

    def test_what_nobody_answers_is_not_ready_and_named(self) -> None:
        server = MonitorServer.start(self.shell, {})
        self.slurm.start(server.instance.job_id)
        server.log_path.write_text("aifbench: part loki missing: no image loki.sif\n")
        announce(server, Endpoint("127.0.0.1", 1))
        status = server.status(max_age_s=0)
        self.assertEqual(status.stage.value, "STARTING")
        self.assertIn("prometheus starting (127.0.0.1:1 does not answer", status.detail)
        self.assertIn("loki missing (no image loki.sif)", status.detail)


class InTheShell(ShellCase):
    def test_bench_monitors_says_what_they_are_for(self) -> None:
        names = mock.patch.object(
            self.session, "bench_names", lambda kind: () if kind == "postgres" else ("all",)
        )
        with names:
            self.assert_fails("bench postgres", 2, "postgres has no benchmark")
            self.assert_fails("help bench postgres", 2, "postgres has no benchmark")
            self.assertNotIn("postgres:", self.run_line("help bench")[0])


class Script(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.bin = self.dir / "bin"
        self.environment |= {"PATH": f"{self.bin}:/usr/bin:/bin", "AIFBENCH_PYTHON": sys.executable}
        self.environment["AIFBENCH_JOB_DIR"] = str(self.dir / "services/job")
        self.targets = self.dir / "services/targets"

    def install(self, *names: str) -> None:
        for name in names:
            install("prometheus", name, self.bin)

    def monitors(self, **environment: str) -> str:
        self.install("prometheus", "promtool")
        return self.start("start_monitors.sh", **environment)

    def endpoint(self, job_id: str) -> Endpoint:
        announced = self.announced(job_id)
        secret = self.dir / "services/job/secret"
        return Endpoint(announced.host, announced.port, ports=announced.ports, secret_file=secret)

    def test_from_start_to_end_with_prometheus_alone(self) -> None:
        job = self.monitors()
        endpoint = self.endpoint(job)
        self.assertEqual(MonitorsControl(endpoint).ready(), "")
        self.assertEqual(self.announced(job).version, "prometheus 9.8.7")
        self.assertEqual(set(read_parts(self.log(job).splitlines())), {"grafana", "loki", "otel-collector"})
        self.assertEqual(status_without_password(f"{endpoint.url}/-/ready"), 401)
        self.only_its_owner_can_read_what_it_wrote()
        self.secret_is_on_no_command_line(job)
        write_targets(self.targets, "bench-x", [Target("n1:1", {"job": "bench"})])
        (series,) = MonitorsControl(endpoint).query("up")
        self.assertEqual(series.labels["job"], "bench")
        self.it_is_started_again_when_killed(job, endpoint)
        self.assertTrue(self.pids(str(self.dir / "services")))
        self.scheduler.cancel([job])
        self.final(job)
        self.assertEqual(self.pids(str(self.dir / "services")), [])

    def only_its_owner_can_read_what_it_wrote(self) -> None:
        written = [self.targets, *self.targets.iterdir(), *(self.dir / "services/job/config").rglob("*")]
        self.assertGreater(len(written), 4)
        for path in written:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def secret_is_on_no_command_line(self, job: str) -> None:
        secret = (self.dir / "services/job/secret").read_text().strip()
        self.assertEqual(self.pids(secret), [])
        self.assertNotIn(secret, self.log(job))

    def it_is_started_again_when_killed(self, job: str, endpoint: Endpoint) -> None:
        (pid,) = self.pids(f"--storage.tsdb.path={self.dir}")
        os.kill(pid, 9)
        eventually(
            lambda: "part prometheus ended and is started again" in self.log(job), "it is started again"
        )
        eventually(lambda: not MonitorsControl(endpoint).ready(), "it answers at the same address")

    def pids(self, words: str) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if words.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def test_all_parts_together_are_announced_and_logs_are_shipped(self) -> None:
        for name in ("loki", "grafana", "otelcol-contrib"):
            install("monitor_parts", name, self.bin)
        service = {"job_id": "7", "name": "c", "kind": "chroma", "seen_end": ""}
        (self.dir / "services/c").mkdir(parents=True)
        (self.dir / "services/c/service.json").write_text(json.dumps(service))
        (self.dir / "services/c/job-7.log").write_text("one line\n")
        job = self.monitors()
        endpoint = self.endpoint(job)
        self.assertEqual(set(endpoint.ports), {"grafana", "loki", "otlp"})
        self.assertEqual(read_parts(self.log(job).splitlines()), {})
        self.assertTrue(self.pids("--web.enable-remote-write-receiver"))
        control = MonitorsControl(endpoint)
        for part in ("grafana", "otlp"):
            self.assertEqual(control.answers(endpoint.ports[part], "/"), "", part)
        pushes = self.dir / "services/job/config/pushes"
        eventually(lambda: pushes.exists() and "one line" in pushes.read_text(), "its log is shipped")

    def test_another_program_called_loki_is_not_taken_for_it(self) -> None:
        self.bin.mkdir(exist_ok=True)
        (self.bin / "loki").write_text("#!/bin/sh\necho 'Loki 2.4.7: linkage analysis'\n")
        (self.bin / "loki").chmod(0o755)
        job = self.monitors()
        self.announced(job)
        self.assertIn("another one", read_parts(self.log(job).splitlines())["loki"])

    def test_a_refused_configuration_fails_the_job_before_it_starts(self) -> None:
        self.install("prometheus")
        (self.bin / "promtool").write_text(
            "#!/bin/sh\necho Checking it\necho '  FAILED: no such thing'\nexit 1\n"
        )
        (self.bin / "promtool").chmod(0o755)
        log = self.failed(self.start("start_monitors.sh"))
        self.assertIn("no such thing", read_log(log.splitlines()).cause)

    def test_a_prometheus_that_ends_at_once_fails_the_job(self) -> None:
        self.install("promtool")
        (self.bin / "prometheus").write_text(
            "#!/bin/sh\n[ $1 != --version ] || exit 0\necho 'level=error err=\"no space\"' >&2\nexit 1\n"
        )
        (self.bin / "prometheus").chmod(0o755)
        log = self.failed(self.start("start_monitors.sh"))
        self.assertEqual(read_log(log.splitlines()).cause, "prometheus ended at once: no space")

    def test_with_nothing_there_it_says_how_to_get_it(self) -> None:
        self.environment["PATH"] = self.without_prometheus()
        log = self.failed(self.start("start_monitors.sh"))
        self.assertIn("pull_images.sh", read_log(log.splitlines()).advice)

    def without_prometheus(self) -> str:
        """The system's programs but those that are monitors."""
        self.bin.mkdir(exist_ok=True)
        for program in (*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()):
            link = self.bin / program.name
            if program.name not in ("prometheus", "promtool") and not link.is_symlink():
                link.symlink_to(program)
        return str(self.bin)

    def test_an_image_runs_in_a_container_that_sees_targets_and_dashboards(self) -> None:
        image = self.dir / "images/prometheus.sif"
        for name in ("prometheus", "promtool"):
            install("prometheus", name, image / "bin")
        install("apptainer", "apptainer", self.bin)
        asked = self.dir / "apptainer.jsonl"
        job = self.start("start_monitors.sh", FAKE_APPTAINER_LOG=str(asked))
        self.assertEqual(MonitorsControl(self.endpoint(job)).ready(), "")
        runs = [json.loads(line) for line in asked.read_text().splitlines()]
        (run,) = [run for run in runs if "--web.listen-address" in " ".join(run["command"])]
        self.assertEqual((run["command"][0], run["cleanenv"]), ("prometheus", True))
        dashboards = str(PROJECT / "utils/grafana-dashboards")
        self.assertLessEqual(
            {str(self.targets), dashboards, str(self.dir / "services/job")}, set(run["bind"])
        )
        self.assertEqual({run["command"][0] for run in runs}, {"prometheus", "promtool"})


class Exporters(ServiceCase):
    """Beside a service, which a stand-in for Chroma plays."""

    def setUp(self) -> None:
        super().setUp()
        self.bin = self.dir / "bin"
        self.environment |= {"PATH": f"{self.bin}:/usr/bin:/bin", "AIFBENCH_PYTHON": sys.executable}
        self.environment["AIFBENCH_JOB_DIR"] = str(self.dir / "services/job")
        self.install_chroma()

    def test_one_is_announced_and_asks_for_the_shared_password(self) -> None:
        install("prometheus", "prometheus-node-exporter", self.bin)
        job = self.start(AIFBENCH_EXPORTERS="1")
        announced = self.announced(job)
        self.assertEqual(set(announced.ports), {"node"})
        url = f"http://{announced.host}:{announced.ports['node']}/metrics"
        self.assertEqual(status_without_password(url), 401)
        secret = self.dir / "services/targets/exporter-secret"
        self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o600)

    def test_without_being_asked_there_is_none(self) -> None:
        install("prometheus", "prometheus-node-exporter", self.bin)
        self.assertEqual(self.announced(self.start()).ports, {})

    def test_one_that_cannot_run_does_the_service_no_harm(self) -> None:
        self.bin.mkdir()
        (self.bin / "prometheus-node-exporter").write_text(
            "#!/bin/sh\necho 'no permission here' >&2\nexit 1\n"
        )
        (self.bin / "prometheus-node-exporter").chmod(0o755)
        job = self.start(AIFBENCH_EXPORTERS="1")
        self.assertEqual(self.announced(job).ports, {})
        self.assertIn("the node exporter does not run here: no permission here", self.log(job))


if __name__ == "__main__":
    unittest.main()
