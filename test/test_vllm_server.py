"""VLLMServer: what it submits for which options, when it counts as ready, and what is refused beforehand."""

import unittest
from typing import Any, ClassVar
from unittest import mock

from test.fakes.site import PROJECT, SiteCase, announce

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobSpec
from aifbench.cluster.local import LocalProcess
from aifbench.errors import NotReady, ServiceDied, ServiceError, UsageError
from aifbench.servers import vllm
from aifbench.servers.base import Probe
from aifbench.servers.registry import server_class
from aifbench.servers.status import Stage
from aifbench.servers.vllm import VLLMServer
from aifbench.servers.vllm_engine import Layout, engine_words, layout


class Layouts(unittest.TestCase):
    def test_what_is_not_given_follows_from_what_is(self) -> None:
        # nodes, gpus, tp, pp -> tp, pp, gpus
        cases = (
            ((1, 4, None, None), (4, 1, 4)),
            ((2, 4, None, None), (4, 2, 4)),
            ((2, 4, 8, None), (8, 1, 4)),
            ((2, 4, None, 8), (1, 8, 4)),
            ((2, 4, 4, 2), (4, 2, 4)),
            ((2, None, 4, None), (4, 2, 4)),
            ((2, None, 8, 1), (8, 1, 4)),
            ((2, None, None, None), (None, None, None)),
            ((2, None, None, 1), (None, 1, None)),
            ((1, 0, None, None), (1, 1, 0)),
            ((2, 0, None, None), (2, 1, 0)),
            ((1, 0, 2, None), (2, 1, 0)),
        )
        for given, expected in cases:
            self.assertEqual(layout(*given), Layout(*expected), given)

    def test_sizes_that_do_not_fit_are_refused(self) -> None:
        for given, words in (
            ((2, 4, 4, 4), "--tp 4 x --pp 4 = 16 is not --nodes 2 x --gpus 4 = 8"),
            ((1, 4, 3, None), "--tp 3 x --pp 1 = 3 is not"),
            ((1, 2, 4, None), "--tp 4 x --pp 1 = 4 is not --nodes 1 x --gpus 2 = 2"),
            ((2, None, 3, 1), "cannot be spread evenly over --nodes 2"),
            ((2, 0, 3, None), "cannot be spread"),
        ):
            with self.assertRaises(UsageError) as caught:
                layout(*given)
            self.assertIn(words, caught.exception.message)


class EngineArguments(unittest.TestCase):
    def test_are_split_as_by_a_shell_and_run_by_none(self) -> None:
        self.assertEqual(
            engine_words("""--max-num-seqs 64 --override '{"a": "$(id) b"}' --x=`y`"""),
            ["--max-num-seqs", "64", "--override", '{"a": "$(id) b"}', "--x=`y`"],
        )
        self.assertEqual(engine_words(""), [])

    def test_what_start_decides_itself_is_refused(self) -> None:
        for text, word in (
            ("--port 80", "use --port"),
            ("--tensor_parallel_size=4", "use --tp"),
            ("-tp 2", "use --tp"),
            ("--api-key x", "a key is made for every service"),
            ("--quoted 'open", "close its quotes"),
            ("--json '{\n}'", "one line"),
            ("64", "--max-num-seqs"),
        ):
            with self.assertRaises(UsageError) as caught:
                engine_words(text)
            self.assertIn(word, caught.exception.hint, text)


