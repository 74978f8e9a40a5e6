"""Earlier IO500 runs as runs of the store: listed, shown, compared, reported; refused where they are none.

The files are those of the public archive IO500/submission-data under test/data; cut, damaged and invalid
ones are made of them here.
"""

import io
import os
import re
import shutil
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.clock import SystemClock
from aifbench.config import load_config
from aifbench.errors import ResultError, UsageError
from aifbench.repl.app import main
from aifbench.results.comparison import compare_sides
from aifbench.results.evidence import verify
from aifbench.results.record import Check, RunRecord, Verdict
from aifbench.results.selection import select_sides
from aifbench.results.store import RunStore
from aifbench.servers.engine_measurements import EngineRun, engine_measurements
from aifbench.servers.io500_import import FOLDER, Imported, import_io500
from aifbench.session import Session
from aifbench.workloads.engine_types import EngineReading, EngineResult
from aifbench.workloads.mpi_engines import Io500

DATA = Path(__file__).parent / "data"
MELUXINA = (DATA / "io500_meluxina_2021_summary.txt").read_text()
DETAILS = (DATA / "io500_meluxina_2021_result.txt").read_text()
INI = (DATA / "io500_meluxina_2021.ini").read_text()
AION = (DATA / "io500_aion_2021_summary.txt").read_text()


