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
EVENT_LEVELS = ("debug", "info", "warn", "error", "off")


@dataclass(frozen=True, slots=True)
class Config:
    """What the program needs to know of the machine it runs on. Empty strings mean "not set".

    `login` is `[user@]host[:port]` as one's own machine reaches this site by ssh. Of the program's own log,
    `events_level` is the least grave that is written, and `events_keep_s` how long it is kept.
    """

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
    login: str = ""
    events_level: str = "info"
    events_keep_s: float = 30 * 86400.0
    python: str = sys.executable

    @property
    def batch_scripts_dir(self) -> Path:
        return self.project_dir / "batch_scripts"

    @property
    def services_dir(self) -> Path:
        """One directory per deployed service job: state, log, secret, submitted script."""
        return self.results_dir / "services"

    @property
    def events_dir(self) -> Path:
        """The program's own log."""
        return self.results_dir / "events"

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
    events_level = environ.get("AIFBENCH_EVENTS_LEVEL") or "info"
    if events_level not in EVENT_LEVELS:
        raise ConfigError(
            f"AIFBENCH_EVENTS_LEVEL is {events_level!r}", hint=f"valid: {', '.join(EVENT_LEVELS)}"
        )
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
        time_limit_s=_duration_s(environ, "AIFBENCH_TIME", "1h"),
        login=environ.get("AIFBENCH_LOGIN", ""),
        events_level=events_level,
        events_keep_s=_duration_s(environ, "AIFBENCH_EVENTS_KEEP", "30d"),
    )


def _duration_s(environ: Mapping[str, str], variable: str, default: str) -> float:
    try:
        return parse_duration_s(environ.get(variable) or default, variable)
    except UsageError as error:
        raise ConfigError(error.message, hint=error.hint) from None
