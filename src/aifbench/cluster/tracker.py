"""One poll for all jobs, shared by everything in a shell that wants to know a job's state."""

import threading
from collections.abc import Iterable

from aifbench.clock import Clock
from aifbench.cluster.jobs import JobInfo, JobState, Scheduler
from aifbench.errors import SchedulerUnavailable

# How old an answer may be at rest: at most one scheduler call in this time, however many jobs there are.
REST_AGE_S = 5.0

# How long the controller is left alone after it did not answer.
RETRY_AGE_S = 5.0


class JobTracker:
    """Remembers the last answer for every job it was asked about; safe to use from several threads."""

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._infos: dict[str, JobInfo] = {}
        self._asked_s = float("-inf")
        self._lock = threading.Lock()
        self.problem = ""

    def infos(self, job_ids: Iterable[str], *, max_age_s: float = REST_AGE_S) -> dict[str, JobInfo]:
        """What is known of each job, at most `max_age_s` old. While the controller is silent the last
        states are repeated with `problem` set; jobs never seen are UNKNOWN.
        """
        wanted = list(job_ids)
        with self._lock:
            known = {job_id for job_id in wanted if job_id in self._infos}
            age_s = self._clock.monotonic_s() - self._asked_s
            if self.problem:
                max_age_s = max(max_age_s, RETRY_AGE_S)
            if wanted and (age_s >= max_age_s or len(known) < len(set(wanted))):
                self._ask(wanted)
            return {job_id: self._infos.get(job_id, _unknown(job_id)) for job_id in wanted}

    def info(self, job_id: str, *, max_age_s: float = REST_AGE_S) -> JobInfo:
        return self.infos([job_id], max_age_s=max_age_s)[job_id]

    def forget(self, job_id: str) -> None:
        """Stop asking about a job that is over."""
        with self._lock:
            self._infos.pop(job_id, None)

    def _ask(self, wanted: list[str]) -> None:
        live = {job_id for job_id, info in self._infos.items() if not info.state.is_final}
        try:
            self._infos.update(self._scheduler.poll(sorted(live | set(wanted))))
            self.problem = ""
        except SchedulerUnavailable as error:
            self.problem = str(error)
        self._asked_s = self._clock.monotonic_s()


def _unknown(job_id: str) -> JobInfo:
    return JobInfo(job_id, JobState.UNKNOWN)