class Imports(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.runs = RunStore(self.home / "results", SystemClock())

    def write(self, **texts: str | bytes) -> Path:
        """A directory with files; `__` in a name stands for a dot."""
        directory = Path(tempfile.mkdtemp(dir=self.home))
        for name, text in texts.items():
            data = text if isinstance(text, bytes) else text.encode()
            (directory / name.replace("__", ".")).write_bytes(data)
        return directory

    def take(self, path: Path, nodes: int = 0, ini: Path | None = None) -> list[Imported]:
        return import_io500(path, self.runs, SystemClock(), nodes=nodes, ini=ini)

    def record(self, path: Path, nodes: int = 0) -> RunRecord:
        (one,) = self.take(path, nodes)
        return self.runs.load(one.run_id)


class WhatIsKept(Imports):
    def test_a_result_directory_becomes_a_complete_run_of_its_day(self) -> None:
        path = self.write(result_summary__txt=MELUXINA, result__txt=DETAILS, config__ini=INI)
        record = self.record(path, 512)
        self.assertEqual(Verdict.VALID, record.verdict)
        self.assertTrue(record.run_id.startswith("20210611-151453-lustre-"), record.run_id)
        self.assertEqual("2021-06-11T15:14:53Z", record.created_utc)
        self.assertEqual(
            ("io500", 12288, 512), tuple(record.recipe[k] for k in ("bench", "workers", "client_nodes"))
        )
        self.assertEqual("32g", record.recipe["facts"]["configuration"]["ior-easy"]["blocksize"])
        self.assertEqual(13, len(record.measurements))
        easy = record.measurements[0]
        found = {metric.name: metric.value for metric in easy.metrics}
        self.assertEqual(
            (440.642412, 492.19, 561.866),
            tuple(found[k] for k in ("bandwidth", "bandwidth_first_done", "time")),
        )
        self.assertAlmostEqual(440.642412 / 512, found["bandwidth_per_node"] or 0)
        self.assertAlmostEqual(100, found["reference_share"] or 0)

    def test_its_files_are_copied_with_their_checksums(self) -> None:
        path = self.write(result_summary__txt=MELUXINA, result__txt=DETAILS)
        record = self.record(path)
        copies = self.runs.path(record.run_id) / FOLDER
        self.assertEqual({"result_summary.txt", "result.txt"}, {copy.name for copy in copies.iterdir()})
        self.assertEqual(MELUXINA, (copies / "result_summary.txt").read_text())
        self.assertEqual({f"{FOLDER}/{copy.name}" for copy in copies.iterdir()}, set(record.files))
        shutil.rmtree(path)
        self.assertEqual([], verify(self.runs.path(record.run_id), record))
        (copies / "result.txt").write_text("changed")
        self.assertEqual(1, len(verify(self.runs.path(record.run_id), record)))

    def test_the_same_results_are_the_same_run_from_whichever_file(self) -> None:
        first = self.take(self.write(result_summary__txt=MELUXINA))
        for again in (
            self.write(result__txt=DETAILS),
            self.write(slurm_7__out="module load\n" + MELUXINA + "done\n"),
            self.write(result_summary__txt=MELUXINA, result__txt=DETAILS),
        ):
            (one,) = self.take(again)
            self.assertEqual((first[0].run_id, False), (one.run_id, one.is_new))
        self.assertEqual(1, len(self.runs.run_ids()))

    def test_every_run_below_a_directory(self) -> None:
        top = self.write()
        for name, text in (("2021.06.11-15.07.04", MELUXINA), ("2021.07.01-10.00.00", AION)):
            (top / "results" / name).mkdir(parents=True)
            (top / "results" / name / "result_summary.txt").write_text(text)
            (top / "results" / name / "ior-easy-write.csv").write_text("[RESULT]\n")
        self.assertEqual([True, True], [one.is_new for one in self.take(top)])
        self.assertEqual([False, False], [one.is_new for one in self.take(top)])
        with self.assertRaisesRegex(UsageError, "holds 2 runs.*--nodes"):
            self.take(top, nodes=4)

    def test_nodes_and_tasks_from_the_log_of_its_bandwidth_phase(self) -> None:
        log = (DATA / "ior_4.1_io500.txt").read_bytes()
        path = self.write(result_summary__txt=AION)
        (path / "ior-easy-write.txt").write_bytes(log)
        record = self.record(path)
        self.assertEqual((640, 80), (record.recipe["workers"], record.recipe["client_nodes"]))

    def test_without_nodes_bandwidth_is_held_against_nothing(self) -> None:
        record = self.record(self.write(result_summary__txt=AION))
        names = {m.phase: {metric.name for metric in m.metrics} for m in record.measurements}
        self.assertNotIn("reference_share", names["ior-easy-write"])
        self.assertNotIn("bandwidth_per_node", names["ior-easy-write"])
        self.assertIn("reference_share", names["find"])
        self.assertIn("nodes (`import --nodes N`)", record.notes[0])

    def test_a_file_without_times_is_of_when_it_was_written(self) -> None:
        path = self.write(result_summary__txt=AION)
        os.utime(path / "result_summary.txt", (1_600_000_000, 1_600_000_000))
        self.assertEqual("2020-09-13T12:26:40Z", self.record(path).created_utc)

    def test_the_oldest_layout(self) -> None:
        record = self.record(self.write(x__txt=(DATA / "io500_shell_2019_summary.txt").read_text()))
        self.assertEqual(Verdict.VALID, record.verdict)
        self.assertEqual("processes not told", record.measurements[0].arrivals)


class HowItIsJudged(Imports):
    def test_a_log_that_was_cut_and_is_not_utf_8(self) -> None:
        log = b"\xff\xfe r\xe9sultat\n" + MELUXINA[:800].encode() + b"\nslurmstepd: error: CANCELLED \xe9\n"
        record = self.record(self.write(slurm__out=log))
        verdicts = {m.phase: m.verdict for m in record.measurements}
        self.assertEqual(Verdict.INVALID, record.verdict)
        self.assertEqual((Verdict.VALID, Verdict.INVALID), (verdicts["ior-easy-write"], verdicts["total"]))
        score = record.measurements[-1].metric("score")
        self.assertEqual(0, score.value if score else None)

    def test_a_phase_of_zero_makes_the_score_zero_beside_the_printed_one(self) -> None:
        text = re.sub(r"(ior-hard-write +)\S+", r"\g<1>0.000000", MELUXINA)
        kept = (440.642412 * 549.874254 * 94.179974) ** (1 / 3)
        printed = (kept * 336.254278) ** 0.5
        text = re.sub(r"TOTAL \S+", f"TOTAL {printed:.6f}", text)
        record = self.record(self.write(result_summary__txt=text))
        total = {metric.name: metric for metric in record.measurements[-1].metrics}
        self.assertEqual(0, total["score"].value)
        self.assertAlmostEqual(printed, total["score_printed"].value or 0, 5)
        self.assertEqual("which left out ior-hard-write", total["score_printed"].note)
        self.assertNotIn("public_standing", total)

    def test_short_because_it_was_asked_to_be_is_no_fault(self) -> None:
        marked = re.sub(r"(?m)$", " [INVALID]", MELUXINA.rstrip())
        path = self.write(
            result_summary__txt=marked,
            result__txt="; ERROR INVALID stonewall-time != 300\n",
            config__ini=INI.replace("stonewall-time = 300", "stonewall-time = 30"),
        )
        record = self.record(path)
        self.assertEqual(Verdict.WARN, record.verdict)
        self.assertEqual(Verdict.VALID, record.measurements[0].verdict)

    def test_the_time_that_was_asked_is_told_by_its_commands_too(self) -> None:
        short = re.sub(r"((?:ior|mdtest)-\w+-write .*time )\S+", r"\g<1>31.0", MELUXINA)
        self.assertEqual(Verdict.INVALID, self.record(self.write(result_summary__txt=short)).verdict)
        shutil.rmtree(self.home / "results")
        details = DETAILS.replace("-D 300", "-D 30")
        path = self.write(result_summary__txt=short, result__txt=details)
        self.assertEqual(Verdict.VALID, self.record(path).verdict)

    def test_marked_invalid(self) -> None:
        marked = re.sub(r"(?m)$", " [INVALID]", MELUXINA.rstrip())
        record = self.record(self.write(result_summary__txt=marked))
        self.assertEqual({Verdict.INVALID}, {m.verdict for m in record.measurements})

    def test_phases_that_are_too_short(self) -> None:
        text = re.sub(r"(find .*time )\S+", r"\g<1>0.4", MELUXINA)
        text = re.sub(r"(ior-hard-read .*time )\S+", r"\g<1>9.5", text)
        by_phase = {
            m.phase: m.verdict for m in self.record(self.write(result_summary__txt=text)).measurements
        }
        self.assertEqual(
            (Verdict.INVALID, Verdict.WARN, Verdict.VALID),
            tuple(by_phase[name] for name in ("find", "ior-hard-read", "mdtest-hard-stat")),
        )

    def test_how_a_program_ended_spoils_its_score_and_not_what_was_finished(self) -> None:
        killed = Check("EXIT", Verdict.INVALID, "ended with signal 9")
        run = EngineRun("io500", 4, 2, exits=[killed])
        found = {m.phase: m.verdict for m in engine_measurements(run, Io500().parse(MELUXINA, {}))}
        self.assertEqual((Verdict.VALID, Verdict.INVALID), (found["find"], found["total"]))
        alone = EngineReading("ior", results=(EngineResult("write", 5.0, "MiB/s", 20.0),))
        (write,) = engine_measurements(EngineRun("ior", 4, 2, exits=[killed]), alone)
        self.assertEqual(Verdict.INVALID, write.verdict)

    def test_programs_that_were_done_in_no_time_are_not_believed(self) -> None:
        for time_s, verdict in ((None, Verdict.WARN), (0.0, Verdict.INVALID), (0.475, Verdict.INVALID)):
            result = EngineResult("write", 5.0, "MiB/s", time_s)
            (write,) = engine_measurements(EngineRun("fio", 4, 2), EngineReading("fio", results=(result,)))
            (check,) = (check for check in write.checks if check.code == "DURATION")
            self.assertEqual((check.verdict, write.verdict), (verdict, verdict))

    def test_extremes_of_repeats_are_no_interval(self) -> None:
        result = EngineResult("write", 5.0, "MiB/s", 20.0, low=4.0, high=6.0, repeats=3)
        (write,) = engine_measurements(EngineRun("ior", 4, 2), EngineReading("ior", results=(result,)))
        metric = write.metric("bandwidth")
        assert metric
        self.assertEqual((None, None), (metric.low, metric.high))
        self.assertIn("lowest 4, highest 6", metric.note)


class BadInput(Imports):
    def test_what_is_no_result(self) -> None:
        empty, other = self.write(), self.write(notes__txt="[RESULT] nothing", x__txt=b"\x00\xff" * 500)
        fifo = self.write()
        os.mkfifo(fifo / "result_summary.txt")
        for path in (
            empty,
            other,
            other / "notes.txt",
            other / "x.txt",
            fifo,
            fifo / "result_summary.txt",
            self.home / "gone",
        ):
            with self.assertRaises(UsageError, msg=str(path)):
                self.take(path)
        with self.assertRaises(UsageError):
            self.take(self.write(result_summary__txt=AION), ini=self.home / "gone.ini")
        self.assertEqual([], list(self.runs.run_ids()))

    def test_nothing_is_left_when_the_store_is_full(self) -> None:
        path = self.write(result_summary__txt=AION)
        (self.home / "results").write_text("a file in its place")
        with self.assertRaises(ResultError):
            self.take(path)

    def test_a_configuration_with_mistakes_is_told(self) -> None:
        path = self.write(result_summary__txt=AION, config__ini="[globl]\nx = 1\n")
        self.assertIn("its configuration has 1 mistake", self.record(path).notes[0])


class LikeAnyOtherRun(Imports):
    def shell(self, *lines: str) -> tuple[int, str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
            code = main(list(lines), session_factory=lambda _: self.session())
        return code, out.getvalue(), error.getvalue()

    def session(self) -> Session:
        return Session(
            load_config({"AIFBENCH_RESULTS": str(self.home / "results"), "AIFBENCH_SCHEDULER": "local"})
        )

    def test_import_list_and_show(self) -> None:
        path = self.write(result_summary__txt=MELUXINA, result__txt=DETAILS)
        session = self.session()
        (one,) = session.import_io500(path, nodes=512)
        (listed,) = session.runs(filters=["bench=io500", "tag=imported"])
        self.assertIn("score 194.1, bandwidth mean 112 GiB/s, metadata mean 336 kIOPS", listed.headline)
        text = " ".join(session.run_text(one.run_id).split())
        self.assertIn("score 194.1 (io500's own: 194.1)", text)
        self.assertIn("per node: ior-easy-write 0.8606 GiB/s = 100 %", text)
        self.assertIn("of MeluXina's own entry of 2021 (512 nodes)", text)
        self.assertRegex(text, r"find VALID 1,558 kIOPS 109.3 100")
        self.assertRegex(text, r"\d+ of \d+ public systems score lower")
        for path in session.report(one.run_id):
            self.assertGreater(path.stat().st_size, 1000)

    def test_two_of_them_are_compared_phase_by_phase(self) -> None:
        ids = [self.take(self.write(result_summary__txt=text))[0].run_id for text in (MELUXINA, AION)]
        (pair,) = compare_sides(select_sides(self.runs, ids)).pairs
        compared = {(row.key[-2], row.metric) for row in pair.rows}
        self.assertLessEqual(
            {("find", "throughput"), ("ior-easy-read", "bandwidth"), ("total", "score")}, compared
        )

    def test_the_command(self) -> None:
        path = self.write(result_summary__txt=MELUXINA)
        code, out, _ = self.shell(f"import {path} --nodes 512", f"import {path}", "results tag=imported")
        self.assertEqual(0, code)
        self.assertRegex(out, r"imported as (\S+)\n.* was imported already: \S+\n")
        self.assertIn("io500: score 194.1", out)
        for line, words in (
            (f"import {self.home}/gone", "there is no"),
            (f"import {path} --nodes many", "--nodes"),
            ("import", "DIR|FILE"),
        ):
            code, _, error = self.shell(line)
            self.assertNotEqual(0, code)
            self.assertIn(words, error)
            self.assertNotIn("Traceback", error)


if __name__ == "__main__":
    unittest.main()
