"""fio and elbencho: a service on each node, and one client that leads them; on one node no service."""

import os
import shlex
from collections.abc import Iterator, Mapping

from aifbench.workloads import elbencho_output, fio_output
from aifbench.workloads.elbencho_output import ElbenchoPhase, ElbenchoRun
from aifbench.workloads.engine_types import (
    Asked,
    EngineCommand,
    EngineJob,
    EngineReading,
    EngineResult,
    find_program,
    inside,
)
from aifbench.workloads.findings import Finding
from aifbench.workloads.fio_output import FioJob, FioRun, FioTotal

FIO_PORT = 8765  # its own default
ELBENCHO_PORT = 1611
_HOW_FIO = (
    "install fio (apt install fio, dnf install fio), or set AIFBENCH_FIO to the program; "
    "or put an image fio.sif in utils/sif-images"
)
_HOW_ELBENCHO = (
    "take the static program from github.com/breuner/elbencho/releases, and set AIFBENCH_ELBENCHO to "
    "its path; or put an image elbencho.sif in utils/sif-images"
)
_JSON = "elbencho.json"
_SCRIPT = "fio.sh"
_STRAGGLER_SHARE = 0.5


class Fio:
    """Each operation is a run of its own: in one, hosts would not begin the second operation together."""

    name = "fio"
    uses_mpi = False
    not_in_paths = ("#", ";", "${")  # comments and variables of its job files

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        return find_program("fio", environ, _HOW_FIO)

    def command(self, words: tuple[str, ...], job: EngineJob) -> EngineCommand:
        words = inside(words, job)
        places = range(max(1, len(job.hosts)))
        jobs = {
            _fio_file(operation, place): _fio_job(job, operation, place)
            for operation in job.operations
            for place in places
        }
        lines = [shlex.join(_fio_argv(words, job, operation)) for operation in job.operations]
        script = "\n".join(["#!/bin/sh", "set -e", *lines, ""])
        return EngineCommand(
            ("sh", str(job.output / _SCRIPT)),
            files={_SCRIPT: script, **jobs, **Asked.of(job).as_file()},
            outputs=tuple(_fio_output(operation) for operation in job.operations),
            server=(*words, f"--server=,{FIO_PORT}") if len(job.hosts) > 1 else (),
        )

    def parse(self, text: str, files: Mapping[str, str]) -> EngineReading:
        """Of the files that `command` names; of an imported run, of the text that holds its JSON."""
        asked = Asked.within(files)
        written = {name: files.get(_fio_output(name), "") + "\n" + text for name in asked.operations}
        results: list[EngineResult] = []
        findings: list[Finding] = []
        version = ""
        for operation, said in (written or {"": text}).items():
            run = fio_output.parse_fio(said)
            version = run.version or version
            findings += _fio_findings(run, asked, operation)
            for total in fio_output.totals(run):
                results += _fio_results(total, is_random=asked.is_random)
        return EngineReading(self.name, version, tuple(results), tuple(dict.fromkeys(findings)))


class Elbencho:
    """Files of each thread, or one shared file."""

    name = "elbencho"
    uses_mpi = False
    not_in_paths = ()

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        return find_program("elbencho", environ, _HOW_ELBENCHO)

    def command(self, words: tuple[str, ...], job: EngineJob) -> EngineCommand:
        words, asked = inside(words, job), Asked.of(job).as_file()
        options = ["--nolive", "--lat", "--jsonfile", str(job.output / _JSON)]
        options += ["-t", str(job.processes_per_host), "-b", str(job.block_bytes), "-s", str(job.size_bytes)]
        options += [f"--{operation}" for operation in job.operations]
        options += ["--sync"] if "write" in job.operations else []
        options += ["--direct"] if job.is_direct else []
        options += ["--rand"] if job.is_random else []
        options += ["--iodepth", str(job.depth)] if job.depth > 1 else []
        options += ["--timelimit", str(job.duration_s)] if job.duration_s else []
        options += ["-i", str(job.repeats)] if job.repeats > 1 else []
        if job.is_shared:
            options.append(str(job.directory / "elbencho.data"))
        else:
            options += ["--mkdirs", "-n", "1", "-N", "1", str(job.directory)]
        if len(job.hosts) < 2:
            return EngineCommand((*words, *options), files=asked, outputs=(_JSON,))
        hosts = ("--hosts", ",".join(job.hosts))
        return EngineCommand(
            (*words, *hosts, *options),
            files=asked,
            outputs=(_JSON,),
            server=(*words, "--service", "--foreground", "--port", str(ELBENCHO_PORT)),
            stop=(*words, *hosts, "--quit"),
        )

    def parse(self, text: str, files: Mapping[str, str]) -> EngineReading:
        written = files.get(_JSON, "")
        run = elbencho_output.parse_json(written) if written.strip() else elbencho_output.parse_text(text)
        results = tuple(result for phase in run.phases for result in _elbencho_results(phase))
        version = run.phases[-1].version if run.phases else ""
        errors = elbencho_output.parse_errors(text)
        findings = tuple(_elbencho_findings(run, errors, Asked.within(files)))
        return EngineReading(self.name, version, results, findings)


def _fio_file(operation: str, place: int) -> str:
    return f"fio-{operation}-{place}.fio"


def _fio_output(operation: str) -> str:
    return f"fio-{operation}.json"


