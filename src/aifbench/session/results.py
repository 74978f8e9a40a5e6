"""Results: list, show, compare, curate and keep what was measured."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aifbench.errors import ResultError, ServiceError, UnknownRun
from aifbench.results.store import RunSummary
from aifbench.session.core import SessionCore

if TYPE_CHECKING:
    from aifbench.report.study_points import StudyView
    from aifbench.results.compared import Comparison
    from aifbench.results.pruning import Pruning
    from aifbench.results.record import RunRecord
    from aifbench.results.repeats import Repeats
    from aifbench.results.study import StudyRecord
    from aifbench.results.tags import Tags
    from aifbench.servers.io500_import import Imported
    from aifbench.studies.store import StudyStore, StudySummary


class SessionResults(SessionCore):
    """What works on stored runs and studies; no service is needed."""

    def runs(
        self, *, filters: Sequence[str] = (), sort: str = "created", limit: int | None = None
    ) -> Sequence[RunSummary]:
        """Stored runs, newest first unless sorted otherwise."""
        return self._site.runs.list(filters, sort, limit)

    def run(self, ref: str) -> "RunRecord":
        """The run that `ref` (an id, a unique part of one, or `last`) means."""
        return self._site.runs.load(ref)

    def run_directory(self, ref: str) -> Path:
        return self._site.runs.path(self._site.runs.resolve(ref))

    def run_text(self, ref: str, *, full: bool = False) -> str:
        """A run as tables and verdicts; `full` adds provenance and every check."""
        from aifbench.report import markdown, tables

        record = self.run(ref)
        text = markdown.run_markdown(record) if full else tables.run_text(record)
        left = self._left_by(record)
        return "\n".join([text.rstrip("\n"), "", *left]) if left else text

    def left_behind(self) -> list[str]:
        """What runs that were killed may have left on services, and what removes it; told only once."""
        from aifbench.results.belongings import LeftStore

        found = LeftStore(self.config.results_dir).untold(self._own_services, self._is_over)
        return [sentence for left in found for sentence in left.sentences()]

    def _left_by(self, record: "RunRecord") -> list[str]:
        from aifbench.results.belongings import LeftStore
        from aifbench.results.record import RunState

        if record.state is RunState.RUNNING:
            return []
        return LeftStore(self.config.results_dir).of(record.run_id, self._own_services()).sentences()

    def _own_services(self) -> list[str]:
        return [instance.name for instance in self._site.instances.open_instances()]

    def _is_over(self, run_id: str) -> bool:
        """Also of a run that was deleted."""
        from aifbench.results.record import RunState

        try:
            return self._site.runs.load(run_id).state is not RunState.RUNNING
        except UnknownRun:
            return True
        except ResultError:
            return False

    def report(self, ref: str, *, formats: Sequence[str] = (), out: Path | None = None) -> list[Path]:
        """Write the report of a run beside its record, or of a study into its directory; the files written.

        `formats` are of html, md, csv and json, all of them when none is given; with `out` the files go
        there, their names preceded by the id. Raises UnknownRun when neither a run nor a study is meant.
        """
        from aifbench.report import files

        run_id, study_id = self._reported(ref)
        if study_id:
            texts = files.study_texts(self._study_view(study_id))
        else:
            texts = files.run_texts(self.run(run_id))
        own = self._studies.path(study_id) if study_id else self._site.runs.path(run_id)
        prefix = f"{study_id or run_id}-" if out else ""
        return files.write(texts, out or own, formats, prefix)

    def _reported(self, ref: str) -> tuple[str, str]:
        """(run id, study id) that `ref` means, one of them empty; a run where it might be both."""
        if ref in self._studies.study_ids():
            return "", ref
        try:
            return self._site.runs.resolve(ref), ""
        except UnknownRun as no_run:
            try:
                return "", self._studies.resolve(ref)
            except UnknownRun:
                raise no_run from None

    def _study_view(self, study_id: str) -> "StudyView":
        """A study with the records of its runs, without their samples."""
        from aifbench.report.study_points import view
        from aifbench.results.study import TrialState

        record = self.study_record(study_id)
        runs, missing = {}, {}
        for trial in record.trials:
            if trial.state is TrialState.DONE:
                try:
                    runs[trial.run_id] = self._site.runs.load(trial.run_id)
                except ResultError as error:
                    missing[trial.run_id] = str(error)
        return view(record, runs, missing)

    def save(self, ref: str, out: Path | None = None) -> Path:
        """A zip with everything a run rests on, secrets masked. `ref` may name a service: its last run.

        What living monitors have seen of the run is kept with it.
        """
        from aifbench.results.archive import save_zip

        run_id = self._resolve_run(ref)
        self.report(run_id)
        self._keep_snapshot(run_id)
        secrets = [path for path in self.config.services_dir.glob("*/secret") if path.is_file()]
        secrets += self._attached_key_files()
        target = out or self.config.results_dir / f"{run_id}.zip"
        return save_zip(self._site.runs.path(run_id), target, secrets)

    def _keep_snapshot(self, run_id: str) -> None:
        """Without monitors, or when they cannot tell, a run is complete nevertheless."""
        from aifbench.servers.monitors import ready_monitors

        for endpoint in ready_monitors(self._site):
            from aifbench.monitor.snapshot import keep_snapshot
            from aifbench.workloads.monitors_control import MonitorsControl

            with suppress(ServiceError, OSError, ValueError):
                keep_snapshot(MonitorsControl(endpoint), self.run(run_id), self._site.runs.path(run_id))

    def studies(self) -> "Sequence[StudySummary]":
        """Every study in a line, newest first, also those that cannot be read."""
        return self._studies.list()

    def study_record(self, ref: str) -> "StudyRecord":
        """The study that `ref` (an id, a unique part of one, or `last`) means."""
        return self._studies.load(ref)

    @property
    def _studies(self) -> "StudyStore":
        from aifbench.studies.store import StudyStore

        return StudyStore(self.config.studies_dir, self._site.clock)

    def compare(
        self, sides: Sequence[str], *, with_invalid: bool = False, verified: bool = False
    ) -> "Comparison":
        """Runs against runs, each side against the first; results.selection says what a side may be called.

        `verified`: the files of the runs are held against their checksums. Raises UsageError for runs that
        cannot be compared, ResultError for a side without a run that counts.
        """
        from aifbench.results.comparison import compare_sides
        from aifbench.results.selection import select_sides

        chosen = select_sides(self._site.runs, sides, verified=verified)
        return compare_sides(chosen, with_invalid=with_invalid)

    def tag(self, runs: str, words: Sequence[str], *, remove: bool = False) -> list[str]:
        """Add tags to, or remove them from, all runs that `runs` means; their ids. See results.selection."""
        return self._say(runs, lambda tags: tags.without_words(words) if remove else tags.with_words(words))

    def note(self, runs: str, text: str) -> list[str]:
        """Write a note on runs; an empty one takes it away. Their ids."""
        return self._say(runs, lambda tags: tags.with_note(text))

    def _say(self, runs: str, change: "Callable[[Tags], Tags]") -> list[str]:
        from aifbench.results.selection import stored_runs
        from aifbench.results.tags import say

        chosen = [self._site.runs.path(record.run_id) for record in stored_runs(self._site.runs, runs)]
        say(chosen, change)
        return [directory.name for directory in chosen]

    def repeats(self, filters: Sequence[str] = ()) -> "list[Repeats]":
        """How steady the runs that match every filter are, by groups of equal configuration."""
        from aifbench.results.repeats import repeats

        return repeats([record for record, _ in self._site.runs.records(filters)])

    def plan_pruning(self, filters: Sequence[str], *, studies: bool = False) -> "Pruning":
        """Which of the runs that match may be deleted, and which stay; deletes nothing."""
        from aifbench.results.pruning import plan_pruning

        return plan_pruning(self._site.runs, filters, studies=studies)

    def prune(self, plan: "Pruning", *, studies: bool = False) -> list[str]:
        """Delete the runs of a plan that still may be; their ids."""
        from aifbench.results.pruning import prune

        return prune(self._site.runs, plan, studies=studies)

    def import_io500(self, path: Path, *, nodes: int = 0, ini: Path | None = None) -> "list[Imported]":
        """Store earlier IO500 runs at or below `path` as runs; see servers.io500_import."""
        from aifbench.servers.io500_import import import_io500

        return import_io500(path, self._site.runs, self._site.clock, nodes=nodes, ini=ini)

    def export(self, runs: str, path: Path) -> int:
        """Write a table of runs as CSV, one row per run and metric; how many runs. Replaces `path`."""
        from aifbench.results.export import write_runs_csv
        from aifbench.results.selection import stored_runs

        chosen = stored_runs(self._site.runs, runs)
        write_runs_csv([(record, self._site.runs.tags(record.run_id)) for record in chosen], path)
        return len(chosen)

    def _attached_key_files(self) -> list[Path]:
        """Files of the user's that hold the keys of attached services."""
        attached = (found for found in self._site.instances.all() if found.is_attached)
        files = {Path(str(found.endpoint.get("secret_file") or "")) for found in attached}
        return [path for path in sorted(files) if path.is_file() and os.access(path, os.R_OK)]

    def _resolve_run(self, ref: str) -> str:
        try:
            return self._site.runs.resolve(ref)
        except UnknownRun:
            for summary in self._site.runs.list([f"service={ref}"], "created", 1):
                if summary.name == ref:
                    return summary.run_id
            raise
