"""Checkpoints: every rank writes, and reads back, its shard of a model's state.

The operations are those of `file_blocks.Blocks`: a shard is a rank's own file, in chunks, forced to the
storage before its last chunk counts as written. The save (restore) time is that of the slowest rank, from
the common start; the rate is all bytes by that time (as MLPerf Storage v2 has it).
"""

from dataclasses import dataclass
from typing import Any

from aifbench.errors import UsageError
from aifbench.workloads.file_layout import BlockLayout

# Weights in 16 bits, and in 32 bits a copy of them and two moments of the optimiser.
BYTES_PER_PARAMETER = 14
CHUNK_BYTES = 16 * 2**20

_ALIGN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Model:
    """`checkpoint_bytes` over all ranks."""

    name: str
    checkpoint_bytes: int
    ranks: int


# MLPerf Storage v2, checkpointing: sizes and processes of its four models.
MODELS = {
    model.name: model
    for model in (
        Model("llama3-8b", 105 * 10**9, 8),
        Model("llama3-70b", 912 * 10**9, 64),
        Model("llama3-405b", 5_290 * 10**9, 512),
        Model("llama3-1t", 18_000 * 10**9, 1024),
    )
}


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """`scale` is the share of the model's checkpoint that is really written; the shards keep their number."""

    model: Model
    scale: float
    layout: BlockLayout

    def parameters(
        self, directory: str, access: str, *, direct: bool = False, seed: int = 1
    ) -> dict[str, Any]:
        """Of `Blocks`; give the stream chain=layout.blocks_per_rank, limit=layout.blocks, as many clients as
        there are ranks.
        """
        return {
            "directory": directory, "ranks": self.layout.ranks, "rank_bytes": self.layout.rank_bytes,
            "block_bytes": self.layout.block_bytes, "access": access, "order": "sequential",
            "direct": direct, "fsync": "end" if access == "write" else "none", "seed": seed,
        }  # fmt: skip


def parse_model(text: str) -> Model:
    """A name of MODELS, or `<parameters>b` as 13b, whose size is estimated; one rank per 10^9 parameters."""
    known = MODELS.get(text.lower())
    if known is not None:
        return known
    number = text.lower().removesuffix("b")
    try:
        billions = float(number) if text.lower().endswith("b") else 0.0
    except ValueError:
        billions = 0.0
    if not 0 < billions < 1e6:
        raise UsageError(f"unknown model {text!r}", hint=f"{', '.join(MODELS)}, or a size such as 13b")
    return Model(text.lower(), round(billions * 1e9 * BYTES_PER_PARAMETER), max(1, round(billions)))


def plan_checkpoint(
    model: Model, *, ranks: int | None = None, scale: float = 1.0, chunk_bytes: int = CHUNK_BYTES
) -> CheckpointPlan:
    """Equal shards of whole chunks; a shard smaller than a chunk is one chunk, a multiple of 4 KiB."""
    ranks = model.ranks if ranks is None else ranks
    if not 0 < scale <= 1:
        raise UsageError(f"scale {scale:g}", hint="a share of the checkpoint, more than 0 and at most 1")
    if ranks < 1 or chunk_bytes < 1:
        raise UsageError(f"{ranks} ranks with chunks of {chunk_bytes} bytes", hint="give 1 or more")
    shard_bytes = model.checkpoint_bytes * scale / ranks
    if shard_bytes < chunk_bytes:
        chunk_bytes = max(1, round(shard_bytes / _ALIGN_BYTES)) * _ALIGN_BYTES
    rank_bytes = max(1, round(shard_bytes / chunk_bytes)) * chunk_bytes
    return CheckpointPlan(model, scale, BlockLayout(ranks, rank_bytes, chunk_bytes))
