"""Every error a user can cause or meet, as one tree.

    BenchError
    ├── UsageError              an argument that cannot be used (exit code 2)
    ├── ConfigError             the set-up or site configuration is wrong (exit code 2)
    ├── SchedulerError          the scheduler refused, or could not be reached
    │   ├── SubmitError         a job was refused; carries the scheduler's own words
    │   └── SchedulerUnavailable  no answer now; the same call may succeed later
    ├── ServiceError            a deployed service is not what it should be
    │   ├── UnknownService      no service of that name
    │   ├── NotReady            it did not answer in time
    │   └── ServiceDied         its job ended
    ├── WorkloadError           a benchmark cannot run as asked
    │   └── FleetError          load workers failed to start, or were lost
    └── ResultError             stored results cannot be used
        ├── UnknownRun          no run of that name
        └── SchemaMismatch      a record this version cannot read

A message says what failed and with which value; `hint` says what would be valid or what to type next.
"""

import signal


class BenchError(Exception):
    """Base of all expected errors: shown as one line, never as a traceback.

    `run_id` is set to that of the run that it ended, where there is one.
    """

    exit_code = 1
    run_id = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        cause = self.__cause__
        while cause is not None:
            text = cause.message if isinstance(cause, BenchError) else str(cause)
            # Of an OSError, `str` repeats number and path; a message has mostly said what it means.
            said = getattr(cause, "strerror", None) or text
            if text and said not in parts[-1]:
                parts.append(text)
            cause = cause.__cause__
        line = ": ".join(parts)
        return f"{line}; {self.hint}" if self.hint else line


class UsageError(BenchError):
    """An argument has a value that cannot be used."""

    exit_code = 2


class ConfigError(BenchError):
    """Configuration or installation prevents the request."""

    exit_code = 2


class SchedulerError(BenchError):
    """The scheduler answered with an error."""


class SubmitError(SchedulerError):
    """A job was refused at submission."""


class SchedulerUnavailable(SchedulerError):
    """The scheduler did not answer; nothing is known, and the call may be repeated."""


class ServiceError(BenchError):
    """A deployed service is missing, not ready, or dead."""


class UnknownService(ServiceError):
    """No service kind or instance has that name."""

    exit_code = 2


class NotReady(ServiceError):
    """A service did not become ready in the time allowed."""


class ServiceDied(ServiceError):
    """The job of a service ended while it was needed."""


class WorkloadError(BenchError):
    """A benchmark cannot run as asked."""


class FleetError(WorkloadError):
    """Load workers could not be started, or were lost."""


class ResultError(BenchError):
    """Stored results cannot be read or written."""


class UnknownRun(ResultError):
    """No stored run matches."""

    exit_code = 2


class SchemaMismatch(ResultError):
    """A record is corrupt, or was written by a version this one cannot read."""


def ending_words(ending: KeyboardInterrupt | SystemExit) -> str:
    """Who ended what was under way: `ended by SIGTERM` as a shell's signal handler or its exit status says,
    else the user.
    """
    if isinstance(ending, KeyboardInterrupt):
        return str(ending) or "interrupted by the user"
    if isinstance(ending.code, int) and ending.code - 128 in set(signal.Signals):
        return ended_by(ending.code - 128)
    return "its program was left"


def ended_by(signal_number: int) -> str:
    return f"ended by {signal.Signals(signal_number).name}"
