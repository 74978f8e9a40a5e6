"""The Scheduler that speaks to Slurm through its commands: sbatch, squeue, scontrol, sacct, scancel.

No single source of a job's state can be trusted: squeue forgets ended jobs after MinJobAge, sacct
lags and may be switched off, and an sbatch that failed may have created its job. Therefore states
come from squeue, else scontrol, else sacct, else they are UNKNOWN; missing never means ended.
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from aifbench.clock import Clock, SystemClock
from aifbench.cluster import slurm_states, slurm_text, slurm_usage
from aifbench.cluster.command import NOT_FOUND_STATUS, CommandResult, CommandRunner, run_command
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState, JobUsage
from aifbench.errors import ConfigError, SchedulerError, SchedulerUnavailable, SubmitError

# Longer than Slurm's own MessageTimeout (10 s unless the site says more), so that Slurm's words arrive.
_LOCAL_TIMEOUT_S = 10.0
_QUERY_TIMEOUT_S = 30.0
_SUBMIT_TIMEOUT_S = 90.0
_RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# The first answer of a controller that just woke up can overtake a submission it still has to process.
_CLEAN_LOOKS = 2

_NO_ANSWER = re.compile(
    r"socket timed out|unable to contact slurm|temporarily un|connection (refused|reset|timed out)"
    r"|zero bytes were transmitted|standby mode|connect failure|transport endpoint",
    re.IGNORECASE,
)
_NO_SUCH_JOB = re.compile(r"invalid job id|already complet", re.IGNORECASE)
_COMMAND_PREFIX = re.compile(r"^\w+: (error: |fatal: )?(Batch job submission failed: )?")
_JOB_ID = re.compile(r"[1-9][0-9]*")
_JOB_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
# Options of all Slurm commands can be set by such variables, and a job's own describe another job.
_SLURM_VARIABLE = re.compile(r"(SLURM|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|SCANCEL|SCONTROL)_")
# How to reach and authenticate to the cluster: nothing works without them where a site sets them.
_KEPT_VARIABLES = frozenset({"SLURM_CONF", "SLURM_JWT"})


def slurm_available(
    which: Callable[[str], str | None] = shutil.which, run: CommandRunner = run_command
) -> bool:
    """Whether this machine can submit to Slurm: its programs are here and belong to a cluster.

    A controller that does not answer now changes nothing. Installed programs without a configuration fail at
    every call, also at one that asks nobody.
    """
    if not all(which(command) for command in ("sbatch", "squeue")):
        return False
    asked = run(
        ["scontrol", "show", "hostnames", "localhost"], timeout_s=_LOCAL_TIMEOUT_S, environment=os.environ
    )
    return asked.ok


def without_slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment less what would silently change options, or describes another job."""
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT_VARIABLES or not _SLURM_VARIABLE.match(name)
    }


