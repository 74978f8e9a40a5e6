"""vLLM, an LLM inference server with the OpenAI API: in a container or natively, on one or several nodes."""

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.targets import Target
from aifbench.errors import NotReady, ServiceError, UsageError
from aifbench.options import Option, count_option, resolve_options
from aifbench.servers import vllm_log
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.deployment import Deployment, plan_deployment
from aifbench.servers.inference_options import BENCH_OPTIONS, BENCHES
from aifbench.servers.log_news import LogNews
from aifbench.servers.options import START_OPTIONS
from aifbench.servers.site import Site
from aifbench.servers.vllm_engine import Layout, layout, serve_words

TINY = "tiny"

_PROBE_TIMEOUT_S = 2.0
_PROOF_TIMEOUT_S = 20.0


def _is_folder(model: str) -> bool:
    return model.startswith(("/", ".", "~"))


def parse_model(text: str) -> str:
    """A folder, made absolute, or the name of a repository. Raises UsageError."""
    if _is_folder(text):
        return str(Path(text).expanduser().absolute())
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", text, re.ASCII):
        raise UsageError(
            f"--model {text!r} is neither a folder nor a name",
            hint="give /path/to/model, or owner/name as on huggingface.co",
        )
    return text


def parse_file(text: str) -> str:
    """A file that can be read. Raises UsageError."""
    path = Path(text).expanduser().absolute()
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise UsageError(
            f"--hf-token-file {path}: {error.strerror}", hint="give a file you can read"
        ) from None
    if is_empty:
        raise UsageError(f"--hf-token-file {path} is empty", hint="put the token into it")
    return str(path)


