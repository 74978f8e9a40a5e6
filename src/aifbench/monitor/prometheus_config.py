"""The configuration of Prometheus, and its user list. Pure.

Everything is JSON, which is YAML: no YAML library is needed where a job runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifbench.cluster.targets import BENCH, EXPORTER, SERVICE

USER = "aifbench"
SCRAPE_S = 5
BENCH_SCRAPE_S = 1


@dataclass(frozen=True, slots=True)
class Scraping:
    """What Prometheus reads: the directory of targets, its own password and that of the exporters."""

    address: str  # its own, host:port
    targets_dir: Path
    secret_file: Path
    exporter_secret_file: Path
    loki: str = ""  # host:port where there is one


def prometheus_config(scraping: Scraping) -> dict[str, Any]:
    """`prometheus.yml`. Targets come and go by their files: it stays as it is while the job lives."""
    exporters = _basic_auth(scraping.exporter_secret_file)
    jobs = [
        _found("service", scraping, SERVICE),
        {**_found("exporter", scraping, EXPORTER), "basic_auth": exporters},
        {
            **_found("bench", scraping, BENCH),
            "scrape_interval": f"{BENCH_SCRAPE_S}s",
            "scrape_timeout": f"{BENCH_SCRAPE_S}s",
        },
        {
            "job_name": "prometheus",
            "basic_auth": _basic_auth(scraping.secret_file),
            "static_configs": [{"targets": [scraping.address]}],
        },
    ]
    if scraping.loki:
        jobs.append({"job_name": "loki", "static_configs": [{"targets": [scraping.loki]}]})
    return {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S - 1}s"},
        "scrape_configs": jobs,
    }


def web_config(password_hash: str) -> dict[str, Any]:
    """The file of `--web.config.file`, of Prometheus as of exporters; `password_hash` is bcrypt's."""
    return {"basic_auth_users": {USER: password_hash}}


def _found(name: str, scraping: Scraping, prefix: str) -> dict[str, Any]:
    # A cluster's file systems do not tell of changes made on another node, hence the interval.
    files = {"files": [str(scraping.targets_dir / f"{prefix}*.json")], "refresh_interval": f"{SCRAPE_S}s"}
    return {"job_name": name, "file_sd_configs": [files]}


def _basic_auth(password_file: Path) -> dict[str, str]:
    return {"username": USER, "password_file": str(password_file)}
