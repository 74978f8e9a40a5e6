"""A stand-in for the `chroma` program: same options, same answers to /api/v2/heartbeat, no database.

`FAKE_CHROMA_DIR` names a directory for its tricks: it appends its port to `starts`, writes its
environment to `environment.json` and its arguments to `arguments.json`; while `steals` holds a number
above zero, somebody else takes the port first (a detached process, ended with the job).
"""

import argparse
import http.server
import json
import os
import subprocess
import sys
import time
from pathlib import Path

_SQUATTER = """
import socket, sys, time
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
time.sleep(60)
"""


class _Heartbeat(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/api/v2/heartbeat"
        body = json.dumps(
            {"nanosecond heartbeat": time.time_ns()} if found else {"error": "NotFound"}
        ).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _play_tricks(tricks: Path, host: str, port: int) -> None:
    with (tricks / "starts").open("a") as starts:
        starts.write(f"{port}\n")
    (tricks / "environment.json").write_text(json.dumps(dict(os.environ)))
    (tricks / "arguments.json").write_text(json.dumps(sys.argv[1:]))
    steals = tricks / "steals"
    if steals.exists() and int(steals.read_text()) > 0:
        steals.write_text(str(int(steals.read_text()) - 1))
        command = [sys.executable, "-c", _SQUATTER, host, str(port)]
        squatter = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert squatter.stdout is not None
        squatter.stdout.readline()


def main() -> None:
    parser = argparse.ArgumentParser("chroma")
    run = parser.add_subparsers(required=True).add_parser("run")
    run.add_argument("--path", type=Path, required=True)
    run.add_argument("--host", default="localhost")
    run.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    if "FAKE_CHROMA_DIR" in os.environ:
        _play_tricks(Path(os.environ["FAKE_CHROMA_DIR"]), options.host, options.port)
    http.server.ThreadingHTTPServer.allow_reuse_port = False
    try:
        server = http.server.ThreadingHTTPServer((options.host, options.port), _Heartbeat)
    except OSError:
        # The words and the exit status of chromadb 1.5.9.
        sys.stdout.write(f"Address {options.host}:{options.port} is not available\n")
        return
    (options.path / "chroma.sqlite3").touch()
    sys.stdout.write(f"Saving data to: {options.path}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
