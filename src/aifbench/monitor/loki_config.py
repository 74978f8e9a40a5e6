"""The configuration of Loki: one process, data in a directory, on the loopback only. Pure.

Loki asks nobody for a password, so nobody else may reach it: what is read of it goes through Grafana.
"""

from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
RETENTION = "48h"
# One line may not be longer for Loki; what is beyond is cut, not refused.
MAX_LINE_BYTES = 256 * 1024
# A message between parts of Loki holds a whole request. After an outage the shipper's may exceed the default
# of 4 MiB: Loki would answer 500, and again to each repeat.
MAX_MESSAGE_BYTES = 64 << 20


def loki_config(port: int, grpc_port: int, data_dir: Path) -> dict[str, Any]:
    return {
        "auth_enabled": False,
        "analytics": {"reporting_enabled": False},
        "server": {
            "http_listen_address": LOOPBACK,
            "http_listen_port": port,
            "grpc_listen_address": LOOPBACK,
            "grpc_listen_port": grpc_port,
            "grpc_server_max_recv_msg_size": MAX_MESSAGE_BYTES,
            "grpc_server_max_send_msg_size": MAX_MESSAGE_BYTES,
            "log_level": "warn",
        },
        "common": {
            "instance_addr": LOOPBACK,
            "path_prefix": str(data_dir),
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}},
            "storage": {
                "filesystem": {
                    "chunks_directory": str(data_dir / "chunks"),
                    "rules_directory": str(data_dir / "rules"),
                }
            },
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "compactor": {
            "working_directory": str(data_dir / "compactor"),
            "retention_enabled": True,
            "delete_request_store": "filesystem",
        },
        "limits_config": {
            "retention_period": RETENTION,
            "max_line_size": MAX_LINE_BYTES,
            "max_line_size_truncate": True,
            # A benchmark's services may write a lot at once; the defaults are those of a shared Loki.
            "ingestion_rate_mb": 64,
            "ingestion_burst_size_mb": 128,
            "per_stream_rate_limit": "64MB",
            "per_stream_rate_limit_burst": "128MB",
        },
    }
