"""The configuration of the OpenTelemetry Collector: OTLP in, by token; Prometheus, Loki, a file out. Pure."""

from pathlib import Path
from typing import Any

from aifbench.monitor.prometheus_config import USER

_TRACES_FILE_MB = 50
_MEMORY_MIB = 90


def collector_config(
    listen: str, token_file: Path, traces_file: Path, *, prometheus: str = "", loki: str = ""
) -> dict[str, Any]:
    """`listen`, `prometheus` and `loki` are host:port, the latter two empty where there is none.

    Metrics go to Prometheus, which must take remote writes; logs to Loki; traces to a file of bounded size.
    What has nowhere to go is not accepted, so that a client is told.
    """
    extensions: dict[str, Any] = {"bearertokenauth": {"filename": str(token_file)}}
    exporters: dict[str, Any] = {
        "file/traces": {
            "path": str(traces_file),
            "rotation": {"max_megabytes": _TRACES_FILE_MB, "max_backups": 1},
        }
    }
    wired = {"traces": "file/traces"}
    if prometheus:
        extensions["basicauth/prometheus"] = {
            "client_auth": {"username": USER, "password": f"${{file:{token_file}}}"}
        }
        exporters["prometheusremotewrite"] = {
            "endpoint": f"http://{prometheus}/api/v1/write",
            "auth": {"authenticator": "basicauth/prometheus"},
            "resource_to_telemetry_conversion": {"enabled": True},
        }
        wired["metrics"] = "prometheusremotewrite"
    if loki:
        exporters["otlphttp/loki"] = {"endpoint": f"http://{loki}/otlp"}
        wired["logs"] = "otlphttp/loki"
    return {
        "extensions": extensions,
        "receivers": {
            "otlp": {
                "protocols": {"http": {"endpoint": listen, "auth": {"authenticator": "bearertokenauth"}}}
            }
        },
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": _MEMORY_MIB},
            "batch": {"timeout": "1s"},
        },
        "exporters": exporters,
        "service": {
            "extensions": list(extensions),
            # Its own metrics would listen on a port of their own.
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            "pipelines": {
                kind: {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "batch"],
                    "exporters": [exporter],
                }
                for kind, exporter in wired.items()
            },
        },
    }
