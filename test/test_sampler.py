"""The sampler: counters as the kernel has them, whatever is missing, and an end with whoever wanted it."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.machine import FakeMachine
from test.fakes.programs import install
from test.fakes.waiting import eventually

from aifbench.monitor import proc
from aifbench.monitor.energy import Rapl
from aifbench.monitor.gpu import NvidiaSmi, Nvml, find_gpus, parse_line
from aifbench.monitor.proc import Machine
from aifbench.monitor.sampler import INTERVAL_S, Ring, Sampler, describe, file_name, run

SOURCE = Path(__file__).resolve().parents[1] / "src"
A100 = "GPU-5d1f, NVIDIA A100-SXM4-40GB, 93, 30211, 311.52, 61"


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)


class Kernel(Folder):
    def setUp(self) -> None:
        super().setUp()
        self.fake = FakeMachine(self.dir)

    def read(self) -> dict[str, Any]:
        return Machine(self.fake.proc, self.fake.sys).read()

    def test_counters_are_in_base_units(self) -> None:
        hertz = os.sysconf("SC_CLK_TCK")
        found = self.read()
        self.assertEqual(found["cpu"]["user"], round(1050 / hertz, 2))  # nice included
        self.assertEqual(found["cpu"]["system"], round(550 / hertz, 2))  # interrupts included
        self.assertEqual(found["memory"], {"used": 4 << 30, "available": 12 << 30})
        self.assertEqual(found["disk"], {"nvme0n1": [10, 40960, 20, 81920]})
        self.assertEqual(found["load"], {"load_1min": 1.5, "threads": 512})

    def test_virtual_interfaces_and_parts_of_devices_are_not_counted_twice(self) -> None:
        self.assertEqual(self.read()["net"], {"lo": [100, 100], "eth0": [1000, 2000]})

    def test_a_container_has_only_virtual_interfaces(self) -> None:
        net = self.fake.sys / "class/net"
        (net / "eth0/device").rmdir()
        self.assertEqual(proc.interfaces(net), ["eth0", "veth1", "lo"])

    def test_open_files_show_new_values(self) -> None:
        machine = Machine(self.fake.proc, self.fake.sys)
        machine.read()
        self.fake.set(received=5000)
        self.assertEqual(machine.read()["net"]["eth0"], [5000, 2000])

    def test_an_interface_that_comes_later_is_counted_too(self) -> None:
        machine = Machine(self.fake.proc, self.fake.sys)
        machine.read()
        (self.fake.sys / "class/net/eth1/device").mkdir(parents=True)
        text = (self.fake.proc / "net/dev").read_text()
        self.fake.write("proc/net/dev", f"{text}  eth1: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n")
        self.assertEqual(machine.read()["net"], {"lo": [100, 100], "eth0": [1000, 2000], "eth1": [7, 8]})

    def test_a_long_list_of_devices_is_read_to_its_end_although_the_kernel_gives_a_page_at_a_time(
        self,
    ) -> None:
        for name, heading, line in (
            ("net/dev", 2, "veth{0}: 1 0 0 0 0 0 0 0 2 0\n"),
            ("diskstats", 0, "7 {0} loop{0} 1 0 8 0 1 0 8 0\n"),
        ):
            lines = (self.fake.proc / name).read_text().splitlines(keepends=True)
            lines[heading:heading] = [line.format(number) for number in range(7, 1000)]
            self.fake.write(f"proc/{name}", "".join(lines))

        def page(descriptor: int, size: int, offset: int) -> bytes:
            return pread(descriptor, min(size, 4096), offset)

        pread = os.pread
        with mock.patch.object(proc.os, "pread", page):
            found = self.read()
        self.assertEqual(found["net"], {"lo": [100, 100], "eth0": [1000, 2000]})
        self.assertEqual(found["disk"], {"nvme0n1": [10, 40960, 20, 81920]})

    def test_infiniband_counts_words_and_what_its_interface_counts_too(self) -> None:
        self.fake.add_infiniband(250, 500)
        found = self.read()
        self.assertEqual(found["ib"], {"mlx5_0/1": [1000, 2000]})
        self.assertNotIn("ib0", found["net"])

    def test_lustre_and_the_jobs_group(self) -> None:
        self.fake.add_lustre()
        self.fake.add_job(2_500_000, 1 << 30)
        found = self.read()
        self.assertEqual(found["lustre"], {"project": [65536, 12288]})
        self.assertEqual((found["job_cpu"], found["job_memory"]), (2.5, 1 << 30))

    def test_groups_of_the_first_version_are_found_by_controller(self) -> None:
        for path in (
            "memory/slurm/uid_7/job_9/memory.usage_in_bytes",
            "cpuacct/slurm/uid_7/job_9/cpuacct.usage",
        ):
            self.fake.write(f"sys/fs/cgroup/{path}", "1500000000\n")
        self.fake.write(
            "proc/self/cgroup",
            "4:memory:/slurm/uid_7/job_9/step_0\n2:cpu,cpuacct:/slurm/uid_7/job_9/step_0\n0::/\n",
        )
        found = self.read()
        self.assertEqual((found["job_cpu"], found["job_memory"]), (1.5, 1_500_000_000))

    def test_what_is_not_there_is_left_out_and_named(self) -> None:
        for name in ("stat", "net/dev"):
            (self.fake.proc / name).unlink()
        machine = Machine(self.fake.proc, self.fake.sys)
        self.assertEqual({"cpu", "net"} & machine.read().keys(), set())
        self.assertEqual(machine.missing["cpu"], "No such file or directory")
        self.assertEqual(machine.missing["job"], "no control group of a batch job")

    def test_files_that_become_nonsense_cost_only_themselves(self) -> None:
        machine = Machine(self.fake.proc, self.fake.sys)
        for text in ("", "\0\0\0", "cpu a b c d e f g h\n", "cpu 1 2\n"):
            self.fake.write("proc/stat", text)
            self.assertEqual({"cpu", "memory"} & machine.read().keys(), {"memory"}, text)


class Energy(Folder):
    def test_the_counter_wraps_around(self) -> None:
        fake = FakeMachine(self.dir)
        fake.add_rapl(999_000_000)
        rapl = Rapl(fake.sys / "class/powercap")
        self.assertEqual(rapl.read(), {"package-0": 0.0})
        fake.add_rapl(500_000)
        self.assertEqual(rapl.read(), {"package-0": 1.5})
        fake.add_rapl(1_500_000)
        self.assertEqual(rapl.read(), {"package-0": 2.5})

    def test_a_counter_that_begins_anew_is_no_wrap(self) -> None:
        fake, now_s = FakeMachine(self.dir), [0.0]
        fake.add_rapl(500_000_000, span_uj=262_143_000_000)
        rapl = Rapl(fake.sys / "class/powercap", now_s=lambda: now_s[0])
        for energy_uj, joules in ((600_000_000, 100.0), (5, None), (50_000_005, 150.0)):
            now_s[0] += 1.0
            fake.add_rapl(energy_uj, span_uj=262_143_000_000)
            self.assertEqual(rapl.read().get("package-0"), joules)

    def test_only_what_adds_up_is_added_up(self) -> None:
        fake = FakeMachine(self.dir)
        fake.add_rapl(0)
        for zone, name in (("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"), ("intel-rapl:1", "psys")):
            fake.write(f"sys/class/powercap/{zone}/name", f"{name}\n")
            fake.write(f"sys/class/powercap/{zone}/max_energy_range_uj", "1000\n")
            fake.write(f"sys/class/powercap/{zone}/energy_uj", "0\n")
        self.assertEqual(Rapl(fake.sys / "class/powercap").zones, ["package-0", "dram 0"])

    def test_a_machine_without_is_no_problem(self) -> None:
        rapl = Rapl(self.dir / "nothing")
        self.assertEqual((rapl.read(), rapl.missing), ({}, "no energy counters"))


class FakeNvml:
    """The library as ctypes shows it: two GPUs, the second without power management."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.energy_mj = 5_000_000

    def nvmlInit_v2(self) -> int:
        return self.status

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        handle._obj.value = 100 + index.value
        return 0

    def nvmlDeviceGetUUID(self, handle: ctypes.c_void_p, text: Any, size: ctypes.c_uint) -> int:
        text.value = f"GPU-{handle.value}"[: size.value].encode()
        return 0

    def nvmlDeviceGetName(self, handle: ctypes.c_void_p, text: Any, size: ctypes.c_uint) -> int:
        text.value = b"NVIDIA H200"[: size.value]
        return self._known(handle)

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, busy: Any) -> int:
        busy._obj.gpu, busy._obj.memory = 93, 40
        return self._known(handle)

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.total, memory._obj.used = 1000, 400
        return self._known(handle)

    def nvmlDeviceGetPowerUsage(self, handle: ctypes.c_void_p, power: Any) -> int:
        power._obj.value = 311_500
        return 3 if handle.value == 101 else 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, energy: Any) -> int:
        energy._obj.value = self.energy_mj
        return 3 if handle.value == 101 else 0

    def nvmlDeviceGetTemperature(self, handle: ctypes.c_void_p, sensor: ctypes.c_int, value: Any) -> int:
        value._obj.value = 61
        return sensor.value or self._known(handle)

    def _known(self, handle: ctypes.c_void_p) -> int:
        return 0 if handle.value in (100, 101) else 2


