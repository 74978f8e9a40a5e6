"""IOR, mdtest, fio and elbencho: what they print, how they are started, and what becomes of both.

fio's files under test/data are its own output, version 3.33, captured (paths and host names replaced):
finished, two jobs, json+, ended by a signal, disk full, two servers, and one of two servers lost. IOR's and
mdtest's texts are of the public archive IO500/submission-data (Helios, 708) and of their projects'
documentation; elbencho's are made by its documentation and by the writer in its source, not captured.
"""

import json
import tempfile
import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import WorkloadError
from aifbench.workloads import elbencho_output
from aifbench.workloads.engine_types import Asked, EngineReading
from aifbench.workloads.file_engines import ENGINES, METADATA_OPERATIONS, EngineJob
from aifbench.workloads.fio_output import merged_percentiles, parse_fio, totals
from aifbench.workloads.io500_profiles import PROFILES, ini_of
from aifbench.workloads.ior_output import parse_ior
from aifbench.workloads.mdtest_output import parse_mdtest

DATA = Path(__file__).parent / "data"
DIRECTORY, OUTPUT = Path("/fs/mine"), Path("/out/run")
HELIOS = (DATA / "ior_4.1_io500.txt").read_text()

IOR_TEXT = (DATA / "ior_3.3_iterations.txt").read_text()
# Version 3.0 had neither IOPS nor latency, and told its settings with `=`.
IOR_OLD = """IOR-3.0.1: MPI Coordinated Test of Parallel I/O

Summary:
\tapi                = POSIX
\taccess             = file-per-process
\tclients            = 16 (8 per node)
\trepetitions        = 1
\tUsing stonewalling = 30 second(s)

access    bw(MiB/s)  block(KiB) xfer(KiB)  open(s)    wr/rd(s)   close(s)   total(s)   iter
------    ---------  ---------- ---------  --------   --------   --------   --------   ----
write     2051.20    1048576    1024.00    0.000301   7.98       0.002041   7.99       0
"""
MDTEST = """-- started at 03/19/2026 17:55:06 --

mdtest-4.0.0 was launched with 10 total task(s) on 2 node(s)
Nodemap: 1010101010
10 tasks, 33340 files
Continue stonewall hit min: 49252 max: 69315 avg: 58997.7

SUMMARY rate: (of 1 iterations)
   Operation                     Max            Min           Mean        Std Dev
   ---------                     ---            ---           ----        -------
   File creation                2568.636       2568.636       2568.636          0.000
   File stat                       0.000          0.000          0.000          0.000
   File read                       0.000          0.000          0.000          0.000
   File removal                    0.000          0.000          0.000          0.000
   Tree creation                 496.015        496.015        496.015          0.000
   Tree removal                    0.000          0.000          0.000          0.000

SUMMARY time (in ops/sec): (of 1 iterations)
   Operation                     Max            Min           Mean        Std Dev
   ---------                     ---            ---           ----        -------
   File creation                 372.432        372.432        372.432          0.000
-- finished at 03/19/2026 17:55:20 --
"""
MDTEST_OLD = """mdtest-1.9.3 was launched with 4 total task(s) on 1 node(s)

SUMMARY: (of 3 iterations)
   Operation                      Max            Min           Mean        Std Dev
   ---------                      ---            ---           ----        -------
   Directory creation:     113501.114     113501.114     113501.114          0.000
   File creation     :        439.763        404.632        422.661         14.357
   File removal      :        449.800        414.304        435.508         15.293

-- finished at 11/01/2019 19:14:57 --
"""
ELBENCHO_TABLE = """OPERATION   RESULT TYPE         FIRST DONE   LAST DONE
=========== ================    ==========   =========
WRITE       Elapsed time     :    2m3.241s    2m5.755s
            IOPS             :       33395       33352
            Throughput MiB/s :       33395       33352
            Total MiB        :     4115703     4194304
---
RMFILES     Elapsed time     :       850ms       1.2s
            Files/s          :       30000       20000
---
"""


