"""Write the user list that Prometheus and its exporters ask passwords by: a bcrypt hash of a secret.

python -m aifbench.monitor.web_auth SECRET_FILE WEB_FILE...    makes each pair where it is not, mode 0600

bcrypt comes with the Python package of that name or with `htpasswd`. Without either the exit status is 1: a
server that cannot ask for a password is not started where others reach it.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from aifbench.monitor.prometheus_config import USER, web_config

# The least bcrypt knows: it slows down guessing, which helps nobody against a secret of 256 random bits, and
# every client's first question pays for it.
_COST = 4


def bcrypt_hash(secret: str) -> str:
    """Raises LookupError where nothing here knows bcrypt."""
    with suppress(ImportError):
        import bcrypt

        return bcrypt.hashpw(secret.encode(), bcrypt.gensalt(_COST)).decode()
    if program := shutil.which("htpasswd"):
        command = [program, "-niB", "-C", str(_COST), USER]
        done = subprocess.run(command, input=secret, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip().partition(":")[2]
    raise LookupError("neither the Python package bcrypt nor htpasswd is here")


def ensure(secret_file: Path, web_file: Path) -> None:
    """Both files, complete; several jobs may do so at once. Raises LookupError and OSError."""
    secret_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_once(secret_file, secrets.token_urlsafe(32) + "\n")
    if not web_file.exists():
        hashed = bcrypt_hash(secret_file.read_text(encoding="ascii").strip())
        _write_once(web_file, json.dumps(web_config(hashed)))


def _write_once(path: Path, text: str) -> None:
    """The first one's text stays."""
    if path.exists():
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(2)}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    with suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()


def main() -> None:
    try:
        for secret_file, web_file in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
            ensure(Path(secret_file), Path(web_file))
    except (LookupError, OSError) as error:
        sys.exit(f"aifbench: {error}")


if __name__ == "__main__":
    main()