def local_gpus() -> int:
    """How many NVIDIA GPUs this machine has."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


class VLLMServer(SlurmServer):
    """One vLLM, and the inference benchmarks. On a machine without GPU, the CPU build of utils/vllm-cpu."""

    kind: ClassVar[str] = "vllm"
    description: ClassVar[str] = "vLLM inference: generation, sweeps, capacity, structured output, embeddings"
    script: ClassVar[str] = "start_vllm.sh"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "model",
            "folder or name of the model; tiny is made on the spot (default without Slurm: tiny)",
            parse=parse_model,
            default="",
            metavar="M",
        ),
        count_option(
            "gpus", "GPUs per node, 0 for none (default: all that the job gets)", minimum=0, maximum=64
        ),
        count_option("tp", "tensor parallel size (default: the GPUs of a node)", maximum=1024),
        count_option("pp", "pipeline parallel size (default: the nodes)", maximum=1024),
        Option(
            "executor",
            "how several nodes work together: vLLM's own processes, or Ray",
            default="mp",
            choices=("mp", "ray"),
        ),
        count_option("max-model-len", "longest prompt and output together, in tokens", maximum=10**8),
        Option(
            "dtype",
            "numbers of weights and activations (default: the model's)",
            default="",
            choices=("auto", "bfloat16", "float16", "float32", "half", "float"),
            metavar="TYPE",
        ),
        Option("served-model-name", "what clients call the model", default="", metavar="NAME"),
        Option("load-format", "how weights are loaded; dummy makes random ones", default="", metavar="KIND"),
        Option(
            "hf-token-file",
            "file with a Hugging Face token (default: HF_TOKEN, or the one logged in)",
            parse=parse_file,
            default="",
            metavar="FILE",
        ),
        Option(
            "engine-args",
            "further arguments of `vllm serve`, in quotes: '--max-num-seqs 64'",
            default="",
            metavar="ARGS",
        ),
    )
    benches: ClassVar[tuple[str, ...]] = BENCHES
    steady_benches: ClassVar[tuple[str, ...]] = ("generate", "embed")
    bench_options: ClassVar[tuple[Option, ...]] = BENCH_OPTIONS
    max_nodes: ClassVar[int] = 64
    attachable: ClassVar[bool] = True
    attach_suffix: ClassVar[str] = "/v1"
    attach_options: ClassVar[tuple[Option, ...]] = (
        Option("model", "model to use (default: the first one that is served)", default="", metavar="NAME"),
    )

    @classmethod
    def plan(cls, site: Site, given: Mapping[str, Any]) -> Deployment:
        options = resolve_options((*START_OPTIONS, *cls.options), given)
        is_local = site.scheduler.kind == "local"
        model = _model(options["model"], is_local=is_local)
        sizes = layout(
            options["nodes"], _gpus(options["gpus"], is_local=is_local), options["tp"], options["pp"]
        )
        _check_local(options["nodes"], sizes, is_local=is_local)
        if sizes.gpus == 0 and options["executor"] == "ray":
            raise UsageError("vLLM uses Ray on GPUs only", hint="leave --executor out")
        options |= {"model": model, "tp": sizes.tp, "pp": sizes.pp, "gpus": sizes.gpus}
        deployment = plan_deployment(
            site,
            cls.kind,
            cls.script,
            options,
            {**cls.environment(options), "AIFBENCH_CACHE_DIR": str(site.config.scratch_dir / "cache")},
            has_secret=cls.has_secret,
            max_nodes=cls.max_nodes,
        )
        # Without Slurm every "node" is a process of the one job on the one machine.
        nodes = 1 if is_local else options["nodes"]
        return replace(
            deployment, spec=replace(deployment.spec, nodes=nodes, gpus_per_node=sizes.gpus or None)
        )

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        values = {
            "AIFBENCH_VLLM_MODEL": options["model"],
            "AIFBENCH_VLLM_TP": options["tp"],
            "AIFBENCH_VLLM_PP": options["pp"],
            "AIFBENCH_VLLM_GPUS": options["gpus"],
            "AIFBENCH_VLLM_EXECUTOR": options["executor"],
            "AIFBENCH_VLLM_ARGS": "\n".join(serve_words(options)),
            "AIFBENCH_NODES": options["nodes"],
            "AIFBENCH_HF_TOKEN_FILE": options["hf_token_file"],
        }
        return {name: str(value) for name, value in values.items() if value not in (None, "")}

    def probe(self, endpoint: Endpoint) -> Probe:
        from aifbench.workloads.openai_control import OpenAIControl

        try:
            with closing(OpenAIControl(endpoint, timeout_s=_PROBE_TIMEOUT_S)) as control:
                if self.instance.is_attached:  # what we did not start need not have /health
                    control.resolve_model(self._asked_model)
                    return Probe(is_ready=True)
                is_ready = control.health()
        except ServiceError as error:
            return Probe(is_ready=False, detail=str(error))
        return Probe(is_ready, detail="" if is_ready else "its /health says that it is not well")

    def metrics_targets(self, endpoint: Endpoint) -> Sequence[Target]:
        return [Target(endpoint.authority, scheme=endpoint.scheme, path=f"{endpoint.prefix}/metrics")]

    def prove(self, endpoint: Endpoint) -> Probe:
        """One token, or one embedding: an engine can answer /health and die at its first request."""
        from aifbench.workloads.openai_control import OpenAIControl

        try:
            with closing(OpenAIControl(endpoint, timeout_s=_PROOF_TIMEOUT_S)) as control:
                model, _ = control.resolve_model(self._asked_model)
                try:
                    control.generate_once(model.id)
                except NotReady:
                    raise
                except ServiceError as refused:
                    _embed_instead(control, model.id, refused)
                return Probe(is_ready=True, version=control.version())
        except ServiceError as error:
            return Probe(is_ready=False, detail=f"it answers, and its first generation failed: {error}")

    @property
    def _asked_model(self) -> str:
        """Of an attached service: ours serves one."""
        return str(self.instance.options.get("model", "")) if self.instance.is_attached else ""

    def read_log(self, lines: Sequence[str]) -> LogNews:
        return vllm_log.read_log(lines)

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        from aifbench.servers.inference_bench import InferenceBenchmark

        asked = options["model"] or self._asked_model
        return InferenceBenchmark(bench, {**options, "model": asked}, context)


def _embed_instead(control: Any, model: str, refused: ServiceError) -> None:
    """A model that embeds generates nothing; for any other, why it refused to generate is what counts."""
    try:
        control.embeddings_once(model)
    except ServiceError:
        raise refused from None


def _model(given: str, *, is_local: bool) -> str:
    if not given and not is_local:
        raise UsageError(
            "start vllm needs a model on a cluster",
            hint="--model /path/to/folder, --model owner/name from huggingface.co, or --model tiny to try it",
        )
    model = given or TINY
    # On a cluster it may be on the nodes' own disks: there the job looks.
    if is_local and _is_folder(model) and not (Path(model) / "config.json").exists():
        missing = "holds no config.json" if Path(model).is_dir() else "does not exist"
        raise UsageError(
            f"model folder {model} {missing}", hint="give a folder with a model, or --model tiny"
        )
    return model


def _gpus(given: int | None, *, is_local: bool) -> int | None:
    return local_gpus() if is_local and given is None else given


def _check_local(nodes: int, sizes: Layout, *, is_local: bool) -> None:
    if is_local and sizes.gpus and nodes * sizes.gpus > local_gpus():
        raise UsageError(
            f"{nodes * sizes.gpus} GPUs are asked for, and this machine has {local_gpus()}",
            hint="give a smaller --gpus, or --gpus 0 to use the CPU",
        )
