import json
import os
import subprocess
import tempfile
import time
import unittest
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path

from test import fakes  # noqa: F401

from aifbench.results import provenance
from aifbench.results.provenance import collect

CPUINFO = """\
processor\t: 0
model name\t: AMD EPYC 7H12 64-Core Processor
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu vme hypervisor sse

processor\t: 1
model name\t: AMD EPYC 7H12 64-Core Processor
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu vme hypervisor sse

processor\t: 2
model name\t: AMD EPYC 7H12 64-Core Processor
physical id\t: 1
core id\t\t: 0
flags\t\t: fpu vme hypervisor sse
"""

GIT_STATUS = "# branch.oid 221f279c363e708a9f642a639c9a25b7ceabd0e9\n# branch.head main\n"


def reader(files: Mapping[str, str]) -> provenance.Read:
    return files.get


class Parsers(unittest.TestCase):
    def test_git_status(self) -> None:
        clean = provenance.parse_git_status(GIT_STATUS)
        self.assertEqual(
            clean, {"git_commit": "221f279c363e708a9f642a639c9a25b7ceabd0e9", "git_dirty": False}
        )
        changed = GIT_STATUS + "1 .M N... 100644 100644 100644 f4f7 f4f7 src/x.py\n"
        self.assertIs(provenance.parse_git_status(changed)["git_dirty"], True)
        self.assertEqual(provenance.parse_git_status("# branch.oid (initial)\n"), {})

    def test_cpuinfo_counts_threads_cores_and_sockets(self) -> None:
        self.assertEqual(
            provenance.parse_cpuinfo(CPUINFO),
            {"cpu_model": "AMD EPYC 7H12 64-Core Processor", "logical_cpus": 3, "cores": 2, "sockets": 2},
        )
        self.assertIsNone(provenance.parse_cpuinfo("")["cores"])

    def test_small_system_files(self) -> None:
        self.assertEqual(provenance.parse_memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), 16384)
        self.assertEqual(
            provenance.parse_os_release('NAME="x"\nPRETTY_NAME="Rocky Linux 8.10"\n'), "Rocky Linux 8.10"
        )
        self.assertEqual(
            provenance.parse_loadavg("0.88 0.45 0.20 2/114 8029\n"),
            {"load_1min": 0.88, "load_5min": 0.45, "load_15min": 0.20},
        )
        self.assertEqual(provenance.count_ranges("0-3,8\n"), 5)
        self.assertEqual(provenance.parse_cpu_max("150000 100000\n"), 1.5)
        self.assertIsNone(provenance.parse_cpu_max("max 100000\n"))
        version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16 21:22:33 UTC 2024\n"
        self.assertEqual(provenance.parse_driver_version(version), "560.35.03")

    def test_virtualisation_is_a_hint(self) -> None:
        files = reader({"/sys/class/dmi/id/product_name": "KVM\n", "/.dockerenv": ""})
        self.assertEqual(provenance.virtualisation(CPUINFO, files), "virtual machine (KVM) + container")
        self.assertEqual(provenance.virtualisation("flags : fpu\n", reader({})), "")

    def test_the_tightest_limit_on_the_way_to_the_root_counts(self) -> None:
        files = reader(
            {
                "/proc/self/cgroup": "0::/slurm/job_7/step_0\n",
                "/sys/fs/cgroup/slurm/job_7/step_0/cpu.max": "max 100000\n",
                "/sys/fs/cgroup/slurm/job_7/cpu.max": "400000 100000\n",
                "/sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
                "/sys/fs/cgroup/slurm/memory.max": "2147483648\n",
            }
        )
        self.assertEqual(
            provenance.cgroup_limits(files), {"cgroup_cpus": 4.0, "cgroup_memory_bytes": 2147483648}
        )
        self.assertEqual(provenance.cgroup_limits(reader({"/proc/self/cgroup": "4:memory:/x\n"})), {})

    def test_packages_are_named_once_and_hashed_in_any_order(self) -> None:
        found = provenance.installed_packages(
            [Distribution("Faiss_CPU", "1.15"), Distribution("numpy", "2.4"), Distribution("numpy", "1.0")]
        )
        self.assertEqual(found, {"faiss-cpu": "1.15", "numpy": "2.4"})
        self.assertEqual(
            provenance.packages_sha256(found),
            provenance.packages_sha256({"numpy": "2.4", "faiss-cpu": "1.15"}),
        )
        self.assertNotEqual(
            provenance.packages_sha256(found), provenance.packages_sha256({**found, "numpy": "2.5"})
        )