def _fio_argv(words: tuple[str, ...], job: EngineJob, operation: str) -> list[str]:
    argv = [*words, "--output-format=json+", f"--output={job.output / _fio_output(operation)}"]
    if len(job.hosts) < 2:
        return [*argv, str(job.output / _fio_file(operation, 0))]
    for place, host in enumerate(job.hosts):
        argv += [f"--client={host},{FIO_PORT}", str(job.output / _fio_file(operation, place))]
    return argv


def _fio_job(job: EngineJob, operation: str, index: int) -> str:
    """A job file. Names are ours: fio's own would be the same on every host of a shared directory."""
    pattern = {"write": "randwrite", "read": "randread"}[operation] if job.is_random else operation
    lines = [
        f"[{operation}]",
        f"rw={pattern}",
        "directory=" + str(job.directory).replace(":", "\\:"),  # a colon divides directories
        f"filename_format=fio.{index}.$jobnum.$filenum",
        "unique_filename=0",
        f"bs={job.block_bytes}",
        f"size={job.size_bytes}",
        f"numjobs={job.processes_per_host}",
        f"direct={int(job.is_direct)}",
    ]
    if job.depth > 1:
        lines += ["ioengine=libaio", f"iodepth={job.depth}"]
    if operation == "write":
        lines.append("end_fsync=1")
    if job.duration_s:
        lines += ["time_based", f"runtime={job.duration_s}"]
    if job.repeats > 1:
        lines.append(f"loops={job.repeats}")
    return "\n".join(lines) + "\n"


def _fio_results(total: FioTotal, *, is_random: bool) -> Iterator[EngineResult]:
    """Bandwidth and rate; percentiles of the time from submission to completion, over all clients."""
    name = f"random {total.direction}" if is_random else total.direction
    first, last = total.first_done_bytes_per_s / 2**20, total.last_done_bytes_per_s / 2**20
    yield EngineResult(name, last, "MiB/s", total.time_s, first_done=first, last_done=last)
    yield EngineResult(f"{name} rate", total.operations_per_s, "ops/s", total.time_s)
    for percent, value_ns in total.percentiles_ns.items():
        yield EngineResult(f"{name} p{percent:g}", value_ns / 1e6, "ms", direction="lower")


def _fio_findings(run: FioRun, asked: Asked, operation: str) -> Iterator[Finding]:
    if not run.jobs:
        why = run.messages[0] if run.messages else "its output is cut, or empty"
        yield Finding("FIO_NO_RESULT", True, f"fio has no result of {operation or 'its run'}: {why}")
        return
    if failed := [job for job in run.jobs if job.error]:
        yield Finding(
            "FIO_JOB_ERROR", True, f"{len(failed)} of {len(run.jobs)} fio jobs failed: {failed[0].error_text}"
        )
    cut = [job for job in run.jobs if not job.error and (job.is_cut or _is_short(job, asked))]
    if cut or run.signal is not None:
        by = f" by signal {run.signal}" if run.signal is not None else ""
        longest_s = max(job.runtime_s for job in run.jobs)
        yield Finding("FIO_CUT", True, f"fio was ended{by} after {longest_s:.1f} s, before its own end")
    if asked.hosts > 1 and len(run.hosts) < asked.hosts:
        yield Finding(
            "FIO_LOST_CLIENT",
            True,
            f"{len(run.hosts)} of {asked.hosts} hosts have a result of {operation}",
        )
    for total in fio_output.totals(run):
        if total.slowest_share < _STRAGGLER_SHARE:
            yield Finding(
                "FIO_STRAGGLER",
                False,
                f"{total.direction}: the slowest process had {100 * total.slowest_share:.0f} % "
                "of the mean rate",
            )


def _is_short(job: FioJob, asked: Asked) -> bool:
    return job.runtime_s < 0.95 * asked.duration_s


def _elbencho_results(phase: ElbenchoPhase) -> Iterator[EngineResult]:
    name, first, last = phase.name.lower(), phase.first, phase.last
    if last.bytes_per_s is not None:
        value = last.bytes_per_s / 2**20
        early = first.bytes_per_s / 2**20 if first.bytes_per_s is not None else None
        yield EngineResult(name, value, "MiB/s", last.time_s, first_done=early, last_done=value)
    if (rate := last.operations_per_s) is not None:
        early = first.operations_per_s
        yield EngineResult(f"{name} rate", rate, "ops/s", last.time_s, first_done=early, last_done=rate)
    elif (entries := last.entries_per_s) is not None and last.bytes_per_s is None:
        early = first.entries_per_s
        yield EngineResult(name, entries, "ops/s", last.time_s, first_done=early, last_done=entries)


def _elbencho_findings(run: ElbenchoRun, errors: tuple[str, ...], asked: Asked) -> Iterator[Finding]:
    why = f": {errors[0]}" if errors else ""
    names = {phase.name.lower() for phase in run.phases}
    lacking = [name for name in asked.operations if name not in names]
    if not run.phases:
        yield Finding("ELBENCHO_NO_RESULT", True, f"elbencho has no result{why}", "read its output")
    elif lacking:
        yield Finding("ELBENCHO_TRUNCATED", True, f"elbencho has no result of {', '.join(lacking)}{why}")
    elif errors:
        yield Finding("ELBENCHO_ERROR", True, f"elbencho reports an error{why}")
    if run.damaged:
        yield Finding("ELBENCHO_DAMAGED", True, f"{run.damaged} lines of its JSON are damaged")
    hosts = {phase.hosts for phase in run.phases if phase.hosts is not None}
    if hosts and asked.hosts and hosts != {asked.hosts}:
        yield Finding("ELBENCHO_HOSTS", True, f"it ran on {max(hosts)} hosts instead of {asked.hosts}")
