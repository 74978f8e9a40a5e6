"""Benchmarks of a file system: which phases each is made of, in a directory of the run's own."""

import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench.errors import BenchError, ConfigError, UsageError, WorkloadError
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.lustre_blocks import BlockPhases
from aifbench.servers.lustre_engines import EnginePhases
from aifbench.servers.lustre_frame import Frame
from aifbench.servers.lustre_jobs import checkpoint, loader, metadata, storm
from aifbench.servers.lustre_options import ENGINES
from aifbench.servers.lustre_sizing import (
    TRY_BYTES,
    TRY_FILES,
    TRY_S,
    WANTED_S,
    attempt,
    client_files,
    rank_bytes,
    scale_of,
)
from aifbench.workloads.file_checkpoint import parse_model, plan_checkpoint
from aifbench.workloads.file_engines import METADATA_OPERATIONS
from aifbench.workloads.file_own_directory import OwnDirectory
from aifbench.workloads.io500_ini import read_ini
from aifbench.workloads.io500_profiles import ini_of, profile

# Of each process, where nothing is known of how fast it will be.
DEFAULT_BYTES = 2**30
DEFAULT_FILES = 2000


class FileBenchmark:
    """One run in `target`, which it makes a directory in and leaves as it was."""

    def __init__(
        self,
        bench: str,
        options: Mapping[str, Any],
        context: BenchmarkContext,
        target: Path,
        seen: Sequence[Mapping[str, Any]],
    ) -> None:
        self._bench = bench
        self._frame = Frame(options, context, seen)
        self._target = target
        self._own: OwnDirectory | None = None
        self._engine: EnginePhases | None = None
        self._ini = _ini(options["ini"]) if bench == "io500" and options["ini"] else ""

    @property
    def workers(self) -> int:
        """An engine brings its own processes: one of ours starts them, where each node has one."""
        nodes = int(self._frame.options["client_nodes"] or 1)
        return nodes if self._bench in ENGINES else self._frame.workers

    def phases(self) -> Iterator[Phase]:
        OwnDirectory.find(self._target)  # somebody may have put another one, or a link, in its place
        path = shlex.quote(str(self._target / self._frame.context.run_tag))
        self._frame.context.belongings.add(self._belonging, f"`rm -r {path}` removes it")
        self._own = OwnDirectory.create(
            self._target, self._frame.context.run_tag, self._frame.context.run_tag
        )
        self._frame.context.progress.phase("directory", str(self._own.path))
        if self._bench in ENGINES:
            self._engine = EnginePhases(self._frame, self._bench, self._room(self._bench), self._job())
            yield self._engine.phase()
            return
        for name in _PARTS if self._bench == "all" else (self._bench,):
            yield from _PARTS[name](self, name)

    def facts(self) -> dict[str, Any]:
        frame = self._frame
        engine = self._engine.facts() if self._engine else {}
        return {
            "directory": str(self._target),
            "file_systems": list(frame.seen),
            "client_memory_bytes": frame.memory_bytes,
            "link_bytes_per_s": frame.link_bytes_per_s,
            **engine,
        }

    def close(self) -> None:
        if self._own is None:
            self._frame.context.belongings.strike(self._belonging)
            return
        try:
            self._own.remove()
            self._frame.context.belongings.strike(self._belonging)
        except BenchError as error:
            self._frame.context.progress.note(f"{self._own.path} is left behind: {error}")

    @property
    def _belonging(self) -> str:
        return f"the directory {self._target / self._frame.context.run_tag}"

    def _room(self, name: str) -> Path:
        """A directory of this part's own."""
        assert self._own is not None
        path = self._own.path / name
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise WorkloadError(f"cannot make {path}: {error.strerror}") from None
        return path

    def _file(self, name: str) -> Iterator[Phase]:
        size_bytes = yield from self._size(name, 1)
        blocks = BlockPhases(self._frame, self._room(name), ranks=1, size_bytes=size_bytes)
        yield blocks.write("write-file")
        yield blocks.read("read-file")

    def _bandwidth(self, name: str) -> Iterator[Phase]:
        ranks = self._frame.clients
        size_bytes = yield from self._size(name, ranks)
        blocks = BlockPhases(self._frame, self._room(name), ranks=ranks, size_bytes=size_bytes)
        yield blocks.write()
        yield blocks.read()

    def _random(self, name: str) -> Iterator[Phase]:
        size_bytes = self._frame.options["size"] or DEFAULT_BYTES
        ranks = self._frame.clients
        blocks = BlockPhases(
            self._frame, self._room(name), ranks=ranks, size_bytes=size_bytes, order="random"
        )
        yield blocks.write("layout", is_measured=False)
        yield blocks.timed("read")
        yield blocks.timed("write")

    def _metadata(self, name: str) -> Iterator[Phase]:
        def trial(number: int, files: int) -> Iterator[Phase]:
            return metadata(self._frame, self._room(f"try-{name}-{number}"), files, ("create",))

        files = yield from self._files(trial)
        yield from metadata(self._frame, self._room(name), files)

    def _storm(self, name: str) -> Iterator[Phase]:
        def trial(number: int, files: int) -> Iterator[Phase]:
            return storm(self._frame, self._room(f"try-{name}-{number}"), files)

        files = yield from self._files(trial)
        yield from storm(self._frame, self._room(name), files)

    def _size(self, name: str, ranks: int) -> Generator[Phase, None, int]:
        """Bytes of each rank: as asked, or what takes long enough by a short try."""
        if asked := self._frame.options["size"]:
            return int(asked)
        rate_bytes_per_s = yield from self._write_rate(name, ranks)
        return rank_bytes(rate_bytes_per_s, ranks, self._frame.free_bytes)

    def _write_rate(self, name: str, ranks: int) -> Generator[Phase, None, float]:
        """Bytes/s of all ranks together, by a short try."""
        blocks = BlockPhases(self._frame, self._room(f"try-{name}"), ranks=ranks, size_bytes=TRY_BYTES)
        rate_mb_per_s = yield from attempt(blocks.write(), "sent_rate")
        return rate_mb_per_s * 1e6

    def _files(self, trial: Callable[[int, int], Iterator[Phase]]) -> Generator[Phase, None, int]:
        """Files of each client: as asked, or what takes long enough by two tries, the second one longer."""
        if asked := self._frame.options["files"]:
            return int(asked)
        clients, free_files, files = self._frame.clients, self._frame.free_files, TRY_FILES
        for number, wanted_s in enumerate((TRY_S, WANTED_S), 1):
            rate_per_s = yield from attempt(next(trial(number, files)), "throughput", number)
            files = client_files(rate_per_s, clients, free_files, wanted_s)
        return files

    def _loader(self, name: str) -> Iterator[Phase]:
        return loader(self._frame, self._room(name))

    def _checkpoint(self, name: str) -> Iterator[Phase]:
        model, scale = parse_model(self._frame.options["checkpoint"]), self._frame.options["scale"]
        if not scale:
            rate_bytes_per_s = yield from self._write_rate(name, model.ranks)
            scale = scale_of(rate_bytes_per_s, model.checkpoint_bytes, self._frame.free_bytes)
        yield from checkpoint(self._frame, self._room(name), plan_checkpoint(model, scale=scale))

    def _job(self) -> dict[str, Any]:
        """What the engine is asked, as fields of EngineJob."""
        options, room = self._frame.options, self._room(self._bench)
        if self._bench == "io500":
            return {"ini": self._ini or ini_of(profile(options["profile"]), room, room)}
        if self._bench == "mdtest":
            return {
                "operations": METADATA_OPERATIONS,
                "files": options["files"] or DEFAULT_FILES,
                "file_bytes": options["file_size"],
                "is_shared": options["one_directory"],
            }
        return {
            "block_bytes": options["block"] or 2**20,
            "size_bytes": options["size"] or DEFAULT_BYTES,
            "is_shared": options["shared"],
            "is_direct": not options["buffered"],
        }


def _ini(name: str) -> str:
    """The user's configuration, checked key by key. Raises UsageError."""
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
        read_ini(text, name)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except ConfigError as error:
        raise UsageError(error.message, hint=error.hint) from None
    return text


_PARTS: Mapping[str, Callable[[FileBenchmark, str], Iterator[Phase]]] = {
    "file": FileBenchmark._file,
    "bandwidth": FileBenchmark._bandwidth,
    "random": FileBenchmark._random,
    "metadata": FileBenchmark._metadata,
    "loader": FileBenchmark._loader,
    "checkpoint": FileBenchmark._checkpoint,
    "storm": FileBenchmark._storm,
}
