"""A stand-in for `apptainer`: the argument grammar of `exec` and `pull`; an image is a directory or any file.

`exec` runs the command on the host with the environment a container would have after --cleanenv,
looks for it in IMAGE/bin when the image is a directory, and writes what it was asked to
`FAKE_APPTAINER_LOG` as one JSON object per line. `pull` writes the reference into the image file.
"""

import argparse
import json
import os
import sys
from pathlib import Path


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("apptainer")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("exec")
    run.add_argument("--cleanenv", action="store_true")
    run.add_argument("--nv", action="store_true")
    run.add_argument("--bind", action="append", default=[])
    run.add_argument("--env", action="append", default=[])
    run.add_argument("--pwd")
    run.add_argument("image", type=Path)
    run.add_argument("command", nargs=argparse.REMAINDER)
    pull = verbs.add_parser("pull")
    pull.add_argument("image", type=Path)
    pull.add_argument("source")
    return parser.parse_args()


def _inside(options: argparse.Namespace) -> dict[str, str]:
    kept = {} if options.cleanenv else dict(os.environ)
    prefix = "APPTAINERENV_"
    given = {key.removeprefix(prefix): value for key, value in os.environ.items() if key.startswith(prefix)}
    return {"PATH": f"{options.image}/bin:/usr/bin:/bin", "HOME": os.environ["HOME"], **kept, **given}


def main() -> None:
    options = _parse()
    if log := os.environ.get("FAKE_APPTAINER_LOG"):
        with Path(log).open("a") as file:
            file.write(json.dumps(vars(options), default=str) + "\n")
    if options.verb == "pull":
        if options.image.exists():
            sys.exit(f"FATAL:   Image file already exists: {options.image!s} - will not overwrite")
        options.image.write_text(options.source)
        return
    os.chdir(options.pwd or "/")
    environment = _inside(options)
    program = options.image / "bin" / options.command[0]
    os.execve(program, options.command, environment)


if __name__ == "__main__":
    main()
