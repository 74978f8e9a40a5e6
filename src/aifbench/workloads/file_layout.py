"""Which bytes belong to which rank: files, segments, blocks; and when data is forced to the storage."""

from dataclasses import dataclass

from aifbench.errors import UsageError

SHARED_NAME = "shared.data"


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """`ranks` parts of `rank_bytes` each, in blocks of `block_bytes`.

    Own files: one for each rank. Shared: one file of `segments` rounds, in each of which every rank has
    rank_bytes / segments bytes in a row (IOR's segments; the whole part in one piece where it is 1).
    """

    ranks: int
    rank_bytes: int
    block_bytes: int
    shared: bool = False
    segments: int = 1

    def __post_init__(self) -> None:
        for name, value in (("ranks", self.ranks), ("segments", self.segments)):
            if value < 1:
                raise UsageError(f"{value} {name}", hint="give 1 or more")
        if self.block_bytes < 1 or self.rank_bytes < self.block_bytes or self.rank_bytes % self.block_bytes:
            raise UsageError(
                f"{self.rank_bytes:,} bytes are not a whole number of blocks of {self.block_bytes:,}",
                hint="give a size that is a multiple of the block size",
            )
        if self.segments > 1 and not self.shared:
            raise UsageError("segments belong to a shared file", hint="share the file, or leave segments out")
        if self.blocks_per_rank % self.segments:
            raise UsageError(
                f"{self.blocks_per_rank:,} blocks of a rank do not divide into {self.segments:,} segments",
                hint="give a number of segments that divides the blocks of a rank",
            )

    @property
    def blocks_per_rank(self) -> int:
        return self.rank_bytes // self.block_bytes

    @property
    def blocks(self) -> int:
        return self.ranks * self.blocks_per_rank

    @property
    def total_bytes(self) -> int:
        return self.ranks * self.rank_bytes

    @property
    def files(self) -> int:
        return 1 if self.shared else self.ranks

    def place(self, flat: int) -> tuple[int, int]:
        """(file number, offset in bytes) of block number `flat`, counted rank after rank."""
        rank, block = divmod(flat, self.blocks_per_rank)
        if not self.shared:
            return rank, block * self.block_bytes
        per_segment = self.blocks_per_rank // self.segments
        segment, inner = divmod(block, per_segment)
        return 0, ((segment * self.ranks + rank) * per_segment + inner) * self.block_bytes

    def file_name(self, file: int) -> str:
        return SHARED_NAME if self.shared else f"rank-{file:06d}.data"


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """When written data is forced to the storage: `none`, `end` (of a rank's part), `dsync` (every write, by
    O_DSYNC), or a number N: after every N blocks of a client, and at the end of a part.
    """

    every: int = 0
    at_end: bool = False
    dsync: bool = False

    @classmethod
    def parse(cls, text: str) -> "SyncPolicy":
        if text in ("none", "end", "dsync"):
            return cls(at_end=text == "end", dsync=text == "dsync")
        if not text.isascii() or not text.isdigit() or not int(text):
            raise UsageError(f"fsync policy {text!r}", hint="none, end, dsync, or a number of blocks")
        return cls(every=int(text), at_end=True)
