"""Facts of the machine and the software a run was made with, so that two runs can be told comparable.

Collecting never fails a run: what cannot be read is absent. Environment variables are recorded only
from an allow-list, because the rest may hold secrets.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aifbench import __version__

Read = Callable[[str], str | None]
Run = Callable[[Sequence[str]], str | None]

KEY_PACKAGES = ("numpy", "cmd2", "requests", "chromadb", "faiss-cpu", "openai", "boto3", "psycopg", "pyarrow")
ALLOWED_ENVIRONMENT = (
    "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_QOS", "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_NODELIST", "LOADEDMODULES", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def collect(
    project_dir: Path,
    batch_script: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Facts as plain JSON in groups: project, software, machine, load, time, environment. Takes < 0.3 s."""
    read = read_file
    environ = os.environ if environ is None else environ
    facts = {
        "project": project_facts(project_dir, batch_script, run_quietly),
        "software": software_facts(read),
        "machine": {**machine_facts(read), **_process_facts()},
        "load": parse_loadavg(read("/proc/loadavg") or ""),
        "time": _time_facts(),
        "environment": {name: environ[name] for name in ALLOWED_ENVIRONMENT if environ.get(name)},
    }
    return {group: _present(values) for group, values in facts.items() if _present(values)}


def read_file(path: str) -> str | None:
    """The text of a small system file, or None."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def run_quietly(command: Sequence[str]) -> str | None:
    """What a short command prints, or None when it fails or takes 2 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout


def project_facts(project_dir: Path, batch_script: Path | None, run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"aifbench": __version__}
    if (project_dir / ".git").exists():
        status = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
        text = run(("git", "--no-optional-locks", "-C", str(project_dir), *status))
        facts |= parse_git_status(text or "")
    if batch_script is not None:
        facts["batch_script"] = batch_script.name
        facts["batch_script_sha256"] = file_sha256(batch_script)
    return facts


def parse_git_status(text: str) -> dict[str, Any]:
    """From `git status --porcelain=v2 --branch`: the commit, and whether tracked files differ from it."""
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,64})$", text, re.MULTILINE)
    if commit is None:
        return {}
    dirty = any(line and not line.startswith("# ") for line in text.splitlines())
    return {"git_commit": commit[1], "git_dirty": dirty}


def software_facts(read: Read) -> dict[str, Any]:
    packages = installed_packages(importlib.metadata.distributions())
    return {
        "python": platform.python_version(),
        "python_path": sys.executable,
        "os": parse_os_release(read("/etc/os-release") or ""),
        "kernel": platform.release(),
        "packages": {name: packages[name] for name in KEY_PACKAGES if name in packages},
        "package_count": len(packages),
        "packages_sha256": packages_sha256(packages),
    }


def installed_packages(distributions: Iterable[importlib.metadata.Distribution]) -> dict[str, str]:
    """Normalised name to version. Of two with one name the first on the path counts, as for imports."""
    packages: dict[str, str] = {}
    for distribution in distributions:
        metadata = distribution.metadata
        name = metadata["Name"] if metadata is not None and "Name" in metadata else ""
        if name:
            packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return packages


def packages_sha256(packages: Mapping[str, str]) -> str:
    """The hash of the sorted `name==version` lines: equal hashes, equal installations."""
    text = "".join(f"{name}=={packages[name]}\n" for name in sorted(packages))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_os_release(text: str) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', text, re.MULTILINE)
    return match[1] if match else ""