def elbencho_line(phase: str, first: str, last: str, hosts: str = "1") -> str:
    rates = [
        {"elapsed_time_ms": "1500", "iops": "96", "bytes/s": value, "cpu%": "3"} for value in (first, last)
    ]
    config = {"hosts": hosts, "threads": "4", "direct_io": "true", "version": "3.1-0"}
    return json.dumps({"phase_type": phase, "config": config, "first_done": rates[0], "last_done": rates[1]})


def job(**changes: object) -> EngineJob:
    return EngineJob(DIRECTORY, OUTPUT, **changes)  # type: ignore[arg-type]


def asked(**changes: object) -> dict[str, str]:
    return Asked.of(job(**changes)).as_file()


def codes(reading: EngineReading) -> list[str]:
    return [finding.code for finding in reading.findings]


def fio(case: str) -> str:
    return (DATA / f"fio_3.33_{case}.txt").read_text()


class IorOutput(unittest.TestCase):
    def test_a_table_with_iterations(self) -> None:
        run = parse_ior(IOR_TEXT)
        self.assertEqual(
            ("3.3.0", 8, 1, 2, True), (run.version, run.tasks, run.nodes, run.repeats, run.is_finished)
        )
        self.assertEqual([912.40, 950.00], [row.bandwidth_mib_s for row in run.of("write")])
        self.assertEqual([0.016137, 0.016], [row.total_s for row in run.of("read")])
        self.assertTrue(run.is_shared)

    def test_the_oldest_table(self) -> None:
        run = parse_ior(IOR_OLD)
        self.assertEqual(
            (16, 30, False, False), (run.tasks, run.stonewall_s, run.has_wear_out, run.is_finished)
        )
        self.assertEqual(
            (2051.2, 7.99, None), (run.rows[0].bandwidth_mib_s, run.rows[0].total_s, run.rows[0].iops)
        )

    def test_stonewall_of_a_public_run_agrees_with_what_io500_made_of_it(self) -> None:
        run = parse_ior(HELIOS)
        (row,) = run.rows
        self.assertEqual(361270, row.bandwidth_mib_s)
        self.assertAlmostEqual(403.55, (run.stonewall_rate(row) or 0) / 1024, delta=0.1)
        self.assertTrue(run.has_wear_out)
        self.assertEqual(4, len(run.warnings))

    def test_json(self) -> None:
        rows = [
            {"access": "write", "bwMiB": 512.34, "totalTime": 0.003, "iops": 2048.0},
            {"access": "remove"},
        ]
        data = {
            "Version": "4.0.0",
            "tests": [{"Parameters": {"repetitions": 1}, "Options": {"tasks": "4"}, "Results": rows}],
            "Finished": "now",
        }
        run = parse_ior(json.dumps(data))
        self.assertEqual((512.34, 4, True), (run.rows[0].bandwidth_mib_s, run.tasks, run.is_finished))
        cut = parse_ior(json.dumps(data)[:-30])
        self.assertEqual(((), False), (cut.rows, cut.is_finished))
        self.assertIn("cut or damaged", cut.errors[0])

    def test_judged_by_the_median_of_all_iterations(self) -> None:
        reading = ENGINES["ior"].parse(IOR_TEXT, asked(processes=8, repeats=2))
        write = reading.result("write")
        assert write is not None
        self.assertEqual((912.40, 912.40, 950.0, 2), (write.value, write.low, write.high, write.repeats))
        self.assertTrue(reading.is_valid)

    def test_cut_mismatched_and_failed(self) -> None:
        ior = ENGINES["ior"]
        half = IOR_TEXT[: IOR_TEXT.index("remove")]
        self.assertEqual(["IOR_TRUNCATED"], codes(ior.parse(half, asked(processes=8, repeats=2))))
        self.assertEqual(["IOR_NOT_FINISHED"], codes(ior.parse(half, asked(processes=8))))
        self.assertEqual(["IOR_NOT_ONE_RUN"], codes(ior.parse(IOR_TEXT, asked(processes=64, repeats=2))))
        failed = ior.parse('ior ERROR: open64("/fs/mine/x") failed, errno 122, Disk quota exceeded', asked())
        self.assertEqual(["IOR_NO_RESULT"], codes(failed))
        self.assertIn("Disk quota exceeded", failed.findings[0].message)
        self.assertFalse(failed.is_valid)


