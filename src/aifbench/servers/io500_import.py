"""Earlier IO500 runs, read from their result directories or job logs and stored like runs of our own."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aifbench import __version__
from aifbench.clock import Clock, utc_text
from aifbench.errors import ResultError, UsageError
from aifbench.results.files import explained
from aifbench.results.ownership import current_owner
from aifbench.results.record import RunRecord, RunState
from aifbench.results.store import RunStore
from aifbench.results.tags import say
from aifbench.servers.engine_measurements import TOTAL, EngineRun, engine_measurements
from aifbench.servers.io500_found import FoundRun, find_runs, fingerprint, read_source
from aifbench.servers.io500_metrics import io500_metrics, io500_settings
from aifbench.workloads.io500_ini import Io500Ini, parse_ini
from aifbench.workloads.io500_summary import Summary
from aifbench.workloads.ior_output import parse_ior
from aifbench.workloads.mpi_engines import Io500

KIND, BENCH, TAG = "lustre", "io500", "imported"
FOLDER = "imported"  # in the run's directory: the files that it was made from
_MOMENT = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
_BEGIN = re.compile(rf"(?:START|t_start\s*=)\s*{_MOMENT}")
_END = re.compile(rf"(?:END|t_end\s*=)\s*{_MOMENT}")
_PROCESSES = re.compile(r"(?m)^\s*(?:nproc|procs)\s*=\s*(\d+)\s*$")


@dataclass(frozen=True, slots=True)
class Imported:
    """One run; `is_new` is False for results that were in the store already, as `run_id`."""

    run_id: str
    place: Path
    is_new: bool


def import_io500(
    path: Path, runs: RunStore, clock: Clock, *, nodes: int = 0, ini: Path | None = None
) -> list[Imported]:
    """Every run at or below `path`, as COMPLETE runs of the day they were made.

    `nodes` and `ini` are for one run whose files do not have them. Raises UsageError for files that hold no
    result, ResultError when the store cannot be written.
    """
    found = find_runs(path)
    if ini is not None or nodes:
        if len(found) > 1:
            raise UsageError(
                f"{path} holds {len(found)} runs", hint="give the files of one of them with --nodes or --ini"
            )
        found = [replace(found[0], ini=read_source(ini) if ini else found[0].ini)]
    known = _known(runs)
    imported = []
    for run in found:
        key = fingerprint(run.summary)
        if key in known:
            imported.append(Imported(known[key], run.place, is_new=False))
            continue
        known[key] = _store(run, key, runs, clock, nodes)
        imported.append(Imported(known[key], run.place, is_new=True))
    return imported


def _known(runs: RunStore) -> dict[str, str]:
    """Run ids of earlier imports by their results."""
    earlier = {}
    for record, _ in runs.records([f"service={KIND}", f"bench={BENCH}"]):
        origin = record.provenance.get(TAG)
        if isinstance(origin, Mapping):
            earlier[str(origin.get("results_sha256", ""))] = record.run_id
    return earlier


def _store(run: FoundRun, key: str, runs: RunStore, clock: Clock, nodes: int) -> str:
    """A new run with copies of its files; nothing is left of it when that fails."""
    record = _record(run, key, clock, nodes)
    created_s = datetime.fromisoformat(record.created_utc).timestamp()
    run_id = runs.claim(KIND, created_s)
    directory = runs.path(run_id)
    try:
        with explained(f"cannot write into {directory}"):
            (directory / FOLDER).mkdir()
            for source in run.sources:
                (directory / FOLDER / source.path.name).write_bytes(source.data)
        runs.write(replace(record, run_id=run_id))
        say([directory], lambda tags: tags.with_words([TAG]))
    except ResultError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return run_id


def _record(run: FoundRun, key: str, clock: Clock, nodes: int) -> RunRecord:
    """Everything that the files tell; `run_id` is for the store to give."""
    summary, ini = run.summary, parse_ini(run.ini.text) if run.ini else None
    log = parse_ior(run.bandwidth_log.text) if run.bandwidth_log else None
    nodes = nodes or (log.nodes if log else None) or 0
    processes = summary.processes or (log.tasks if log else None) or _told_processes(run)
    begin_s, end_s = _times_s(run)
    measured = EngineRun(
        engine=BENCH,
        processes=processes,
        nodes=nodes,
        parameters={name: v for name, v in (("processes", processes), ("nodes", nodes)) if v},
        started_utc=utc_text(begin_s),
        more=io500_metrics(summary, nodes, TOTAL),
    )
    return RunRecord(
        run_id="",
        created_utc=utc_text(begin_s),
        ended_utc=utc_text(end_s) if end_s > begin_s else "",
        state=RunState.COMPLETE,
        service={"kind": KIND, "name": KIND, "scheduler": TAG},
        recipe=_recipe(run, summary, ini, processes, nodes),
        provenance={TAG: _origin(run, key, clock)},
        measurements=tuple(engine_measurements(measured, Io500().parse(run.text, run.files))),
        notes=(_note(run, ini, nodes),),
        owner=current_owner(),
        files={f"{FOLDER}/{source.path.name}": source.sha256 for source in run.sources},
    )


def _recipe(
    run: FoundRun, summary: Summary, ini: Io500Ini | None, processes: int, nodes: int
) -> dict[str, Any]:
    """As a run of our own would have been asked for it, as far as that can be told."""
    asked = {
        "ini": str(run.ini.path.absolute()) if run.ini else None,
        "workers": processes or None,
        "client_nodes": nodes or None,
    }
    facts = {
        "version": summary.version,
        "config_hash": summary.config_hash,
        "score_hash": summary.score_hash,
        "configuration": io500_settings(ini) if ini else {},
    }
    return {
        "bench": BENCH,
        **asked,
        "given": sorted(name for name, value in asked.items() if value),
        "facts": {name: value for name, value in facts.items() if value},
    }


def _origin(run: FoundRun, key: str, clock: Clock) -> dict[str, Any]:
    return {
        "from": str(run.place.absolute().parent),
        "files": [f"{source.path.name} (sha256 {source.sha256[:12]})" for source in run.sources],
        "on_utc": utc_text(clock.wall_s()),
        "by_aifbench": __version__,
        "results_sha256": key,
    }


def _note(run: FoundRun, ini: Io500Ini | None, nodes: int) -> str:
    names = ", ".join(source.path.name for source in run.sources)
    lacking = [
        *([] if nodes else ["nodes (`import --nodes N`)"]),
        *([] if ini else ["configuration (`import --ini FILE`)"]),
        "file system",
        "caches",
    ]
    mistakes = f"; its configuration has {len(ini.problems)} mistakes" if ini and ini.problems else ""
    return f"imported from {names}; not told there: {', '.join(lacking)}{mistakes}"


def _told_processes(run: FoundRun) -> int:
    found = _PROCESSES.search(run.details.text) if run.details else None
    return int(found[1]) if found else 0


def _times_s(run: FoundRun) -> tuple[float, float]:
    """Begin and end: as its files say it, whose clock is taken for UTC, else when they were last written."""
    text = "\n".join(source.text for source in (run.details, run.printed) if source)
    begin, ends = _BEGIN.search(text), _END.findall(text)
    times = [_seconds(begin[1] if begin else ""), *map(_seconds, ends[-1:])]
    if times[0] is None:
        written_s = run.place.stat().st_mtime if run.place.exists() else 0.0
        return max(written_s, 0.0), max(written_s, 0.0)
    return times[0], max(times[-1] or times[0], times[0])


def _seconds(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
