"""What vLLM's log says: how far a start has come, or why it ended, and on which node. Pure."""

import re
from collections.abc import Sequence

from aifbench.servers.log_news import LogNews
from aifbench.servers.vllm_causes import find_cause

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_RAY = re.compile(r"(\d+) of (\d+) Ray nodes joined")
_WORKER = re.compile(r"world_size=(\d+) rank=(\d+) ")
# The last line that matches any counts; a group fills `{}`.
_STEPS = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"tensor parallel \d+ x pipeline", "importing its libraries"),
        (r"non-default args: ", "reading the model's configuration"),
        (r"Fetching \d+ files: +(\d+%)", "downloading model {}"),
        (r"\.(?:safetensors|bin|pt): +(\d+%)", "downloading model {}"),
        (r"Time spent downloading weights", "model downloaded"),
        (r"Initializing a V1 LLM engine", "starting the engine"),
        (r"rank \d+ in world size \d+ is assigned", "workers connected"),
        (r"Starting to load model ", "loading weights"),
        (r"Loading \S+ checkpoint shards: .*\| (\d+/\d+) \[", "loading weights {}"),
        (r"Loading weights took|Model loading took", "weights loaded"),
        (r"vLLM's torch\.compile|Dynamo bytecode|Compiling a graph|for the compilation\.", "compiling"),
        (r"torch\.compile took|AOT compiled function|Warming up done", "compiled"),
        (r"KV cache memory: |KV cache size: |GiB for KV cache", "making the KV cache"),
        (r"Capturing [\w -]*CUDA graphs[^:]*: +(\d+%)", "capturing CUDA graphs {}"),
        (r"Graph capturing finished|init engine \(", "warming up"),
        (r"Starting vLLM server on", "opening its port"),
    )
)
_PLACE = re.compile(r"aifbench: (\w+ rank \d+ of \d+ on \S+) ended by itself with status (\d+)")


def read_log(lines: Sequence[str]) -> LogNews:
    """The news of a log, or of the end of one."""
    clean = [_COLOUR.sub("", line) for line in lines]
    cause, advice = find_cause(clean)
    return LogNews(_progress(clean), _placed(cause, clean), advice)


def _placed(cause: str, lines: Sequence[str]) -> str:
    """With the node that ended first: the others end because of it."""
    found = next((match for line in lines if (match := _PLACE.search(line))), None)
    if found is None:
        return cause
    return f"{cause} ({found[1]})" if cause else f"{found[1]} ended by itself with status {found[2]}"


def _progress(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        if match := _RAY.search(line):
            return _missing(int(match[1]), int(match[2]), "nodes") or "starting the engine"
        if match := _WORKER.search(line):
            started = {each[2] for text in lines if (each := _WORKER.search(text))}
            return _missing(len(started), int(match[1]), "workers") or "connecting the workers"
        for pattern, text in _STEPS:
            if match := pattern.search(line):
                return text.format(*match.groups())
    return ""


def _missing(found: int, wanted: int, what: str) -> str:
    return f"waiting for {wanted - found} of {wanted} {what}" if found < wanted else ""
