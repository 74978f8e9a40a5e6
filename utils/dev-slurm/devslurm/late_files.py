"""A node whose files reach the other machines late, as on a busy parallel file system."""

import shutil
import signal
from pathlib import Path

from devslurm.cluster import ROOT, DevSlurmError, Node
from devslurm.machine import pid_of, run, start, stop, succeeds
from devslurm.nodes import command_inside

_DELIVER = 'cd "$1" && find . -type f -exec cp --archive --update --parents --target-directory="$2" {} +'


def _directory(node: Node) -> Path:
    return ROOT / "late" / node.name


def _deliverer(node: Node) -> str:
    return f"late-{node.name}"


def begin(node: Node, every_s: int, shared: Path) -> None:
    """An overlay on the node: it sees the shared directory, but its writes stay in a private layer."""
    private, work = _directory(node) / "private", _directory(node) / "work"
    private.mkdir(parents=True)
    work.mkdir()
    shutil.copystat(shared, private)
    (_directory(node) / "shared").symlink_to(shared)
    layers = f"lowerdir={shared},upperdir={private},workdir={work}"
    run(*command_inside(node, ["mount", "-t", "overlay", "-o", layers, "late-files", str(shared)]))
    loop = f"while sleep {every_s}; do {_DELIVER}; done"
    start(_deliverer(node), "bash", "-c", loop, "late-files", str(private), str(shared))


def end(node: Node) -> None:
    """Deliver everything and write straight to the shared directory again; fine when nothing was late."""
    if not _directory(node).exists():
        return
    private, shared = _directory(node) / "private", (_directory(node) / "shared").readlink()
    if not shared.exists():  # removed meanwhile, and the mount with it
        lose(node)
        return
    if pid_of(node.name) and not succeeds(*command_inside(node, ["umount", str(shared)])):
        raise DevSlurmError(f"a job on {node.name} still writes to {shared}; end it first")
    run("bash", "-c", _DELIVER, "late-files", str(private), str(shared))
    lose(node)


def lose(node: Node) -> None:
    """Forget what was not delivered, as when the node loses power."""
    stop(_deliverer(node), signal.SIGKILL)
    if _directory(node).exists():
        shutil.rmtree(_directory(node))
