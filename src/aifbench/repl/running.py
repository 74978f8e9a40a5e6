"""Commands that run studies: recipes, with all their points and repeats."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cmd2 import with_argparser

from aifbench.errors import ResultError, UsageError
from aifbench.repl import completion, studies_wording, wording
from aifbench.repl.exit_codes import INVALID_RUN
from aifbench.repl.parsers import Parser
from aifbench.repl.progress import live_line
from aifbench.repl.topic import Interrupted, Topic
from aifbench.results.record import Verdict
from aifbench.units import format_count

if TYPE_CHECKING:
    from aifbench.repl.study_progress import StudyLines
    from aifbench.results.study import StudyRecord
    from aifbench.studies.store import StudySummary


def _run_parser() -> Parser:
    parser = Parser(
        "Run a recipe: every point, as often as it says. What was measured is kept at once; an interrupted "
        "study goes on with --resume.",
        "run chroma-quick",
    )
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="file, or name that `recipes` lists",
        choices_provider=completion.recipes,
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show points, jobs and cost, and stop")
    parser.add_argument(
        "--resume", metavar="STUDY", help="go on with a study: its id, a unique part of it, or `last`",
        choices_provider=completion.studies,
    )  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="with --resume: failed trials again, too")
    parser.add_argument(
        "--again", metavar="RUN", help="repeat one run, with the same service and options",
        choices_provider=completion.runs,
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="run it above its limit of node-hours, too")
    return parser


def _studies_parser() -> Parser:
    return Parser("List studies, newest first, with what is done and what is left.", "studies")


class Running(Topic):
    DEFAULT_CATEGORY = "Studies"

    @with_argparser(_run_parser)
    def do_run(self, args: Namespace) -> None:
        """Run a recipe, go on with a study, or repeat a run."""
        _require_one_task(args)
        if args.again:
            self._again(args.again)
        elif args.dry_run:
            self._cmd.poutput(studies_wording.plan_text(self.session.plan_study(args.recipe)))
        elif args.resume or self._is_allowed(args):
            self._study(args)

    @with_argparser(_studies_parser)
    def do_studies(self, _args: Namespace) -> None:
        """List studies and what is left of them."""
        found = self.session.studies()
        self._cmd.last_result = found
        self._cmd.poutput(_table(found) if found else "no study yet; `run RECIPE` makes one")

    def _study(self, args: Namespace) -> None:
        with self._lines() as lines:
            record = self.session.study(
                args.recipe,
                progress=lines,
                resume=args.resume or "",
                retry_failed=args.retry_failed,
                may_exceed=args.yes or bool(not args.resume and self._cmd.is_interactive),
            )
        self._cmd.last_result = record
        self._tell(record)

    def _again(self, ref: str) -> None:
        with self._lines() as lines:
            record = self.session.again(ref, progress=lines)
        self._cmd.last_result = record
        self._cmd.poutput(self.session.run_text(record.run_id))
        if record.verdict is Verdict.INVALID:
            self._cmd.fail(f"run {record.run_id} is INVALID", INVALID_RUN)

    def _is_allowed(self, args: Namespace) -> bool:
        """Whether to go beyond the recipe's limit; only a person can be asked."""
        from aifbench.studies.opening import over_limit

        if args.yes or not self._cmd.is_interactive:
            return True
        plan = self.session.plan_study(args.recipe)
        if not plan.is_over_limit:
            return True
        self._cmd.poutput(over_limit(plan.recipe, plan.estimate).message)
        try:
            answer = self._cmd.read_input("run it all the same? [y]es or [n]o: ").strip().lower()
        except EOFError:
            answer = ""
        if answer not in ("y", "yes"):
            self._cmd.poutput("not started")
            return False
        return True

    def _tell(self, record: "StudyRecord") -> None:
        """What became of all trials; the worst of it is the outcome of the command."""
        from aifbench.results.study import TrialState
        from aifbench.studies.store import count

        done, failed = (count(record.trials, state) for state in (TrialState.DONE, TrialState.FAILED))
        runs = [trial.run_id for trial in record.trials if trial.state is TrialState.DONE]
        invalid = [run_id for run_id in runs if self._verdict(run_id) is Verdict.INVALID]
        words = [f"{format_count(done, 'trial')} done"]
        words += [f"{failed} failed"] if failed else []
        words += [f"{len(invalid)} INVALID"] if invalid else []
        self._cmd.poutput(f"study {record.study_id} is {record.state.value}: {', '.join(words)}")
        if done:
            self._cmd.poutput(f"  next: report {record.study_id}")
        if failed:
            retry = f"`run --resume {record.study_id} --retry-failed` runs them again"
            self._cmd.fail(f"{format_count(failed, 'trial')} failed; {retry}")
        elif invalid:
            found = "1 run is" if len(invalid) == 1 else f"{len(invalid)} runs are"
            reason = f"`show {invalid[0]} --full` tells why"
            self._cmd.fail(f"{found} INVALID; {reason}", INVALID_RUN)

    def _verdict(self, run_id: str) -> Verdict | None:
        try:
            return self.session.run(run_id).verdict
        except ResultError:  # removed since
            return None

    @contextmanager
    def _lines(self) -> "Iterator[StudyLines]":
        """A study's progress on screen; Ctrl-C tells how to go on."""
        from aifbench.repl.study_progress import StudyLines

        line = live_line(self._cmd.stdout, self._cmd.poutput)
        lines = StudyLines(line, self._cmd.poutput)
        try:
            yield lines
        except KeyboardInterrupt:
            raise Interrupted(_how_to_go_on(lines.study_id)) from None
        finally:
            line.clear()


def _require_one_task(args: Namespace) -> None:
    """Raises UsageError for words that contradict each other, or leave open what to run."""
    if args.again and (args.recipe or args.resume or args.dry_run):
        raise UsageError("run: --again repeats one run, and of no recipe", hint="such as `run --again last`")
    if args.dry_run and args.resume:
        raise UsageError("run: --dry-run is of a recipe, not of a study", hint="`studies` shows what is left")
    if args.retry_failed and not args.resume:
        raise UsageError("run: --retry-failed needs --resume STUDY", hint="`studies` lists them")
    if not (args.recipe or args.resume or args.again):
        raise UsageError("run: no recipe given", hint="`recipes` lists them, `run --resume last` goes on")


def _how_to_go_on(study_id: str) -> str:
    if not study_id:
        return "what was measured is kept; services that were started here are stopped"
    return f"what was measured is kept, its services are stopped; `run --resume {study_id}` goes on"


def _table(studies: "Sequence[StudySummary]") -> str:
    rows = [
        (
            study.study_id,
            study.state.value if study.state else "unreadable",
            *map(str, (study.done, study.failed, study.pending)),
            study.problem or study.note.partition("\n")[0],
        )
        for study in studies
    ]
    return wording.table(("study", "state", "done", "failed", "pending", "note"), rows)
