"""IO500 results on disk: which files in a directory are of one run, and what they hold."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import UsageError
from aifbench.workloads.io500_summary import Summary, decode, parse_result, parse_summary
from aifbench.workloads.mpi_engines import read_io500

_DETAILS, _INI = "io500/result.txt", "io500.ini"  # as the engine names them
_BANDWIDTH_LOG = "ior-easy-write.txt"  # tells nodes and tasks, where it is
_MOST_BYTES = 64 * 2**20
_MOST_DEPTH = 3
_MOST_RUNS = 500
_HINT = "give a directory with IO500's result_summary.txt or result.txt, or the log of its job"
_RESULTS = re.compile(rb"\[(?:RESULT|SCORE)|^t_delta\s*=", re.MULTILINE)
_TEXT = re.compile(r"|\.(?:txt|log|out|err|[oe]?\d+)")
_DEADLINE = re.compile(r"(?m)^exe\s*=.*[\s/]ior\s.* -D (\d+)\b")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a run, read whole."""

    path: Path
    data: bytes

    @property
    def text(self) -> str:
        return decode(self.data)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class FoundRun:
    """An IO500 run on disk: what it printed (`printed`), wrote (`details`), and was told (`ini`)."""

    printed: Source | None
    details: Source | None
    ini: Source | None = None
    bandwidth_log: Source | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        every = (self.printed, self.details, self.ini, self.bandwidth_log)
        return tuple(source for source in every if source)

    @property
    def place(self) -> Path:
        return self.sources[0].path

    @property
    def text(self) -> str:
        """As it would have been on the screen."""
        return self.printed.text if self.printed else ""

    @property
    def files(self) -> dict[str, str]:
        """By the names of the engine. Without a configuration, the time that its commands were given."""
        files = {_DETAILS: self.details.text} if self.details else {}
        return {**files, _INI: self.ini.text if self.ini else _known_ini(files.get(_DETAILS, ""))}

    @property
    def summary(self) -> Summary:
        return read_io500(self.text, self.files)


def find_runs(path: Path) -> list[FoundRun]:
    """The runs of a file, with what belongs to it in its directory, or of a directory and those below.

    Raises UsageError.
    """
    if path.is_dir():
        runs = [run for directory in _directories(path) for run in _runs_of(directory)]
        if not runs:
            raise UsageError(f"{path} holds no IO500 result", hint=_HINT)
        if len(runs) > _MOST_RUNS:
            raise UsageError(f"{path} holds {len(runs)} runs", hint=f"at most {_MOST_RUNS} at a time")
        return runs
    if not path.exists():
        raise UsageError(f"there is no {path}", hint=_HINT)
    key = _key_of(read_source(path))
    if not key:
        raise UsageError(f"{path} holds no IO500 result", hint=_HINT)
    beside = [run for run in _runs_of(path.parent, "*result*") if fingerprint(run.summary) == key]
    return beside[:1] or [_joined([read_source(path)], path.parent, is_alone=False)]


def fingerprint(summary: Summary) -> str:
    """The same for the same results, whichever of its files they are read from; empty without any."""
    values = {phase.name: phase.score.value for phase in summary.phases if phase.is_scored}
    return hashlib.sha256(json.dumps(sorted(values.items())).encode()).hexdigest() if values else ""


def _directories(top: Path) -> Iterator[Path]:
    """`top` and what is below, not too deep, without following links."""
    for place, names, _ in os.walk(top):
        depth = len(Path(place).relative_to(top).parts)
        names[:] = sorted(name for name in names if not name.startswith(".")) if depth < _MOST_DEPTH else []
        yield Path(place)


def _runs_of(directory: Path, pattern: str = "*") -> list[FoundRun]:
    """The runs whose files lie in one directory; of several, nobody knows whose the other files are."""
    by_result: dict[str, list[Source]] = {}
    for path in _candidates(directory, pattern):
        source = read_source(path)
        if key := _key_of(source):
            by_result.setdefault(key, []).append(source)
    return [_joined(sources, directory, is_alone=len(by_result) == 1) for sources in by_result.values()]


def _candidates(directory: Path, pattern: str) -> list[Path]:
    """Texts with lines of IO500, those of its own names first; what cannot be read is none of them."""
    names = sorted(directory.glob(pattern), key=lambda path: ("result" not in path.name, path.name))
    return [path for path in names if _TEXT.fullmatch(path.suffix) and _has_results(path)]


def _has_results(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return False
        return _RESULTS.search(path.read_bytes()) is not None
    except OSError:
        return False


def _key_of(source: Source) -> str:
    return fingerprint(parse_summary(source.text)) or fingerprint(parse_result(source.text))


def _joined(sources: Sequence[Source], directory: Path, *, is_alone: bool) -> FoundRun:
    """One run's files: lines for people are `printed`, the machine's are `details`; others if `is_alone`."""
    printed = next((source for source in sources if parse_summary(source.text).phases), None)
    details = next((source for source in sources if parse_result(source.text).phases), None)
    beside = [path for path in (directory / "config.ini", *sorted(directory.glob("*.ini"))) if path.is_file()]
    log = directory / _BANDWIDTH_LOG
    return FoundRun(
        printed,
        details,
        ini=read_source(beside[0]) if is_alone and beside else None,
        bandwidth_log=read_source(log) if is_alone and log.is_file() else None,
    )


def read_source(path: Path) -> Source:
    """Raises UsageError for what is no file of a reasonable size."""
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no file", hint=_HINT)
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=_HINT) from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint="give result_summary.txt")
    return Source(path, data)


def _known_ini(details: str) -> str:
    """What a run's own commands tell of its configuration."""
    found = _DEADLINE.search(details)
    return f"[debug]\nstonewall-time = {found[1]}\n" if found else ""
