"""What every page is made of: a document without script or network, tables, badges, figures."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from aifbench.report.content import Cell, Table
from aifbench.report.guidance import Advice
from aifbench.report.level_figures import Figure
from aifbench.results.record import Verdict

SIGNS = {Verdict.VALID: "✓", Verdict.WARN: "!", Verdict.INVALID: "✕"}


def document(title: str, body: Iterable[str]) -> str:
    """The complete page; empty parts are left out, and everything in `body` must be escaped already."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    inner = "\n".join(filter(None, body))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>\n{style}</style></head>\n<body><main>\n{inner}\n</main></body></html>\n"
    )


def card(name: str, value: str, unit: str, *small: str) -> str:
    """One number that is to be remembered, with its name above and what belongs to it below."""
    below = "".join(f"<small>{escape(text)}</small>" for text in small if text)
    return (
        f'<div class="card"><small>{escape(name)}</small>'
        f"<b>{escape(value)}<span>{escape(unit)}</span></b>{below}</div>"
    )


def cards(made: Iterable[str]) -> str:
    inner = "".join(made)
    return f'<div class="cards">{inner}</div>' if inner else ""


def badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict.value}">{SIGNS[verdict]} {verdict.value}</span>'


def section(title: str, body: str) -> str:
    return f'<section aria-label="{escape(title)}"><h2>{escape(title)}</h2>{body}</section>' if body else ""


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{rows}</dl>" if rows else ""


def bullets(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="soft">{items}</ul>' if items else ""


def table_html(table: Table, css: str = "") -> str:
    """Numbers stand on the right; `words` makes all columns text."""
    css = css or ("wide" if len(table.headers) > _WIDE else "")
    number = "" if css.startswith("words") else ' class="num"'
    heads = "".join(
        f'<th scope="col"{number if i else ""}>{_words(h)}</th>' for i, h in enumerate(table.headers)
    )
    rows = "".join(_row(row, number) for row in table.rows)
    kind = f' class="{css}"' if css else ""
    body = f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="scroll"><table{kind}>{body}</table></div>'


_WIDE = 6  # columns beyond which print gets smaller


def _row(cells: tuple[Cell, ...], number: str) -> str:
    others = "".join(f"<td{number}>{_words(cell)}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{_words(cells[0])}</th>{others}</tr>'


def _words(cell: Cell) -> str:
    if cell.verdict and not cell.text:
        return badge(cell.verdict)
    sign = (
        f'<span class="tone {cell.verdict.value}">{SIGNS[cell.verdict]}</span>&nbsp;' if cell.verdict else ""
    )
    return sign + escape(cell.text) + (f"<small>{escape(cell.note)}</small>" if cell.note else "")


def figure_html(drawn: Figure) -> str:
    """The drawing, its finding, and behind a fold the numbers that it was drawn from."""
    verdict = f" {badge(drawn.verdict)}" if drawn.verdict else ""
    data = f"<details><summary>Data</summary>{table_html(drawn.data)}</details>" if drawn.data else ""
    return (
        f"<figure><h3>{escape(drawn.title)}{verdict}</h3>{drawn.svg}"
        f"<figcaption>{escape(drawn.caption)}</figcaption>{data}</figure>"
    )


def advice_html(given: Iterable[Advice]) -> str:
    """What to do, the numbers that say so, and what to type."""
    items = "".join(
        f'<li><span>{escape(each.text)} <span class="soft">Because: {escape(each.reasons)}.</span>'
        + (f"<code>{escape(each.command)}</code>" if each.command else "")
        + "</span></li>"
        for each in given
    )
    return f'<ul class="advice">{items}</ul>' if items else ""
