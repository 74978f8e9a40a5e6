"""How vLLM is to be laid out over nodes and GPUs, and what its command gets, from options alone. No I/O."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aifbench.errors import UsageError

# What the batch script and the service's frame say themselves; here the user would contradict them.
_OURS = {
    "--host": "AIFBENCH_BIND",
    "--port": "--port",
    "--api-key": "nothing: a key is made for every service",
    "--model": "--model",
    "--tensor-parallel-size": "--tp",
    "-tp": "--tp",
    "--pipeline-parallel-size": "--pp",
    "-pp": "--pp",
    "--distributed-executor-backend": "--executor",
    "--nnodes": "--nodes",
    "-n": "--nodes",
    "--node-rank": "--nodes",
    "-r": "--nodes",
    "--master-addr": "--nodes",
    "--master-port": "--nodes",
    "--headless": "--nodes",
}
# The option of `start vllm`, and vLLM's own.
_PASSED = (
    ("served_model_name", "--served-model-name"),
    ("max_model_len", "--max-model-len"),
    ("dtype", "--dtype"),
    ("load_format", "--load-format"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensor and pipeline parallel sizes, and GPUs per node; None is left to the job, which sees its GPUs."""

    tp: int | None
    pp: int | None
    gpus: int | None


def layout(nodes: int, gpus: int | None, tp: int | None, pp: int | None) -> Layout:
    """What was not given, from what was. `gpus` are those of one node, 0 for CPUs only.

    By default tp is the GPUs of a node and pp the nodes. On CPUs, where vLLM 0.32 cannot do pp > 1, tp is the
    nodes. Raises UsageError when tp x pp is not what nodes x gpus are.
    """
    if gpus == 0:
        pp = pp or 1
        tp = tp or max(1, nodes // pp)
        _spread(nodes, tp, pp)
        return Layout(tp, pp, 0)
    if gpus is None:
        if tp is None:
            return Layout(None, pp, None)
        pp = pp or nodes
        return Layout(tp, pp, _spread(nodes, tp, pp))
    total = nodes * gpus
    if tp is None and pp is None:
        tp, pp = gpus, nodes
    else:
        tp, pp = tp or max(1, total // (pp or 1)), pp or max(1, total // (tp or 1))
    if tp * pp != total:
        raise UsageError(
            f"--tp {tp} x --pp {pp} = {tp * pp} is not --nodes {nodes} x --gpus {gpus} = {total}",
            hint=f"leave --tp and --pp out for {gpus} x {nodes}, or change --gpus",
        )
    return Layout(tp, pp, gpus)


def _spread(nodes: int, tp: int, pp: int) -> int:
    """Processes on each node. Raises UsageError when they do not spread evenly."""
    if tp * pp % nodes:
        raise UsageError(
            f"--tp {tp} x --pp {pp} = {tp * pp} cannot be spread evenly over --nodes {nodes}",
            hint="their product must be a multiple of the nodes",
        )
    return tp * pp // nodes


def engine_words(text: str) -> list[str]:
    """`--engine-args` as words, split as a shell does and expanded by nobody. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"--engine-args {text!r} cannot be split: {error}", hint="close its quotes"
        ) from None
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in _OURS:
            raise UsageError(f"--engine-args holds {word.partition('=')[0]}", hint=f"use {_OURS[name]}")
        if "\n" in word:
            raise UsageError("--engine-args holds a line break", hint="write JSON on one line")
    if words and not words[0].startswith("-"):
        raise UsageError(
            f"--engine-args begins with {words[0]!r}", hint="such as --engine-args '--max-num-seqs 64'"
        )
    return words


def serve_words(options: Mapping[str, Any]) -> list[str]:
    """What `vllm serve` gets from resolved options, the user's own words last: those win."""
    named = [word for key, flag in _PASSED if options[key] for word in (flag, str(options[key]))]
    return named + engine_words(options["engine_args"])
