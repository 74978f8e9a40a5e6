"""One poll for all jobs, shared by everything in a shell that wants to know a job's state."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from aifbench.clock import Clock
from aifbench.cluster.jobs import JobInfo, JobState, Scheduler
from aifbench.errors import SchedulerUnavailable

# How old an answer may be at rest: at most one scheduler call in this time, however many jobs there are.
REST_AGE_S = 5.0

# How long the controller is left alone after it did not answer.
RETRY_AGE_S = 5.0

# An id that nobody knows costs commands of its own: while it stays unknown, the waits between them double.
_MAX_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was said of a job, when, and how many answers in a row did not know it."""

    info: JobInfo
    asked_s: float
    misses: int = 0


class JobTracker:
    """Remembers the last answer for every job it was asked about; safe to use from several threads.

    `problem` says why the scheduler did not answer last time; empty when it did.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._sought_s: dict[str, float] = {}
        self._retry_s = float("-inf")
        self._lock = threading.Lock()
        self.problem = ""

    def infos(self, job_ids: Iterable[str], *, max_age_s: float = REST_AGE_S) -> dict[str, JobInfo]:
        """What is known of each job, at most `max_age_s` old; a final state is never asked for again.

        While the controller is silent the last states are repeated with `problem` set; jobs never seen
        are UNKNOWN.
        """
        wanted = list(job_ids)
        with self._lock:
            due = {job_id for job_id in wanted if self._is_due(job_id, max_age_s)}
            if due and not self._is_left_alone():
                self._ask(due)
            return {job_id: self._last(job_id) for job_id in wanted}

    def info(self, job_id: str, *, max_age_s: float = REST_AGE_S) -> JobInfo:
        return self.infos([job_id], max_age_s=max_age_s)[job_id]

    def find(self, name: str, *, max_age_s: float = REST_AGE_S) -> JobInfo | None:
        """The user's newest job of that name, sought again after `max_age_s`; None also while `problem`."""
        with self._lock:
            age_s = self._clock.monotonic_s() - self._sought_s.get(name, float("-inf"))
            if age_s < max_age_s or self._is_left_alone():
                return None
            try:
                found = self._scheduler.find(name)
            except SchedulerUnavailable as error:
                self._fail(error)
                return None
            self.problem = ""
            self._sought_s[name] = self._clock.monotonic_s()
            return found[-1] if found else None

    def _is_due(self, job_id: str, max_age_s: float) -> bool:
        answer = self._answers.get(job_id)
        if answer is None:
            return True
        age_s = self._clock.monotonic_s() - answer.asked_s
        return not answer.info.state.is_final and age_s >= max_age_s * 2 ** min(answer.misses, _MAX_DOUBLINGS)

    def _is_left_alone(self) -> bool:
        return bool(self.problem) and self._clock.monotonic_s() < self._retry_s

    def _ask(self, due: set[str]) -> None:
        """One poll for what is due and, as it costs nothing more, for every other job known to live."""
        living = {
            job_id
            for job_id, answer in self._answers.items()
            if not answer.info.state.is_final and not answer.misses
        }
        try:
            infos = self._scheduler.poll(sorted(due | living))
        except SchedulerUnavailable as error:
            self._fail(error)
            return
        self.problem = ""
        now_s = self._clock.monotonic_s()
        for job_id, info in infos.items():
            misses = self._misses(job_id) + 1 if info.state is JobState.UNKNOWN else 0
            self._answers[job_id] = _Answer(info, now_s, misses)

    def _misses(self, job_id: str) -> int:
        answer = self._answers.get(job_id)
        return answer.misses if answer else 0

    def _fail(self, error: SchedulerUnavailable) -> None:
        self.problem = str(error)
        self._retry_s = self._clock.monotonic_s() + RETRY_AGE_S

    def _last(self, job_id: str) -> JobInfo:
        answer = self._answers.get(job_id)
        return answer.info if answer else JobInfo(job_id, JobState.UNKNOWN)
