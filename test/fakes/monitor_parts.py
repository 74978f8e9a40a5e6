"""Stand-ins for `loki`, `grafana` and `otelcol-contrib`: the real ones' arguments and configuration files.

Each listens where its configuration says and answers everything with 200. What it gets is kept, a request a
line, beside its configuration.
"""

import configparser
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def _loki(words: list[str]) -> tuple[str, int, Path]:
    (word,) = words
    path = Path(word.removeprefix("-config.file="))
    server = json.loads(path.read_text())["server"]
    return server["http_listen_address"], server["http_listen_port"], path.with_name("pushes")


def _grafana(words: list[str]) -> tuple[str, int, Path]:
    verb, config, home = words
    assert verb == "server" and home.startswith("--homepath=/"), words
    path = Path(config.removeprefix("--config="))
    ini = configparser.RawConfigParser()
    ini.read_string(path.read_text())
    assert Path(ini["paths"]["provisioning"], "datasources").is_dir(), ini["paths"]
    return ini["server"]["http_addr"], ini.getint("server", "http_port"), path.with_name("requests")


def _collector(words: list[str]) -> tuple[str, int, Path]:
    (word,) = words
    path = Path(word.removeprefix("--config="))
    config = json.loads(path.read_text())
    token = Path(config["extensions"]["bearertokenauth"]["filename"]).read_text()
    assert token and token == token.strip(), "the token has a line break"
    host, _, port = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")
    return host, int(port), path.with_name("otlp")


def _handler(kept: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if body:
                with kept.open("ab") as file:
                    file.write(body + b"\n")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    name = Path(sys.argv[0]).name
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"{name}, version 9.8.7\n")
        return
    read = {"loki": _loki, "grafana": _grafana, "otelcol-contrib": _collector}[name]
    host, port, kept = read(sys.argv[1:])
    ThreadingHTTPServer((host, port), _handler(kept)).serve_forever()


if __name__ == "__main__":
    main()
