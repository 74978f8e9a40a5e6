"""What squeue, scontrol and sacct print, as JobInfo. Pure: text in, values out.

Only formats that are asked for explicitly are read; they are the same from Slurm 22.05 to 25.11.
"""

import re
from collections.abc import Iterator

from aifbench.cluster import nodelist, slurm_states
from aifbench.cluster.jobs import JobInfo, JobState

# A character that no job name, reason or host name holds, so that a forged "|" stays what it is.
SEPARATOR = "\x1f"

# The name is the one field a user chooses freely: being last, it cannot shift the others.
_QUEUE_FIELDS = (
    "JobID",
    "State",
    "TimeUsed",
    "TimeLeft",
    "NodeList",
    "RestartCnt",
    "exit_code",
    "Reason",
    "Name",
)
# Only --Format knows RestartCnt and exit_code; an empty width means "whatever it takes".
QUEUE_FORMAT = ",".join(f"{field}:{SEPARATOR}" for field in _QUEUE_FIELDS)

_ACCOUNTING_FIELDS = ("JobIDRaw", "State", "ElapsedRaw", "NodeList", "ExitCode", "Reason", "JobName")
ACCOUNTING_FORMAT = ",".join(_ACCOUNTING_FIELDS)

_CONTROLLER_NAME = re.compile(r"JobId=(\d+) (?:\S+ )*?JobName=(.*?) UserId=\S+\(\d+\) ")
_CONTROLLER_STATE = re.compile(
    r" JobState=(\S+) Reason=(.*?) Dependency=.*? Restarts=(\d+) .*?"
    r"ExitCode=(\d+:\d+) (?:DerivedExitCode=\S+ )?RunTime=(\S+) "
)
_CONTROLLER_NODES = re.compile(r" NodeList=(\S*)")
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")


def parse_queue(text: str) -> dict[str, JobInfo]:
    """The jobs of `squeue --noheader --Format=QUEUE_FORMAT`, by id."""
    rows = (_queue_info(fields) for fields in _rows(text, len(_QUEUE_FIELDS)))
    return {info.job_id: info for info in rows}


def _queue_info(fields: list[str]) -> JobInfo:
    job_id, state, used, left, nodes, restarts, exit_status, reason, name = fields
    return _job_info(
        "squeue",
        job_id,
        state,
        name.removesuffix(SEPARATOR),
        reason,
        nodes,
        ending=_wait_status(exit_status),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        elapsed_s=_clock_s(used),
        time_left_s=_clock_s(left),
    )


def parse_controller(text: str) -> JobInfo | None:
    """The job of `scontrol --oneliner show job ID`; None when the text is something else."""
    name = _CONTROLLER_NAME.search(text)
    state = _CONTROLLER_STATE.search(text, name.end()) if name else None
    if name is None or state is None:
        return None
    nodes = _CONTROLLER_NODES.search(text, state.end())
    return _job_info(
        "scontrol",
        name[1],
        state[1],
        name[2],
        state[2],
        nodes[1] if nodes else "",
        ending=_exit_and_signal(state[4]),
        restarts=int(state[3]),
        elapsed_s=_clock_s(state[5]),
    )


def parse_accounting(text: str) -> dict[str, JobInfo]:
    """The jobs of `sacct --duplicates --allocations --format=ACCOUNTING_FORMAT`, by id.

    A requeued job has one row per run: the last one counts. sacct has subtracted 128 from exit
    codes above 128, which cannot be undone: a code from here may mean itself plus 128.
    """
    infos: dict[str, JobInfo] = {}
    runs: dict[str, int] = {}
    for job_id, state, elapsed, nodes, ending, reason, name in _rows(text, len(_ACCOUNTING_FIELDS)):
        infos[job_id] = _job_info(
            "sacct",
            job_id,
            state,
            name,
            reason,
            nodes,
            ending=_exit_and_signal(ending),
            restarts=runs.get(job_id, 0),
            elapsed_s=float(elapsed) if elapsed.isdecimal() else None,
        )
        # A job that lost a node and went on has a RESIZING row: the same run.
        runs[job_id] = runs.get(job_id, 0) + (state != "RESIZING")
    return infos


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.split("\n"):
        fields = line.split(SEPARATOR, columns - 1)
        if len(fields) == columns and fields[0].isdecimal():
            yield fields


def _job_info(
    source: str,
    job_id: str,
    state_word: str,
    name: str,
    reason: str,
    nodes: str,
    *,
    ending: tuple[int | None, int | None],
    restarts: int,
    elapsed_s: float | None,
    time_left_s: float | None = None,
) -> JobInfo:
    state = slurm_states.parse_state(state_word)
    exit_code, signal = ending if state.is_final else (None, None)
    reason = slurm_states.plain_reason(reason)
    if state is JobState.UNKNOWN or (state is JobState.CANCELLED and not reason):
        reason = state_word  # an unknown word, or `CANCELLED by 1001`: worth showing as it is
    return JobInfo(
        job_id,
        state,
        name=name,
        reason=reason,
        nodes=nodelist.expand(nodes),
        exit_code=exit_code,
        signal=signal,
        restarts=restarts,
        elapsed_s=elapsed_s,
        time_left_s=time_left_s,
        source=source,
        advice=slurm_states.advice(state, reason, exit_code, signal),
        is_stuck=slurm_states.is_stuck(state, reason),
    )


def _wait_status(text: str) -> tuple[int | None, int | None]:
    """Exit code and signal from a status as wait(2) returns it: 768 is exit 3, 15 is signal 15."""
    if not text.isdecimal():
        return None, None
    status = int(text)
    return _exit_and_signal(f"{status >> 8 & 0xFF}:{status & 0x7F}")


def _exit_and_signal(text: str) -> tuple[int | None, int | None]:
    """From `exit:signal`. What a signal ended has no exit code."""
    exit_text, _, signal_text = text.partition(":")
    if not (exit_text.isdecimal() and signal_text.isdecimal()):
        return None, None
    exit_code, signal = int(exit_text), int(signal_text)
    return (None, signal) if signal else (exit_code, None)


def _clock_s(text: str) -> float | None:
    """Seconds from `D-HH:MM:SS`, `HH:MM:SS` or `M:SS`; None for UNLIMITED, N/A, INVALID..."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)
