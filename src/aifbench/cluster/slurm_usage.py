"""What Slurm's accounting says of jobs' memory, processor time and energy. Text in, values out."""

import re
from collections.abc import Iterator, Sequence

from aifbench.cluster.jobs import JobUsage
from aifbench.cluster.slurm_text import SEPARATOR

# Both usually answer within 0.1 s, and nobody would wait long for them at the end of a run.
USAGE_TIMEOUT_S = 1.0
_FIELDS = ("JobID", "MaxRSS", "TotalCPU", "NTasks", "ConsumedEnergyRaw")
# A counter that was read while it was written shows as almost 2^64, and a time that follows from it as long.
_WRAPPED = 2**62
_LONGEST_S = 10.0**9
_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


def running_argv(job_ids: Sequence[str]) -> list[str]:
    """Asks for the steps of jobs that run; without its name the batch step is left out."""
    steps = ",".join(f"{job_id},{job_id}.batch" for job_id in job_ids)
    fields = ",".join("AveCPU" if field == "TotalCPU" else field for field in _FIELDS)
    return ["sstat", "--noheader", "--parsable2", "--allsteps", f"--jobs={steps}", f"--format={fields}"]


def ended_argv(job_ids: Sequence[str]) -> list[str]:
    return [
        *("sacct", "--noheader", "--parsable2", f"--jobs={','.join(job_ids)}"),
        *(f"--delimiter={SEPARATOR}", f"--format={','.join(_FIELDS)}"),
    ]


def parse_running(text: str) -> dict[str, JobUsage]:
    """What sstat prints, by job. Its processor time is the mean of a step's tasks."""
    return _usages(_steps(text, "|"), "sstat")


def parse_ended(text: str) -> dict[str, JobUsage]:
    """What sacct prints, by job."""
    return _usages(_steps(text, SEPARATOR), "sacct")


Step = tuple[
    str, str, int | None, float | None, int, float | None
]  # job, step, bytes, seconds, tasks, joules


def _steps(text: str, separator: str) -> Iterator[Step]:
    for line in text.splitlines():
        fields = line.split(separator)
        if len(fields) != len(_FIELDS):
            continue
        name, memory, clock, tasks, joules = fields
        job_id, _, step = name.partition(".")
        if job_id.isdecimal() and step:
            count = int(tasks) if tasks.isdecimal() else 1
            yield job_id, step, _size_bytes(memory), _seconds(clock), count, _joules(joules)


def _usages(steps: Iterator[Step], source: str) -> dict[str, JobUsage]:
    """Energy is that of the nodes while a step ran: steps that ran at once must not be added up, so the step
    that saw most counts, without the extern step, which saw the nodes also when nothing ran.
    """
    jobs: dict[str, list[Step]] = {}
    for step in steps:
        jobs.setdefault(step[0], []).append(step)
    found = {}
    for job_id, of_job in jobs.items():
        sizes = [size for _, _, size, _, _, _ in of_job if size]
        times = [s * (tasks if source == "sstat" else 1) for _, _, _, s, tasks, _ in of_job if s is not None]
        joules = [j for _, step, _, _, _, j in of_job if j and step != "extern"]
        if sizes or times or joules:
            cpu_s = round(sum(times), 3) if times else None
            found[job_id] = JobUsage(
                job_id, source, max(sizes, default=None), cpu_s, max(joules, default=None)
            )
    return found


def _size_bytes(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * _SIZES[match[2]]) if match else 0
    return size if 0 < size < _WRAPPED else None


def _seconds(text: str) -> float | None:
    """Of `[DD-[HH:]]MM:SS[.mmm]`."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    seconds = ((days * 24 + hours) * 60 + minutes) * 60 + float(match[4])
    return seconds if seconds < _LONGEST_S else None


def _joules(text: str) -> float | None:
    return float(text) if text.isdecimal() and 0 < int(text) < _WRAPPED else None