class Plans(SiteCase):
    def spec(self, **options: Any) -> JobSpec:
        return VLLMServer.plan(self.shell, options).spec

    def refusal(self, **options: Any) -> str:
        with self.assertRaises(UsageError) as caught:
            VLLMServer.plan(self.shell, options)
        return f"{caught.exception.message}; {caught.exception.hint}"

    def on_one_machine(self, gpus: int = 0) -> None:
        scheduler = LocalProcess(self.dir / "state")
        self.shell = vllm.Site(
            self.config,
            scheduler,
            self.shell.tracker,
            self.clock,
            self.shell.instances,
            self.shell.runs,
        )
        patch = mock.patch.object(vllm, "local_gpus", lambda: gpus)
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_model_on_several_nodes(self) -> None:
        spec = self.spec(model="org/big-70B", nodes=2, gpus=4, max_model_len=4096, engine_args="--seed 7")
        self.assertEqual((spec.nodes, spec.gpus_per_node), (2, 4))
        self.assertIn("--gres=gpu:4", self.shell.scheduler.command_line(spec))
        values = spec.environment
        self.assertEqual(values["AIFBENCH_VLLM_MODEL"], "org/big-70B")
        self.assertEqual((values["AIFBENCH_VLLM_TP"], values["AIFBENCH_VLLM_PP"]), ("4", "2"))
        self.assertEqual(values["AIFBENCH_VLLM_ARGS"], "--max-model-len\n4096\n--seed\n7")
        self.assertEqual(values["AIFBENCH_CACHE_DIR"], str(self.dir / "scratch/cache"))

    def test_without_sizes_the_job_counts_its_gpus(self) -> None:
        spec = self.spec(model="org/small")
        self.assertIsNone(spec.gpus_per_node)
        self.assertFalse({"AIFBENCH_VLLM_TP", "AIFBENCH_VLLM_GPUS"} & spec.environment.keys())

    def test_on_a_cluster_a_model_has_to_be_named(self) -> None:
        self.assertIn("--model tiny to try it", self.refusal())

    def test_a_folder_becomes_absolute(self) -> None:
        self.assertTrue(self.spec(model="./m").environment["AIFBENCH_VLLM_MODEL"].startswith("/"))
        self.assertIn("neither a folder nor a name", self.refusal(model="two words"))
        self.assertIn("neither a folder nor a name", self.refusal(model="-x"))

    def test_without_slurm_and_gpu_it_is_the_tiny_model(self) -> None:
        self.on_one_machine()
        spec = self.spec()
        self.assertEqual(spec.environment["AIFBENCH_VLLM_MODEL"], "tiny")
        self.assertEqual(spec.environment["AIFBENCH_VLLM_GPUS"], "0")

    def test_without_slurm_nodes_are_processes(self) -> None:
        self.on_one_machine()
        spec = self.spec(nodes=2)
        self.assertEqual((spec.nodes, spec.environment["AIFBENCH_NODES"]), (1, "2"))
        self.assertEqual(spec.environment["AIFBENCH_VLLM_TP"], "2")

    def test_what_this_machine_cannot_do_is_refused_at_once(self) -> None:
        self.on_one_machine(gpus=2)
        self.assertIn("8 GPUs are asked for, and this machine has 2", self.refusal(gpus=8))
        self.assertIn("does not exist", self.refusal(model="/no/such/model"))
        (self.dir / "empty").mkdir()
        self.assertIn("holds no config.json", self.refusal(model=str(self.dir / "empty")))
        self.assertIn("on GPUs only", self.refusal(gpus=0, executor="ray"))

    def test_a_token_file_is_looked_at_and_only_its_name_travels(self) -> None:
        token = self.dir / "token"
        self.assertIn("No such file", self.refusal(model="a/b", hf_token_file=str(token)))
        token.touch()
        self.assertIn("is empty", self.refusal(model="a/b", hf_token_file=str(token)))
        token.write_text("hf_secret")
        spec = self.spec(model="a/b", hf_token_file=str(token))
        self.assertEqual(spec.environment["AIFBENCH_HF_TOKEN_FILE"], str(token))
        self.assertNotIn("hf_secret", str(spec))

    def test_it_is_registered_and_its_script_is_there(self) -> None:
        self.assertIs(server_class("vllm"), VLLMServer)
        self.assertTrue((PROJECT / "batch_scripts" / VLLMServer.script).exists())


