"""A stand-in for nvidia-smi: its argument grammar as far as it is used here, and its CSV.

FAKE_NVIDIA_SMI names a file with one GPU per line, as `uuid, name, value...`, which is read anew every time.
Without that file there are no devices. A line `stop` ends the printing, as a driver that hangs.
"""

import os
import sys
import time
from pathlib import Path

FIELDS = (
    *("index", "uuid", "name", "utilization.gpu", "memory.used", "power.draw", "temperature.gpu"),
    *("memory.total", "power.limit"),
)


def refuse(text: str, status: int) -> None:
    sys.stdout.write(f"{text}\n")
    sys.exit(status)


def main(argv: list[str]) -> None:
    options = dict(argument.split("=", 1) for argument in argv if "=" in argument)
    if len(options) != len(argv):
        refuse(f"ERROR: Option {argv[0]} is not recognized. Please run 'nvidia-smi -h'.", 2)
    query = options.pop("--query-gpu").split(",")
    for field in query:
        if field not in FIELDS:
            refuse(f'Field "{field}" is not a valid field to query.', 2)
    if options.pop("--format") != "csv,noheader,nounits":
        refuse('Option "--format=" value is not recognized', 2)
    loop_s = int(options.pop("--loop-ms", "0")) / 1000
    chosen = [each for each in options.pop("--id", "").split(",") if each]
    if options:
        refuse(f"ERROR: Option {next(iter(options))} is not recognized.", 2)
    while True:
        print_gpus(query, chosen)
        if not loop_s:
            return
        time.sleep(loop_s)


def print_gpus(query: list[str], chosen: list[str]) -> None:
    path = Path(os.environ.get("FAKE_NVIDIA_SMI", ""))
    if not path.is_file():
        refuse("No devices were found", 6)
    for index, line in enumerate(path.read_text().splitlines()):
        if line == "stop":
            time.sleep(3600)
        values = dict(zip(FIELDS, (str(index), *(word.strip() for word in line.split(","))), strict=False))
        if not chosen or str(index) in chosen or values["uuid"] in chosen:
            sys.stdout.write(", ".join(values.get(field, "[N/A]") for field in query) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
