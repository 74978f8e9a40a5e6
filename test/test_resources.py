"""What a record says of its machines: joined by time, as far as it was seen, and no further."""

import json
import tempfile
import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
from test.fakes.clock import FakeClock
from test.fakes.records import sample_record
from test.fakes.site import FakeService, SiteCase

from aifbench.cluster.slurm_usage import parse_ended, parse_running
from aifbench.load.plan import WorkerReport
from aifbench.report.figures import figures
from aifbench.report.html import run_html
from aifbench.report.markdown import run_markdown
from aifbench.report.resource_figure import resource_figure
from aifbench.report.resources import resource_sentences, resource_table
from aifbench.results import record as record_module
from aifbench.results.definitions import definition
from aifbench.results.record import Measurement, Metric, RunRecord
from aifbench.results.resource_samples import NodeSamples, newest, parse, read_files
from aifbench.results.resource_use import energy_metrics, idle_power, node_use, series_step_s, use_of
from aifbench.results.resources import JobUse, NodeUse, PhaseSpan, PhaseUse, Resources
from aifbench.servers.sampling import Sampling

BEGUN_S = 1_800_000_000.0
HEAD: dict[str, Any] = {
    "schema": "aifbench.resources/1", "host": "node1", "boot_id": "b1", "cpus": 4, "memory_bytes": 16 << 30,
    "gpus": {"0": "NVIDIA H200"}, "gpu_source": "NVML total energy counter",
    "missing": {"rapl": "Permission denied"},
}  # fmt: skip


def sample(at_s: float, *, busy: float = 0.0, watts: float = 100.0, ahead_s: float = 0.0, **more: Any) -> str:
    """Of a node that is `busy` (share of its 4 processors) and draws `watts` since 1,000 s before."""
    up_s = 1000 + at_s
    values = {
        "t": round(BEGUN_S + at_s + ahead_s, 3),
        "m": up_s,
        "cpu": {"user": 3 * busy * up_s, "system": busy * up_s, "idle": 4 * (1 - busy) * up_s, "iowait": 0.0},
        "memory": {"used": 4 << 30, "available": 12 << 30},
        "net": {"lo": [7, 7], "eth0": [int(1e6 * up_s), int(2e6 * up_s)]},
        "disk": {"vda": [int(10 * up_s), int(5e6 * up_s), int(10 * up_s), 0]},
        "gpu": {"0": {"busy": 90 * busy, "memory": 1 << 30, "energy": watts * up_s, "age": 0.0}},
        **more,
    }
    return json.dumps(values, separators=(",", ":"))


def samples_of(begin_s: int, end_s: int, head: Mapping[str, Any] = HEAD, **values: Any) -> NodeSamples:
    lines = [json.dumps(head), *(sample(s, **values) for s in range(begin_s, end_s + 1))]
    found = parse(lines, 0, 2e9)
    assert found is not None
    return found


