"""Studies with the real Chroma, as a user types them: restarts, Ctrl-C midway, going on, a run again; on
Slurm also with a client job that is cancelled.
"""

import json
import signal
import unittest
from pathlib import Path
from typing import Any

from test.integration.dev_slurm import bring_up, output_of, wait_until
from test.integration.story import Story

RECIPE = """
study: tiny
note: two loads of two differently started services
service: chroma
start: {time: 10m}
bench: search
options: {vectors: 1k, dim: 16, queries: 100, duration: 2s, warmup: 1s}
zip: {rate: [20, 40], start.log_level: [warn, error]}
repeats: 2
order: interleaved
"""
ONE_SERVICE = RECIPE.replace("start.log_level: [warn, error]}", "seed: [1, 2]}").replace(
    "repeats: 2", "repeats: 1"
)


class StudyCase(Story):
    text = RECIPE

    def setUp(self) -> None:
        super().setUp()
        self.recipe = self.results / "tiny.yaml"
        self.recipe.write_text(self.text)

    def study(self) -> dict[str, Any]:
        (path,) = self.results.glob("studies/*-tiny-*/study.json")
        data: dict[str, Any] = json.loads(path.read_text())
        return data

    def states(self) -> list[str]:
        return [trial["state"] for trial in self.study()["trials"]]

    def runs(self) -> list[dict[str, Any]]:
        """Of the study, oldest first."""
        found = [json.loads(path.read_text()) for path in sorted(self.results.glob("2*/record.json"))]
        return [run for run in found if "study" in run["recipe"]]


class StudyWithoutSlurm(StudyCase):
    def test_interrupted_and_resumed_with_restarts_between(self) -> None:
        program = self.start_program(f"run {self.recipe}")
        wait_until(lambda: len(self.runs()) == 2, "the second trial has begun", 60)
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=60)
        self.assertEqual(program.returncode, 130, output)
        study = self.study()
        self.assertIn(f"run --resume {study['study_id']}", output)
        self.assertEqual((study["state"], self.states()), ("INTERRUPTED", ["DONE", *["PENDING"] * 3]))
        self.assertEqual(self.runs()[1]["state"], "INTERRUPTED")
        self.assertNotIn("READY", self.type("status"))

        # Measured for two seconds only, every run is INVALID, and says so.
        output = self.type("run --resume last", expect=3)
        self.assertIn("3 of 4 trials are left", output)
        self.assertIn("4 trials done, 4 INVALID", output)
        self.check_runs()
        self.assertNotIn("READY", self.type("status"))
        self.assertIn("COMPLETE", self.type("studies"))

        output = self.type("run --again last", expect=3)
        self.assertIn("again-", output)
        self.assertEqual(self.record()["recipe"]["again"]["label"], "rate=20 start.log_level=warn")

    def check_runs(self) -> None:
        study, runs = self.study(), [run for run in self.runs() if run["state"] == "COMPLETE"]
        self.assertEqual([trial["run_id"] for trial in study["trials"]], [run["run_id"] for run in runs])
        self.assertEqual([run["recipe"]["rate"] for run in runs], [20, 40, 40, 20])
        self.assertEqual([run["recipe"]["seed"] for run in runs], [1, 1, 2, 2])
        levels = [run["service"]["options"]["log_level"] for run in runs]
        self.assertEqual(levels, ["warn", "error", "error", "warn"])
        self.assertEqual({run["recipe"]["recipe_text"] for run in runs}, {RECIPE})
        self.assertEqual(
            (Path(self.results) / "studies" / study["study_id"] / "recipe.yaml").read_text(), RECIPE
        )
        # Started for 20/s; for 40/s twice, as it was interrupted, and kept between repeats; for 20/s again.
        self.assertEqual(len({run["service"]["job_id"] for run in runs}), 3)


class StudyOnSlurm(StudyCase):
    scheduler = "slurm"
    text = ONE_SERVICE

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def queue(self, kind: str = "") -> list[str]:
        """Ids of jobs that have not ended."""
        jobs = output_of("squeue", "--me", "--noheader", "--format=%i %j").splitlines()
        return [job.split()[0] for job in jobs if f" aifb-{kind}" in job]

    def is_loaded(self, trial: int) -> bool:
        runs = self.runs()
        return (
            len(runs) == trial
            and (self.results / runs[-1]["run_id"] / "phases/phase-01/start.json").is_file()
        )

    def test_a_lost_client_job_fails_its_trial_and_ctrl_c_leaves_no_job(self) -> None:
        program = self.start_program(f"run {self.recipe}")
        wait_until(lambda: self.is_loaded(1), "the first trial is measured", 40)
        output_of("scancel", *self.queue("load"))
        wait_until(lambda: len(self.runs()) == 2, "the second trial has begun", 40)
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=60)
        self.assertEqual(program.returncode, 130, output)
        self.assertEqual(self.queue(), [])
        self.assertEqual((self.study()["state"], self.states()), ("INTERRUPTED", ["FAILED", "PENDING"]))
        self.assertEqual([run["state"] for run in self.runs()], ["FAILED", "INTERRUPTED"])

        self.type("run --resume last", expect=1)  # the trial that failed has stayed so
        self.assertEqual((self.study()["state"], self.states()), ("COMPLETE", ["FAILED", "DONE"]))
        self.assertEqual(self.study()["trials"][1]["run_id"], self.runs()[-1]["run_id"])
        self.assertEqual(self.queue(), [])


if __name__ == "__main__":
    unittest.main()
