"""A stand-in for `prometheus`, `promtool` and `prometheus-node-exporter`, with the real ones' arguments.

Refuses unknown flags, and a configuration that is no JSON with `scrape_configs`; asks for a password like the
real ones do, and does not check it. Answers `/-/ready`, and `up` with a series for every target in its files.
"""

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_FLAGS = (
    "config.file", "web.config.file", "web.listen-address", "storage.tsdb.path",
    "storage.tsdb.retention.time", "storage.tsdb.retention.size", "log.level",
)  # fmt: skip


def _check_config(path: Path) -> None:
    try:
        if "scrape_configs" not in json.loads(path.read_text()):
            sys.exit("  FAILED: no scrape_configs")
    except ValueError as error:
        sys.exit(f"  FAILED: parsing YAML file {path}: {error}")


def _up(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The result of the query `up`, as the HTTP API words it."""
    found = []
    for job in config.get("scrape_configs", ()):
        patterns = [pattern for sd in job.get("file_sd_configs", ()) for pattern in sd["files"]]
        for path in (path for name in patterns for path in Path(name).parent.glob(Path(name).name)):
            for entry in json.loads(path.read_text()):
                labels = {key: word for key, word in entry["labels"].items() if not key.startswith("__")}
                found.append({"metric": {"__name__": "up", **labels}, "value": [1.0, "1"]})
    return found


def _handler(config: dict[str, Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.headers.get("Authorization", "").startswith("Basic "):
                self._send(401, b"Unauthorized\n")
            elif self.path == "/-/ready":
                self._send(200, b"Prometheus Server is Ready.\n")
            else:
                data = {"resultType": "vector", "result": _up(config)}
                self._send(200, json.dumps({"status": "success", "data": data}).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    name = Path(sys.argv[0]).name
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write("prometheus, version 9.8.7 (branch: none, revision: none)\n")
        return
    if name == "promtool":
        assert sys.argv[1:3] == ["check", "config"], sys.argv
        _check_config(Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(name)
    for flag in _FLAGS:
        parser.add_argument(f"--{flag}", dest=flag, required=name == "prometheus")
    parser.add_argument("--web.enable-remote-write-receiver", action="store_true")
    given, unknown = parser.parse_known_args()
    if any(not word.startswith(("--collector.", "--web.disable-exporter-metrics")) for word in unknown):
        sys.exit(f"{name}: error: unknown long flag {unknown}")
    options = vars(given)
    assert "basic_auth_users" in json.loads(Path(options["web.config.file"]).read_text())
    config = json.loads(Path(options["config.file"]).read_text()) if options["config.file"] else {}
    host, _, port = options["web.listen-address"].rpartition(":")
    ThreadingHTTPServer((host, int(port)), _handler(config)).serve_forever()


if __name__ == "__main__":
    main()
