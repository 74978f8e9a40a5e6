"""IO500, IOR and mdtest: one MPI program over all nodes, started by the caller's launcher."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from aifbench.workloads.engine_types import (
    IO_OPERATIONS,
    METADATA_OPERATIONS,
    Asked,
    EngineCommand,
    EngineJob,
    EngineReading,
    EngineResult,
    find_program,
    inside,
)
from aifbench.workloads.findings import Finding
from aifbench.workloads.io500_ini import parse_ini, with_directories
from aifbench.workloads.io500_review import review
from aifbench.workloads.io500_score import strict_score
from aifbench.workloads.io500_summary import Phase, Summary, joined, parse_result, parse_summary
from aifbench.workloads.ior_output import IorRun, parse_ior
from aifbench.workloads.mdtest_output import MdtestRun, parse_mdtest

_MODULES = "on MeluXina: module load env/release/2024.1 OpenMPI/5.0.3-GCC-13.3.0"
_HOW_IO500 = (
    f"build github.com/IO500/io500 with the MPI of the jobs ({_MODULES}), and set AIFBENCH_IO500 to "
    "the program; or put an image io500.sif in utils/sif-images"
)
_HOW_IOR = (
    f"build github.com/hpc/ior with the MPI of the jobs ({_MODULES}), and put its bin on PATH, or set "
    "AIFBENCH_IOR and AIFBENCH_MDTEST; or put images ior.sif and mdtest.sif in utils/sif-images"
)
_RESULTS = "io500"
_INI = "io500.ini"
_SUMMARY, _DETAILS = f"{_RESULTS}/result_summary.txt", f"{_RESULTS}/result.txt"
_MDTEST_ROWS = {
    "create": "file creation",
    "stat": "file stat",
    "read": "file read",
    "remove": "file removal",
}


class Io500:
    """Of `job.ini` a copy is used, with directories of this run."""

    name = "io500"
    uses_mpi = True
    not_in_paths = ()

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        return find_program("io500", environ, _HOW_IO500)

    def command(self, words: tuple[str, ...], job: EngineJob) -> EngineCommand:
        ini = with_directories(job.ini, job.directory / _RESULTS, job.output / _RESULTS)
        argv = (*job.launcher, *inside(words, job), str(job.output / _INI))
        return EngineCommand(argv, files={_INI: ini, **Asked.of(job).as_file()}, outputs=(_SUMMARY, _DETAILS))

    def parse(self, text: str, files: Mapping[str, str]) -> EngineReading:
        summary = read_io500(text, files)
        findings = review(summary, parse_ini(files.get(_INI, "")).stonewall_s)
        is_short = any(finding.code == "IO500_NOT_FOR_THE_LIST" for finding in findings)
        results = tuple(_io500_results(summary, marks_count=not is_short))
        return EngineReading(self.name, summary.version, results, findings)


def read_io500(text: str, files: Mapping[str, str]) -> Summary:
    """From the files it wrote where it came to write them, else from what it printed."""
    summary = parse_summary(text)
    if summary.repeated:  # processes that ran alone: the files are of any one of them
        return summary
    written = parse_summary(files.get(_SUMMARY, ""))
    summary = written if len(written.phases) >= len(summary.phases) else summary
    return joined(summary, parse_result(files[_DETAILS])) if _DETAILS in files else summary


class Ior:
    """Bandwidth, by IOR: each operation over all processes."""

    name = "ior"
    uses_mpi = True
    not_in_paths = ("@",)  # it divides paths

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        return find_program("ior", environ, _HOW_IOR)

    def command(self, words: tuple[str, ...], job: EngineJob) -> EngineCommand:
        options = ["-a", "POSIX", "-t", str(job.block_bytes), "-b", str(_whole_blocks(job))]
        # -C: read what another node wrote; -e: a write ends with fsync; -g: a barrier between the steps.
        options += ["-i", str(job.repeats), "-C", "-e", "-g", "-o", str(job.directory / "ior.data")]
        options += [{"write": "-w", "read": "-r"}[operation] for operation in job.operations]
        options += [] if job.is_shared else ["-F"]
        options += [] if "read" in job.operations else ["-k"]
        options += ["-z"] if job.is_random else []
        options += ["--posix.odirect"] if job.is_direct else []
        if job.duration_s:
            options += ["-D", str(job.duration_s), "-O", "stoneWallingWearOut=1"]
        return EngineCommand((*job.launcher, *inside(words, job), *options), files=Asked.of(job).as_file())

    def parse(self, text: str, files: Mapping[str, str]) -> EngineReading:
        run = parse_ior(text)
        results = tuple(_ior_result(run, access) for access in IO_OPERATIONS if run.of(access))
        return EngineReading(self.name, run.version, results, tuple(_ior_findings(run, Asked.within(files))))


class Mdtest:
    """Metadata rates, by mdtest: files in a directory of each process, or in one for all."""

    name = "mdtest"
    uses_mpi = True
    not_in_paths = ("@",)  # it divides paths

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        return find_program("mdtest", environ, _HOW_IOR)

    def command(self, words: tuple[str, ...], job: EngineJob) -> EngineCommand:
        flags = {"create": "-C", "stat": "-T", "read": "-E", "remove": "-r"}
        # Asked for `write` and `read`, as programs of bandwidth are, it does all it can.
        is_metadata = set(job.operations) <= set(METADATA_OPERATIONS)
        job = job if is_metadata else replace(job, operations=METADATA_OPERATIONS)
        options = ["-F", "-n", str(job.files), "-i", str(job.repeats), "-d", str(job.directory / "mdtest")]
        options += [flags[name] for name in METADATA_OPERATIONS if name in job.operations]
        options += [] if job.is_shared else ["-u"]
        if job.file_bytes:
            options += ["-w", str(job.file_bytes), "-e", str(job.file_bytes)]
        if len(job.hosts) > 1:  # each phase looks at the files of the next node's processes
            options += ["-N", str(job.processes_per_host)]
        return EngineCommand((*job.launcher, *inside(words, job), *options), files=Asked.of(job).as_file())

    def parse(self, text: str, files: Mapping[str, str]) -> EngineReading:
        run = parse_mdtest(text)
        asked = Asked.within(files)
        results = tuple(_mdtest_results(run, asked))
        return EngineReading(self.name, run.version, results, tuple(_mdtest_findings(run, asked)))


def _io500_results(summary: Summary, *, marks_count: bool) -> Iterator[EngineResult]:
    """Phases that count, then the strict means and score.

    In a run that was asked to be short every line is marked INVALID: then the marks say nothing of a phase.
    """
    if not summary.phases:
        return
    yield from (_phase_result(phase, marks_count=marks_count) for phase in summary.phases if phase.is_scored)
    score = strict_score(summary.values)
    for name, value, unit in (
        ("bandwidth", score.bandwidth_gib_s, "GiB/s"),
        ("metadata", score.metadata_kiops, "kIOPS"),
        ("score", score.total, ""),
    ):
        yield EngineResult(name, value, unit, is_valid=not score.lacking)


def _phase_result(phase: Phase, *, marks_count: bool) -> EngineResult:
    return EngineResult(
        phase.name,
        phase.score.value,
        phase.unit,
        phase.time_s,
        first_done=phase.stonewall,
        last_done=phase.score.value,
        is_valid=phase.score.value > 0 and not (marks_count and phase.is_invalid),
    )


def _ior_result(run: IorRun, access: str) -> EngineResult:
    """The median of its iterations; of an even number the lower of the two."""
    rows = sorted(run.of(access), key=lambda row: row.bandwidth_mib_s)
    middle = rows[(len(rows) - 1) // 2]
    return EngineResult(
        access,
        middle.bandwidth_mib_s,
        "MiB/s",
        middle.total_s,
        first_done=run.stonewall_rate(middle),
        last_done=middle.bandwidth_mib_s,
        low=rows[0].bandwidth_mib_s,
        high=rows[-1].bandwidth_mib_s,
        repeats=len(rows),
    )


def _ior_findings(run: IorRun, asked: Asked) -> Iterator[Finding]:
    why = f": {run.errors[0]}" if run.errors else ""
    if not run.rows:
        yield Finding("IOR_NO_RESULT", True, f"IOR shows no result{why}", "read its output")
        return
    lacking = [name for name in asked.operations if len(run.of(name)) < asked.repeats]
    if lacking:
        yield Finding(
            "IOR_TRUNCATED",
            True,
            f"IOR shows {len(run.of(lacking[0]))} of {asked.repeats} iterations of {lacking[0]}{why}",
        )
    elif not run.is_finished:
        yield Finding("IOR_NOT_FINISHED", True, f"IOR did not come to its end{why}", "read its output")
    yield from _task_findings("IOR", run.tasks, asked)
    if any(row.stonewall for row in run.rows) and not run.has_wear_out:
        yield Finding(
            "IOR_STONEWALL", False, "processes stopped when time was called: their shares are unequal"
        )


def _mdtest_results(run: MdtestRun, asked: Asked) -> Iterator[EngineResult]:
    """The time of an iteration follows from its rate: each process works on as many files as were asked."""
    items = asked.files * (run.tasks or 0)
    for name, operation in _MDTEST_ROWS.items():
        if row := run.row(operation):
            yield EngineResult(
                name,
                row.mean_per_s,
                "ops/s",
                items / row.mean_per_s if items and row.mean_per_s else None,
                last_done=row.mean_per_s,
                low=row.min_per_s,
                high=row.max_per_s,
                repeats=run.iterations or 1,
            )


def _mdtest_findings(run: MdtestRun, asked: Asked) -> Iterator[Finding]:
    why = f": {run.errors[0]}" if run.errors else ""
    if not run.rows:
        yield Finding("MDTEST_NO_RESULT", True, f"mdtest shows no rate{why}", "read its output")
        return
    lacking = [name for name in asked.operations if run.row(_MDTEST_ROWS.get(name, name)) is None]
    if lacking:
        yield Finding("MDTEST_TRUNCATED", True, f"mdtest shows no rate of {', '.join(lacking)}{why}")
    elif not run.is_finished:
        yield Finding("MDTEST_NOT_FINISHED", True, f"mdtest did not come to its end{why}", "read its output")
    yield from _task_findings("MDTEST", run.tasks, asked)


def _task_findings(program: str, tasks: int | None, asked: Asked) -> Iterator[Finding]:
    """Processes that each believe to be the only one were started by another MPI's launcher."""
    if tasks is not None and asked.processes and tasks != asked.processes:
        yield Finding(
            f"{program}_NOT_ONE_RUN",
            True,
            f"it ran with {tasks} tasks instead of {asked.processes}",
            "start it with the launcher of the MPI that the program was built with",
        )


def _whole_blocks(job: EngineJob) -> int:
    return max(1, job.size_bytes // job.block_bytes) * job.block_bytes
