"""How services, runs and findings read in the shell: values in, plain text out."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aifbench.servers.instance import ATTACHED
from aifbench.servers.status import ServiceStatus, Stage
from aifbench.units import format_duration, format_number, format_size

if TYPE_CHECKING:
    from aifbench.doctor import Finding
    from aifbench.results.query import RunSummary
    from aifbench.results.repeats import Repeats, Steadiness
    from aifbench.servers.calibrate import Calibration


# Columns of a list of runs that can be spared, first the one that tells least.
_SPARED = ("created (UTC)", "size")


def clock_text(value_s: float) -> str:
    """`03:12` or `1:02:03`: of constant shape, for what counts up on screen."""
    hours, rest = divmod(int(value_s), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


def stage_text(status: ServiceStatus) -> str:
    """`READY 03:12`, `QUEUED (Priority) 00:40`."""
    words = [status.stage.value]
    if status.stage is Stage.QUEUED and status.job.reason:
        words.append(f"({status.job.reason})")
    if status.is_alive and status.job.elapsed_s is not None:
        words.append(clock_text(status.job.elapsed_s))
    return " ".join(words)


def toolbar_text(statuses: Iterable[ServiceStatus], trouble: str = "") -> str:
    """`chroma READY 03:12 · b QUEUED (Priority) 00:40`, followed by what keeps it from being current."""
    parts = [f"{status.name} {stage_text(status)}" for status in statuses if status.is_alive]
    return " · ".join([*(parts or ["no service running"]), *([trouble] if trouble else [])])


def is_attached(status: ServiceStatus) -> bool:
    """Somebody else started it."""
    return status.job.source == ATTACHED


def status_line(status: ServiceStatus) -> str:
    """One service in one line, for watching it start."""
    job = ATTACHED if is_attached(status) else f"job {status.job.job_id}"
    parts = [status.name, job, stage_text(status), ",".join(status.job.nodes)]
    return "  ".join(part for part in (*parts, _detail(status)) if part)


def _detail(status: ServiceStatus) -> str:
    """Without why it is queued, which stands beside its stage."""
    if status.stage is not Stage.QUEUED:
        return status.detail
    return status.detail.removeprefix(status.job.reason).removeprefix("; ")


def ready_text(status: ServiceStatus) -> str:
    """What `check` answers: `chroma is ready at http://... after 12.3 s`."""
    if status.stage is not Stage.READY:
        return with_advice(status_line(status), status)
    where = f" at {status.endpoint.url}" if status.endpoint else ""
    parts = f"\n  {status.parts}" if status.parts else ""
    if is_attached(status) or status.ready_after_s is None:
        return f"{status.name} is ready{where}{parts}"
    return f"{status.name} is ready{where} after {format_duration(status.ready_after_s)}{parts}"


def attached_text(status: ServiceStatus) -> str:
    """What `attach` answers: `vllm is attached: https://host/v1 0.32.0`."""
    where = status.endpoint.url if status.endpoint else ""
    return f"{status.name} is attached: {where}" + (f" ({status.detail})" if status.detail else "")


def stopped_text(status: ServiceStatus) -> str:
    """What `stop` answers; a service that had died before says so, and an attached one goes on."""
    if is_attached(status):
        return f"{status.name} detached; what somebody else started goes on"
    if status.stage is Stage.FAILED:
        return with_advice(f"{status.name} had ended already: {status.detail}", status)
    return f"{status.name} stopped" + (f" (job {status.job.job_id})" if status.job.job_id else "")


def with_advice(text: str, status: ServiceStatus) -> str:
    advice = status.advice or status.job.advice
    return f"{text}\n  {advice}" if advice else text


def status_table(statuses: Sequence[ServiceStatus]) -> str:
    """Every service in one table, the living ones first, and below it what to do about those that need it."""
    rows = [_status_row(status) for status in sorted(statuses, key=lambda each: not each.is_alive)]
    headers = ("service", "kind", "state", "job", "nodes", "left", "address", "detail")
    below = {status.name: _below_table(status) for status in statuses}
    return "\n".join([table(headers, rows), *(f"{name}: {text}" for name, text in below.items() if text)])


def _below_table(status: ServiceStatus) -> str:
    """Why a service died, which takes more words than a column has, and what to do."""
    cause = status.detail if status.stage is Stage.FAILED else ""
    return "; ".join(filter(None, (cause, status.advice or status.job.advice)))


def _status_row(status: ServiceStatus) -> tuple[str, ...]:
    left_s = status.job.time_left_s
    return (
        status.name,
        status.kind,
        stage_text(status),
        ATTACHED if is_attached(status) else status.job.job_id,
        ",".join(status.job.nodes),
        clock_text(left_s) if status.is_alive and left_s is not None else "",
        status.endpoint.url if status.endpoint and status.is_alive else "",
        # How the job of a service ended that was to end is no news.
        _detail(status) if status.is_alive or is_attached(status) else "",
    )


def summary_line(run: "RunSummary") -> str:
    """A run in a few words: `2026-11-20 13:14  VALID  chroma search  412 queries/s`."""
    parts = (_when(run), _verdict(run), f"{run.service} {run.bench}".strip(), run.headline or run.problem)
    return "  ".join(part for part in parts if part)


def runs_table(runs: Sequence["RunSummary"], width: int | None = None) -> str:
    """All runs, one a row; where `width` is too small, without what a run's id and `show` tell, too."""
    rows = [
        (
            run.run_id,
            _when(run),
            run.name or run.service,
            run.bench,
            _verdict(run),
            run.headline or run.problem,
            format_size(run.size_bytes),
            " ".join(run.tags.words),
        )
        for run in runs
    ]
    headers = ("run", "created (UTC)", "service", "bench", "verdict", "result", "size", "tags")
    shown = [name for name in headers if name != "tags" or any(run.tags.words for run in runs)]
    text = _columns(headers, rows, shown)
    for name in _SPARED if width else ():
        if max(map(len, text.splitlines())) > (width or 0):
            shown.remove(name)
            text = _columns(headers, rows, shown)
    return text


