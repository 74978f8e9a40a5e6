"""The configuration of Grafana: its own, its data sources and its dashboards. Pure.

The password stays in its file: Grafana reads it from there itself (`$__file{}`).
"""

from pathlib import Path
from typing import Any

from aifbench.monitor.prometheus_config import SCRAPE_S, USER

ADMIN = "admin"
# Dashboards name their data sources by these.
PROMETHEUS_UID, LOKI_UID = "prometheus", "loki"


def grafana_ini(host: str, port: int, data_dir: Path, provisioning_dir: Path, secret_file: Path) -> str:
    """`grafana.ini`: nobody without a password, nothing fetched from or told to the internet."""
    sections: dict[str, dict[str, object]] = {
        "server": {"protocol": "http", "http_addr": host, "http_port": port},
        "paths": {
            "data": data_dir,
            "logs": data_dir / "log",
            "plugins": data_dir / "plugins",
            "provisioning": provisioning_dir,
        },
        "security": {
            "admin_user": ADMIN,
            "admin_password": f"$__file{{{secret_file}}}",
            "disable_gravatar": "true",
        },
        "auth.anonymous": {"enabled": "false"},
        "users": {"allow_sign_up": "false", "allow_org_create": "false"},
        "analytics": {
            "reporting_enabled": "false",
            "check_for_updates": "false",
            "check_for_plugin_updates": "false",
            "feedback_links_enabled": "false",
        },
        "news": {"news_feed_enabled": "false"},
        "plugins": {"preinstall_disabled": "true", "plugin_admin_enabled": "false"},
        "metrics": {"enabled": "false"},
        "log": {"mode": "console", "level": "warn"},
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in section.items())
        for name, section in sections.items()
    )


def datasources(prometheus: str, loki: str, secret_file: Path) -> dict[str, Any]:
    """Provisioned data sources; `prometheus` and `loki` are host:port, empty where there is none."""
    found: list[dict[str, Any]] = []
    if prometheus:
        found.append(
            {
                "name": "Prometheus",
                "uid": PROMETHEUS_UID,
                "type": "prometheus",
                "access": "proxy",
                "url": f"http://{prometheus}",
                "isDefault": True,
                "basicAuth": True,
                "basicAuthUser": USER,
                "secureJsonData": {"basicAuthPassword": f"$__file{{{secret_file}}}"},
                # Without it, rates over $__rate_interval would be empty or far too smooth.
                "jsonData": {"timeInterval": f"{SCRAPE_S}s", "httpMethod": "POST"},
                "editable": False,
            }
        )
    if loki:
        found.append(
            {
                "name": "Loki",
                "uid": LOKI_UID,
                "type": "loki",
                "access": "proxy",
                "url": f"http://{loki}",
                "editable": False,
            }
        )
    return {"apiVersion": 1, "datasources": found}


def dashboard_provider(directory: Path) -> dict[str, Any]:
    """Loads every dashboard of a directory; what is edited in the browser leaves the files as they are."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "aifbench",
                "type": "file",
                "folder": "AI Factory Bench",
                "allowUiUpdates": True,
                "updateIntervalSeconds": 30,
                "options": {"path": str(directory)},
            }
        ],
    }