class MdtestOutput(unittest.TestCase):
    def test_rates_without_what_was_not_run(self) -> None:
        run = parse_mdtest(MDTEST)
        self.assertEqual(["file creation", "tree creation"], [row.operation for row in run.rows])
        self.assertEqual(
            (2568.636, (49252, 69315), True), (run.rows[0].mean_per_s, run.stonewall_items, run.is_finished)
        )

    def test_the_oldest_table(self) -> None:
        run = parse_mdtest(MDTEST_OLD)
        row = run.row("file creation")
        assert row is not None
        self.assertEqual(
            (439.763, 404.632, 422.661, 14.357),
            (row.max_per_s, row.min_per_s, row.mean_per_s, row.stddev_per_s),
        )
        self.assertEqual(3, run.iterations)

    def test_verdicts(self) -> None:
        mdtest = ENGINES["mdtest"]
        self.assertEqual([], codes(mdtest.parse(MDTEST, asked(operations=("create",), processes=10))))
        self.assertEqual(
            ["MDTEST_TRUNCATED"],
            codes(mdtest.parse(MDTEST, asked(operations=("create", "stat"), processes=10))),
        )
        cut = MDTEST[: MDTEST.index("-- finished")]
        self.assertEqual(
            ["MDTEST_NOT_FINISHED"], codes(mdtest.parse(cut, asked(operations=("create",), processes=10)))
        )
        self.assertEqual(["MDTEST_NO_RESULT"], codes(mdtest.parse(MDTEST[:300], {})))

    def test_its_time_follows_from_its_rate(self) -> None:
        mdtest = ENGINES["mdtest"]
        (create,) = mdtest.parse(MDTEST, asked(operations=("create",), processes=10, files=2569)).results
        self.assertAlmostEqual(10.0, create.time_s or 0, delta=0.01)
        (create,) = mdtest.parse(MDTEST, {}).results
        self.assertIsNone(create.time_s)


