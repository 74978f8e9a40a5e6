"""From options to a job: what will be submitted for a service, without submitting it."""

import hashlib
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aifbench.clock import utc_text
from aifbench.cluster.jobs import JobSpec
from aifbench.errors import ConfigError, UsageError
from aifbench.load.clocksync import boot_id
from aifbench.servers.instance import SPACE_HINT, Instance, new_job_name, write_secret
from aifbench.servers.site import Site

SECRET_FILE = "secret"
SCRIPT_COPY = "script.sh"


@dataclass(frozen=True, slots=True)
class Deployment:
    """An instance about to be started, and its job."""

    instance: Instance
    spec: JobSpec


def plan_deployment(
    site: Site,
    kind: str,
    script_name: str,
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    has_secret: bool,
    max_nodes: int,
) -> Deployment:
    """The job for resolved `options`; `environment` is the service's own. Raises UsageError, ConfigError."""
    if options["nodes"] > max_nodes:
        raise UsageError(
            f"--nodes {options['nodes']} is too many for {kind}", hint=f"{kind} runs on {max_nodes} node"
        )
    name = options["name"] or kind
    script = site.config.batch_scripts_dir / script_name
    if not script.is_file():
        raise ConfigError(f"no batch script {script}", hint="restore it, or set AIFBENCH_HOME")
    instance = Instance(
        kind=kind,
        name=name,
        job_name=new_job_name(kind, name),
        options={key: value for key, value in options.items() if value not in (None, "")},
        submitted_utc=utc_text(site.clock.wall_s()),
        submitted_wall_s=site.clock.wall_s(),
        submitted_monotonic_s=site.clock.monotonic_s(),
        boot_id=boot_id(),
        scheduler=site.scheduler.kind,
        script_sha256=hashlib.sha256(script.read_bytes()).hexdigest(),
    )
    directory = site.instances.path(instance)
    spec = _spec(site, instance, options, script, directory)
    spec = _with_environment(site, spec, directory, environment, options, has_secret=has_secret)
    return Deployment(instance, spec)


def reserve(site: Site, deployment: Deployment, *, has_secret: bool) -> Instance:
    """Take the name and store the instance, before its job exists; all of it or nothing.

    Raises UsageError for a name that is taken, ConfigError when the disk takes nothing.
    """
    instance = deployment.instance
    with site.instances.lock():
        if site.instances.open_instances(instance.name):
            raise UsageError(
                f"a service named {instance.name!r} exists already",
                hint=f"`start {instance.kind} --name other` starts one more, "
                f"`stop {instance.name}` ends this one",
            )
        directory = site.instances.make_directory(instance)
        try:
            return _store(site, deployment, directory, has_secret=has_secret)
        except BaseException:
            site.instances.remove(instance)
            raise


def _store(site: Site, deployment: Deployment, directory: Path, *, has_secret: bool) -> Instance:
    spec = deployment.spec
    instance = replace(deployment.instance, command=tuple(site.scheduler.command_line(spec)))
    try:
        if has_secret:
            write_secret(directory / SECRET_FILE)
        shutil.copyfile(spec.script, directory / SCRIPT_COPY)
    except OSError as error:
        raise ConfigError(f"cannot write in {directory}: {error.strerror}", hint=SPACE_HINT) from error
    site.instances.write(instance)
    return instance


def age_s(site: Site, instance: Instance) -> float:
    """Seconds since submission, by the clock that nobody can step unless it was submitted elsewhere."""
    if instance.boot_id and instance.boot_id == boot_id():
        return site.clock.monotonic_s() - instance.submitted_monotonic_s
    return max(0.0, site.clock.wall_s() - instance.submitted_wall_s)


def data_dir(site: Site, instance: Instance) -> Path:
    """Where the service keeps its data: on scratch, one directory per job."""
    return site.config.scratch_dir / instance.job_name


def _spec(
    site: Site, instance: Instance, options: Mapping[str, Any], script: Path, directory: Path
) -> JobSpec:
    config = site.config
    return JobSpec(
        name=instance.job_name,
        script=script,
        log_path=directory / "job-%j.log",
        work_dir=directory,
        nodes=options["nodes"],
        time_limit_s=options["time"] or config.time_limit_s,
        account=options["account"] or config.account,
        partition=options["partition"] or config.partition,
        qos=options["qos"] or config.qos,
        reservation=options["reservation"] or config.reservation,
        comment=f"aifbench {instance.kind} {instance.name}",
    )


def _with_environment(
    site: Site,
    spec: JobSpec,
    directory: Path,
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    has_secret: bool,
) -> JobSpec:
    config = site.config
    values = {
        "AIFBENCH_HOME": str(config.project_dir),
        "AIFBENCH_SCHEDULER": site.scheduler.kind,
        "AIFBENCH_JOB_DIR": str(directory),
        "AIFBENCH_DATA_DIR": str(config.scratch_dir / spec.name),
        "AIFBENCH_IMAGES": str(config.images_dir),
        "AIFBENCH_PYTHON": config.python,
        **environment,
    }
    if has_secret:
        values["AIFBENCH_SECRET_FILE"] = str(directory / SECRET_FILE)
    if wants_exporters(site, options):
        values["AIFBENCH_EXPORTERS"] = "1"
    if options["port"]:
        values["AIFBENCH_PORT"] = str(options["port"])
    return replace(spec, environment=values)


def wants_exporters(site: Site, options: Mapping[str, Any]) -> bool:
    """Whether exporters run beside the service: as asked or, where nobody did, while monitors are there."""
    if options["exporters"] != "auto":
        return bool(options["exporters"] == "yes")
    return any(instance.kind == "monitors" for instance in site.instances.open_instances())


def dry_run_text(site: Site, deployment: Deployment) -> str:
    """The command, its environment and the script: everything needed to do the same by hand."""
    spec = deployment.spec
    lines = [
        f"# {deployment.instance.kind} as {deployment.instance.name!r}, on scheduler {site.scheduler.kind}",
        f"# script: {spec.script}",
        f"# log:    {spec.log_path}",
        *(f"export {key}={shlex.quote(value)}" for key, value in sorted(spec.environment.items())),
        shlex.join(site.scheduler.command_line(spec)),
    ]
    return "\n".join(lines)
