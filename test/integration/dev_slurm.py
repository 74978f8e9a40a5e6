"""The development cluster as integration tests use it: bring it up, disturb it, watch jobs on it."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = Path(__file__).resolve().parents[2] / "utils/dev-slurm/dev-slurm"
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "CANCELLED")


def output_of(*command: str, timeout_s: float = 60) -> str:
    """What the command printed, stripped. A failure is an AssertionError with the command's own words."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def dev_slurm(*arguments: str, timeout_s: float = 60) -> str:
    return output_of(str(COMMAND), *arguments, timeout_s=timeout_s)


def bring_up() -> None:
    """A healthy cluster, installed first if need be."""
    dev_slurm("install", timeout_s=600)
    dev_slurm("up")
    dev_slurm("heal")


def submit(command: str, *options: str) -> str:
    """Submit one shell command as a batch job; the job's id."""
    return output_of("sbatch", "--parsable", *options, "--wrap", command)


def state_of(job: str) -> str:
    return output_of("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 15) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.1)


def wait_for_state(job: str, *states: str, timeout_s: float = 15) -> str:
    """The state the job reached, one of `states`."""
    wait_until(lambda: state_of(job) in states, f"job {job} is {' or '.join(states)}", timeout_s)
    return state_of(job)
