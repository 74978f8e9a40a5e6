"""Benchmarks of a file system: which phases each is made of, in a directory of the run's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench.errors import BenchError, UsageError
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.lustre_blocks import BlockPhases
from aifbench.servers.lustre_engines import EnginePhases
from aifbench.servers.lustre_frame import Frame
from aifbench.servers.lustre_jobs import checkpoint, loader, metadata, storm
from aifbench.servers.lustre_options import ENGINES
from aifbench.workloads.file_engines import METADATA_OPERATIONS
from aifbench.workloads.file_own_directory import OwnDirectory
from aifbench.workloads.io500_ini import read_ini
from aifbench.workloads.io500_profiles import ini_of, profile


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

    @property
    def workers(self) -> int:
        """An engine brings its own processes: one of ours starts them, where each node has one."""
        nodes = int(self._frame.options["client_nodes"] or 1)
        return nodes if self._bench in ENGINES else self._frame.workers

    def phases(self) -> Iterator[Phase]:
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
        engine = {"version": self._engine.version} if self._engine else {}
        return {
            "directory": str(self._target),
            "file_systems": list(frame.seen),
            "client_memory_bytes": frame.memory_bytes,
            "link_bytes_per_s": frame.link_bytes_per_s,
            **engine,
        }

    def close(self) -> None:
        if self._own is None:
            return
        try:
            self._own.remove()
        except BenchError as error:
            self._frame.context.progress.note(f"{self._own.path} is left behind: {error}")

    def _room(self, name: str) -> Path:
        """A directory of this part's own."""
        assert self._own is not None
        path = self._own.path / name
        path.mkdir(exist_ok=True)
        return path

    def _file(self, name: str) -> Iterator[Phase]:
        blocks = BlockPhases(self._frame, self._room(name), ranks=1)
        yield blocks.write("write-file")
        yield blocks.read("read-file")

    def _bandwidth(self, name: str) -> Iterator[Phase]:
        blocks = BlockPhases(self._frame, self._room(name), ranks=self._frame.clients)
        yield blocks.write()
        yield blocks.read()

    def _random(self, name: str) -> Iterator[Phase]:
        blocks = BlockPhases(self._frame, self._room(name), ranks=self._frame.clients, order="random")
        yield blocks.write("layout", is_measured=False)
        yield blocks.timed("read")
        yield blocks.timed("write")

    def _metadata(self, name: str) -> Iterator[Phase]:
        return metadata(self._frame, self._room(name))

    def _loader(self, name: str) -> Iterator[Phase]:
        return loader(self._frame, self._room(name))

    def _checkpoint(self, name: str) -> Iterator[Phase]:
        return checkpoint(self._frame, self._room(name))

    def _storm(self, name: str) -> Iterator[Phase]:
        return storm(self._frame, self._room(name))

    def _job(self) -> dict[str, Any]:
        """What the engine is asked, as fields of EngineJob."""
        options, room = self._frame.options, self._room(self._bench)
        if self._bench == "io500":
            return {"ini": _ini(options, room)}
        if self._bench == "mdtest":
            return {
                "operations": METADATA_OPERATIONS,
                "files": options["files"],
                "file_bytes": options["file_size"],
                "is_shared": options["one_directory"],
            }
        return {
            "block_bytes": options["block"] or 2**20,
            "size_bytes": options["size"],
            "is_shared": options["shared"],
            "is_direct": not options["buffered"],
        }


def _ini(options: Mapping[str, Any], room: Path) -> str:
    """The user's configuration, checked key by key, or that of a profile; results go where the job runs."""
    if not options["ini"]:
        return ini_of(profile(options["profile"]), room, room)
    path = Path(options["ini"])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    read_ini(text, str(path))
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
