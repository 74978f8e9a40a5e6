"""The built-in file engine beside fio and beside a loop in C, on the same files.

Real worker processes on our side. Both sides of a comparison run one after the other, in turns first, on a
file of 512 MiB (past the page cache) or on empty files in directories of 1,000. Needs fio and gcc.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from test.perf.claims import Line, options, ratios, show

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples

MIB = 2**20
FILE_BYTES = 512 * MIB
SECONDS = 2.0
WORKERS, THREADS = 2, 8
FILES, PER_DIRECTORY = 20_000, 1000
KINDS = ("create", "stat", "unlink")
BLOCKS = "aifbench.workloads.file_blocks:Blocks"
TREE = "aifbench.workloads.file_tree:Tree"
C_SOURCE = Path(__file__).with_name("metadata_loop.c")

Load = Callable[..., Samples]


def loader(fleet: Fleet) -> Load:
    def load(workload: str, params: dict[str, Any], clients: int, workers: int, **how: Any) -> Samples:
        measure_s = how.pop("measure_s", None)
        stream = StreamPlan("files", workload, params, to_json(Closed(clients)), workers=workers, **how)
        plan = PhasePlan("files", (stream,), Endpoint("localhost", 1), measure_s=measure_s)
        outcome = fleet.run(plan, Silent(), watch=str)
        samples = outcome.samples(stream)
        assert len(samples) and samples.ok.all(), [report.errors for report in outcome.reports(stream)]
        return samples

    return load


def blocks(directory: Path, block_bytes: int, **how: Any) -> dict[str, Any]:
    return {
        "directory": str(directory), "ranks": 1, "rank_bytes": FILE_BYTES, "block_bytes": block_bytes,
        "direct": True, **how,
    }  # fmt: skip


def our_stream(load: Load, directory: Path, access: str) -> float:
    count = FILE_BYTES // MIB
    samples = load(BLOCKS, blocks(directory, MIB, access=access), 1, 1, limit=count, chain=count)
    assert len(samples) == count
    return FILE_BYTES / MIB / (int(samples.finished_ns.max()) / 1e9)


def our_random(load: Load, directory: Path, access: str) -> float:
    params = blocks(directory, 4096, access=access, order="random")
    samples = load(BLOCKS, params, WORKERS * THREADS, WORKERS, measure_s=SECONDS)
    return len(samples) / SECONDS


def fio(directory: Path, *arguments: str) -> dict[str, Any]:
    """The group's read or write figures; both sides use the same file."""
    command = [
        "fio", "--name=peer", f"--filename={directory / 'rank-000000.data'}", f"--size={FILE_BYTES}",
        "--direct=1", "--ioengine=psync", "--thread", "--group_reporting", "--output-format=json", *arguments,
    ]  # fmt: skip
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=directory).stdout
    job: dict[str, Any] = json.loads(out[out.index("{") :])["jobs"][0]
    assert job["error"] == 0
    return job


def fio_stream(directory: Path, access: str) -> float:
    figures = fio(directory, f"--rw={access}", "--bs=1m")[access]
    return float(figures["bw_bytes"]) / MIB


def fio_random(directory: Path, access: str) -> float:
    how = (f"--rw=rand{access}", "--bs=4k", f"--numjobs={WORKERS * THREADS}", "--time_based")
    return float(fio(directory, *how, f"--runtime={SECONDS:g}")[access]["iops"])


def our_metadata(load: Load, directory: Path) -> list[float]:
    """Operations per second of each kind."""
    settle(directory)
    rates = []
    for kind in KINDS:
        params = {"directory": str(directory), "operation": kind, "per_directory": PER_DIRECTORY}
        samples = load(TREE, params, 1, 1, limit=FILES, chain=PER_DIRECTORY)
        assert len(samples) == FILES
        rates.append(FILES / (int(samples.finished_ns.max()) / 1e9))
    shutil.rmtree(directory)
    return rates


def settle(directory: Path) -> None:
    """What the side before has left to write must not be written during this one."""
    os.sync()
    directory.mkdir()


def c_metadata(program: Path, directory: Path) -> list[float]:
    settle(directory)
    command = [str(program), str(directory), str(FILES)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(directory)
    return [FILES / float(line) for line in out.split()]


def in_turns(first_is_ours: bool, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any]:
    if first_is_ours:
        mine = ours()
        return mine, theirs()
    other = theirs()
    return ours(), other


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__))
    parser.add_argument(
        "--path", default="/var/tmp", help="a directory of the file system to use (%(default)s)"
    )
    wanted = parser.parse_args(argv)
    lines: list[Line] = []

    def pair(what: str, unit: str, peer: str) -> tuple[Line, Line]:
        both = Line(what, unit), Line(f"  {peer}", unit)
        lines.extend(both)
        return both

    stream = {
        access: pair(f"{access} 1 MiB, one client", "MiB/s", "fio psync") for access in ("write", "read")
    }
    random = {access: pair(f"random {access} 4 KiB, 16 clients", "op/s", "fio psync, 16 threads")
              for access in ("write", "read")}  # fmt: skip
    metadata = [pair(f"{kind}, one client", "op/s", "loop in C") for kind in KINDS]
    with tempfile.TemporaryDirectory(dir=wanted.path, prefix="aifbench-perf-") as name:
        root = Path(name)
        program = root / "metadata_loop"
        subprocess.run(["gcc", "-O2", "-o", program, C_SOURCE], check=True)
        with Fleet(root / "fleet", LocalLauncher(), workers=WORKERS) as fleet:
            load = loader(fleet)
            our_stream(load, root, "write")  # the file that every later repeat overwrites and reads
            for repeat in range(wanted.repeats):
                turn = repeat % 2 == 0
                for access, (mine, other) in stream.items():
                    values = in_turns(turn, lambda a=access: our_stream(load, root, a),
                                      lambda a=access: fio_stream(root, a))  # fmt: skip
                    mine.values.append(values[0])
                    other.values.append(values[1])
                for access, (mine, other) in random.items():
                    values = in_turns(turn, lambda a=access: our_random(load, root, a),
                                      lambda a=access: fio_random(root, a))  # fmt: skip
                    mine.values.append(values[0])
                    other.values.append(values[1])
                rates = in_turns(turn, lambda: our_metadata(load, root / "ours"),
                                 lambda: c_metadata(program, root / "c"))  # fmt: skip
                for (mine, other), ours, theirs in zip(metadata, *rates, strict=True):
                    mine.values.append(ours)
                    other.values.append(theirs)
    for pairs, bound in ((stream.values(), 0.95), (random.values(), 0.6), (metadata, 0.7)):
        lines += [Line(f"ratio: {a.what}", "", ratios(a, b), at_least=bound) for a, b in pairs]
    return show("file engine", lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