def machine_facts(read: Read) -> dict[str, Any]:
    cpuinfo = read("/proc/cpuinfo") or ""
    gpus = parse_gpu_names(read)
    return {
        **parse_cpuinfo(cpuinfo),
        "memory_bytes": parse_memory_bytes(read("/proc/meminfo") or ""),
        "numa_nodes": count_ranges(read("/sys/devices/system/node/online") or ""),
        "governor": _line(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "virtualisation": virtualisation(cpuinfo, read),
        **cgroup_limits(read),
        "gpus": gpus,
        "gpu_driver": parse_driver_version(read("/proc/driver/nvidia/version") or ""),
    }


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """CPU model, logical CPUs, and physical cores as distinct (socket, core) pairs, from /proc/cpuinfo."""
    models = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    sockets = re.findall(r"^physical id\s*:\s*(\d+)$", text, re.MULTILINE)
    cores = re.findall(r"^core id\s*:\s*(\d+)$", text, re.MULTILINE)
    return {
        "cpu_model": models[0].strip() if models else "",
        "logical_cpus": len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or None,
        "cores": len(set(zip(sockets, cores, strict=False))) or None,
        "sockets": len(set(sockets)) or None,
    }


def parse_memory_bytes(text: str) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def count_ranges(text: str) -> int | None:
    """How many numbers `0-3,8` names: 5."""
    pairs = re.findall(r"(\d+)(?:-(\d+))?", text)
    return sum(int(last or first) - int(first) + 1 for first, last in pairs) or None


def virtualisation(cpuinfo: str, read: Read) -> str:
    """What stands between this process and the hardware, as far as it shows: a hint, not a proof."""
    hints = []
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE):
        product = _line(read("/sys/class/dmi/id/product_name"))
        hints.append(f"virtual machine ({product})" if product else "virtual machine")
    if os.environ.get("APPTAINER_CONTAINER") or read("/.dockerenv") is not None:
        hints.append("container")
    return " + ".join(hints)


def cgroup_limits(read: Read) -> dict[str, Any]:
    """CPU and memory limits of this process's group (cgroup v2): the tightest on the path to the root."""
    match = re.search(r"^0::(/.*)$", read("/proc/self/cgroup") or "", re.MULTILINE)
    if match is None:
        return {}
    group = Path("/sys/fs/cgroup") / match[1].lstrip("/")
    groups = [g for g in (group, *group.parents) if g.is_relative_to("/sys/fs/cgroup")]
    cpus = [parse_cpu_max(read(f"{g}/cpu.max") or "") for g in groups]
    memory = [(read(f"{g}/memory.max") or "").strip() for g in groups]
    return {
        "cgroup_cpus": min((c for c in cpus if c is not None), default=None),
        "cgroup_memory_bytes": min((int(m) for m in memory if m.isdecimal()), default=None),
    }


def parse_cpu_max(text: str) -> float | None:
    """CPUs from cgroup's `QUOTA PERIOD` in microseconds; None for `max`."""
    match = re.fullmatch(r"(\d+) (\d+)\s*", text)
    return int(match[1]) / int(match[2]) if match and int(match[2]) else None


def parse_gpu_names(read: Read) -> list[str]:
    """Names of NVIDIA GPUs from the driver's /proc tree, which answers without starting the GPU."""
    try:
        folders = sorted(Path("/proc/driver/nvidia/gpus").iterdir())
    except OSError:
        return []
    texts = (read(f"{folder}/information") or "" for folder in folders)
    return [
        match[1].strip() for text in texts if (match := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE))
    ]


def parse_driver_version(text: str) -> str:
    match = re.search(r"Kernel Module\D*?\s(\d+(?:\.\d+)+)\s", text)
    return match[1] if match else ""


def parse_loadavg(text: str) -> dict[str, Any]:
    """Run-queue averages when the run started: a busy machine disturbs what is measured on it."""
    match = re.match(r"([\d.]+) ([\d.]+) ([\d.]+) ", text)
    return (
        dict(zip(("load_1min", "load_5min", "load_15min"), map(float, match.groups()), strict=True))
        if match
        else {}
    )


def file_sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _process_facts() -> dict[str, Any]:
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "host": socket.gethostname(),
        "architecture": platform.machine(),
        "usable_cpus": len(affinity(0)) if affinity else os.cpu_count(),
    }


def _time_facts() -> dict[str, Any]:
    return {
        "time_zone": time.strftime("%Z (UTC%z)"),
        "monotonic_resolution_s": time.get_clock_info("monotonic").resolution,
        "perf_counter_resolution_s": time.get_clock_info("perf_counter").resolution,
    }


def _line(text: str | None) -> str:
    return (text or "").strip()


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", [], {})}
