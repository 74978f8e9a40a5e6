"""How MPI's ranks are started: the words for Slurm, for mpirun, and for one process alone."""

import os
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from aifbench.errors import WorkloadError
from aifbench.workloads.mpi_launch import Surroundings, launcher, look_around, one_per_node, parse_mpi_list

SLURM = Surroundings(mpi_types=("none", "pmi2", "pmix"), in_slurm=True)
OPEN_MPI = Surroundings(mpirun="/usr/bin/mpirun", mpirun_version="mpirun (Open MPI) 4.1.4\n")
MPI_LIST = """MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
specific pmix plugin versions available: pmix_v4
"""


class Launchers(unittest.TestCase):
    def test_the_types_that_srun_offers(self) -> None:
        self.assertEqual(parse_mpi_list(MPI_LIST), ("pmix", "none", "cray_shasta"))
        old = "srun: MPI types are...\nsrun: none\nsrun: pmi2\n"
        self.assertEqual(parse_mpi_list(old), ("none", "pmi2"))
        self.assertEqual(parse_mpi_list(""), ())

    def test_by_slurm_with_the_best_of_its_types(self) -> None:
        words = launcher("auto", SLURM, processes=8, nodes=2)
        self.assertEqual(words[words.index("srun") :][1:5], (
            "--overlap", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4",
        ))  # fmt: skip
        self.assertEqual(words[-1], "--mpi=pmix")
        without = Surroundings(mpi_types=("none", "pmi2"), in_slurm=True)
        self.assertEqual(launcher("srun", without, processes=3, nodes=2)[-1], "--mpi=pmi2")
        self.assertIn("--ntasks-per-node=2", launcher("srun", without, processes=3, nodes=2))

    def test_the_step_that_asks_is_not_taken_for_the_ranks_own(self) -> None:
        for choice in ("srun", "none"):
            words = launcher(choice, SLURM, processes=4, nodes=2)
            hidden = {words[place + 1] for place, word in enumerate(words) if word == "-u"}
            self.assertLessEqual({"SLURM_PROCID", "SLURM_NTASKS", "PMIX_RANK", "PMI_RANK"}, hidden)
            self.assertNotIn("SLURM_JOB_ID", hidden)

    def test_slurm_without_any_type_uses_mpirun_where_there_is_one(self) -> None:
        bare = Surroundings(
            mpi_types=("none",), in_slurm=True, mpirun="/opt/mpirun", mpirun_version="Open MPI"
        )
        self.assertEqual(launcher("auto", bare, processes=2, nodes=1)[0], "/opt/mpirun")
        alone = Surroundings(mpi_types=("none",), in_slurm=True)
        self.assertFalse([word for word in launcher("auto", alone, processes=2, nodes=1) if "--mpi" in word])

    def test_by_open_mpi(self) -> None:
        words = launcher("auto", OPEN_MPI, processes=5, nodes=2, hosts=("a", "b"))
        self.assertEqual(words, ("/usr/bin/mpirun", "--oversubscribe", "-n", "5", "--host", "a:3,b:3"))
        self.assertNotIn("--host", launcher("mpirun", OPEN_MPI, processes=2, nodes=1))
        root = Surroundings(mpirun="m", mpirun_version="OpenRTE 4", is_root=True)
        self.assertIn("--allow-run-as-root", launcher("mpirun", root, processes=2, nodes=1))

    def test_by_mpich(self) -> None:
        mpich = Surroundings(mpirun="m", mpirun_version="HYDRA build details", is_root=True)
        self.assertEqual(
            launcher("mpirun", mpich, processes=2, nodes=2, hosts=("a", "b")),
            ("m", "-n", "2", "-hosts", "a,b"),
        )
        self.assertEqual(launcher("mpirun", mpich, processes=2, nodes=1), ("m", "-n", "2"))

    def test_one_process_needs_none(self) -> None:
        self.assertEqual(launcher("auto", OPEN_MPI, processes=1, nodes=1), ())
        self.assertEqual(launcher("none", OPEN_MPI, processes=4, nodes=1), ())

    def test_where_there_is_no_way(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "neither a Slurm job nor mpirun.*apt install"):
            launcher("auto", Surroundings(), processes=2, nodes=1)
        with self.assertRaisesRegex(WorkloadError, "needs a Slurm job"):
            launcher("srun", OPEN_MPI, processes=2, nodes=1)

    def test_a_program_on_each_node(self) -> None:
        words = one_per_node(3)
        self.assertIn("--ntasks=3", words)
        self.assertEqual(words[-1], "--mpi=none")


class LookingAround(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.environ = {"PATH": str(self.dir), "SLURM_JOB_ID": "7"}

    def program(self, name: str, says: str) -> None:
        path = self.dir / name
        path.write_text(f"#!/bin/sh\nprintf '{says}'\n")
        path.chmod(0o755)

    def test_a_slurm_job_with_mpi(self) -> None:
        self.program("srun", "MPI plugin types are...\\n\\tpmix\\n\\tnone\\n")
        self.program("mpirun", "mpirun (Open MPI) 5.0.3\\n")
        seen = look_around(self.environ)
        self.assertEqual((seen.mpi_types, seen.in_slurm), (("pmix", "none"), True))
        self.assertIn("5.0.3", seen.mpirun_version)
        self.assertEqual(seen.is_root, os.geteuid() == 0)

    def test_no_slurm(self) -> None:
        self.assertEqual(look_around(self.environ).in_slurm, False)
        self.program("srun", "\\tpmix\\n")
        self.assertTrue(look_around(self.environ).in_slurm)
        self.assertFalse(look_around({**self.environ, "AIFBENCH_SCHEDULER": "local"}).in_slurm)
        self.assertFalse(look_around({"PATH": str(self.dir)}).in_slurm)

    def test_a_broken_program_says_nothing(self) -> None:
        (self.dir / "mpirun").write_text("no program")
        (self.dir / "mpirun").chmod(0o755)
        self.assertEqual(look_around(self.environ).mpirun_version, "")


if __name__ == "__main__":
    unittest.main()