class Gpus(Folder):
    def read(self, gpus: Any) -> Any:
        self.addCleanup(gpus.close)
        eventually(gpus.read, "the GPUs have answered")
        return {
            number: {name: value for name, value in values.items() if name != "age"}
            for number, values in gpus.read().items()
        }

    def test_the_library_has_an_energy_counter(self) -> None:
        gpus = Nvml(FakeNvml(), [])
        self.assertEqual(gpus.names, {"0": "NVIDIA H200", "1": "NVIDIA H200"})
        eventually(lambda: len(gpus.read()) == 2, "both have answered")
        found = self.read(gpus)
        both = {"busy": 93, "memory": 400, "temperature": 61}
        self.assertEqual(found, {"0": {**both, "power": 311.5, "energy": 5000.0}, "1": both})

    def test_only_the_jobs_gpus_are_read(self) -> None:
        self.assertEqual(list(Nvml(FakeNvml(), ["1"]).names), ["1"])
        self.assertEqual(list(Nvml(FakeNvml(), ["GPU-100"]).names), ["0"])
        with self.assertRaisesRegex(OSError, "none of this job's GPUs"):
            Nvml(FakeNvml(), ["7"])

    def test_a_library_without_a_driver_is_told(self) -> None:
        with self.assertRaisesRegex(OSError, "nvmlInit failed with status 9"):
            Nvml(FakeNvml(status=9), [])

    def smi(self, gpus: str, chosen: tuple[str, ...] = ()) -> NvidiaSmi:
        program = install("nvidia_smi", "nvidia-smi", self.dir)
        table = self.dir / "gpus"
        table.write_text(gpus)
        os.environ["FAKE_NVIDIA_SMI"] = str(table)
        self.addCleanup(os.environ.pop, "FAKE_NVIDIA_SMI")
        made = NvidiaSmi(str(program), chosen)
        self.addCleanup(made._process.wait)
        return made

    def test_the_program_prints_for_as_long_as_it_is_listened_to(self) -> None:
        gpus = self.smi(f"{A100}\n{A100}\n", ("1",))
        busy = {"busy": 93.0, "memory": 30211 << 20, "power": 311.52, "temperature": 61.0}
        self.assertEqual(self.read(gpus), {"1": busy})
        self.assertEqual(gpus.names, {"1": "NVIDIA A100-SXM4-40GB"})

    def test_a_program_that_is_stopped_keeps_nobody_waiting(self) -> None:
        gpus = self.smi("stop\n")
        os.kill(gpus._process.pid, signal.SIGSTOP)
        self.assertEqual(gpus.read(), {})
        gpus.close()

    def test_lines_that_are_none_are_left_out(self) -> None:
        for line in ("", "No devices were found", "0, GPU-1, Name, 1, 2", "x, GPU-1, Name, 1, 2, 3, 4"):
            self.assertIsNone(parse_line(line), line)
        parsed = parse_line("3, GPU-1, NVIDIA L40S, [N/A], 12, [Not Supported], Unknown Error")
        self.assertEqual(parsed, ("3", "NVIDIA L40S", {"memory": 12 << 20}))

    def test_none_here_and_none_for_this_job(self) -> None:
        nowhere = {"PATH": str(self.dir)}
        self.assertIsNone(find_gpus(nowhere)[0])
        self.assertEqual(find_gpus({**nowhere, "CUDA_VISIBLE_DEVICES": ""}), (None, "this job has no GPU"))


