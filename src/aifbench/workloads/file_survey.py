"""What one node sees of a file system, and the making of our directory on it; run by start_lustre.sh.

    python -m aifbench.workloads.file_survey make TARGET --owner RUN [--type lustre] [--stripe-count N] ...
    python -m aifbench.workloads.file_survey look TARGET --into DIR     writes DIR/survey-<host>.json
    python -m aifbench.workloads.file_survey drop TARGET                removes what `make` made

Standard library only: it runs where nothing is installed.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aifbench.errors import BenchError, UsageError, WorkloadError
from aifbench.workloads.file_cache import node_memory
from aifbench.workloads.file_lfs import (
    getstripe_command,
    layout_words,
    parse_getstripe,
    parse_project,
    parse_quota,
    project_command,
    quota_command,
    setstripe_command,
)
from aifbench.workloads.file_mounts import mount_of, space_of
from aifbench.workloads.file_own_directory import OwnDirectory

_LFS_TIMEOUT_S = 20.0
_SYS = Path("/sys/class")
_GIGABITS = re.compile(r"([\d.]+) Gb/sec")


def make(
    target: Path,
    owner: str,
    *,
    fs_type: str = "",
    stripe_count: int | None = None,
    stripe_size: str | None = None,
) -> None:
    """Make `target` on a file system of type `fs_type`, or any. Raises UsageError, WorkloadError."""
    found = mount_of(target.parent) if target.parent.is_dir() else None
    if found and fs_type and found.fs_type != fs_type:
        raise UsageError(
            f"{target.parent} is on {found.fs_type} ({found.point}), not on {fs_type}",
            hint="give --path a directory on that file system, or leave out --fs-type",
        )
    if (stripe_count or stripe_size) and not (found and found.is_lustre):
        raise UsageError(
            f"stripes are Lustre's, and {target.parent} is on {found.fs_type if found else 'nothing'}",
            hint="leave out --stripe-count and --stripe-size",
        )
    own = OwnDirectory.create(target.parent, target.name, owner)
    if stripe_count or stripe_size:
        try:
            _run(setstripe_command(str(own.path), stripe_count, stripe_size))
        except BenchError:
            own.remove()
            raise


def look(target: Path) -> dict[str, Any]:
    """Mount, space, stripes, memory, links of this node. Raises WorkloadError when it sees no `target`."""
    if not target.is_dir():
        raise WorkloadError(
            f"{socket.gethostname()} does not see {target}",
            hint="give --path a directory on a file system that all nodes share",
        )
    mount, space, memory = mount_of(target), space_of(target), node_memory()
    return {
        "host": socket.gethostname(),
        "directory": str(target),
        "mount_point": mount.point,
        "type": mount.fs_type,
        "source": mount.source,
        "mount_options": list(mount.options),
        "is_remote": mount.is_shared,
        **asdict(space),
        "memory_bytes": memory.usable_bytes,
        "cpus": len(os.sched_getaffinity(0)),
        "link_bytes_per_s": fastest_link(_link_texts(_SYS)),
        **({"stripes": stripes(target), "quotas": quotas(mount.point, target)} if mount.is_lustre else {}),
    }


def stripes(target: Path) -> str:
    """The directory's stripe layout in one line; why it is not known, where that is so."""
    try:
        return layout_words(parse_getstripe(_run(getstripe_command(str(target)))))
    except BenchError as error:
        return f"unknown: {error}"


def quotas(mount_point: str, target: Path) -> list[dict[str, Any]]:
    """Those that new files in `target` count against: bytes and files used, allowed and left, or why that is
    not known. Sites limit users, groups or, by directory, projects.
    """
    owner = target.stat()
    found = [_quota(mount_point, "user", os.getuid()), _quota(mount_point, "group", owner.st_gid)]
    try:
        project = parse_project(_run(project_command(str(target))))
    except BenchError as error:
        return [*found, {"of": "project", "unknown": str(error)}]
    return [*found, _quota(mount_point, "project", project)] if project else found


def _quota(mount_point: str, kind: str, number: int) -> dict[str, Any]:
    of = f"{kind} {number}"
    try:
        quota = parse_quota(_run(quota_command(mount_point, kind, number)))
    except BenchError as error:
        return {"of": of, "unknown": str(error)}
    return {"of": of, **asdict(quota), "free_bytes": quota.free_bytes, "free_files": quota.free_files}


def fastest_link(texts: Sequence[tuple[str, str]]) -> float | None:
    """In bytes/s, of (kind, text): an `infiniband` port's rate or a `net` interface's speed in Mb/s.

    All ports of InfiniBand together, as multi-rail storage uses them.
    """
    fabric = [
        float(found[1]) for kind, text in texts if kind == "infiniband" and (found := _GIGABITS.match(text))
    ]
    wires = [float(text) / 1e3 for kind, text in texts if kind == "net" and text.strip().isdigit()]
    gigabits = sum(fabric) or max(wires, default=0.0)
    return gigabits * 1e9 / 8 if gigabits else None


def _link_texts(root: Path) -> list[tuple[str, str]]:
    paths = [*(("infiniband", p) for p in root.glob("infiniband/*/ports/*/rate"))]
    paths += [("net", p) for p in root.glob("net/*/speed")]
    found = []
    for kind, path in paths:
        try:
            found.append((kind, path.read_text()))
        except OSError:  # the speed of an interface that is down cannot be read
            continue
    return found


def _run(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        raise WorkloadError(
            f"there is no `{argv[0]}` on {socket.gethostname()}", hint="it comes with Lustre's client"
        )
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LFS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise WorkloadError(f"`{' '.join(argv)}` did not end within {_LFS_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise WorkloadError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkloadError(f"cannot write {path}: {error.strerror}") from None


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="file_survey")
    parser.add_argument("verb", choices=("make", "look", "drop"))
    parser.add_argument("target", type=Path)
    parser.add_argument("--owner", default="")
    parser.add_argument("--type", default="")
    parser.add_argument("--stripe-count", type=int)
    parser.add_argument("--stripe-size")
    parser.add_argument("--into", type=Path)
    asked = parser.parse_args(argv)
    try:
        if asked.verb == "make":
            make(
                asked.target,
                asked.owner,
                fs_type=asked.type,
                stripe_count=asked.stripe_count,
                stripe_size=asked.stripe_size,
            )
        elif asked.verb == "drop":
            OwnDirectory.find(asked.target).remove()
        else:
            seen = look(asked.target)
            path = asked.into / f"survey-{seen['host']}.json"
            _write(path, json.dumps(seen))
    except BenchError as error:
        sys.stderr.write(f"aifbench: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
