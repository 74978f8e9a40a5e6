"""A study on screen: one line per trial, live on a terminal, printed when the trial is over anywhere else."""

from aifbench.load.progress import LoadStatus, Progress
from aifbench.repl import wording
from aifbench.repl.progress import ChangeLog, LiveLine, Print, load_line
from aifbench.results.headline import headline_text
from aifbench.results.study import StudyRecord
from aifbench.servers.status import ServiceStatus
from aifbench.studies.progress import TrialNews
from aifbench.units import format_count


class StudyLines:
    """A StudyProgress that draws on `line` what goes on, and prints what stays. Remembers the study."""

    def __init__(self, line: LiveLine | ChangeLog, print_line: Print) -> None:
        self._line = line
        self._print = print_line
        self.study_id = ""

    def opened(self, record: StudyRecord) -> None:
        self.study_id = record.study_id
        trials = format_count(len(record.trials), "trial")
        self.note(f"study {record.study_id}: {trials} of {format_count(len(record.points), 'point')}")

    def note(self, text: str) -> None:
        self._line.clear()
        self._print(text)

    def waits_for(self, status: ServiceStatus) -> None:
        self._line.show(wording.status_line(status), (status.name, status.stage))

    def begins(self, news: TrialNews) -> Progress:
        return _TrialLine(self._line if isinstance(self._line, LiveLine) else None, trial_text(news))

    def ended(self, news: TrialNews) -> None:
        self.note(f"{trial_text(news)}  {outcome_text(news)}")


class _TrialLine:
    """A load Progress in the trial's one line; without a `line` to rewrite it says nothing."""

    def __init__(self, line: LiveLine | None, trial: str) -> None:
        self._line = line
        self._trial = trial
        self._show("")

    def phase(self, name: str, detail: str) -> None:
        self._show(f"  {name}" + (f": {detail}" if detail else ""))

    def update(self, status: LoadStatus) -> None:
        self._show(load_line(status))

    def note(self, text: str) -> None:
        """What is worth keeping is in the run's record."""
        self._show(f"  {text}")

    def _show(self, text: str) -> None:
        if self._line:
            self._line.show(self._trial + text)


def trial_text(news: TrialNews) -> str:
    """`trial  3/15  rate=100  repeat 2`."""
    number = f"{news.number:{len(str(news.total))}}"
    return f"trial {number}/{news.total}  {news.label}  repeat {news.trial.repeat}"


def outcome_text(news: TrialNews) -> str:
    """`search: 98.9 ops/s, response p99 12.3 ms  VALID  a3f9`, or why it failed."""
    if news.run is None:
        run = f" (run {news.trial.run_id})" if news.trial.run_id else ""
        return f"FAILED{run}: {news.trial.error}"
    return "  ".join(filter(None, (headline_text(news.run), news.run.verdict.value, news.run.run_id[-4:])))
