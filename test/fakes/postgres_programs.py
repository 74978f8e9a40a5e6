"""A stand-in for `postgres`, `initdb` and `pgbouncer`, by the name it is installed under: options, and words
of the log.

`FAKE_POSTGRES_DIR` names a directory: every call appends its name, arguments and password file's contents to
`calls`, one JSON object a line. While it holds a file `refuses`, `postgres` says what is in it and ends; with
`hangs` it takes no notice of a fast shutdown. A file `pooler` holds PgBouncer's version. Nobody is served:
connections are taken and left alone.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

VERSION = "18.4"
VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"


def _log(kind: str, text: str) -> None:
    sys.stderr.write(f"2026-01-01 00:00:00.000 UTC [1] {kind}:  {text}\n")


def _end(*_: object) -> NoReturn:
    _log("LOG", "database system is shut down")
    os._exit(0)


def _initdb(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "PG_VERSION").write_text(VERSION.partition(".")[0])
    sys.stdout.write("creating configuration files ... ok\n")


def _postgres(words: list[str], tricks: Path) -> None:
    if (tricks / "refuses").exists():
        _log("FATAL", (tricks / "refuses").read_text())
        sys.exit(1)
    hangs = (tricks / "hangs").exists()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as long as somebody is connected
    signal.signal(signal.SIGINT, signal.SIG_IGN if hangs else _end)
    signal.signal(signal.SIGQUIT, _end)
    host = next(word for word in words if word.startswith("listen_addresses=")).partition("=")[2]
    with socket.create_server((host, int(words[words.index("-p") + 1]))):
        _log("LOG", "database system is ready to accept connections")
        while True:
            time.sleep(60)


def _single_user() -> None:
    """As the real one prints rows, between its prompts."""
    if "rolpassword FROM pg_authid" in sys.stdin.read():
        sys.stdout.write(f'backend> \t 1: rolpassword = "{VERIFIER}"\t(typeid = 25, len = -1, typmod = -1)\n')


def _pgbouncer(words: list[str], tricks: Path) -> None:
    if words == ["--version"]:
        version = tricks / "pooler"
        sys.stdout.write(f"PgBouncer {version.read_text() if version.exists() else '1.25.1'}\nlibevent 2.1\n")
        return
    lines = (line.partition(" = ") for line in Path(words[0]).read_text().splitlines())
    settings = {name: value for name, _, value in lines}
    (tricks / "pooler-id").write_text(str(os.getpid()))
    with socket.create_server((settings["listen_addr"], int(settings["listen_port"]))):
        while True:
            time.sleep(60)


def main() -> None:
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "pgbouncer":
        _pgbouncer(words, Path(os.environ["FAKE_POSTGRES_DIR"]))
        return
    if words == ["--version"]:
        sys.stdout.write(f"{name} (PostgreSQL) {VERSION} (Fake {VERSION}-1)\n")
        return
    tricks = Path(os.environ["FAKE_POSTGRES_DIR"])
    secret = next((word.partition("=")[2] for word in words if word.startswith("--pwfile=")), "")
    password = Path(secret).read_text() if secret else ""
    with (tricks / "calls").open("a") as calls:
        calls.write(json.dumps({"name": name, "words": words, "password": password}) + "\n")
    if name == "initdb":
        _initdb(Path(words[words.index("-D") + 1]))
    elif words[0] == "--single":
        _single_user()
    else:
        _postgres(words, tricks)


if __name__ == "__main__":
    main()