class Joining(unittest.TestCase):
    def test_rates_are_weighted_by_the_time_inside_of_the_window(self) -> None:
        stretches = samples_of(0, 10, busy=0.5).stretches
        use = use_of(stretches, BEGUN_S + 2.5, BEGUN_S + 7.25)
        self.assertAlmostEqual(use.seen_s, 4.75, places=5)
        for name, value in {
            "cpu_percent": 50, "net_in_bytes_per_s": 1e6, "net_out_bytes_per_s": 2e6,
            "loopback_bytes_per_s": 0,
            "disk_read_bytes_per_s": 5e6, "disk_operations_per_s": 20, "gpu_percent": 45, "gpu_power_w": 100,
            "memory_bytes": 4 << 30,
        }.items():  # fmt: skip
            self.assertAlmostEqual(use.mean[name], value, delta=value * 1e-6 + 1e-6, msg=name)

    def test_a_maximum_is_of_whole_seconds(self) -> None:
        lines = [json.dumps(HEAD), sample(0), sample(1), sample(1.02, cpu=None), sample(2)]
        calm = parse(lines, 0, 2e9)
        assert calm
        burst = [
            replace(s, values={"cpu_percent": 100.0 if s.end_s - s.begin_s < 0.5 else 10.0})
            for s in calm.stretches
        ]
        self.assertLess(use_of(burst, 0, 2e9).max["cpu_percent"], 12)

    def test_torn_and_foreign_lines_cost_only_themselves(self) -> None:
        lines = [
            json.dumps(HEAD),
            sample(0),
            sample(1)[:40],
            "\0\0",
            "[]",
            '{"t":1,"m":"x"}',
            sample(2),
            '{"t":18',
        ]
        found = parse(lines, 0, 2e9)
        assert found
        self.assertEqual(len(found.stretches), 1)
        self.assertAlmostEqual(found.stretches[0].values["gpu_power_w"], 100)
        self.assertIsNone(parse([sample(0), "nothing"], 0, 2e9))

    def test_nothing_is_told_of_a_time_without_samples_or_across_a_restart(self) -> None:
        killed = [json.dumps(HEAD), sample(0), sample(1), sample(30), sample(31)]
        self.assertEqual([round(s.begin_s - BEGUN_S) for s in _stretches(killed)], [0, 30])
        restarted = [json.dumps(HEAD), sample(0), json.dumps(HEAD), sample(1)]
        self.assertEqual(_stretches(restarted), [])

    def test_counters_that_begin_anew_or_devices_that_come_tell_nothing(self) -> None:
        lines = [
            json.dumps(HEAD),
            sample(0),
            sample(1, net={"lo": [1, 1], "eth0": [5, 5]}, disk={"vda": [1, 1, 1, 1], "b": [9, 9, 9, 9]}),
        ]
        (stretch,) = _stretches(lines)
        self.assertEqual({"net_in_bytes_per_s", "disk_read_bytes_per_s"} & stretch.values.keys(), set())
        self.assertIn("cpu_percent", stretch.values)

    def test_a_stepped_wall_clock_moves_no_sample(self) -> None:
        lines = [json.dumps(HEAD), *(sample(s, ahead_s=0.0 if s < 8 else 50.0) for s in range(10))]
        ends = [s.end_s - BEGUN_S for s in _stretches(lines)]
        self.assertEqual([round(end, 3) for end in ends], list(range(1, 10)))

    def test_power_without_an_energy_counter_is_what_was_told_last(self) -> None:
        gpu = {"0": {"power": 70.0}, "1": {"power": 30.0}}
        (stretch,) = _stretches([json.dumps(HEAD), sample(0, gpu=gpu), sample(1, gpu=gpu)])
        self.assertEqual(stretch.values["gpu_power_w"], 100.0)

    def test_energy_is_of_the_time_at_which_the_gpu_was_asked(self) -> None:
        old = {"0": {"energy": 1000.0, "age": 0.5}}
        new = {"0": {"energy": 1150.0, "age": 0.0}}
        (stretch,) = _stretches([json.dumps(HEAD), sample(0, gpu=old), sample(1, gpu=new)])
        self.assertEqual(stretch.values["gpu_power_w"], 100.0)

    def test_files_of_a_ring_are_one(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "resources-node1.jsonl"
            Path(f"{path}.1").write_text("\n".join([json.dumps(HEAD), sample(0), sample(1)]))
            path.write_text("\n".join([json.dumps(HEAD), sample(2), sample(3)]))
            (found,) = read_files(Path(folder), 0, 2e9)
            self.assertEqual(len(found.stretches), 2)
            (last,) = newest(Path(folder))
            self.assertEqual((last.node, last.last_s), ("node1", BEGUN_S + 3))
            self.assertEqual(read_files(Path(folder) / "none", 0, 2e9), [])


def _stretches(lines: list[str]) -> list[Any]:
    found = parse(lines, 0, 2e9)
    assert found
    return list(found.stretches)


def measurement(
    rate: float = 50.0, window_s: tuple[float, float] = (0.0, 10.0), **metrics: float
) -> Measurement:
    units = {"throughput": "ops/s", "output_rate": "tok/s", "item_rate": "vectors/s"}
    found = tuple(
        Metric(name, value, units[name], "higher", n=500)
        for name, value in {"throughput": rate, **metrics}.items()
    )
    return Measurement("search", "search", "closed", "http", 1, window_s, found, ())


class EnergyPerUnit(unittest.TestCase):
    def node(self, samples: NodeSamples, *roles: str) -> NodeUse:
        spans = [PhaseSpan("search", 10.0, 20.0)]
        return node_use(samples, roles or ("server",), spans, BEGUN_S, 1.0, offset_s=None)

    def test_power_over_rate_with_and_without_idle(self) -> None:
        quiet = [sample(s, watts=60) for s in range(-20, 1)]
        at_work = [sample(s, busy=0.9, watts=260) for s in range(10, 31)]
        samples = parse([json.dumps(HEAD), *quiet, *at_work], 0, 2e9)
        assert samples
        node = self.node(samples)
        found = {
            m.name: m
            for m in energy_metrics(measurement(output_rate=1000.0), [(node, samples)], BEGUN_S + 12)
        }
        self.assertAlmostEqual(found["energy_per_operation"].value or 0, 260 / 50, places=3)
        self.assertAlmostEqual(found["energy_per_operation_above_idle"].value or 0, 200 / 50, places=3)
        self.assertAlmostEqual(found["energy_per_output_token"].value or 0, 0.26, places=5)
        self.assertIn("NVML total energy counter", found["energy_per_operation"].note)
        for name, metric in found.items():
            self.assertEqual((metric.direction, definition(name) is not None), ("lower", True), name)

    def test_nothing_where_it_was_not_seen(self) -> None:
        samples = samples_of(0, 40)
        node = self.node(samples)
        self.assertEqual(energy_metrics(measurement(), [(node, samples)], BEGUN_S + 35), [])  # half of it
        dark = samples_of(0, 40, {**HEAD, "gpu_source": ""}, gpu={})
        self.assertEqual(energy_metrics(measurement(), [(self.node(dark), dark)], BEGUN_S + 5), [])
        pair = [(node, samples), (self.node(dark), dark)]
        self.assertEqual(energy_metrics(measurement(), pair, BEGUN_S + 5), [])  # part of the nodes
        self.assertEqual(energy_metrics(measurement(0.0), [(node, samples)], BEGUN_S + 5), [])
        self.assertEqual(energy_metrics(measurement(), [], BEGUN_S), [])

    def test_no_idle_power_from_seconds_that_were_not_idle(self) -> None:
        busy = samples_of(-60, 0, busy=0.5).stretches
        self.assertEqual(idle_power(busy, BEGUN_S), {})
        self.assertEqual(idle_power(samples_of(-4, 0).stretches, BEGUN_S), {})
        self.assertEqual(idle_power(samples_of(-60, 0, watts=80).stretches, BEGUN_S), {"gpu": 80.0})

    def test_power_is_of_all_processors_or_of_none(self) -> None:
        """A zone is away for a sample when its counter began anew: the rest must not look like all."""
        zones = [{"a": 10.0 * s, "b": 10.0 * s} for s in range(5)]
        del zones[2]["a"]
        lines = [json.dumps(HEAD), *(sample(s, rapl=zones[s]) for s in range(5))]
        found = parse(lines, BEGUN_S - 1, BEGUN_S + 9)
        assert found is not None
        watts = [stretch.values.get("cpu_power_w") for stretch in found.stretches]
        self.assertEqual(watts, [20.0, None, None, 20.0])

    def test_a_node_says_where_its_numbers_come_from_and_what_is_missing(self) -> None:
        node = self.node(samples_of(0, 30, busy=0.25, watts=90), "server", "client")
        self.assertEqual(node.sources, {"gpu": "NVML total energy counter"})
        self.assertEqual(node.missing, {"rapl": "Permission denied"})
        (use,) = node.phases
        self.assertEqual((use.energy_j, use.covered), ({"gpu": 900.0}, 1.0))
        self.assertEqual(len(node.series["cpu_percent"]), 20)
        self.assertAlmostEqual(node.series["cpu_percent"][10] or 0, 25, places=2)

    def test_a_long_run_has_a_coarse_series(self) -> None:
        self.assertEqual(series_step_s([PhaseSpan("a", 0, 3600)]), 30.0)
        self.assertEqual(series_step_s([]), 1.0)


SSTAT = "9.batch|1500K|00:00:12|1|18446744073709522816\n9.0|2.5G|00:10.500|4|73000\n"
SACCT = (
    "8\x1f\x1f00:00.135\x1f\x1f0\n8.extern\x1f0\x1f00:00.003\x1f2\x1f99000\n"
    "8.batch\x1f2792K\x1f1-00:00:01\x1f1\x1f500\n"
)


class Accounting(SiteCase):
    def test_running_jobs_by_step(self) -> None:
        job = parse_running(SSTAT)["9"]
        self.assertEqual((job.max_rss_bytes, job.cpu_s, job.energy_j), (int(2.5 * 2**30), 54.0, 73000.0))

    def test_ended_jobs_without_what_wrapped_or_saw_an_idle_node(self) -> None:
        job = parse_ended(SACCT)["8"]
        self.assertEqual((job.max_rss_bytes, job.cpu_s, job.energy_j), (2792 << 10, 86401.003, 500.0))

    def test_nonsense_is_nothing(self) -> None:
        for text in ("", "sstat: error\n", "9.0|x|213503982334-14:25:51|1|\n", "9.0||\n"):
            self.assertEqual(parse_running(text), {})

    def test_both_programs_are_asked_briefly_and_their_silence_is_nothing(self) -> None:
        running = self.start().instance.job_id
        self.slurm.start(running)
        self.slurm.step_rows[f"{running}.batch"] = "1500K|00:12.000|1|0"
        (job,) = self.shell.scheduler.usage([running, "777", "no job"])
        self.assertEqual((job.job_id, job.source, job.cpu_s, job.energy_j), (running, "sstat", 12.0, None))
        self.slurm.accounting = "down"
        self.assertEqual(self.shell.scheduler.usage(["777"]), [])


class WholeRun(SiteCase):
    """Sampling of a run of a fake service, whose samplers' files a test writes."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = FakeClock()
        self.clock_offset_s = self.clock.wall_s() - BEGUN_S
        self.server = self.start()
        self.run_dir = self.dir / "run"

    def at(
        self, begin_s: int, end_s: int, directory: Path, *, host: str = "node1", ahead_s: float = 0.0
    ) -> None:
        """Samples of a node, its clock ahead, from and to seconds of the run."""
        directory.mkdir(parents=True, exist_ok=True)
        shift_s = self.clock_offset_s + ahead_s
        lines = [json.dumps({**HEAD, "host": host, "boot_id": host})]
        lines += [sample(s, busy=0.9, ahead_s=shift_s) for s in range(begin_s, end_s + 1)]
        (directory / f"resources-{host}.jsonl").write_text("\n".join(lines) + "\n")

    def sampled(self, *hosts: str, offset_s: float = 0.0, ended_s: int = 40, **files: Any) -> RunRecord:
        """The run of a phase from its second 10 to 30, by load workers on `hosts`."""
        self.clock_offset_s = self.clock.wall_s() - BEGUN_S
        self.at(-30, 0, self.server.directory, **files)
        sampling = Sampling({"": self.server}, self.run_dir, self.clock)
        started_s = self.clock.wall_s() + 10
        self.clock.sleep(40)
        self.at(-30, ended_s, self.server.directory, **files)
        reports = [
            WorkerReport("search", k, host, 1, 1, 0.1, 1.0, clock_offset_s=offset_s)
            for k, host in enumerate(hosts)
        ]
        measured = measurement(window_s=(0.0, 20.0))
        sampling.saw("search", started_s, reports, [measured], 0, is_measured=True)
        record = RunRecord(
            "r", "2026-11-20T13:14:55Z", sample_record().state, {}, {}, measurements=(measured,)
        )
        return sampling.join(record, self.shell.scheduler, "")

    def test_server_and_client_nodes_with_energy(self) -> None:
        self.at(0, 39, self.run_dir / "phases", host="node2")
        record = self.sampled("node2")
        self.assertEqual(
            [(n.node, n.roles) for n in record.resources.nodes],
            [("node1", ("server",)), ("node2", ("client",))],
        )
        (span,) = record.resources.phases
        self.assertEqual((span.start_s, span.end_s), (10.0, 30.0))
        for node in record.resources.nodes:
            self.assertAlmostEqual(node.phases[0].mean["cpu_percent"], 90, places=1)
            self.assertEqual(node.phases[0].covered, 1.0)
        energy = record.measurements[0].metric("energy_per_operation")
        self.assertAlmostEqual((energy and energy.value) or 0, 2.0, places=3)
        self.assertEqual(record.resources.notes, ())
        kept = self.run_dir / "service/resources-node1.jsonl"
        self.assertEqual(
            len(read_files(kept.parent, 0, 2e9)[0].stretches), len(kept.read_text().splitlines()) - 2
        )
        self.assertEqual(RunRecord.from_json(json.loads(json.dumps(record.to_json()))), record)

    def test_one_machine_has_both_roles_and_says_so(self) -> None:
        record = self.sampled("node1")
        (node,) = record.resources.nodes
        self.assertEqual(node.roles, ("server", "client"))
        self.assertIn("server and client share node1", record.resources.notes[0])

    def test_a_sampler_that_was_killed_leaves_a_share(self) -> None:
        record = self.sampled("node1", ended_s=15)
        self.assertEqual(record.resources.nodes[0].phases[0].covered, 0.25)
        self.assertIn("node1 was seen for 25 % of search", record.resources.notes)
        self.assertIsNone(record.measurements[0].metric("energy_per_operation"))

    def test_no_samples_at_all(self) -> None:
        (self.server.directory).mkdir(parents=True, exist_ok=True)
        sampling = Sampling({"": self.server}, self.run_dir, self.clock)
        record = sampling.join(sample_record(), self.shell.scheduler, "")
        self.assertEqual(record.resources.nodes, ())
        self.assertIn("no samples of 1 of fake's nodes", record.resources.notes)
        self.assertEqual(record.measurements, sample_record().measurements)

    def test_a_server_whose_clock_is_off_is_moved_and_told(self) -> None:
        for ahead_s, way in ((75.0, "ahead"), (-75.0, "behind")):
            record = self.sampled("node9", ahead_s=ahead_s)
            (node,) = record.resources.nodes
            self.assertAlmostEqual(node.clock_offset_s or 0, ahead_s, delta=1.5)
            self.assertEqual(node.phases[0].covered, 1.0)
            self.assertIn(
                f"the clock of node1 is about 75 s {way}; its samples were moved", record.resources.notes
            )
            self.assertIn("no samples of node9, where load was made", record.resources.notes)

    def test_a_client_clock_is_known_from_its_workers(self) -> None:
        self.at(0, 40, self.run_dir / "phases", host="node2", ahead_s=5.0)
        record = self.sampled("node2", offset_s=5.0)
        (client,) = (node for node in record.resources.nodes if "client" in node.roles)
        self.assertEqual((client.clock_offset_s, client.phases[0].covered), (5.0, 1.0))

    def test_several_services_have_roles_and_no_energy_of_one(self) -> None:
        other = FakeService.start(self.shell, {"name": "b"})
        self.at(0, 39, self.server.directory)
        self.at(0, 39, other.directory)
        sampling = Sampling({"llm": self.server, "store": other}, self.run_dir, self.clock)
        self.clock.sleep(40)
        sampling.saw("both", BEGUN_S + self.clock_offset_s, [], [measurement()], 0, is_measured=True)
        record = replace(sample_record(), measurements=(measurement(),))
        joined = sampling.join(record, self.shell.scheduler, "")
        self.assertEqual([n.roles for n in joined.resources.nodes], [("server llm", "server store")])
        self.assertEqual(joined.measurements, record.measurements)

    def test_attached_services_have_only_a_client_side(self) -> None:
        attached = FakeService(self.shell, replace(self.server.instance, scheduler="attached"))
        self.at(0, 39, self.run_dir / "phases", host="node2")
        sampling = Sampling({"": attached}, self.run_dir, self.clock)
        self.clock.sleep(40)
        reports = [WorkerReport("search", 0, "node2", 1, 1, 0.1, 1.0)]
        sampling.saw("search", self.clock.wall_s() - 30, reports, [measurement()], 0, is_measured=True)
        record = sampling.join(
            replace(sample_record(), measurements=(measurement(),)), self.shell.scheduler, ""
        )
        self.assertEqual([n.roles for n in record.resources.nodes], [("client",)])
        self.assertEqual(record.resources.notes, ())
        self.assertEqual(len(record.measurements[0].metrics), 1)


def busy_record(cpu: float = 93.0, **more: float) -> RunRecord:
    """Two nodes in two phases, the client busiest in the second one."""

    def node(name: str, role: str, percents: tuple[float, float]) -> NodeUse:
        phases = tuple(
            PhaseUse(
                phase,
                {"cpu_percent": p, "net_in_bytes_per_s": 2e6, **more},
                {"cpu_percent": p + 5, "memory_bytes": 2e9},
                {"gpu": 4200.0},
            )
            for phase, p in zip(("ingest", "search"), percents, strict=True)
        )
        series = {
            "cpu_percent": [*([percents[0]] * 20), None, *([percents[1]] * 19)],
            "memory_bytes": [2e9] * 40,
        }
        return NodeUse(name, (role,), 4, 8 << 30, {}, phases, series, {"gpu": 55.0}, {"gpu": "NVML <total>"})

    spans = (
        PhaseSpan("ingest", 0, 18),
        PhaseSpan("warm", 18, 20, is_measured=False),
        PhaseSpan("search", 20, 40),
    )
    nodes = (node("node1", "server", (40.0, 50.0)), node("node<2>", "client", (10.0, cpu)))
    nodes = tuple(replace(n, phases=(n.phases[0], n.phases[0], n.phases[1])) for n in nodes)
    job = JobUse("4711", "server", "sstat", 3 << 30, 120.0, None)
    return sample_record(
        resources=Resources("2026-11-20T13:15:00Z", spans, nodes, (job,), 1.0, ("node1 & co",))
    )


class Reported(unittest.TestCase):
    def test_a_row_per_measured_phase_and_node_without_empty_columns(self) -> None:
        table = resource_table(busy_record())
        self.assertEqual([cell.text for cell in table.headers], ["", "CPU", "net in", "energy"])
        self.assertEqual([row[0].text for row in table.rows], ["ingest", "search"] * 2)
        self.assertEqual((table.rows[3][1].text, table.rows[3][1].note), ("93", "max 98"))
        self.assertEqual(resource_table(sample_record()).rows, ())

    def test_findings_say_what_was_seen(self) -> None:
        said = resource_sentences(busy_record())
        self.assertIn("node<2> (client): CPU 93 % busy in phase search", said)
        self.assertIn("job 4711 (server) by sstat: a task's memory at most 3 GiB, processor time 120 s", said)
        self.assertIn("node1 & co", said)
        calm = resource_sentences(busy_record(60.0))
        self.assertEqual(calm[0], "CPU at most 60 % busy: node<2> (client) in phase search")
        self.assertNotIn("busy in", " ".join(calm))

    def test_waiting_and_stolen_time_are_found(self) -> None:
        said = " ".join(resource_sentences(busy_record(steal_percent=7.0, iowait_percent=31.0)))
        self.assertIn("waited for disks 31 %", said)
        self.assertIn("7 % of the processors' time went to other virtual machines", said)

    def test_the_figure_shows_phases_and_every_node(self) -> None:
        found = resource_figure(busy_record())
        assert found
        self.assertEqual(found.svg.count('class="bracket"'), 2 * found.svg.count('class="name"'))
        for text in ("CPU busy (%)", "memory in use (GiB)", "node&lt;2&gt; (client)", ">search<", ">ingest<"):
            self.assertIn(text, found.svg)
        self.assertNotIn(">warm<", found.svg)
        self.assertIsNone(resource_figure(sample_record()))
        self.assertIn(found, figures(busy_record()))

    def test_reports_have_a_section_of_it_and_escape_it(self) -> None:
        page = run_html(busy_record())
        self.assertIn("<h2>Machines</h2>", page)
        self.assertNotIn("node<2>", page)
        self.assertIn("## Machines", run_markdown(busy_record()))
        self.assertNotIn("Machines", run_html(sample_record()) + run_markdown(sample_record()))

    def test_records_follow_the_published_schema(self) -> None:
        path = Path(record_module.__file__).with_name("record.schema.json")
        schema = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(busy_record().to_json())))

    def test_records_without_are_as_they_were(self) -> None:
        self.assertNotIn("resources", sample_record().to_json())
        record = busy_record()
        self.assertEqual(RunRecord.from_json(json.loads(json.dumps(record.to_json()))), record)


if __name__ == "__main__":
    unittest.main()
