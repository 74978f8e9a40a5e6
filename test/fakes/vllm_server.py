"""A stand-in for the `vllm` program: `serve` with its options, the log of a start, and a few answers.

It asks for the key of VLLM_API_KEY under /v1, as vLLM does. `FAKE_VLLM_DIR` names a directory: every process
appends its arguments and environment to `starts` as a JSON line. Headless processes sleep until they are
ended; where the directory holds a file `rank-N-dies`, that rank ends at once with the status in it.
"""

import http.server
import json
import os
import sys
import time
from pathlib import Path

_LOG = """(APIServer pid=1) INFO 11-20 18:19:31 [api_utils.py:286] non-default args: {}
(EngineCore pid=2) INFO 11-20 18:19:49 [core.py:133] Initializing a V1 LLM engine (v0.32.0)
(APIServer pid=1) INFO 11-20 18:20:03 [entry.py:140] Starting vLLM server on http://host:port
"""


class _Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {"/health": {}, "/version": {"version": "0.32.0"}, "/v1/models": {"data": [{"id": "tiny"}]}}
        self._answer(answers.get(self.path))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        is_known = self.path == "/v1/completions"
        self._answer({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}} if is_known else None)

    def _answer(self, answer: object) -> None:
        status = 404 if answer is None else 200
        if self.path.startswith("/v1") and self.headers.get("authorization") != _expected():
            status, answer = 401, {"error": "Unauthorized"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _expected() -> str:
    return f"Bearer {os.environ['VLLM_API_KEY']}"


def _value(words: list[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


def main() -> None:
    words = sys.argv[1:]
    rank = _value(words, "--node-rank", "0")
    if "FAKE_VLLM_DIR" in os.environ:
        folder = Path(os.environ["FAKE_VLLM_DIR"])
        with (folder / "starts").open("a") as starts:
            starts.write(json.dumps({"rank": rank, "words": words, "environment": dict(os.environ)}) + "\n")
        dies = folder / f"rank-{rank}-dies"
        if dies.exists():
            sys.exit(int(dies.read_text()))
    sys.stderr.write(_LOG)
    sys.stderr.flush()
    if "--headless" in words:
        time.sleep(60)
        return
    address = (_value(words, "--host"), int(_value(words, "--port")))
    http.server.ThreadingHTTPServer.allow_reuse_port = False
    http.server.ThreadingHTTPServer(address, _Api).serve_forever()


if __name__ == "__main__":
    main()
