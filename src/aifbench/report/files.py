"""The files of a report: of a run beside its record, of a study in its directory, or elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aifbench.errors import ConfigError
from aifbench.report import html, markdown, study_export, study_html, study_markdown
from aifbench.report.study_points import StudyView
from aifbench.results import export
from aifbench.results.files import replace_file
from aifbench.results.record import RunRecord

FORMATS = ("html", "md", "csv", "json")

Texts = Mapping[str, tuple[str, Callable[[], str]]]  # format to (file name, what makes its text)


def run_texts(record: RunRecord) -> Texts:
    return {
        "html": ("report.html", lambda: html.run_html(record)),
        "md": ("report.md", lambda: markdown.run_markdown(record)),
        "csv": ("metrics.csv", lambda: export.metrics_csv(record)),
        "json": ("metrics.json", lambda: export.metrics_json(record)),
    }


def study_texts(study: StudyView) -> Texts:
    return {
        "html": ("study.html", lambda: study_html.study_html(study)),
        "md": ("study.md", lambda: study_markdown.study_markdown(study)),
        "csv": ("study.csv", lambda: study_export.study_csv(study)),
        # study.json is the study's own record
        "json": ("report.json", lambda: study_export.study_json(study)),
    }


def write(texts: Texts, directory: Path, formats: Sequence[str] = (), prefix: str = "") -> list[Path]:
    """Those formats, or all of them, into `directory`, which is made; the files in the order of FORMATS.

    Raises ConfigError when one cannot be written.
    """
    written = []
    for name in (each for each in FORMATS if each in (formats or FORMATS)):
        file, make = texts[name]
        path = directory / f"{prefix}{file}"
        text = make()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            replace_file(path, text)
        except OSError as error:
            hint = "name a directory that you can write to: --out DIR"
            raise ConfigError(f"cannot write {path}: {error.strerror}", hint=hint) from error
        written.append(path)
    return written
