"""Bad days on demand: each function makes one trouble of a production cluster happen, or ends it."""

import os
import signal
import time
from pathlib import Path

from devslurm import config, daemons, late_files, nodes
from devslurm.cluster import ROOT, SLURM_CONF, Cluster, DevSlurmError, load_cluster
from devslurm.machine import pid_of, process_state, run, say, send, stop, succeeds, wait_for


def crash(node: str) -> None:
    """Power cut. Slurm notices after 16 to 20 s; see `drain` for an orderly farewell."""
    crashed = load_cluster().node(node)
    nodes.power_off(crashed)
    late_files.lose(crashed)


def revive(node: str) -> None:
    cluster = load_cluster()
    revived = cluster.node(node)
    if pid_of(node) is None:
        nodes.boot(cluster, revived)
    wait_for(f"{node} runs slurmd", lambda: succeeds(*nodes.command_inside(revived, ["pidof", "slurmd"])))
    _resume(node)


def drain(node: str) -> None:
    load_cluster().node(node)
    run("scontrol", "update", f"nodename={node}", "state=drain", "reason=dev-slurm drain")


def undrain(node: str) -> None:
    load_cluster().node(node)
    _resume(node)


def _resume(node: str) -> None:
    """Resuming is an error when the node already came back by itself."""
    succeeds("scontrol", "update", f"nodename={node}", "state=resume")
    wait_for(f"{node} is available", lambda: node in nodes.available_nodes())


def hang() -> None:
    load_cluster()
    send("slurmctld", signal.SIGSTOP)


def unhang() -> None:
    load_cluster()
    send("slurmctld", signal.SIGCONT)


def stop_controller() -> None:
    load_cluster()
    stop("slurmctld")


def start_controller() -> None:
    cluster = load_cluster()
    if pid_of("slurmctld") is None:
        daemons.start_controller()
        nodes.wait_until_known(cluster)


def no_accounting() -> None:
    load_cluster()
    stop("slurmdbd", signal.SIGKILL)


def accounting() -> None:
    if not load_cluster().accounting:
        raise DevSlurmError("this cluster came up with --no-accounting")
    if pid_of("slurmdbd") is None:
        daemons.start_accounting()


def expire(job: str) -> None:
    """The job's time limit passes in 2 s; slurmctld looks every 30 s."""
    run("scontrol", "update", f"jobid={job}", "EndTime=now+2")


def oom() -> None:
    """Submit a job that asks for 100 MB and uses 400; prints its id."""
    greedy = "python3 -c 'import time; memory = b\"x\" * (400 << 20); time.sleep(30)'"
    say(run("sbatch", "--parsable", "--mem=100", "--output=/dev/null", "--time=1", "--wrap", greedy).strip())


def forget(seconds: int = 2) -> None:
    """Finished jobs vanish from squeue and scontrol `seconds` after their end, give or take 10."""
    SLURM_CONF.write_text(config.slurm_conf(load_cluster(), min_job_age_s=seconds))
    run("scontrol", "reconfigure")


def remember() -> None:
    forget(config.NORMAL_MIN_JOB_AGE_S)


def strict() -> None:
    _write_submit_rules(strict=True)


def lenient() -> None:
    _write_submit_rules(strict=False)


def _write_submit_rules(*, strict: bool) -> None:
    """slurmctld reads the file again when its time, in whole seconds, is later than what it saw last."""
    load_cluster()
    rules = ROOT / "etc/job_submit.lua"
    later_s = max(int(rules.stat().st_mtime), int(time.time())) + 1
    rules.write_text(config.job_submit_lua(strict=strict))
    os.utime(rules, (later_s, later_s))


def late_logs(node: str, seconds: str, directory: str | None = None) -> None:
    """What the node writes into `directory` reaches the others only every `seconds`; "off" ends it."""
    late_node = load_cluster().node(node)
    if seconds == "off":
        late_files.end(late_node)
        return
    if directory is None or not Path(directory).is_dir():
        raise DevSlurmError(f"late-logs needs a directory that exists, not {directory!r}")
    if not seconds.isdecimal() or int(seconds) == 0:
        raise DevSlurmError(f"late-logs needs a whole number of seconds or off, not {seconds!r}")
    late_files.end(late_node)
    late_files.begin(late_node, int(seconds), Path(directory).resolve())


def heal() -> None:
    """End every bad day; jobs that survived them go on."""
    cluster = load_cluster()
    _heal_daemons(cluster)
    lenient()
    if config.slurm_conf(cluster) != SLURM_CONF.read_text():
        remember()
    for node in cluster.nodes:
        revive(node.name)
        late_files.end(node)


def _heal_daemons(cluster: Cluster) -> None:
    if cluster.accounting:
        accounting()
    controller = pid_of("slurmctld")
    if controller is None:
        start_controller()
    elif process_state(controller) == "T":
        unhang()
