"""A comparison as one HTML page and as Markdown: no script, no network, and all text from outside escaped."""

from html import escape

from aifbench.report import comparison as words
from aifbench.report import markdown_parts as parts
from aifbench.report.comparison_figures import comparison_figures
from aifbench.report.page import bullets, card, cards, document, figure_html, section, table_html
from aifbench.results.compared import Comparison, Pair


def comparison_html(found: Comparison) -> str:
    """The complete page."""
    pairs = [(words.letter(i), pair) for i, pair in enumerate(found.pairs, start=1)]
    body = (
        _top(found),
        section("What differs", _differences(found)),
        *(section(f"{name} against A", _results(name, pair)) for name, pair in pairs),
        section("Figures", "".join(figure_html(drawn) for drawn in comparison_figures(found))),
        section("To bear in mind", bullets(_notes(found))),
        *(section(f"Every other metric, {name} against A", _others(name, pair)) for name, pair in pairs),
        section("Runs", table_html(words.run_table(found), "words")),
        section("Method", f"<p>{escape(words.METHOD)}</p>"),
        "<footer>All numbers follow from the records of these runs.</footer>",
    )
    return document(words.title(found), body)


def comparison_markdown(found: Comparison) -> str:
    """The same for wikis and merge requests, without figures and without the metrics that nobody quotes."""
    sides = [f"**{words.letter(i)}** {parts.safe(words.side_line(s))}" for i, s in enumerate(found.sides)]
    blocks = [f"# {parts.safe(words.title(found))}", parts.bullets(sides)]
    differing = words.difference_table(found)
    blocks.append(
        parts.section("What differs", parts.table_text(differing, is_text=True) if differing.rows else _SAME)
    )
    for i, pair in enumerate(found.pairs, start=1):
        name = words.letter(i)
        tables = words.tables(pair, ("A", name), words.SHOWN)
        shown = "\n\n".join(f"### {parts.safe(head)}\n\n{parts.table_text(table)}" for head, table in tables)
        blocks.append(parts.section(f"{name} against A", f"{parts.safe(words.summary(pair))}\n\n{shown}"))
    blocks.append(parts.section("To bear in mind", parts.bullets(map(parts.safe, _notes(found)))))
    blocks.append(parts.section("Runs", parts.table_text(words.run_table(found), is_text=True)))
    blocks.append(parts.section("Method", words.METHOD))
    return "\n\n".join(filter(None, blocks)) + "\n"


_SAME = "Nothing: configuration and provenance are the same."


def _top(found: Comparison) -> str:
    sides = "".join(
        f"<dt>{words.letter(i)}</dt><dd>{escape(words.side_line(side))}</dd>"
        for i, side in enumerate(found.sides)
    )
    return (
        '<header><p class="eyebrow">AI Factory Bench · comparison</p>'
        f"<h1>{escape(words.title(found))}</h1><dl>{sides}</dl>{_cards(found)}</header>"
    )


def _cards(found: Comparison) -> str:
    """Of the first pair, what the runs are remembered by: at most three."""
    name, pair = words.letter(1), found.pairs[0]
    rows = pair.of_rank(words.SHOWN[0])[:3]
    return cards(
        card(
            f"{words.full_name(row)}, {name} / A",
            words.ratio_text(row).partition(" [")[0],
            "",
            words.verdict_text(row),
            f"A: {words.median_text(row.finding.a.median, row.unit)}, "
            f"{name}: {words.median_text(row.finding.b.median, row.unit)}",
        )
        for row in rows
    )


def _differences(found: Comparison) -> str:
    table = words.difference_table(found)
    return table_html(table, "words even") if table.rows else f"<p>{_SAME}</p>"


def _results(name: str, pair: Pair) -> str:
    tables = words.tables(pair, ("A", name), words.SHOWN)
    shown = "".join(f"<h3>{escape(head)}</h3>{table_html(table)}" for head, table in tables)
    return f"<p>{escape(words.summary(pair))}.</p>{shown}"


def _others(name: str, pair: Pair) -> str:
    tables = words.tables(pair, ("A", name), words.ALL[2:])
    shown = "".join(f"<h3>{escape(head)}</h3>{table_html(table)}" for head, table in tables)
    return f"<details><summary>Judged as a family of their own</summary>{shown}</details>" if shown else ""


def _notes(found: Comparison) -> list[str]:
    return [*words.left_out_notes(found.sides), *found.notes]
