"""Services that somebody else started: an address, perhaps a key, and no job."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifbench.clock import utc_text
from aifbench.cluster.announce import Announcement
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.errors import ConfigError, ServiceError, UsageError
from aifbench.load.clocksync import boot_id
from aifbench.options import Option, resolve_options
from aifbench.servers.deployment import SECRET_FILE
from aifbench.servers.instance import ATTACHED, SPACE_HINT, Instance, new_job_name, store_secret
from aifbench.servers.options import parse_name
from aifbench.servers.service_job import ServiceJob
from aifbench.servers.site import Site
from aifbench.servers.status import Stage

if TYPE_CHECKING:
    from aifbench.servers.base import SlurmServer

# What a kind that can be attached takes, unless its keys are of another form; a kind adds its own.
ATTACH_OPTIONS = (
    Option("name", "what to call it (default: its kind)", parse=parse_name, metavar="NAME"),
    Option("key-file", "file with the API key, readable by you alone", default="", metavar="FILE"),
    Option("key-env", "environment variable that has the API key", default="", metavar="VARIABLE"),
    Option("ca-file", "PEM file of the CA to trust for https", default="", metavar="FILE"),
)
_API_KEY_OPTIONS = ("key_file", "key_env")
_NOT_RECORDED = ("name", *_API_KEY_OPTIONS, "ca_file")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Keys of a form of their own: the option that names their file, and whether a text is such keys."""

    option: Option
    is_valid: Callable[[str], bool]
    holds: str  # what must be in it, in words


def attach_options(server_class: type["SlurmServer"]) -> tuple[Option, ...]:
    """All that `attach` of this kind takes."""
    own = server_class.attach_key
    if own is None:
        return (*ATTACH_OPTIONS, *server_class.attach_options)
    common = (option for option in ATTACH_OPTIONS if option.key not in _API_KEY_OPTIONS)
    return (*common, own.option, *server_class.attach_options)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")


class AttachedJob(ServiceJob):
    """Stands where others have a job: it runs as long as nobody detaches it, and no scheduler knows it."""

    @property
    def is_foreign(self) -> bool:
        return False

    def info(self, *, max_age_s: float) -> JobInfo:
        del max_age_s
        return JobInfo("", JobState.RUNNING if self.instance.is_open else JobState.CANCELLED, source=ATTACHED)

    def cancel(self) -> None:
        """Forget it: what was attached goes on. The copy of a key goes, the user's own file stays."""
        self.update(stopped=True)
        self._close(JobState.CANCELLED, "detached", "")
        with suppress(OSError):
            (self._site.instances.path(self.instance) / SECRET_FILE).unlink()

    def is_forgotten(self, job: JobInfo) -> bool:
        del job
        return False

    def end(self, job: JobInfo) -> None:
        del job


def job_of(site: Site, instance: Instance) -> ServiceJob:
    return AttachedJob(site, instance) if instance.is_attached else ServiceJob(site, instance)


def attached_announcement(instance: Instance) -> Announcement:
    """What a job would have announced of where it listens."""
    endpoint = Endpoint.from_json(instance.endpoint)
    auth = "token" if endpoint.secret_file else "none"
    return Announcement(
        "", 0, endpoint.host, endpoint.port, instance.kind, version=instance.version, auth=auth
    )


def attach(
    server_class: type["SlurmServer"],
    site: Site,
    url: str,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
) -> "SlurmServer":
    """Note the service at `url`, which must be ready for use now.

    Raises UsageError for an address, name or key that cannot be used, and ServiceError for what does not
    answer as such a service does; nothing is kept then.
    """
    kind = server_class.kind
    options = resolve_options(attach_options(server_class), given)
    endpoint = _endpoint(server_class, site, url, options)
    own = server_class.attach_key
    key = _key_from(environ, options) if own is None else ""
    not_recorded = _NOT_RECORDED if own is None else (*_NOT_RECORDED, own.option.key)
    instance = Instance(
        kind=kind,
        name=options["name"] or kind,
        job_name=new_job_name(kind, options["name"] or kind),
        options={k: v for k, v in options.items() if k not in not_recorded and v not in (None, "")},
        submitted_utc=utc_text(site.clock.wall_s()),
        submitted_wall_s=site.clock.wall_s(),
        submitted_monotonic_s=site.clock.monotonic_s(),
        boot_id=boot_id(),
        scheduler=ATTACHED,
        endpoint=endpoint.to_json(),
    )
    server = server_class(site, _reserve(site, instance, endpoint, key))
    try:
        _require_ready(server)
    except BaseException:
        site.instances.remove(server.instance)
        raise
    site.instances.prune()
    return server