class FioOutput(unittest.TestCase):
    def test_two_jobs_after_each_other(self) -> None:
        run = parse_fio(fio("two"))
        self.assertEqual(
            [(0, "write", 1), (1, "read", 2)], [(t.group, t.direction, t.jobs) for t in totals(run)]
        )
        read = totals(run)[1]
        self.assertLess(read.last_done_bytes_per_s, read.first_done_bytes_per_s)
        self.assertEqual(([], "3.33"), ([j for j in run.jobs if j.is_cut or j.error], run.version))

    def test_percentiles_are_fios_own(self) -> None:
        (stream,) = parse_fio(fio("plus")).jobs[0].streams
        wanted = dict(stream.percentiles_ns)
        self.assertEqual(wanted, merged_percentiles([stream], wanted))

    def test_percentiles_of_two_clients_are_of_all_their_operations(self) -> None:
        streams = [job.streams[0] for job in parse_fio(fio("client")).jobs]
        values = sorted(v for s in streams for v, count in s.bins.items() for _ in range(count))
        self.assertEqual(len(values), sum(stream.operations for stream in streams))
        merged = merged_percentiles(streams, (50.0, 99.0))
        self.assertEqual({50.0: values[511], 99.0: values[1013]}, merged)
        self.assertEqual({}, merged_percentiles([*streams, *parse_fio(fio("two")).jobs[0].streams]))

    def test_client_and_server(self) -> None:
        run = parse_fio(fio("client"))
        self.assertEqual(("127.0.0.1:8772", "127.0.0.1:8771"), run.hosts)
        self.assertEqual(2, len(run.jobs))

    def test_ended_by_a_signal(self) -> None:
        reading = ENGINES["fio"].parse(fio("killed"), {})
        self.assertEqual(["FIO_CUT"], codes(reading))
        self.assertIn("signal 2 after 1.8 s", reading.findings[0].message)
        self.assertTrue(parse_fio(fio("killed").replace("fio: terminating on signal 2", "")).jobs[0].is_cut)

    def test_disk_full(self) -> None:
        reading = ENGINES["fio"].parse(fio("full"), {})
        self.assertEqual(["FIO_JOB_ERROR"], codes(reading))
        self.assertIn("No space left on device", reading.findings[0].message)
        self.assertFalse(reading.is_valid)

    def test_a_lost_server(self) -> None:
        files = {"fio-write.json": fio("lost"), **asked(operations=("write",), hosts=("a", "b"))}
        self.assertIn("FIO_LOST_CLIENT", codes(ENGINES["fio"].parse("", files)))

    def test_no_json_or_half_of_it(self) -> None:
        whole = fio("plus")
        for text in ("", "fio: connect: Connection refused", whole[: len(whole) // 2], "{}", "{\n}"):
            reading = ENGINES["fio"].parse(text, {})
            self.assertEqual((["FIO_NO_RESULT"], False), (codes(reading), reading.is_valid), text[:40])
        self.assertIn(
            "refused", ENGINES["fio"].parse("fio: connect: Connection refused", {}).findings[0].message
        )


class ElbenchoOutput(unittest.TestCase):
    def test_json_lines_exactly(self) -> None:
        text = (
            elbencho_line("WRITE", "2097152000", "1048576512")
            + "\n"
            + elbencho_line("READ", "4194304", "2097152")
        )
        reading = ENGINES["elbencho"].parse("", {"elbencho.json": text, **asked()})
        write = reading.result("write")
        assert write is not None
        self.assertEqual(
            (1000.00048828125, 2000.0, 1000.00048828125), (write.value, write.first_done, write.last_done)
        )
        self.assertEqual(("3.1-0", True), (reading.version, reading.is_valid))

    def test_killed_while_writing_and_a_lost_host(self) -> None:
        whole = elbencho_line("WRITE", "1", "1")
        reading = ENGINES["elbencho"].parse(
            "", {"elbencho.json": whole + "\n" + whole[:50], **asked(hosts=("a", "b"))}
        )
        self.assertEqual(["ELBENCHO_TRUNCATED", "ELBENCHO_DAMAGED", "ELBENCHO_HOSTS"], codes(reading))

    def test_the_table_when_there_is_no_json(self) -> None:
        write, remove = elbencho_output.parse_text(ELBENCHO_TABLE).phases
        self.assertEqual((123.241, 125.755), (write.first.time_s, write.last.time_s))
        self.assertEqual(33352 * 2**20, write.last.bytes_per_s)
        self.assertEqual(
            ("RMFILES", 20000, 0.85), (remove.name, remove.last.entries_per_s, remove.first.time_s)
        )
        self.assertEqual(
            ["ELBENCHO_NO_RESULT"], codes(ENGINES["elbencho"].parse("ERROR: no service", asked()))
        )


class Commands(unittest.TestCase):
    def test_each_engine_works_in_our_directory_only(self) -> None:
        ini = ini_of(PROFILES["quick"], Path("/elsewhere"), Path("/elsewhere"))
        for name, engine in ENGINES.items():
            command = engine.command((name,), job(ini=ini, launcher=("srun", "-n", "4"), processes=4))
            said = " ".join([*command.argv, *command.files.values()])
            self.assertIn(str(DIRECTORY), said, name)
            self.assertNotIn("/elsewhere", said)
            self.assertEqual(engine.uses_mpi, command.argv[:3] == ("srun", "-n", "4"), name)
            self.assertEqual(job(processes=4).repeats, Asked.within(dict(command.files)).repeats)

    def test_hosts_begin_each_operation_together_with_files_of_their_own(self) -> None:
        command = ENGINES["fio"].command(("fio",), job(hosts=("n1", "n2"), processes=8, duration_s=30))
        runs = [line for line in command.files["fio.sh"].splitlines() if line.startswith("fio ")]
        self.assertEqual(2, len(runs))
        for line in runs:
            self.assertTrue("--client=n1,8765" in line and "--client=n2,8765" in line)
        self.assertIn("filename_format=fio.0.", command.files["fio-write-0.fio"])
        self.assertIn("filename_format=fio.1.", command.files["fio-write-1.fio"])
        self.assertIn("numjobs=4\n", command.files["fio-read-1.fio"])
        self.assertEqual(("fio", "--server=,8765"), command.server)

    def test_a_colon_in_a_path_divides_no_directories(self) -> None:
        command = ENGINES["fio"].command(("fio",), EngineJob(Path("/fs/12:30/mine"), OUTPUT))
        self.assertIn("directory=/fs/12\\:30/mine\n", command.files["fio-write-0.fio"])

    def test_elbencho_services(self) -> None:
        command = ENGINES["elbencho"].command(("elbencho",), job(hosts=("n1", "n2"), is_direct=True))
        self.assertEqual(("--hosts", "n1,n2"), command.argv[1:3])
        self.assertEqual(("elbencho", "--hosts", "n1,n2", "--quit"), command.stop)
        self.assertEqual((), ENGINES["elbencho"].command(("elbencho",), job()).server)

    def test_mdtest_does_all_it_can_when_asked_for_bandwidth(self) -> None:
        command = ENGINES["mdtest"].command(("mdtest",), job())
        self.assertTrue({"-C", "-T", "-E", "-r"} <= set(command.argv))
        self.assertEqual(METADATA_OPERATIONS, Asked.within(dict(command.files)).operations)

    def test_io500_reads_back_what_it_was_configured_with(self) -> None:
        io500 = ENGINES["io500"]
        command = io500.command(("io500",), job(ini=ini_of(PROFILES["quick"], DIRECTORY, OUTPUT)))
        summary = (DATA / "io500_meluxina_2021_summary.txt").read_text()
        reading = io500.parse("", {**command.files, "io500/result_summary.txt": summary})
        score = reading.result("score")
        assert score is not None
        self.assertAlmostEqual(194.118890, score.value, places=5)
        self.assertEqual((15, True), (len(reading.results), reading.is_valid))
        self.assertEqual(["IO500_NO_RESULT"], codes(io500.parse("srun: error: task 3 killed", command.files)))

    def test_programs_are_found_or_it_is_said_how_to_get_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "ior"
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
            self.assertEqual((str(program),), ENGINES["ior"].find({"PATH": folder}))
            self.assertEqual(("my", "ior"), ENGINES["ior"].find({"AIFBENCH_IOR": "my ior", "PATH": folder}))
            for name in ENGINES.keys() - {"ior"}:
                with self.assertRaisesRegex(
                    WorkloadError, f"no {name} on this machine.*AIFBENCH_{name.upper()}"
                ):
                    ENGINES[name].find({"PATH": folder, "AIFBENCH_HOME": folder})

    def test_an_image_sees_both_directories(self) -> None:
        words = ("apptainer", "exec", "/images/ior.sif", "ior")
        argv = ENGINES["ior"].command(words, job(launcher=("srun",))).argv
        self.assertEqual(
            ("srun", "apptainer", "exec", "--bind", "/fs/mine,/out/run", "/images/ior.sif", "ior"), argv[:7]
        )

    def test_damaged_notes_beside_a_run_are_no_notes(self) -> None:
        for text in ("{", "[]", '{"what": 1}', "7"):
            self.assertEqual(Asked(), Asked.within({"asked.json": text}))


if __name__ == "__main__":
    unittest.main()
