"""The site configuration: where things are, and what every job at this site needs.

Values come from AIFBENCH_* environment variables, which `env.sh` sets from the environment, `.env`
or a site profile, in that order. Nothing here looks at the scheduler or touches the disk.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import ConfigError, UsageError
from aifbench.units import parse_duration_s

SCHEDULERS = ("auto", "slurm", "local")


@dataclass(frozen=True, slots=True)
class Config:
    """What the program needs to know of the machine it runs on. Empty strings mean "not set"."""

    project_dir: Path
    results_dir: Path
    scratch_dir: Path
    images_dir: Path
    scheduler: str = "auto"
    account: str = ""
    partition: str = ""
    qos: str = ""
    reservation: str = ""
    time_limit_s: float = 3600.0
    python: str = sys.executable

    @property
    def batch_scripts_dir(self) -> Path:
        return self.project_dir / "batch_scripts"

    @property
    def services_dir(self) -> Path:
        """One directory per deployed service job: state, log, secret, submitted script."""
        return self.results_dir / "services"

    @property
    def studies_dir(self) -> Path:
        """One directory per study: state and recipe. Its runs are with all others."""
        return self.results_dir / "studies"


def _project_dir(environ: Mapping[str, str]) -> Path:
    named = environ.get("AIFBENCH_HOME")
    candidate = Path(named) if named else Path(__file__).resolve().parents[2]
    if not (candidate / "batch_scripts").is_dir():
        raise ConfigError(
            f"no batch_scripts directory in {candidate}",
            hint="set AIFBENCH_HOME to the project's checkout, or `source env.sh` there",
        )
    return candidate


def load_config(environ: Mapping[str, str]) -> Config:
    """The configuration that `environ` describes. Raises ConfigError naming the variable at fault."""
    project_dir = _project_dir(environ)
    results_dir = Path(environ.get("AIFBENCH_RESULTS") or project_dir / "results").absolute()
    scheduler = environ.get("AIFBENCH_SCHEDULER") or "auto"
    if scheduler not in SCHEDULERS:
        raise ConfigError(f"AIFBENCH_SCHEDULER is {scheduler!r}", hint=f"valid: {', '.join(SCHEDULERS)}")
    try:
        time_limit_s = parse_duration_s(environ.get("AIFBENCH_TIME") or "1h", "AIFBENCH_TIME")
    except UsageError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    return Config(
        project_dir=project_dir,
        results_dir=results_dir,
        scratch_dir=Path(environ.get("AIFBENCH_SCRATCH") or results_dir / "scratch").absolute(),
        images_dir=Path(environ.get("AIFBENCH_IMAGES") or project_dir / "utils/sif-images").absolute(),
        scheduler=scheduler,
        account=environ.get("AIFBENCH_ACCOUNT", ""),
        partition=environ.get("AIFBENCH_PARTITION", ""),
        qos=environ.get("AIFBENCH_QOS", ""),
        reservation=environ.get("AIFBENCH_RESERVATION", ""),
        time_limit_s=time_limit_s,
    )
