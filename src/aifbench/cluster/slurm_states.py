"""Slurm's words and what they mean: job states, pending reasons, ends, refusals. Tables only, no I/O.

States and reasons are those of Slurm 22.05 to 25.11 (https://slurm.schedmd.com/job_state_codes.html and
https://slurm.schedmd.com/resource_limits.html).
"""

import re

from aifbench.cluster.jobs import JobState

# Base states map to themselves. The second half are flags that squeue prints instead of the base state.
_STATES = {state.value: state for state in JobState} | {
    "CONFIGURING": JobState.PENDING,
    "EXPEDITING": JobState.PENDING,
    "POWER_UP_NODE": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.COMPLETING,
    "STOPPED": JobState.SUSPENDED,
    "LAUNCH_FAILED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "REVOKED": JobState.CANCELLED,
}

_Table = tuple[tuple[str, str], ...]

# The first pattern found anywhere in the reason wins. Reasons that end by themselves
# (Resources, Priority, Dependency, group limits that other jobs use up now, ...) are not listed.
_NEVER: _Table = (
    ("PartitionTimeLimit", "it will never start: it asks for more time than the partition allows; "
     "stop it, then lower --time or choose another --partition"),
    ("PartitionNodeLimit", "it will never start: it asks for more (or fewer) nodes than "
     "the partition allows; stop it, then change --nodes or choose another --partition"),
    ("PartitionConfig", "it will never start: it does not fit the limits of the partition; "
     "stop it, then lower --nodes or --time, or choose another --partition"),
    ("BadConstraints", "it will never start: no node has what it asks for; "
     "stop it, then ask for fewer GPUs, CPUs or less memory per node, or another --partition"),
    ("DependencyNeverSatisfied", "it will never start: the job it depends on did not end as "
     "required; stop it"),
    (r"(QOS|Assoc)Grp(Wall|\w*(?<!Run)Minutes)",
     "it will not start: the compute time granted to the account or QOS is used up; "
     "choose another --account or --qos, or ask for more"),
    (r"(QOS|Assoc)Max(Wall|\w*Minutes)|QOSTimeLimit",
     "it will never start: it asks for more time than the QOS or account allows per job; "
     "stop it, then lower --time or choose another --qos"),
    (r"(QOS|Assoc)Max\w*Per(Job|Node)", "it will never start: it asks for more than the QOS or account "
     "allows per job; stop it, then lower --nodes, or choose another --qos"),
    ("QOSMin", "it will never start: it asks for less than the QOS requires; "
     "stop it, then choose another --qos"),
    ("InvalidAccount|AccountNotAllowed", "it will never start: the account may not be used "
     "here; stop it, then choose another --account or --partition"),
    ("InvalidQOS|QOSNotAllowed", "it will never start: the QOS may not be used here; "
     "stop it, then choose another --qos or --partition"),
    ("JobHeldUser", "it is held by its owner: `scontrol release JOBID` lets it go on"),
    ("JobHeldAdmin|requeued held|requeued in held state", "it is held by Slurm or an administrator, "
     "often after a failed launch: try `scontrol release JOBID`, or stop it and start again"),
    ("InvalidReservation|ReservationDeleted", "it will never start: its reservation is gone; "
     "stop it, then choose another with --reservation, or none"),
)  # fmt: skip

# Worth telling, and they may end: nodes come back, partitions are opened.
_WAITS: _Table = (
    ("PartitionDown|PartitionInactive", "it waits for administrators: the partition is closed; "
     "choose another --partition if it is urgent"),
    ("ReqNodeNotAvail|Nodes required for job are DOWN",
     "it waits for nodes that are down, drained or reserved (often for a maintenance); "
     "a shorter --time or another --partition may start sooner"),
)  # fmt: skip

_ENDS = {
    JobState.TIMEOUT: "it reached its time limit; give more with --time",
    JobState.OUT_OF_MEMORY: "it used more memory than it was given; ask for more, or let it use less",
    JobState.NODE_FAIL: "a node failed under it; start it again",
    JobState.PREEMPTED: "a job of higher priority took its nodes; start it again, or use another --qos",
    JobState.DEADLINE: "its deadline passed before it could end",
    JobState.BOOT_FAIL: "its nodes did not boot; start it again, and tell the administrators",
}

