"""Somebody else's program as a worker's part: found, given its files, started, its servers ended."""

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.waiting import eventually

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.processes import start_ticks
from aifbench.errors import WorkloadError
from aifbench.load.program_loop import ProgramPart
from aifbench.load.workload import OutcomeKind
from aifbench.workloads import engine_program
from aifbench.workloads.engine_program import EngineProgram

HERE = Endpoint("here", 0, scheme="file")
# As srun of a step: drops its own words and runs the rest.
SRUN = """#!/bin/bash
if [ "$1" = --mpi=list ]; then printf '\\tnone\\n\\tpmix\\n'; exit; fi
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
FIO = """#!/bin/bash
echo $$ >"$FAKE_DIR/server.pid"
[ ! -e "$FAKE_DIR/broken" ] || { echo "fio: failed to bind to port"; exit 1; }
exec sleep 60
"""


class ProgramCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.output = self.dir / "output"
        self.output.mkdir()
        environ = {
            "AIFBENCH_SCHEDULER": "local",
            "FAKE_DIR": str(self.dir),
            "AIFBENCH_FIO": "",
            "AIFBENCH_IOR": "",
        }
        self.enterContext(mock.patch.dict(os.environ, environ))
        os.environ.pop("SLURM_JOB_NODELIST", None)

    def install(self, name: str, text: str) -> None:
        path = self.dir / name
        path.write_text(text)
        path.chmod(0o755)
        os.environ["PATH"] = f"{self.dir}:/usr/bin:/bin"

    def part(self) -> ProgramPart:
        return ProgramPart(self.output, 0, 1, 1, None, None, 1, 1, started_ns=1)

    def program(self, engine: str, *, processes: int = 1, nodes: int = 1, **job: Any) -> EngineProgram:
        found = EngineProgram(engine, {"directory": str(self.dir / "own"), **job}, processes, nodes)
        found.open(HERE)
        return found

    def in_slurm(self, nodes: str) -> None:
        self.install("srun", SRUN)
        changes = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": nodes, "AIFBENCH_SCHEDULER": "slurm"}
        self.enterContext(mock.patch.dict(os.environ, changes))


class Starting(ProgramCase):
    def test_a_program_that_is_not_there(self) -> None:
        with (
            mock.patch.dict(os.environ, PATH=str(self.dir), AIFBENCH_IMAGES=str(self.dir)),
            self.assertRaisesRegex(WorkloadError, "no fio on this machine.*apt install fio"),
        ):
            self.program("fio")

    def test_its_files_lie_beside_its_output(self) -> None:
        self.install("fio", FIO)
        command = self.program("fio", size_bytes=4096, is_direct=True).command(self.part())
        self.assertTrue((self.output / "fio-write-0.fio").is_file())
        self.assertIn("direct=1", (self.output / "fio-read-0.fio").read_text())
        self.assertEqual(command.argv[0], "sh")
        self.assertTrue((self.dir / "own").is_dir())

    def test_a_path_that_means_something_else_to_it(self) -> None:
        self.install("fio", FIO)
        self.install("ior", FIO)
        for engine, name in (("fio", "a;b"), ("fio", "${HOME}"), ("ior", "me@site")):
            with self.assertRaisesRegex(WorkloadError, "cannot work in .*means something else"):
                EngineProgram(engine, {"directory": str(self.dir / name)}, 1, 1).open(HERE)
            self.assertFalse((self.dir / name).exists())

    def test_a_directory_that_cannot_be_made(self) -> None:
        self.install("fio", FIO)
        with self.assertRaisesRegex(WorkloadError, "cannot make"):
            EngineProgram("fio", {"directory": str(self.dir / "a/b")}, 1, 1).open(HERE)

    def test_ranks_of_mpi_are_started_over_all_nodes(self) -> None:
        self.install("ior", "#!/bin/sh\n")
        self.in_slurm("n[1-2]")
        argv = self.program("ior", processes=8, nodes=2).command(self.part()).argv
        self.assertIn("--ntasks=8", argv)
        self.assertIn("--mpi=pmix", argv)
        self.assertLess(argv.index("srun"), argv.index(str(self.dir / "ior")))

    def test_io500_writes_where_the_run_is(self) -> None:
        self.install("io500", "#!/bin/sh\n")
        self.program("io500", ini="[global]\ndatadir = /elsewhere\n").command(self.part())
        ini = (self.output / "io500.ini").read_text()
        self.assertNotIn("/elsewhere", ini)
        self.assertIn(str(self.output), ini)
        self.assertIn(str(self.dir / "own"), ini)


class Ending(ProgramCase):
    def test_an_exit_status_is_told(self) -> None:
        self.install("ior", "#!/bin/sh\n")
        program = self.program("ior")
        good = program.operations(self.part(), 0, "")
        self.assertEqual((good.outcome[0], dict(good.errors)), (OutcomeKind.OK, {}))
        bad = program.operations(self.part(), 3, "")
        self.assertEqual(bad.outcome[0], OutcomeKind.SERVER_ERROR)
        self.assertEqual(list(bad.errors), ["ior ended with exit status 3"])
        self.assertEqual(list(program.operations(self.part(), -9, "").errors), ["ior ended with signal 9"])


class Servers(ProgramCase):
    def setUp(self) -> None:
        super().setUp()
        self.install("fio", FIO)
        self.in_slurm("n[1-2]")

    def test_one_on_each_node_for_as_long_as_the_part_lasts(self) -> None:
        program = self.program("fio", processes=2, nodes=2, size_bytes=4096)
        with mock.patch.object(engine_program, "_SERVER_START_S", 0.3):
            program.command(self.part())
        eventually((self.dir / "server.pid").exists, "the server has begun")
        pid = int((self.dir / "server.pid").read_text())
        self.assertIsNotNone(start_ticks(pid))
        program.close()
        eventually(lambda: start_ticks(pid) is None, "the server has ended")

    def test_those_that_do_not_start_say_why(self) -> None:
        (self.dir / "broken").touch()
        program = self.program("fio", processes=2, nodes=2)
        with (
            mock.patch.object(engine_program, "_SERVER_START_S", 0.5),
            self.assertRaisesRegex(WorkloadError, "servers of fio did not start: .*failed to bind"),
        ):
            program.command(self.part())
        program.close()

    def test_one_node_needs_none(self) -> None:
        self.in_slurm("n1")
        program = self.program("fio", processes=2, nodes=1)
        program.command(self.part())
        self.assertFalse((self.dir / "server.pid").exists())
        program.close()


if __name__ == "__main__":
    unittest.main()
