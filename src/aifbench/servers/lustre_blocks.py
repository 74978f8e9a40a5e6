"""Phases over large files: one file, sequential bandwidth, random blocks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import StreamPlan, WorkerReport
from aifbench.results.record import Measurement
from aifbench.servers import lustre_checks as checks
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.lustre_frame import Frame
from aifbench.servers.lustre_metrics import transfer_metrics
from aifbench.workloads.file_layout import BlockLayout

_BLOCKS = "aifbench.workloads.file_blocks:Blocks"
_SEQUENTIAL_BYTES = 2**20
_RANDOM_BYTES = 4096


class BlockPhases:
    """`ranks` parts of `size_bytes` in `directory`, written by every phase list before they are read."""

    def __init__(
        self, frame: Frame, directory: Path, *, ranks: int, size_bytes: int, order: str = "sequential"
    ) -> None:
        options = frame.options
        self._frame = frame
        self._directory = directory
        self._order = order
        is_random = order == "random"
        block_bytes = options["block"] or (_RANDOM_BYTES if is_random else _SEQUENTIAL_BYTES)
        rank_bytes = -(-size_bytes // block_bytes) * block_bytes
        self._layout = BlockLayout(ranks, rank_bytes, block_bytes, options["shared"])
        self._direct = not options["buffered"]

    def write(self, name: str = "write", *, is_measured: bool = True) -> Phase:
        """All blocks once, in order, with the fsync that was asked for. Layouts use large blocks."""
        layout = self._layout
        if not is_measured and layout.block_bytes < _SEQUENTIAL_BYTES:
            block_bytes = next(b for b in _halves(_SEQUENTIAL_BYTES) if layout.rank_bytes % b == 0)
            layout = replace(layout, block_bytes=block_bytes)
        return self._fixed(name, "write", layout, is_measured=is_measured)

    def read(self, name: str = "read") -> Phase:
        return self._fixed(name, "read", self._layout, is_measured=True)

    def timed(self, access: str) -> Phase:
        """Blocks in random order for `--duration`."""
        name = f"random-{access}"
        stream = StreamPlan(
            name=name,
            workload=_BLOCKS,
            params=self._params(access, self._layout, order="random"),
            arrivals=to_json(self._frame.arrivals),
            workers=self._frame.workers,
            items="blocks",
            via="posix",
        )
        return Phase(self._frame.timed(name, stream), self._parameters(self._layout), self._verify(access))

    def _fixed(self, name: str, access: str, layout: BlockLayout, *, is_measured: bool) -> Phase:
        stream = StreamPlan(
            name=name,
            workload=_BLOCKS,
            params=self._params(access, layout),
            arrivals=to_json(Closed(min(self._frame.clients, layout.ranks))),
            workers=min(self._frame.workers, layout.ranks),
            limit=layout.blocks,
            chain=layout.blocks_per_rank,
            items="blocks",
            via="posix",
        )
        plan = self._frame.fixed(name, stream)
        return Phase(plan, self._parameters(layout), self._verify(access, layout), is_measured=is_measured)

    def _params(self, access: str, layout: BlockLayout, order: str = "sequential") -> dict[str, Any]:
        options = self._frame.options
        return {
            "directory": str(self._directory),
            "ranks": layout.ranks,
            "rank_bytes": layout.rank_bytes,
            "block_bytes": layout.block_bytes,
            "access": access,
            "order": order,
            "shared": layout.shared,
            "direct": self._direct,
            "fsync": options["sync"] if access == "write" else "none",
            "verify_every": options["verify"] if access == "read" and layout.block_bytes % 4096 == 0 else 0,
            "seed": options["seed"],
            **({"cache": options["cache"]} if access == "read" and not self._direct else {}),
        }

    def _parameters(self, layout: BlockLayout) -> dict[str, Any]:
        return {
            "block": layout.block_bytes,
            "size": layout.rank_bytes,
            "ranks": layout.ranks,
            "files": "one, shared" if layout.shared else layout.files,
            "access": "past the page cache" if self._direct else "through the page cache",
            "sync": self._frame.options["sync"],
            "nodes": self._frame.nodes,
        }

    def _verify(self, access: str, layout: BlockLayout | None = None) -> Any:
        """What is found out after a phase; `layout` where its ranks had parts of their own."""

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            (stream,) = outcome.plan.streams
            samples = outcome.samples(stream)
            rank_of = None
            if layout is not None:
                per_rank = layout.blocks_per_rank
                rank_of = lambda index: index // per_rank  # noqa: E731
            window_s = measured[stream.name].window_s
            metrics = list(transfer_metrics(samples, window_s, rank_of, self._frame.nodes))
            notes = added_notes(outcome.reports(stream))
            values = {metric.name: metric.value for metric in metrics}
            found = [*self._checks(access, values, notes)]
            if layout is not None:
                found.append(checks.check_whole(int(samples.ok.sum()), layout.blocks))
            return {stream.name: Evidence(found, metrics)}

        return verify

    def _checks(
        self, access: str, values: Mapping[str, float | None], notes: Mapping[str, float]
    ) -> Iterator[Any]:
        frame, options, is_read = self._frame, self._frame.options, access == "read"
        found = [checks.check_type(frame.seen), checks.check_stragglers(values.get("slowest_rank"))]
        names = ("bandwidth_per_node", "bandwidth", "data_rate_per_node", "data_rate")
        per_node = next((value for name in names if (value := values.get(name))), 0.0)
        found.append(checks.check_link(per_node * 2**20, frame.link_bytes_per_s, is_read=is_read))
        if is_read:
            found.append(
                checks.check_cache(
                    direct=self._direct,
                    cached_share=cached_share(notes),
                    data_bytes=self._layout.total_bytes,
                    memory_bytes=frame.memory_bytes,
                    how=options["cache"],
                )
            )
            found.append(checks.check_verified(notes.get("verified_blocks", 0.0), options["verify"]))
        else:
            found.append(checks.check_sync(options["sync"], direct=self._direct))
        yield from (check for check in found if check is not None)


def added_notes(reports: Iterable[WorkerReport]) -> Mapping[str, float]:
    """What all workers noted, added up by name."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.notes)
    return total


def cached_share(notes: Mapping[str, float]) -> float | None:
    """Of the bytes about to be read, those that were in the page caches of the nodes that read them."""
    looked_at = notes.get("looked_at_bytes", 0.0)
    return notes.get("cached_bytes", 0.0) / looked_at if looked_at else None


def _halves(size_bytes: int) -> Iterator[int]:
    while size_bytes >= 1:
        yield size_bytes
        size_bytes //= 2
