"""Phases of what AI jobs do to a file system: metadata, data loading, checkpoints, many small files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import StreamPlan
from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.servers import lustre_checks as checks
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.lustre_blocks import added_notes, cached_share
from aifbench.servers.lustre_frame import Frame
from aifbench.servers.lustre_metrics import rank_ends, transfer_metrics
from aifbench.units import format_number
from aifbench.workloads.file_checkpoint import CheckpointPlan
from aifbench.workloads.file_shapes import (
    LoaderShape,
    accelerator_utilisation,
    files_for,
    honest_samples,
    scaled,
    shape_named,
)
from aifbench.workloads.file_storm import FILES_PER_DIRECTORY

_MODULE = "aifbench.workloads"
# Small-file phases, in the order that leaves nothing behind.
METADATA = ("create", "stat", "read", "rename", "unlink")


def metadata(
    frame: Frame, directory: Path, per_client: int, operations: Sequence[str] = METADATA
) -> Iterator[Phase]:
    """create, stat, read, rename and unlink of `per_client` files for each client, one after another."""
    options = frame.options
    shared = bool(options["one_directory"])
    for operation in operations:
        name = f"{operation}-files"
        stream = StreamPlan(
            name=name,
            workload=f"{_MODULE}.file_tree:Tree",
            params={
                "directory": str(directory),
                "operation": operation,
                "per_directory": per_client,
                "shared": shared,
                "size_bytes": options["file_size"],
                "prefix": "r" if operation == "unlink" else "f",
                "seed": options["seed"],
            },
            arrivals=to_json(Closed(frame.clients)),
            workers=frame.workers,
            limit=per_client * frame.clients,
            chain=1 if shared else per_client,
            items="files",
            via="posix",
        )
        parameters = {
            "files": per_client * frame.clients,
            "file_size": options["file_size"],
            "directories": "one, shared" if shared else frame.clients,
            "nodes": frame.nodes,
        }
        yield Phase(frame.fixed(name, stream), parameters, _plain_checks(frame))


def storm(frame: Frame, directory: Path, per_client: int) -> Iterator[Phase]:
    """Unpacking an archive of small files, then importing them as an interpreter does."""
    files = per_client * frame.clients
    common = {"directory": str(directory), "seed": frame.options["seed"]}
    work = (
        ("untar", "Untar", common, FILES_PER_DIRECTORY),
        ("import", "ImportFiles", {**common, "files": files}, 1),
    )
    for name, cls, params, chain in work:
        stream = StreamPlan(
            name=name,
            workload=f"{_MODULE}.file_storm:{cls}",
            params=params,
            arrivals=to_json(Closed(frame.clients)),
            workers=frame.workers,
            limit=-(-files // chain) * chain,
            chain=chain,
            items="files",
            via="posix",
        )
        yield Phase(frame.fixed(name, stream), {"files": files, "nodes": frame.nodes}, _plain_checks(frame))


def checkpoint(frame: Frame, directory: Path, plan: CheckpointPlan) -> Iterator[Phase]:
    """Every rank saves its shard, then restores it."""
    options = frame.options
    layout = plan.layout
    direct = not options["buffered"]
    for name, access in (("save", "write"), ("restore", "read")):
        params = plan.parameters(str(directory), access, direct=direct, seed=options["seed"])
        if access == "read" and not direct:
            params["cache"] = options["cache"]
        stream = StreamPlan(
            name=name,
            workload=f"{_MODULE}.file_blocks:Blocks",
            params=params,
            arrivals=to_json(Closed(layout.ranks)),
            workers=min(frame.workers, layout.ranks),
            limit=layout.blocks,
            chain=layout.blocks_per_rank,
            items="chunks",
            via="posix",
        )
        parameters = {
            "model": plan.model.name,
            "scale": plan.scale,
            "ranks": layout.ranks,
            "shard": layout.rank_bytes,
            "nodes": frame.nodes,
        }
        verify = _checkpoint_evidence(frame, layout.blocks_per_rank, layout.ranks, layout.total_bytes, access)
        yield Phase(frame.fixed(name, stream), parameters, verify)


def _checkpoint_evidence(frame: Frame, per_rank: int, ranks: int, total_bytes: int, access: str) -> Any:
    def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
        (stream,) = outcome.plan.streams
        samples, window_s = outcome.samples(stream), measured[stream.name].window_s
        metrics = list(transfer_metrics(samples, window_s, lambda index: index // per_rank, frame.nodes))
        values = {metric.name: metric.value for metric in metrics}
        found = [checks.check_type(frame.seen), checks.check_stragglers(values.get("slowest_rank"))]
        done = len(rank_ends(samples.select(samples.ok), lambda index: index // per_rank))
        if done < ranks:
            text = f"{done} of {ranks} shards were finished: there is no checkpoint"
            found.append(Check("SHARDS", Verdict.INVALID, text, done, ranks, "shards"))
        if access == "read":
            found.append(
                checks.check_cache(
                    direct=not frame.options["buffered"],
                    cached_share=cached_share(added_notes(outcome.reports(stream))),
                    data_bytes=total_bytes,
                    memory_bytes=frame.memory_bytes,
                    how=frame.options["cache"],
                )
            )
        return {stream.name: Evidence([check for check in found if check], metrics)}

    return verify


def loader(frame: Frame, directory: Path) -> Iterator[Phase]:
    """Writes a training job's data set, then trains: reads batches while an accelerator would compute."""
    options = frame.options
    scale = options["scale"] or 1.0
    shape = scaled(shape_named(options["loader"]), scale)
    samples = max(shape.batch * 2, int(options["data"]) // shape.sample_bytes)
    files = files_for(shape, samples)
    samples = files * shape.samples_per_file
    fields = {field: getattr(shape, field) for field in LoaderShape.__dataclass_fields__}
    data = StreamPlan(
        name="data",
        workload=f"{_MODULE}.file_loader:LoaderData",
        params={"directory": str(directory), "shape": fields, "seed": options["seed"]},
        arrivals=to_json(Closed(min(frame.clients, files))),
        workers=min(frame.workers, files),
        limit=files,
        items="samples",
        via="posix",
    )
    yield Phase(frame.fixed("data", data), is_measured=False)
    accelerators = frame.workers
    train = StreamPlan(
        name="train",
        workload=f"{_MODULE}.file_loader:Loader",
        params={
            "directory": str(directory),
            "shape": fields,
            "samples": samples,
            "seed": options["seed"],
            "cache": options["cache"],
        },
        arrivals=to_json(Closed(accelerators)),
        workers=accelerators,
        limit=int(options["steps"]) * accelerators,
        items="samples",
        via="posix",
    )
    parameters = {
        "model": shape.name,
        "scale": scale,
        "batch": shape.batch,
        "sample": shape.sample_bytes,
        "samples": samples,
        "files": files,
        "compute": shape.compute_s,
        "readers": shape.readers,
        "accelerators": accelerators,
        "nodes": frame.nodes,
    }
    verify = _loader_evidence(frame, shape, samples)
    yield Phase(frame.fixed("train", train), parameters, verify)


def _loader_evidence(frame: Frame, shape: LoaderShape, samples: int) -> Any:
    def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
        (stream,) = outcome.plan.streams
        operations, window_s = outcome.samples(stream), measured[stream.name].window_s
        metrics = list(transfer_metrics(operations, window_s, None, frame.nodes))
        good = operations.select(operations.ok)
        each = [
            accelerator_utilisation(good.finished_ns[good.worker == worker].tolist(), shape.compute_s)
            for worker in range(stream.workers)
        ]
        known = [share for share in each if share is not None]
        found = [checks.check_type(frame.seen)]
        if known:
            found.append(_utilisation_check(min(known), shape))
            value, n = 100 * math.fsum(known) / len(known), len(good)
            note = "compute time by total time, without the first step (MLPerf Storage v2)"
            metrics.append(Metric("accelerator_utilisation", value, "%", "higher", n=n, note=note))
        share = cached_share(added_notes(outcome.reports(stream)))
        found.append(_loader_cache_check(frame, shape, samples, share))
        return {stream.name: Evidence([check for check in found if check], metrics)}

    return verify


def _utilisation_check(worst: float, shape: LoaderShape) -> Check | None:
    """AU: whether the accelerators were kept busy; the worst of them counts."""
    if shape.least_au is None:
        return None
    asked = f"MLPerf Storage asks for {100 * shape.least_au:.0f} %"
    text = f"the idlest accelerator was busy {100 * worst:.1f} %; {asked}"
    if worst >= shape.least_au:
        return Check("AU", Verdict.VALID, text, worst, shape.least_au, "share")
    advice = (
        "this storage is too slow for so many of these accelerators: fewer --workers, or more --client-nodes"
    )
    return Check("AU", Verdict.WARN, text, worst, shape.least_au, "share", advice)


def _loader_cache_check(frame: Frame, shape: LoaderShape, samples: int, share: float | None) -> Check:
    """CACHE: a data set that fits in memory is read from there from the second epoch on."""
    memory_bytes = frame.memory_bytes
    if memory_bytes is None:
        return Check("CACHE", Verdict.WARN, "the clients' memory is not known")
    asked = honest_samples(shape, frame.workers, memory_bytes)
    before = (
        "" if share is None else f"; {format_number(100 * share, 3)} % of it was cached before the first step"
    )
    text = f"{samples:,} samples, where {asked:,} would keep the page cache out of it{before}"
    if samples >= asked:
        return Check("CACHE", Verdict.VALID, text, samples, asked, "samples")
    needed = format_number(asked * shape.sample_bytes / 2**30, 3)
    return Check("CACHE", Verdict.WARN, text, samples, asked, "samples", f"--data {needed}GiB makes it so")


def _plain_checks(frame: Frame) -> Any:
    def verify(outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        found = checks.check_type(frame.seen)
        return {stream.name: Evidence([found] if found else []) for stream in outcome.plan.streams}

    return verify
