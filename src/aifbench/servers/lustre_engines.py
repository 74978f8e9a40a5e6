"""Phases that run other people's benchmarks, such as IO500 and fio; and what these said as numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.clock import utc_text
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import StreamPlan
from aifbench.load.rendezvous import rows_name
from aifbench.results.record import Check, Measurement, Verdict
from aifbench.servers import lustre_checks as checks
from aifbench.servers.benchmark import Phase
from aifbench.servers.engine_measurements import TOTAL, EngineRun, engine_measurements
from aifbench.servers.io500_metrics import io500_metrics, io500_settings
from aifbench.servers.lustre_frame import Frame
from aifbench.workloads.file_engines import ENGINES
from aifbench.workloads.io500_ini import parse_ini
from aifbench.workloads.mpi_engines import read_io500

_MOST_OUTPUT_BYTES = 64 * 2**20
_BYTES = {"B/s": 1, "KiB/s": 2**10, "MiB/s": 2**20, "GiB/s": 2**30}


class EnginePhases:
    """One run of `engine` by `--workers` ranks on `--client-nodes` nodes, in `directory`."""

    def __init__(self, frame: Frame, engine: str, directory: Path, job: Mapping[str, Any]) -> None:
        self._frame = frame
        self._engine = engine
        self._directory = directory
        self._job = job
        self.version = ""

    def phase(self) -> Phase:
        frame = self._frame
        nodes = int(frame.options["client_nodes"] or 1)
        stream = StreamPlan(
            name=self._engine,
            workload="aifbench.workloads.engine_program:EngineProgram",
            params={
                "engine": self._engine,
                "job": {"directory": str(self._directory), **self._job},
                "processes": frame.workers,
                "nodes": nodes,
                "launcher": frame.options["launcher"],
            },
            arrivals=to_json(Closed(1)),
            limit=1,
            via=self._engine,
        )
        return Phase(frame.fixed(self._engine, stream), self._parameters(nodes), conclude=self._conclude)

    def _parameters(self, nodes: int) -> dict[str, Any]:
        plain = {key: value for key, value in self._job.items() if key != "ini"}
        return {"processes": self._frame.workers, "nodes": nodes, **plain}

    def facts(self) -> dict[str, Any]:
        """The program's version, and how it was configured where a file says that."""
        ini = str(self._job.get("ini", ""))
        configuration = {"configuration": io500_settings(parse_ini(ini))} if ini else {}
        return {"version": self.version, **configuration}

    def _conclude(self, outcome: PhaseOutcome) -> Sequence[Measurement]:
        """What the program said, from what it printed and wrote."""
        (stream,) = outcome.plan.streams
        directory = outcome.directory / f"{rows_name(stream.name, 0)}.program"
        text, files = _text(directory / "output"), _texts(directory)
        reading = ENGINES[self._engine].parse(text, files)
        self.version = reading.version
        (report,) = outcome.reports(stream)
        kind = checks.check_type(self._frame.seen)
        nodes = int(stream.params["nodes"])
        is_scored = self._engine == "io500" and bool(reading.results)
        run = EngineRun(
            engine=self._engine,
            processes=self._frame.workers,
            nodes=nodes,
            parameters=self._parameters(nodes),
            started_utc=utc_text(outcome.start_wall_s),
            checks=[kind] if kind else [],
            exits=[*_exit_checks(report.errors, report.failure)],
            more=io500_metrics(read_io500(text, files), nodes, TOTAL) if is_scored else {},
        )
        return [self._held_to_the_link(found, nodes) for found in engine_measurements(run, reading)]

    def _held_to_the_link(self, found: Measurement, nodes: int) -> Measurement:
        """With what says whether its bandwidth is the storage's; IO500 has a rule of its own for caches."""
        rate = next((metric for metric in found.metrics if metric.name == "bandwidth"), None)
        if rate is None or rate.value is None:
            return found
        is_read = "read" in found.phase
        per_node = rate.value * _BYTES[rate.unit] / nodes
        more = [checks.check_link(per_node, self._frame.link_bytes_per_s, is_read=is_read)]
        if is_read and self._engine != "io500":
            more.append(self._cache_check(nodes))
        return replace(found, checks=(*found.checks, *(check for check in more if check)))

    def _cache_check(self, nodes: int) -> Check:
        direct = bool(self._job["is_direct"])
        if self._engine == "ior" and nodes > 1 and not direct:
            return Check("CACHE", Verdict.VALID, "each node read what another one had written")
        return checks.check_cache(
            direct=direct,
            cached_share=None,
            data_bytes=int(self._job["size_bytes"]) * self._frame.workers,
            memory_bytes=self._frame.memory_bytes,
            how="",
        )


def _exit_checks(errors: Mapping[str, int], failure: str) -> Iterator[Check]:
    for text in (*errors, *([failure] if failure else [])):
        yield Check("EXIT", Verdict.INVALID, text, advice="see its output in the run's directory")


def _text(path: Path) -> str:
    """As far as it can be read: a log is no promise of being UTF-8, or of being there."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_OUTPUT_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _texts(directory: Path) -> dict[str, str]:
    """Everything the program left, by its path below `directory`."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(directory)): _text(path) for path in paths if path.name != "output"}