def _require_ready(server: "SlurmServer") -> None:
    status = server.status()
    if status.stage is not Stage.READY:
        raise ServiceError(f"not attached: {status.detail or 'it does not answer'}")


def _endpoint(
    server_class: type["SlurmServer"], site: Site, url: str, options: Mapping[str, Any]
) -> Endpoint:
    endpoint = Endpoint.from_url(url)
    prefix = endpoint.prefix.removesuffix(server_class.attach_suffix)
    # Load is made by a job on another node.
    if site.scheduler.kind != "local" and not site.inside_allocation and _LOOPBACK.fullmatch(endpoint.host):
        raise UsageError(
            f"{endpoint.host} means another machine on a compute node",
            hint="give the name of the node it runs on, or use `aifbench --scheduler local`",
        )
    ca_file = _file(options["ca_file"], "--ca-file")
    if ca_file and endpoint.scheme != "https":
        raise UsageError("--ca-file is for https addresses only")
    return replace(endpoint, prefix=prefix, ca_file=ca_file, secret_file=_key_file(server_class, options))


def _file(text: str, what: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UsageError(f"{what} {path} is no file that can be read")
    return path


def _key_file(server_class: type["SlurmServer"], options: Mapping[str, Any]) -> Path | None:
    """A file with a key, which nobody else can read: it is used where it lies, and never copied."""
    own = server_class.attach_key
    what = "--key-file" if own is None else f"--{own.option.name}"
    path = _file(options["key_file" if own is None else own.option.key], what)
    if path is None:
        return None
    if path.stat().st_mode & 0o077:
        raise UsageError(f"others can read {what} {path}", hint=f"chmod 600 {path}")
    if own is None and not _is_one_key(path):
        raise UsageError(f"{what} {path} does not hold one key")
    if own is not None and not own.is_valid(_text_of(path)):
        raise UsageError(f"{what} {path} does not hold {own.holds}")
    return path


def _is_one_key(path: Path) -> bool:
    try:
        return bool(Endpoint("", 0, secret_file=path).read_secret())
    except ServiceError:
        return False


def _text_of(path: Path) -> str:
    """Nothing for what is no text."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def _key_from(environ: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """The key in the variable that was named. What was typed is never repeated: it may be the key itself."""
    variable = options["key_env"]
    if not variable:
        return ""
    if options["key_file"]:
        raise UsageError("--key-file and --key-env exclude each other")
    key = environ.get(variable, "").strip() if _VARIABLE.fullmatch(variable) else ""
    if not key:
        raise UsageError(
            "the environment variable that --key-env names is not set",
            hint="give the name of one that holds the key, such as OPENAI_API_KEY",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("the environment variable that --key-env names does not hold one key")
    return key


def _reserve(site: Site, instance: Instance, endpoint: Endpoint, key: str) -> Instance:
    """Take the name and store the instance, with a copy of a key that no file holds; all of it or nothing."""
    with site.instances.lock():
        if site.instances.open_instances(instance.name):
            raise UsageError(
                f"a service named {instance.name!r} exists already",
                hint=f"`attach {instance.kind} URL --name other` attaches one more, "
                f"`stop {instance.name}` ends this one",
            )
        directory = site.instances.make_directory(instance)
        try:
            if key:
                _store_key(directory / SECRET_FILE, key)
                endpoint = replace(endpoint, secret_file=directory / SECRET_FILE)
            instance = replace(instance, endpoint=endpoint.to_json())
            site.instances.write(instance)
        except BaseException:
            site.instances.remove(instance)
            raise
    return instance


def _store_key(path: Path, key: str) -> None:
    try:
        store_secret(path, key)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint=SPACE_HINT) from error