class Writing(Folder):
    def test_two_files_of_bounded_size_each_with_its_head(self) -> None:
        path = self.dir / "resources-a.jsonl"
        ring = Ring(path, '{"schema":1}', limit_bytes=200)
        for number in range(40):
            ring.write(f'{{"t":{number:015d}}}')
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), [path.name, f"{path.name}.1"])
        for part in self.dir.iterdir():
            self.assertLessEqual(part.stat().st_size, 240)
            self.assertEqual(part.read_text().split()[0], '{"schema":1}')
        self.assertIn("39}", path.read_text())

    def test_one_that_begins_again_does_not_continue_a_torn_line(self) -> None:
        path = self.dir / "resources-a.jsonl"
        path.write_text('{"t":1,"cpu":{"us')
        Ring(path, "{}").write('{"t":2}')
        self.assertEqual(path.read_text().splitlines()[1:], ["{}", '{"t":2}'])

    def test_seconds_that_were_missed_are_not_made_up_for(self) -> None:
        ring = Ring(self.dir / "resources-a.jsonl", "{}")
        now_s, waits = [0.0], []

        def wait(duration_s: float) -> bool:
            waits.append(round(duration_s, 3))
            now_s[0] += duration_s + (5.0 if len(waits) == 2 else 0.1)  # a machine that stood still
            return len(waits) == 5

        run(dict, ring, is_over=lambda: False, wait=wait, now_s=lambda: now_s[0])
        self.assertEqual(waits, [INTERVAL_S, 0.9, 1.0, 0.9, 0.9])
        self.assertEqual(len((self.dir / "resources-a.jsonl").read_text().split()), 1 + 6)

    def test_it_ends_with_its_directory(self) -> None:
        gone = Ring(self.dir / "gone/resources-a.jsonl", "{}")
        run(dict, gone, is_over=lambda: False, wait=lambda _: self.fail("it goes on"))


