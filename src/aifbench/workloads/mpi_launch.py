"""How the ranks of an MPI program are started: by Slurm itself, by mpirun, or, for one rank, not at all."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aifbench.errors import WorkloadError

# What is started inside of a step must not take these for its own: its parent's rank, binding and size.
_STEP_VARIABLES = (
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_STEP_ID"),
    *("SLURM_NTASKS_PER_NODE", "SLURM_STEPID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_LAUNCHER_PORT"),
    *("SLURM_SRUN_COMM_HOST", "SLURM_SRUN_COMM_PORT", "SLURM_CPU_BIND", "SLURM_CPU_BIND_LIST"),
    *("SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_VERBOSE", "SLURM_DISTRIBUTION", "SLURM_GTIDS", "SLURM_TASK_PID"),
    *("SLURM_LAUNCH_NODE_IPADDR", "SLURM_UMASK", "SLURM_MPI_TYPE"),
    *("PMI_FD", "PMI_RANK", "PMI_SIZE", "PMI_JOBID"),
    *("PMIX_NAMESPACE", "PMIX_RANK", "PMIX_SERVER_URI2", "PMIX_SERVER_URI21", "PMIX_SERVER_URI3"),
    *("PMIX_SERVER_URI4", "PMIX_SERVER_URI41", "PMIX_SECURITY_MODE", "PMIX_GDS_MODULE", "PMIX_SERVER_TMPDIR"),
    *("PMIX_DSTORE_21_BASE_PATH", "PMIX_DSTORE_ESH_BASE_PATH", "PMIX_BFROP_BUFFER_TYPE", "PMIX_HOSTNAME"),
)
_OWN_VIEW = ("env", *(word for name in _STEP_VARIABLES for word in ("-u", name)))
_PREFERRED = ("pmix", "pmi2")
_ASK_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is to start ranks with. `mpi_types` are those that srun offers; empty without Slurm.

    `mpirun` is its path, empty when there is none, and `mpirun_version` what it says of itself.
    """

    mpi_types: tuple[str, ...] = ()
    in_slurm: bool = False
    mpirun: str = ""
    mpirun_version: str = ""
    is_root: bool = False


def look_around(environ: Mapping[str, str] = os.environ) -> Surroundings:
    """What this machine offers now."""
    mpirun = shutil.which("mpirun", path=environ.get("PATH")) or ""
    in_slurm = environ.get("AIFBENCH_SCHEDULER") != "local" and bool(environ.get("SLURM_JOB_ID"))
    srun = shutil.which("srun", path=environ.get("PATH")) if in_slurm else None
    return Surroundings(
        mpi_types=parse_mpi_list(_said([srun, "--mpi=list"])) if srun else (),
        in_slurm=bool(srun),
        mpirun=mpirun,
        mpirun_version=_said([mpirun, "--version"]) if mpirun else "",
        is_root=os.geteuid() == 0,
    )


def _said(argv: Sequence[str]) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
        return done.stdout + done.stderr
    return ""


def parse_mpi_list(text: str) -> tuple[str, ...]:
    """The plug-in types in what `srun --mpi=list` prints, one a line, in its order."""
    lines = (line.removeprefix("srun:").strip() for line in text.splitlines())
    return tuple(line for line in lines if line.replace("_", "").isalnum())


def launcher(
    choice: str, around: Surroundings, *, processes: int, nodes: int, hosts: Sequence[str] = ()
) -> tuple[str, ...]:
    """The words before an MPI program's own. Raises WorkloadError where there is no way to start it."""
    if choice == "none" or (choice == "auto" and processes == 1 and nodes == 1):
        return _OWN_VIEW if around.in_slurm else ()
    mpi_type = next((kind for kind in _PREFERRED if kind in around.mpi_types), "")
    if choice == "srun" or (choice == "auto" and around.in_slurm and (mpi_type or not around.mpirun)):
        if not around.in_slurm:
            raise WorkloadError("--launcher srun needs a Slurm job", hint="use --launcher mpirun")
        return _srun(mpi_type, processes, nodes)
    if not around.mpirun:
        raise WorkloadError(
            f"{processes} MPI processes cannot be started: there is neither a Slurm job nor mpirun",
            hint="install Open MPI (`apt install openmpi-bin`, `module load OpenMPI`), or give --workers 1",
        )
    return _mpirun(around, processes, nodes, hosts)


def one_per_node(nodes: int) -> tuple[str, ...]:
    """The words before a program that is no MPI program, to run once on each node of this Slurm job."""
    return _srun("none", nodes, nodes)


def _srun(mpi_type: str, processes: int, nodes: int) -> tuple[str, ...]:
    # --overlap: the step that asks holds the allocation's CPUs itself.
    per_node = -(-processes // nodes)
    kind = (f"--mpi={mpi_type}",) if mpi_type else ()
    return (
        *(*_OWN_VIEW, "srun", "--overlap", f"--nodes={nodes}", f"--ntasks={processes}"),
        *(f"--ntasks-per-node={per_node}", "--cpu-bind=none", "--kill-on-bad-exit=1", *kind),
    )


def _mpirun(around: Surroundings, processes: int, nodes: int, hosts: Sequence[str]) -> tuple[str, ...]:
    if "Open MPI" not in around.mpirun_version and "OpenRTE" not in around.mpirun_version:
        return (around.mpirun, "-n", str(processes), *(("-hosts", ",".join(hosts)) if hosts else ()))
    per_node = -(-processes // nodes)
    where = ("--host", ",".join(f"{host}:{per_node}" for host in hosts)) if len(hosts) > 1 else ()
    root = ("--allow-run-as-root",) if around.is_root else ()
    return (around.mpirun, *root, "--oversubscribe", "-n", str(processes), *where)