def _columns(headers: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[str]) -> str:
    places = [headers.index(name) for name in shown]
    return table(shown, [[row[place] for place in places] for row in rows])


def repeats_text(groups: Sequence["Repeats"]) -> str:
    """Per group what was asked, then median, scatter and range of every main number."""
    blocks = []
    for group in groups:
        left = f", {group.left_out} did not complete" if group.left_out else ""
        runs = f"{len(group.runs)} run{'s' if len(group.runs) != 1 else ''}{left}"
        rows = [_steadiness_row(each) for each in group.metrics]
        headers = ("", "median", "CV", "lowest", "highest", "runs", "")
        lines = [f"{group.service} {group.bench} ({group.asked}): {runs}"]
        blocks.append("\n".join([*lines, *([table(headers, rows)] if rows else [])]))
    return "\n\n".join(blocks)


def _steadiness_row(each: "Steadiness") -> tuple[str, ...]:
    cv = "-" if each.cv is None else f"{100 * each.cv:.1f} %"
    values = [format_number(value) for value in (each.low, each.high)]
    median = f"{format_number(each.median)} {each.unit}".rstrip()
    return (each.metric.replace("_", " "), median, cv, *values, str(each.n), each.word)


def _when(run: "RunSummary") -> str:
    return run.created_utc[:16].replace("T", " ")


def _verdict(run: "RunSummary") -> str:
    """The verdict, or why there is none yet: an INVALID run that did not complete says what befell it."""
    if run.problem:
        return "unreadable"
    state = run.state.value if run.state else ""
    if state and state != "COMPLETE":
        return state
    return run.verdict.value if run.verdict else ""


def findings_text(findings: Sequence["Finding"]) -> str:
    """One line per check, its remedy below it when there is a problem."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        word = "ok" if finding.ok else "problem" if finding.is_problem else "absent"
        lines.append(f"{word:7}  {finding.name:{width}}  {finding.detail}".rstrip())
        if not finding.ok and finding.remedy:
            lines.append(f"{'':7}  {'':{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def calibration_text(found: "Calibration") -> str:
    """The load and its cost, a table of what was reported and what was true, and the verdict."""
    ms = [
        (each.name, each.true_ms, each.reported_ms, each.error_ms)
        for each in (found.ttft_p50, found.ttft_p99, found.gap_p50, found.gap_p99)
    ]
    rows = [(name, *(f"{value:.3f}" for value in values)) for name, *values in ms]
    workers = f"{found.workers} worker" + ("s" if found.workers > 1 else "")
    lines = [
        f"{found.load}, {workers} on {found.host}: {format_number(found.tokens_per_s, 3)} tok/s, "
        f"{found.answers:,} answers",
        f"client: {format_number(found.cpu_percent, 3)} % of a core, "
        f"{format_number(found.cpu_s_per_1k_tokens, 2)} CPU s per 1k tokens; "
        f"from send to stamp p99 {format_number(found.way_p99_ms, 3)} ms",
        "",
        table(("ms", "true", "reported", "error"), rows),
    ]
    return "\n".join([*lines, *([found.verdict] if found.is_exact else [])])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns, never cut: text that is piped or redirected must stay whole."""
    from tabulate import tabulate

    return tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)