class Program(Folder):
    """The real one on the real machine, for a moment."""

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-S", "-m", "aifbench.monitor.sampler", str(self.dir), *arguments],
            env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def lines(self) -> list[dict[str, Any]]:
        path = self.dir / file_name(socket.gethostname())
        return [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []

    def test_it_samples_until_it_is_asked_to_end_and_then_once_more(self) -> None:
        process = self.start()
        eventually(lambda: len(self.lines()) == 2, "a head and a sample")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(5), 0)
        head, first, last = self.lines()
        self.assertEqual((head["schema"], head["cpus"]), ("aifbench.resources/1", os.cpu_count()))
        self.assertLess(first["m"], last["m"])
        self.assertLessEqual({"cpu", "memory", "net", "load"}, first.keys())

    def test_it_ends_when_its_parent_is_another(self) -> None:
        process = self.start(str(os.getppid()))  # as after the death of the one that started it
        self.assertEqual(process.wait(5), 0)

    def test_everything_together_is_one_line(self) -> None:
        fake = FakeMachine(self.dir)
        fake.add_rapl(1)
        machine, rapl = Machine(fake.proc, fake.sys), Rapl(fake.sys / "class/powercap")
        head = describe(machine, None, "none here", rapl)
        self.assertEqual((head["missing"]["gpu"], head["rapl_zones"]), ("none here", ["package-0"]))
        sample = Sampler(machine, None, rapl).sample()
        self.assertLessEqual({"t", "m", "cpu", "rapl"}, sample.keys())
        self.assertNotIn("gpu", sample)


if __name__ == "__main__":
    unittest.main()
