"""Write all configuration files of one monitors job; start_monitors.sh runs it with the ports it chose.

python -m aifbench.monitor.configure CONFIG_DIR DATA_DIR TARGETS_DIR SECRET_FILE HOST PART=PORT...

PART is prometheus, grafana, loki, loki-grpc or otlp: those that will run. HOST is the address to listen on;
Loki listens on the loopback. Standard library only, and quick.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aifbench.monitor.collector_config import collector_config
from aifbench.monitor.grafana_config import dashboard_provider, datasources, grafana_ini
from aifbench.monitor.loki_config import LOOPBACK, loki_config
from aifbench.monitor.prometheus_config import Scraping, prometheus_config

# In the directory of targets; batch_scripts/lib/exporters.sh has the same name.
EXPORTER_SECRET = "exporter-secret"


def config_files(
    directory: Path,
    data_dir: Path,
    targets_dir: Path,
    secret_file: Path,
    dashboards_dir: Path,
    host: str,
    ports: Mapping[str, int],
) -> dict[Path, str]:
    """Every file and its text, by path below `directory`."""
    prometheus = _at(host, ports, "prometheus")
    loki = _at(LOOPBACK, ports, "loki")
    files: dict[Path, str] = {}
    if prometheus:
        scraping = Scraping(prometheus, targets_dir, secret_file, targets_dir / EXPORTER_SECRET, loki)
        files[Path("prometheus.yml")] = _json(prometheus_config(scraping))
    if loki:
        files[Path("loki.yml")] = _json(loki_config(ports["loki"], ports["loki-grpc"], data_dir / "loki"))
    if otlp := _at(host, ports, "otlp"):
        # The Collector takes a token with its line break for another one.
        token_file = directory / "otlp-token"
        files[Path(token_file.name)] = secret_file.read_text(encoding="ascii").strip()
        config = collector_config(
            otlp, token_file, data_dir / "traces.json", prometheus=prometheus, loki=loki
        )
        files[Path("otel-collector.yml")] = _json(config)
    if "grafana" in ports:
        provisioning = directory / "grafana"
        files[Path("grafana.ini")] = grafana_ini(
            host, ports["grafana"], data_dir / "grafana", provisioning, secret_file
        )
        files[Path("grafana/datasources/aifbench.yaml")] = _json(datasources(prometheus, loki, secret_file))
        files[Path("grafana/dashboards/aifbench.yaml")] = _json(dashboard_provider(dashboards_dir))
    return files


def _at(host: str, ports: Mapping[str, int], part: str) -> str:
    named = f"[{host}]" if ":" in host else host
    return f"{named}:{ports[part]}" if part in ports else ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def main() -> None:
    directory, data_dir, targets_dir, secret_file = (Path(word) for word in sys.argv[1:5])
    ports = {part: int(port) for part, _, port in (word.partition("=") for word in sys.argv[6:])}
    dashboards = Path(os.environ["AIFBENCH_HOME"]) / "utils/grafana-dashboards"
    os.umask(0o077)
    files = config_files(directory, data_dir, targets_dir, secret_file, dashboards, sys.argv[5], ports)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