class SlurmCli:
    """A Scheduler for Slurm 22.05 to 25.11. Keeps nothing but the last message; threads may share one.

    `environment` is the calling shell's (os.environ by default); jobs inherit it less Slurm's variables.
    """

    def __init__(
        self,
        run: CommandRunner = run_command,
        clock: Clock | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._run_command = run
        self._clock = clock or SystemClock()
        self._environment = os.environ if environment is None else environment
        self._last_message = ""

    @property
    def kind(self) -> str:
        return "slurm"

    @property
    def last_message(self) -> str:
        """What the site told the user at the last accepted submission, such as a remaining budget."""
        return self._last_message

    def submit(self, spec: JobSpec) -> str:
        """Start `spec`; the job id. Creates the log directory.

        When Slurm does not answer, the job may exist nevertheless: it is looked for by its name, and
        submitted again only after two looks in a row found nothing. Raises SubmitError when refused,
        SchedulerUnavailable when there was no answer for about a minute.
        """
        _prepare(spec)
        self._last_message = ""
        result = self._sbatch(spec)
        clean_looks = 0
        for delay_s in _RETRY_DELAYS_S:
            if not _unanswered(result):
                break
            self._clock.sleep(delay_s)
            jobs = self._find_if_answered(spec.name)
            if jobs:
                return jobs[-1].job_id
            clean_looks = 0 if jobs is None else clean_looks + 1
            if clean_looks == _CLEAN_LOOKS:
                result, clean_looks = self._sbatch(spec), 0
        return self._accepted(spec, result)

    def command_line(self, spec: JobSpec) -> list[str]:
        """The sbatch command. `spec.environment` is not in it: it travels in sbatch's environment."""
        options: dict[str, object] = {
            "job-name": spec.name,
            "output": spec.log_path.absolute(),
            "chdir": spec.work_dir.absolute(),
            "nodes": spec.nodes,
            "ntasks-per-node": spec.tasks_per_node,
            "cpus-per-task": spec.cpus_per_task,
            # Per node under every select plugin; --gpus-per-node needs cons_tres.
            "gres": f"gpu:{spec.gpus_per_node}" if spec.gpus_per_node else None,
            "mem": f"{spec.memory_mib}M" if spec.memory_mib else None,
            # Whole minutes, and 0 would mean no limit at all.
            "time": max(1, math.ceil(spec.time_limit_s / 60)),
            "account": spec.account,
            "partition": spec.partition,
            "qos": spec.qos,
            "reservation": spec.reservation,
            "comment": spec.comment,
            "export": "ALL",
        }
        flags = [f"--{name}={value}" for name, value in options.items() if value not in (None, "")]
        return ["sbatch", "--parsable", *flags, *spec.extra_args, str(spec.script.absolute())]

    def poll(self, job_ids: Iterable[str]) -> dict[str, JobInfo]:
        """The state of each id, by one squeue for all; only ids it does not know cost further commands.

        Raises SchedulerUnavailable when the controller does not answer. Accounting is not asked then:
        it learns of a job's end from the controller, so what it says meanwhile is out of date.
        """
        wanted = list(dict.fromkeys(job_ids))
        valid = [job_id for job_id in wanted if _JOB_ID.fullmatch(job_id)]
        infos = self._queue(f"--jobs={','.join(valid)}") if valid else {}
        for job_id in _missing(valid, infos):
            if info := self._controller_record(job_id):
                infos[job_id] = info
        if missing := _missing(valid, infos):
            infos |= self._accounting(f"--jobs={','.join(missing)}")
        return {job_id: infos.get(job_id) or JobInfo(job_id, JobState.UNKNOWN) for job_id in wanted}

    def find(self, name: str) -> list[JobInfo]:
        """The caller's jobs of that name, oldest first; from accounting (one week) when squeue has none."""
        infos = self._queue("--me", f"--name={name}")
        if not infos:
            # Without --jobs, sacct looks back to midnight only.
            infos = self._accounting(f"--name={name}", "--starttime=now-7days")
        return sorted(
            (info for info in infos.values() if info.name == name), key=lambda info: int(info.job_id)
        )

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Ask for the end of these jobs; tries again for a while when Slurm does not answer."""
        valid = [job_id for job_id in job_ids if _JOB_ID.fullmatch(job_id)]
        if not valid:
            return
        argv = ["scancel", "--quiet", *valid]
        result = self._run(argv)
        for delay_s in _RETRY_DELAYS_S[:3]:
            if not _unanswered(result):
                break
            self._clock.sleep(delay_s)
            result = self._run(argv)
        if _unanswered(result):
            raise SchedulerUnavailable(f"jobs {' '.join(valid)} could not be cancelled ({_words(result)})")
        if not result.ok and not _NO_SUCH_JOB.search(result.stderr):
            raise SchedulerError(f"Slurm refused to cancel jobs {' '.join(valid)}: {_words(result)}")

    def usage(self, job_ids: Sequence[str]) -> list[JobUsage]:
        """Of jobs that run by sstat, of others by sacct; what neither tells in time is left out."""
        valid = [job_id for job_id in job_ids if _JOB_ID.fullmatch(job_id)]
        found: dict[str, JobUsage] = {}
        for argv, parse in (
            (slurm_usage.running_argv, slurm_usage.parse_running),
            (slurm_usage.ended_argv, slurm_usage.parse_ended),
        ):
            if missing := [job_id for job_id in valid if job_id not in found]:
                environment = without_slurm_variables(self._environment)
                result = self._run_command(
                    argv(missing), timeout_s=slurm_usage.USAGE_TIMEOUT_S, environment=environment
                )
                # With an unknown job among them, sstat fails after telling of the others.
                found |= parse(result.stdout)
        return [found[job_id] for job_id in valid if job_id in found]

    def _find_if_answered(self, name: str) -> list[JobInfo] | None:
        try:
            return self.find(name)
        except SchedulerUnavailable:
            return None

    def _accepted(self, spec: JobSpec, result: CommandResult) -> str:
        if _unanswered(result):
            raise SchedulerUnavailable(
                f"Slurm did not answer when job {spec.name} was submitted ({_words(result)})",
                hint=f"it may exist nevertheless: see `squeue --me --name {spec.name}` before trying again",
            )
        if not result.ok:
            raise SubmitError(
                f"Slurm refused job {spec.name}: {_words(result)}",
                hint=slurm_states.refusal_hint(result.stderr),
            )
        # `id` or `id;cluster`, after whatever a site's wrapper prints.
        for line in reversed(result.stdout.splitlines()):
            job_id = line.split(";")[0].strip()
            if _JOB_ID.fullmatch(job_id):
                self._last_message = _cleaned(result.stderr)
                return job_id
        raise SchedulerError(
            f"sbatch printed no job id for {spec.name}: {result.stdout!r}",
            hint=f"look for it with `squeue --me --name {spec.name}`",
        )

    def _queue(self, *selection: str) -> dict[str, JobInfo]:
        argv = ["squeue", "--noheader", "--all", "--states=all", *selection]
        result = self._run([*argv, f"--Format={slurm_text.QUEUE_FORMAT}"])
        if result.ok:
            return slurm_text.parse_queue(result.stdout)
        # One unknown id alone is an error, several are silently left out.
        if _NO_SUCH_JOB.search(result.stderr):
            return {}
        raise SchedulerUnavailable(f"squeue did not answer: {_words(result)}")

    def _controller_record(self, job_id: str) -> JobInfo | None:
        result = self._run(["scontrol", "--oneliner", "--all", "show", "job", job_id])
        return slurm_text.parse_controller(result.stdout) if result.ok else None

    def _accounting(self, *selection: str) -> dict[str, JobInfo]:
        """What sacct knows; nothing when it is missing, disabled or out of order."""
        argv = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates"]
        argv += [f"--delimiter={slurm_text.SEPARATOR}", f"--format={slurm_text.ACCOUNTING_FORMAT}"]
        result = self._run([*argv, *selection])
        return slurm_text.parse_accounting(result.stdout) if result.ok else {}

    def _sbatch(self, spec: JobSpec) -> CommandResult:
        return self._run(self.command_line(spec), timeout_s=_SUBMIT_TIMEOUT_S, variables=spec.environment)

    def _run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = _QUERY_TIMEOUT_S,
        variables: Mapping[str, str] | None = None,
    ) -> CommandResult:
        environment = without_slurm_variables(self._environment) | dict(variables or {})
        result = self._run_command(argv, timeout_s=timeout_s, environment=environment)
        if result.status == NOT_FOUND_STATUS and argv[0] != "sacct":
            raise ConfigError(
                f"{argv[0]} cannot be run on this machine: {_words(result)}",
                hint="work where Slurm is installed, or use --scheduler local",
            )
        return result


def _prepare(spec: JobSpec) -> None:
    """Refuse what Slurm would accept and then kill without a log, and create the log directory."""
    if not _JOB_NAME.fullmatch(spec.name):
        raise SubmitError(f"{spec.name!r} is not a job name", hint="use letters, digits and _ . + - only")
    log_dir = spec.log_path.absolute().parent
    if "%" in str(log_dir):
        raise SubmitError(f"the log directory {log_dir} holds a %", hint="only the file name may hold %j")
    if not spec.work_dir.is_dir():
        raise SubmitError(f"the working directory {spec.work_dir} of job {spec.name} does not exist")
    _make_directory(log_dir, spec.name)


def _make_directory(path: Path, job_name: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubmitError(f"the log directory {path} of job {job_name} cannot be created") from error


def _missing(job_ids: Iterable[str], infos: Mapping[str, JobInfo]) -> list[str]:
    return [job_id for job_id in job_ids if job_id not in infos]


def _unanswered(result: CommandResult) -> bool:
    return result.timed_out or (not result.ok and _NO_ANSWER.search(result.stderr) is not None)


def _words(result: CommandResult) -> str:
    """Slurm's own words in one line, without the command's name before each."""
    if result.timed_out:
        return "no answer in time"
    return _cleaned(result.stderr).replace("\n", "; ") or f"status {result.status}"


def _cleaned(stderr: str) -> str:
    lines = (_COMMAND_PREFIX.sub("", line).strip() for line in stderr.splitlines())
    return "\n".join(line for line in lines if line)
