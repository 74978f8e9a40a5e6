"""What is read in logs of vLLM 0.32: captured ones, and texts from its sources where a GPU is needed."""

import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.servers.vllm_log import read_log

DATA = Path(__file__).parent / "data"


def failures() -> dict[str, list[str]]:
    sections = (DATA / "vllm_failures.txt").read_text().split("== ")[1:]
    return {title: text.splitlines() for title, _, text in (part.partition("\n") for part in sections)}


class Causes(unittest.TestCase):
    EXPECTED = (
        ("a folder that does not exist", "there is no model folder /models/no-such", "--model"),
        ("an unknown argument", "unrecognized arguments: --max-num-seks 3", "--engine-args"),
        (
            "context longer than the model's",
            "--max-model-len 100000 is more than the model's 8192",
            "at most 8192",
        ),
        ("a name, HF_HUB_OFFLINE", "HF_HUB_OFFLINE forbids", "hf download"),
        ("a name, no internet", "no way to huggingface.co", "hf download"),
        ("KV cache too small", "one request of 8192 tokens: 896 would fit", "--max-model-len"),
        ("port taken", "took its port", "start it again"),
        ("tp does not divide the heads", "--tp 3 does not divide the model's 4 attention heads", "--pp"),
        ("a folder without config.json", "/models/emptym holds no model", "--model"),
        ("an unknown architecture", "no model of the kind WeirdForCausalLM", "newer vLLM"),
        ("a folder without weights", "/models/nowei holds no weights", "--load-format dummy"),
        ("no Ray", "this vLLM comes without Ray", "--executor mp"),
    )

    def test_captured_failures(self) -> None:
        captured = failures()
        self.assertEqual({title for title, *_ in self.EXPECTED}, captured.keys())
        for title, cause, advice in self.EXPECTED:
            news = read_log(captured[title])
            self.assertIn(cause, news.cause, title)
            self.assertIn(advice, news.advice, title)

    def cause(self, *lines: str) -> str:
        return read_log(lines).cause

    def test_gpu_and_hub_failures(self) -> None:
        hub, llama = "https://huggingface.co", "meta-llama/Llama-3.1-8B"
        cases = (
            (f"Cannot access gated repo for url {hub}/api/models/{llama}.", llama),
            (f"Access to model {llama} is restricted and you are not in", "not open to you"),
            ("Invalid user token.", "refuses the token"),
            ("a/b is not a local folder and is not a valid model identifier listed on", "no model a/b"),
            (f"Repository Not Found for url: {hub}/api/models/no/such-1.5.", "no model no/such-1.5 on"),
            ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of GPU memory"),
            (
                "Free memory on device cuda:0 (3.1/39.4 GiB) on startup is less than desired",
                "only 3.1 of 39.4 GiB",
            ),
            ("ValueError: No available memory for the cache blocks.", "the weights leave no memory"),
            ("ValueError: Cannot provide a placement group requiring 8 GPUs", "Ray has fewer GPUs"),
            ("RuntimeError: Failed to infer device type, please set the environment", "found no GPU"),
            ("ImportError: libcuda.so.1: cannot open shared object file: No such file", "found no GPU"),
            ("srun: error: Node failure on mel2043", "node mel2043 failed"),
            ("aifbench: only 1 of 2 Ray nodes joined within 180 s: 1 missing", "1 of 2 Ray nodes joined"),
            ("aifbench: 8 GPUs a node were asked for, and this job has 4 on mel1", "has 4 on mel1"),
            ("(EngineCore pid=9) ERROR 11-20 [core.py:1510] ValueError: new", "vLLM says: new"),
        )  # fmt: skip
        for line, expected in cases:
            self.assertIn(expected, self.cause("INFO before", line, "INFO after"), line)

    def test_a_root_cause_wins_over_what_it_drags_behind(self) -> None:
        lines = (
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core",
            "(Worker pid=3) ERROR [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried",
            "EngineDeadError",
        )
        self.assertEqual(self.cause(*lines), "out of GPU memory")
        self.assertEqual(self.cause(lines[0]), "")

    def test_the_node_that_ended_first_is_named(self) -> None:
        first = "aifbench: vllm rank 1 of 2 on node4 ended by itself with status 1"
        lines = (first, "aifbench: vllm rank 0 of 2 on node3 ended by itself with status 143")
        self.assertEqual(self.cause(*lines), "vllm rank 1 of 2 on node4 ended by itself with status 1")
        died = "ERROR [m.py:315] Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting"
        self.assertRegex(self.cause(died, *lines), r"VllmWorker-1 was killed.*\(vllm rank 1 of 2 on node4\)$")

    def test_nothing_known_is_nothing_said(self) -> None:
        for lines in ((), ("hello",), ("\x00\ufffd{0} {1}",), ("INFO: Application startup complete.",)):
            self.assertEqual(read_log(lines).cause, "")

    def test_braces_in_a_log_do_no_harm(self) -> None:
        self.assertIn("{9} {x}", self.cause("vllm: error: unrecognized arguments: {9} {x}"))


class Progress(unittest.TestCase):
    def test_a_start_on_two_nodes(self) -> None:
        lines = (DATA / "vllm_start.txt").read_text().splitlines()
        seen = []
        for end in range(1, len(lines) + 1):
            now = read_log(lines[:end]).progress
            if now and now not in seen[-1:]:
                seen.append(now)
        expected = (
            "importing its libraries",
            "reading the model's configuration",
            "starting the engine",
            "waiting for 1 of 2 workers",
            "connecting the workers",
            "loading weights",
            "loading weights 1/1",
            "making the KV cache",
            "warming up",
            "opening its port",
        )
        self.assertEqual([step for step in expected if step not in seen], [], seen)
        positions = [seen.index(step) for step in expected]
        self.assertEqual(positions, sorted(positions), seen)

    def test_long_steps_tell_how_far(self) -> None:
        cases = (
            (
                "Loading safetensors checkpoint shards:  38% Completed | 3/8 [00:12<00:20",
                "weights 3/8",
            ),
            (
                "Capturing CUDA graphs (decode, FULL):  40%|████      | 27/67 [00:05<00:08",
                "40%",
            ),
            ("Fetching 4 files:  25%|██▌       | 1/4 [00:30<01:30, 30.1s/it]", "downloading model 25%"),
            (
                "model-00001-of-00004.safetensors:  12%|█▏   | 598M/4.98G [00:20<02:21",
                "downloading model 12%",
            ),
            ("INFO [backends.py:1105] Using cache directory: /x for vLLM's torch.compile", "compiling"),
            ("aifbench: 1 of 2 Ray nodes joined", "waiting for 1 of 2 nodes"),
        )
        for line, expected in cases:
            self.assertIn(expected, read_log(["before", line]).progress)


if __name__ == "__main__":
    unittest.main()
