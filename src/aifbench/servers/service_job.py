"""ServiceJob: an instance's job and its stored state, kept in step with what other shells do."""

import shutil
from dataclasses import replace
from typing import Any

from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.errors import ConfigError, SchedulerUnavailable, ServiceError
from aifbench.servers.deployment import age_s, data_dir
from aifbench.servers.instance import Instance
from aifbench.servers.site import Site

# Beyond this, a submission without an answer was killed: longer than all attempts of a scheduler together.
SUBMIT_ALLOWANCE_S = 600.0

_ANOTHERS = "another job has its id"


class ServiceJob:
    """What is known of the job. Where the scheduler does not answer, only `cancel` raises."""

    def __init__(self, site: Site, instance: Instance) -> None:
        self._site = site
        self.instance = instance

    @property
    def is_foreign(self) -> bool:
        """Another scheduler runs it: ids of this one mean other jobs."""
        return self.instance.scheduler not in ("", self._site.scheduler.kind)

    def info(self, *, max_age_s: float) -> JobInfo:
        """The job, at most `max_age_s` old; UNKNOWN as long as it has not been found."""
        if self.instance.is_open and not self.instance.job_id and not self.is_foreign:
            self._find(max_age_s)
        instance = self.instance
        if not instance.is_open:
            return JobInfo(instance.job_id, _state(instance.seen_end))
        if instance.is_made:
            return JobInfo(instance.job_id, JobState.COMPLETED)
        if self.is_foreign or not instance.job_id:
            return JobInfo(instance.job_id, JobState.UNKNOWN)
        job = self._site.tracker.info(instance.job_id, max_age_s=max_age_s)
        return job if self._is_ours(job) else JobInfo(job.job_id, JobState.UNKNOWN, reason=_ANOTHERS)

    def submitted(self, job_id: str) -> None:
        """Note the answer to a submission. Another shell may have given it up or stopped it meanwhile."""
        self.update(job_id=job_id, seen_end="", end_detail="", end_advice="")
        if self.instance.stopped:
            self._site.scheduler.cancel([job_id])

    def cancel(self) -> None:
        """Ask for the end of a job that has not ended, which is noted before.

        Raises SchedulerError, and ServiceError for a foreign job.
        """
        if self.is_foreign:
            name, scheduler = self.instance.name, self.instance.scheduler
            raise ServiceError(
                f"{name} was started with --scheduler {scheduler}",
                hint=f'stop it with `aifbench --scheduler {scheduler} "stop {name}"`',
            )
        job = self.info(max_age_s=0.0)
        if job.state.is_final:
            return
        self.update(stopped=True)
        if self._site.tracker.problem and not job.name:
            raise SchedulerUnavailable(
                f"{self.instance.name} cannot be stopped: {self._site.tracker.problem}"
            )
        if not self.instance.job_id:
            self._close_unsubmitted()
        elif job.reason != _ANOTHERS:
            # Also when nobody knows it: a job that was submitted a moment ago may not be listed yet.
            self._site.scheduler.cancel([self.instance.job_id])

    def update(self, **changes: Any) -> None:
        """Note these facts. Where the disk takes nothing, this object knows them nevertheless."""
        try:
            self.instance = self._site.instances.update(self.instance, **changes)
        except ConfigError:
            self.instance = replace(self.instance, **changes)

    def is_forgotten(self, job: JobInfo) -> bool:
        """The scheduler answers, and knows no such job."""
        return job.state is JobState.UNKNOWN and not job.name and not self._site.tracker.problem

    def end(self, job: JobInfo) -> None:
        """Note the end when it is news, so that nobody asks again, and remove the service's data."""
        if not self.instance.is_open:
            return
        # Of what was ended from outside, the code says no more than that.
        code = f", exit code {job.exit_code}" if job.exit_code and job.state is JobState.FAILED else ""
        detail = f"job {job.job_id} ended: {job.state.value}{code}"
        if job.state is JobState.UNKNOWN:
            detail = f"the scheduler does not know job {job.job_id} any more"
        self._close(job.state, detail, job.advice)
        shutil.rmtree(data_dir(self._site, self.instance), ignore_errors=True)

    def _close(self, state: JobState, detail: str, advice: str) -> None:
        self.update(
            seen_end=state.value,
            end_detail=detail,
            end_advice=advice,
            ended_wall_s=self._site.clock.wall_s(),
        )

    def _is_ours(self, job: JobInfo) -> bool:
        """Ids are used again: by another cluster, after a wrap-around, by a new state directory."""
        return job.name in ("", self.instance.job_name)

    def _find(self, max_age_s: float) -> None:
        """A submission whose answer was never seen is known by its unique name."""
        found = self._site.tracker.find(self.instance.job_name, max_age_s=max_age_s)
        if found:
            self.update(job_id=found.job_id)
        elif not self._site.tracker.problem and age_s(self._site, self.instance) > SUBMIT_ALLOWANCE_S:
            self._close_unsubmitted()

    def _close_unsubmitted(self) -> None:
        advice = f"`start {self.instance.kind}` starts it anew"
        self._close(JobState.CANCELLED, "its job was never submitted", advice)


def _state(word: str) -> JobState:
    return JobState.__members__.get(word, JobState.UNKNOWN)
