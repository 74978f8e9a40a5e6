"""Phases that run other people's benchmarks, such as IO500 and fio; and what these said as numbers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench.clock import utc_text
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import StreamPlan
from aifbench.load.rendezvous import rows_name
from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.servers import lustre_checks as checks
from aifbench.servers.benchmark import Phase
from aifbench.servers.lustre_frame import Frame
from aifbench.workloads.file_engines import ENGINES, EngineReading, EngineResult

_MOST_OUTPUT_BYTES = 64 * 2**20
TOTAL = "total"
_TOTALS = {"bandwidth": "bandwidth_mean", "metadata": "metadata_mean", "score": "score"}
_PERCENTILE = re.compile(r" p([\d.]+)$")
_PART = re.compile(r" (rate|p[\d.]+)$")


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

    def _conclude(self, outcome: PhaseOutcome) -> Sequence[Measurement]:
        """One measurement for each of the program's own phases; without any, one that says why."""
        (stream,) = outcome.plan.streams
        directory = outcome.directory / f"{rows_name(stream.name, 0)}.program"
        reading = ENGINES[self._engine].parse(_text(directory / "output"), _texts(directory))
        self.version = reading.version
        (report,) = outcome.reports(stream)
        common = [*_finding_checks(reading), *_exit_checks(report.errors, report.failure)]
        if kind := checks.check_type(self._frame.seen):
            common.append(kind)
        groups = _by_phase(reading.results) or {self._engine: []}
        return [self._measurement(outcome, name, found, tuple(common)) for name, found in groups.items()]

    def _measurement(
        self, outcome: PhaseOutcome, name: str, results: Sequence[EngineResult], common: tuple[Check, ...]
    ) -> Measurement:
        nodes = int(outcome.plan.streams[0].params["nodes"])
        time_s = next((result.time_s for result in results if result.time_s is not None), 0.0)
        return Measurement(
            phase=name,
            stream=self._engine,
            arrivals=f"{self._frame.workers} processes on {nodes} nodes",
            via=self._engine,
            workers=self._frame.workers,
            window_s=(0.0, time_s),
            metrics=tuple(_metrics(results, nodes)),
            checks=(_result_check(self._engine, name, results), *common),
            parameters=self._parameters(nodes),
            started_utc=utc_text(outcome.start_wall_s),
        )


def _by_phase(results: Sequence[EngineResult]) -> dict[str, list[EngineResult]]:
    """By the program's own phases, in their order: `write p99` is of `write`; totals are together."""
    groups: dict[str, list[EngineResult]] = {}
    for result in results:
        name = TOTAL if result.name in _TOTALS else _PART.sub("", result.name)
        groups.setdefault(name, []).append(result)
    return groups


def _metrics(results: Sequence[EngineResult], nodes: int) -> Iterator[Metric]:
    """The figures to judge by, bandwidths per node too, and what the program says besides."""
    for result in results:
        name, n = _metric_name(result), result.repeats
        yield Metric(name, result.value, result.unit, result.direction, result.low, result.high, n)
        if nodes > 1 and name == "bandwidth":
            yield Metric("bandwidth_per_node", result.value / nodes, result.unit, result.direction, n=n)
        if name == "bandwidth" and result.first_done is not None and result.last_done is not None:
            note = "when the first process was done: not how long the work takes"
            first = result.first_done
            yield Metric("bandwidth_first_done", first, result.unit, result.direction, n=n, note=note)
    timed = next((result for result in results if result.time_s is not None), None)
    if timed is not None:
        yield Metric("time", timed.time_s, "s", "lower", n=timed.repeats)


def _metric_name(result: EngineResult) -> str:
    """As the same quantity is called everywhere else."""
    if result.name in _TOTALS:
        return _TOTALS[result.name]
    if percentile := _PERCENTILE.search(result.name):
        return f"service_p{percentile[1].replace('.', '')}"
    return "bandwidth" if result.unit.endswith("B/s") else "throughput"


def _result_check(engine: str, name: str, results: Sequence[EngineResult]) -> Check:
    """RESULT: there is one, and the program itself does not call it invalid."""
    if not results:
        return Check("RESULT", Verdict.INVALID, f"{engine} printed no result", advice="see its output")
    if not all(result.is_valid for result in results):
        return Check("RESULT", Verdict.INVALID, f"{engine} has no valid result of {name}")
    return Check("RESULT", Verdict.VALID, f"{engine} came to a result of {name}")


def _finding_checks(reading: EngineReading) -> Iterator[Check]:
    for finding in reading.findings:
        verdict = Verdict.INVALID if finding.is_fatal else Verdict.WARN
        yield Check(finding.code, verdict, finding.message, advice=finding.advice)


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
