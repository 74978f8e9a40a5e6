"""What a new user should know of this machine before the first job: each finding with its remedy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aifbench.cluster.jobs import Scheduler
from aifbench.config import Config
from aifbench.errors import BenchError
from aifbench.units import format_size

_LOW_SPACE_BYTES = 5 * 2**30
_MODULES = ("numpy", "requests", "chromadb", "faiss", "openai", "boto3", "psycopg", "yaml", "tabulate")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` is empty when `ok`, and what to type otherwise."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(config: Config, scheduler: Scheduler) -> list[Finding]:
    """All findings, in the order in which to mend them. Starts nothing, writes one file and removes it."""
    checks: tuple[Callable[[], Finding], ...] = (
        python,
        packages,
        lambda: scheduler_answers(scheduler),
        lambda: site(config, scheduler),
        lambda: writable("results", config.results_dir, "AIFBENCH_RESULTS"),
        lambda: writable("scratch", config.scratch_dir, "AIFBENCH_SCRATCH"),
        lambda: space(config.results_dir),
        lambda: chroma(config),
    )
    return [check() for check in checks]


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding(
        "python", ok, f"{version} at {sys.executable}", "" if ok else "install 3.11 or later, source env.sh"
    )


def packages() -> Finding:
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        return Finding("packages", False, f"missing: {', '.join(missing)}", "pip install -r requirements.txt")
    return Finding("packages", True, f"{len(_MODULES)} found")


def scheduler_answers(scheduler: Scheduler) -> Finding:
    if scheduler.kind == "local":
        return Finding("scheduler", True, "local processes (no Slurm on PATH, or not chosen)")
    try:
        scheduler.find("aifb-doctor")
    except BenchError as error:
        return Finding("scheduler", False, str(error), "run `squeue --me` by hand; is this a login node?")
    return Finding("scheduler", True, "Slurm answers")


def site(config: Config, scheduler: Scheduler) -> Finding:
    names = {"AIFBENCH_ACCOUNT": config.account, "AIFBENCH_PARTITION": config.partition}
    text = ", ".join(f"{key[9:].lower()} {value}" for key, value in names.items() if value)
    unset = [key for key, value in names.items() if not value]
    if scheduler.kind == "local" or not unset:
        return Finding("site", True, text or "nothing needed without Slurm")
    detail = f"not set: {', '.join(unset)} (Slurm's defaults are used)"
    return Finding("site", True, f"{text}; {detail}" if text else detail)


def writable(name: str, directory: Path, variable: str) -> Finding:
    probe = directory / ".aifbench-doctor"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return Finding(name, False, f"{directory}: {error.strerror}", f"set {variable} to another directory")
    return Finding(name, True, str(directory))


def space(directory: Path) -> Finding:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return Finding("space", False, f"{directory}: {error.strerror}", "set AIFBENCH_RESULTS")
    text = f"{format_size(free)} free in {directory}"
    ok = free >= _LOW_SPACE_BYTES
    return Finding("space", ok, text, "" if ok else "remove old runs, or set AIFBENCH_RESULTS")


def chroma(config: Config) -> Finding:
    image = config.images_dir / "chroma.sif"
    runtime = shutil.which("apptainer") or shutil.which("singularity")
    native = Path(config.python).with_name("chroma")
    if image.is_file():
        where = runtime or "apptainer is looked for in the job"
        return Finding("chroma", True, f"{image} ({where})")
    if native.is_file() or shutil.which("chroma"):
        return Finding("chroma", True, f"native: {_version(str(native) if native.is_file() else 'chroma')}")
    return Finding(
        "chroma",
        False,
        "no image and no native chroma",
        "utils/sif-images/pull_images.sh, or pip install chromadb",
    )


def _version(command: str) -> str:
    try:
        result = subprocess.run(
            [command, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return command
    return result.stdout.strip().splitlines()[-1] if result.stdout.strip() else command
