"""The services of a study: started when first needed, kept while they are what a trial needs, always stopped.

What somebody else runs (`attach`) is used as it is, and never started, restarted or stopped.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aifbench.errors import BenchError, NotReady, ServiceError, UsageError
from aifbench.studies.progress import Services, Status, StudyProgress
from aifbench.studies.recipe import Member, Value

MAX_NAME = 31  # characters of a service's name
READY_WAIT_S = 1800.0  # from the job's start on; in the queue it may wait as long as it takes
_RETURN_WAIT_S = 60.0  # for a service that was ready, and does not answer at the moment
_SPARE = 1.2  # of the time that the longest trial took


@dataclass(frozen=True, slots=True)
class _Deployed:
    """A service of ours, and what it was started with."""

    name: str
    kind: str
    start: Mapping[str, Value]


class Crew:
    """`study` and `tag` make the names of its services, which nothing else may have."""

    def __init__(self, services: Services, study: str, tag: str, progress: StudyProgress) -> None:
        self._services = services
        self._study = study
        self._tag = tag
        self._progress = progress
        self._deployed: dict[str, _Deployed] = {}

    def ensure(self, members: Sequence[Member], needed_s: float = 0.0) -> dict[str, str]:
        """The READY service of every member, by role.

        One whose start options differ, that has died, or whose job ends within `needed_s` is started anew.
        Raises BenchError when one cannot be had; what was started for it is then stopped.
        """
        for member in members:
            if member.attach:
                self._require_attached(member)
        ours = [member for member in members if not member.attach]
        kept = {member.role for member in ours if self._is_good(member, needed_s)}
        self._drop([role for role in self._deployed if role not in kept])
        self._deploy(
            [member for member in ours if member.role not in kept],
            service_names(self._study, ours, self._tag),
        )
        return {member.role: member.attach or self._deployed[member.role].name for member in members}

    def stop(self) -> None:
        """Stop what was started here, also what Ctrl-C left half submitted. Never raises a BenchError: what
        may go on is told, with the command that ends it.
        """
        names = " ".join(deployed.name for deployed in self._deployed.values())
        try:
            self._drop([*self._deployed])
        except BenchError as error:
            self._progress.note(f"{error}; `stop {names}` tries again")
        except KeyboardInterrupt:
            self._progress.note(
                f"not waiting for the end of {names}: `status` tells, `stop {names}` tries again"
            )
            raise

    def _is_good(self, member: Member, needed_s: float) -> bool:
        deployed = self._deployed.get(member.role)
        if deployed is None or (deployed.kind, deployed.start) != (member.kind, member.start):
            return False
        try:
            status = self._services.check(
                deployed.name, wait_s=_RETURN_WAIT_S, progress=self._progress.waits_for
            )
        except ServiceError as error:
            self._progress.note(f"{error.message}; it is started anew")
            return False
        left_s = status.job.time_left_s
        if left_s is not None and left_s < needed_s * _SPARE:
            self._progress.note(
                f"the job of {deployed.name} ends in {left_s:.0f} s, before a trial would; it is started anew"
            )
            return False
        return True

    def _deploy(self, members: Sequence[Member], names: Mapping[str, str]) -> None:
        """Submit all before any is waited for."""
        try:
            for member in members:
                self._start(member, names[member.role])
            for member in members:
                self._await_ready(names[member.role])
        except BenchError:
            with suppress(BenchError):
                self._drop([member.role for member in members])
            raise

    def _require_attached(self, member: Member) -> None:
        kind = self._services.kind_of(member.attach)
        if kind != member.kind:
            raise UsageError(
                f"{member.attach} is {kind}, the recipe is for {member.kind}",
                hint="`attach:` takes the name of a service that `status` shows",
            )
        status = self._services.check(member.attach)
        if status.stage.value != "READY":
            raise NotReady(
                f"{member.attach} is {status.stage.value} {status.detail}".rstrip(),
                hint=f"the study does not start what it was attached to; `check {member.attach} --wait`",
            )

    def _start(self, member: Member, name: str) -> None:
        if name in self._services.instances():  # left by this study, when it was killed
            self._services.stop([name])
        # Known before it is submitted: Ctrl-C may come in between.
        self._deployed[member.role] = _Deployed(name, member.kind, member.start)
        options = "".join(f" {key}={value}" for key, value in member.start.items())
        self._progress.note(f"starting {name}: {member.kind}{options}")
        self._services.start(member.kind, {**member.start, "name": name})

    def _await_ready(self, name: str) -> None:
        """However long the queue is; raises ServiceDied, NotReady when it will never be."""
        seen: list[Status] = []

        def look(status: Status) -> None:
            seen.append(status)
            self._progress.waits_for(status)

        while True:
            seen.clear()
            try:
                self._services.check(name, wait_s=READY_WAIT_S, progress=look)
                return
            except NotReady:
                was_queued = any(status.stage.value == "QUEUED" for status in seen)
                if not was_queued or seen[-1].job.is_stuck:
                    raise

    def _drop(self, roles: Sequence[str]) -> None:
        """Stop and forget the services of these roles. Raises BenchError when one does not end."""
        ours = {role: self._deployed[role].name for role in roles if role in self._deployed}
        running = self._services.instances()
        alive = [name for name in ours.values() if name in running]
        if alive:
            self._services.stop(alive)
        for role in ours:
            del self._deployed[role]


def service_names(study: str, members: Sequence[Member], tag: str) -> dict[str, str]:
    """`<study>-<role>-<tag>` by role, shortened to what a service can be called.

    `tag` tells two studies of one name apart.
    """
    names = {member.role: _service_name(study, member.role, tag) for member in members}
    if len(set(names.values())) == len(names):
        return names
    return {role: _service_name(study, role, f"{tag}{number}") for number, role in enumerate(names)}


def _service_name(study: str, role: str, tag: str) -> str:
    room = MAX_NAME - len(tag) - 1
    role = role[: room // 2]
    head = study[: room - len(role) - 1] if role else study[:room]
    return "-".join(filter(None, (head.rstrip("-"), role.rstrip("-_"), tag)))