class Distribution:
    """As importlib.metadata describes an installed package."""

    def __init__(self, name: str, version: str) -> None:
        self.metadata = Message()
        self.metadata["Name"] = name
        self.version = version


class Project(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_the_commit_comes_from_this_checkout_only(self) -> None:
        asked: list[Sequence[str]] = []

        def run(command: Sequence[str]) -> str:
            asked.append(command)
            return GIT_STATUS

        self.assertNotIn("git_commit", provenance.project_facts(self.root, None, run))
        self.assertEqual(asked, [])
        (self.root / ".git").mkdir()
        self.assertIn("git_commit", provenance.project_facts(self.root, None, run))

    def test_a_real_checkout_is_read(self) -> None:
        def git(*words: str) -> None:
            identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
            subprocess.run(("git", *identity, *words), cwd=self.root, check=True, capture_output=True)

        git("init", "-q")
        (self.root / "file").write_text("1")
        git("add", "file")
        git("commit", "-qm", "first")
        facts = provenance.project_facts(self.root, None, provenance.run_quietly)
        self.assertRegex(facts["git_commit"], "^[0-9a-f]{40}$")
        self.assertIs(facts["git_dirty"], False)
        (self.root / "file").write_text("2")
        self.assertIs(provenance.project_facts(self.root, None, provenance.run_quietly)["git_dirty"], True)

    def test_without_git_the_commit_is_absent(self) -> None:
        (self.root / ".git").mkdir()
        self.assertNotIn("git_commit", provenance.project_facts(self.root, None, lambda _: None))
        self.assertIsNone(provenance.run_quietly(("no-such-program",)))
        self.assertIsNone(provenance.run_quietly(("false",)))

    def test_the_batch_script_is_hashed(self) -> None:
        script = self.root / "start.sh"
        script.write_bytes(b"abc")
        facts = provenance.project_facts(self.root, script, lambda _: None)
        self.assertEqual(
            facts["batch_script_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
        self.assertIsNone(provenance.file_sha256(self.root / "gone"))


class Collect(unittest.TestCase):
    def test_facts_are_plain_json_without_empty_values_and_quick(self) -> None:
        began = time.process_time()
        facts = collect(Path(__file__).parents[1])
        self.assertLess(time.process_time() - began, 0.3)
        self.assertEqual(json.loads(json.dumps(facts)), facts)
        self.assertEqual(facts["machine"]["host"], os.uname().nodename)
        self.assertGreater(facts["machine"]["memory_bytes"], 2**20)
        self.assertIn("python", facts["software"])
        self.assertNotIn(None, [value for group in facts.values() for value in group.values()])

    def test_only_allowed_environment_variables_are_kept(self) -> None:
        environ = {
            "HF_TOKEN": "hf_secret",
            "SLURM_JOB_ID": "7",
            "LOADEDMODULES": "a:b",
            "OMP_NUM_THREADS": "",
        }
        facts = collect(Path("/nowhere"), environ=environ)
        self.assertEqual(facts["environment"], {"SLURM_JOB_ID": "7", "LOADEDMODULES": "a:b"})
        self.assertNotIn("hf_secret", json.dumps(facts))


if __name__ == "__main__":
    unittest.main()