# The exit code of a shell is 128 + signal when the command it ran was killed.
_EXIT_CODES = {
    126: "a command in its script may not be executed; see the end of the log",
    127: "a command in its script was not found (module not loaded, container or program missing); "
    "see the end of the log",
    134: "a command aborted; see the end of the log",
    137: "a command was killed (SIGKILL), most often for lack of memory; see the end of the log",
    139: "a command crashed (segmentation fault); see the end of the log",
}
_SIGNALS = {
    9: "it was killed (SIGKILL), most often for lack of memory",
    53: "the node could not open the log file or enter the working directory, so there is no log; "
    "both must be on a file system that the compute nodes share and you may write to",
    125: _ENDS[JobState.OUT_OF_MEMORY],
}

_REFUSALS: _Table = (
    ("invalid partition|inactive or drain|partition not available|group not permitted",
     "choose another --partition; `sinfo -s` lists them"),
    ("invalid account", "give a project you belong to with --account; "
     "`sacctmgr show assoc user=$USER format=account,partition,qos` lists them"),
    ("invalid qos", "give a QOS your account may use with --qos; "
     "`sacctmgr show assoc user=$USER format=account,partition,qos` lists them"),
    ("SubmitJob|MaxSubmit", "you have as many jobs in the queue as you may; stop one, or wait"),
    ("Minutes|MaxWall|time limit is invalid|PartitionTimeLimit|TimeLimit",
     "lower --time, or choose another --partition or --qos"),
    ("policy|QOS(Max|Min|Grp)|Assoc(Max|Grp)",
     "lower --nodes or --time, or choose another --qos; `sacctmgr show qos` lists their limits"),
    ("node count|PartitionNodeLimit|more processors", "lower --nodes, or choose another --partition"),
    ("generic resource|gres", "this partition has no such GPUs; choose another --partition or fewer GPUs"),
    ("node configuration|memory", "ask for fewer GPUs, CPUs or less memory per node, or choose another "
     "--partition; `sinfo -o '%P %D %c %m %G'` shows what nodes have"),
    ("reservation", "`scontrol show reservation` lists the reservations you may use"),
    ("--time", "give a time such as 90m or 2h"),
    ("required node not available",
     "the nodes are down, drained or reserved; try later or another --partition"),
    ("batch script|unable to open file", "the script must exist and begin with #!/bin/bash"),
    ("unrecognized option|invalid option|feature|license|node name", "check the extra sbatch arguments"),
    ("permission denied|invalid user", "your user may not submit here; ask the site's support"),
)  # fmt: skip


def parse_state(text: str) -> JobState:
    """The state behind Slurm's word, such as `RUNNING`, `REQUEUED` or `CANCELLED by 1001`."""
    word = text.split()[0] if text.split() else ""
    return _STATES.get(word.upper(), JobState.UNKNOWN)


def plain_reason(text: str) -> str:
    """A reason as words: scontrol writes blanks as underscores, and `None` where there is none."""
    reason = text.strip().replace("_", " ")
    return "" if reason in ("None", "(null)") else reason


def advice(state: JobState, reason: str, exit_code: int | None, signal: int | None) -> str:
    """What a user should know and do about a job that does not start or has ended badly; else empty."""
    if state is JobState.PENDING:
        return _first_match((*_NEVER, *_WAITS), reason)
    if state is JobState.FAILED:
        return _SIGNALS.get(signal or 0) or _EXIT_CODES.get(exit_code or 0, "")
    return _ENDS.get(state, "")


def is_stuck(state: JobState, reason: str) -> bool:
    """Whether it waits for what will not happen unless somebody changes the job."""
    return state is JobState.PENDING and bool(_first_match(_NEVER, reason))


def refusal_hint(stderr: str) -> str:
    """What to change after sbatch refused a job with these words; empty for unknown ones."""
    return _first_match(_REFUSALS, stderr)


def _first_match(table: _Table, text: str) -> str:
    return next((advice for pattern, advice in table if re.search(pattern, text, re.IGNORECASE)), "")