class Control:
    """Stands for OpenAIControl; `failures` holds what a method raises."""

    failures: ClassVar[dict[str, ServiceError]] = {}
    asked: ClassVar[list[str]] = []

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        del endpoint, timeout_s

    def close(self) -> None:
        pass

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.failures:
            raise self.failures[what]

    def health(self) -> bool:
        self._ask("health")
        return True

    def version(self) -> str:
        return "0.32.0"

    def resolve_model(self, _asked: str = "") -> tuple[Any, tuple[str, ...]]:
        return mock.Mock(id="m"), ("m",)

    def generate_once(self, model: str) -> None:
        self._ask(f"generate {model}")

    def embeddings_once(self, model: str) -> None:
        self._ask(f"embed {model}")


class Readiness(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        Control.failures, Control.asked = {}, []
        patch = mock.patch("aifbench.workloads.openai_control.OpenAIControl", Control)
        patch.start()
        self.addCleanup(patch.stop)
        self.server = VLLMServer.start(self.shell, {"model": "a/b"})
        self.slurm.start(self.server.instance.job_id)

    def status(self) -> tuple[Stage, str]:
        self.clock.sleep(5.0)
        status = self.server.status()
        return status.stage, status.detail

    def log(self, text: str) -> None:
        with self.server.log_path.open("a") as log:
            log.write(text + "\n")

    def announce(self) -> None:
        announce(self.server, Endpoint("10.3.0.7", 8000), auth="token")

    def test_it_generates_once_before_it_is_ready_and_never_again(self) -> None:
        self.announce()
        self.assertEqual(self.status(), (Stage.READY, ""))
        self.assertEqual(self.server.instance.version, "0.32.0")
        self.status()
        self.assertEqual(Control.asked, ["health", "generate m", "health"])

    def test_an_engine_that_answers_and_cannot_generate_is_not_ready(self) -> None:
        self.announce()
        Control.failures = {
            "generate m": ServiceError("answered 500: EngineDeadError"),
            "embed m": ServiceError("answered 404"),
        }
        stage, detail = self.status()
        self.assertIs(stage, Stage.STARTING)
        self.assertIn("first generation failed: answered 500: EngineDeadError", detail)
        Control.failures = {"generate m": NotReady("no answer in 20 s")}
        self.assertIn("no answer in 20 s", self.status()[1])

    def test_an_embedding_model_is_proven_by_an_embedding(self) -> None:
        self.announce()
        Control.failures = {"generate m": ServiceError("answered 404")}
        self.assertIs(self.status()[0], Stage.READY)

    def test_while_it_starts_its_log_tells_how_far_it_is(self) -> None:
        self.assertEqual(self.status()[1], "no address yet")
        self.log("(EngineCore pid=2) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0)")
        self.assertEqual(self.status()[1], "starting the engine")
        self.announce()
        Control.failures = {"health": NotReady("cannot reach it")}
        self.log("Loading safetensors checkpoint shards:  38% Completed | 3/8 [00:12<00:20, 4.00s/it]")
        self.assertEqual(self.status(), (Stage.STARTING, "loading weights 3/8"))

    def test_a_failed_start_says_why(self) -> None:
        self.log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.slurm.end(self.server.instance.job_id, "FAILED", exit_code=1)
        with self.assertRaises(ServiceDied) as caught:
            self.server.check(wait_s=60)
        self.assertIn("FAILED, exit code 1: out of GPU memory", caught.exception.message)
        self.assertIn("--tp", caught.exception.hint)
        self.assertIn("out of GPU memory", self.server.instance.end_detail)

    def test_after_a_stop_the_log_explains_nothing(self) -> None:
        self.log("torch.OutOfMemoryError: CUDA out of memory.")
        self.assertNotIn("memory", self.server.stop().detail)

    def test_probe_and_proof_never_raise(self) -> None:
        endpoint = Endpoint("127.0.0.1", 1)
        Control.failures = {"health": ServiceError("refuses the key")}
        self.assertEqual(self.server.probe(endpoint), Probe(is_ready=False, detail="refuses the key"))


if __name__ == "__main__":
    unittest.main()
