"""What reports say of runs of many phases, of stages, of files, and of several services at once."""

import unittest
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from test.fakes.records import level, levels_record, sample_record
from test.fakes.studies import clients_study
from test.test_report import Page
from test.test_resources import busy_record

from aifbench.report import content, facts, numbers
from aifbench.report.html import run_html
from aifbench.report.markdown import run_markdown
from aifbench.report.meanings import meanings, symbols
from aifbench.report.resources import resource_findings
from aifbench.report.stage_view import stage_table, stages_of_points
from aifbench.report.study_content import best_point, head_names, other_table, rate_name, result_table
from aifbench.report.study_html import study_html
from aifbench.report.study_method import facts as study_facts
from aifbench.report.study_points import StudyView, view
from aifbench.report.svg import Panel, linear, logarithmic
from aifbench.report.tables import WIDTH, run_text
from aifbench.results.record import Check, Measurement, Metric, RunRecord, Verdict

LATENCIES = tuple(Metric(f"service_{p}", ms, "ms", "lower", n=5000) for p, ms in (
    ("p50", 0.71), ("p90", 0.86), ("p99", 1.87), ("p999", 5.53), ("mean", 0.76), ("max", 20.3),
))  # fmt: skip
SHARES = {"wait": 1.0, "retrieve": 5.0, "generate": 93.5, "client": 0.5}


def phase(name: str, *checks: Check, unit: str = "blocks/s", clients: int = 1) -> Measurement:
    metrics = (
        Metric("throughput", 1296.0, "ops/s", "higher", n=5000),
        Metric("item_rate", 1296.0, unit, "higher", n=5000),
        Metric("bandwidth", 1296.0, "MiB/s", "higher"),
        Metric("time", 9.8, "s", "lower"),
        *LATENCIES,
    )
    load = f"closed loop, {clients} client{'s' if clients > 1 else ''}"
    return Measurement(name, name, load, "posix", 1, (0.0, 9.8), metrics, checks, {"OK": 5000})


def took(seconds: float, limit_s: float = 10.0) -> Check:
    verdict = Verdict.VALID if seconds >= limit_s else Verdict.WARN
    return Check(
        "DURATION", verdict, f"measured for {seconds:g} s", seconds, limit_s, "s", "give it more work"
    )


def of_files(**changes: Any) -> RunRecord:
    measured = [phase(f"phase-{i}", took(8.0 + i)) for i in range(5)]
    measured.append(phase("save", took(0.5, 1.0), clients=8))
    service = {
        "kind": "files", "name": "files", "scheduler": "local", "authentication": "none",
        "ready_after_s": 0.236427, "endpoint": {"scheme": "file", "host": "", "prefix": "/scratch/me"},
    }  # fmt: skip
    disk = {"host": "node1", "is_remote": False, "link_bytes_per_s": 1.25e9, "free_mib": 2048}
    recipe = {
        "bench": "all", "duration": 12, "data": 2**30, "given": ["duration"],
        "facts": {"file_systems": [disk], "sizes_bytes": {"memory": 2**34}},
    }  # fmt: skip
    record = sample_record(measurements=tuple(measured), service=service, recipe=recipe)
    return replace(record, **changes)


def staged() -> Measurement:
    own = [m for name, ms in (("retrieve", 6.7), ("generate", 315.0)) for m in (
        Metric(f"{name}_p50", ms, "ms", "lower"), Metric(f"{name}_p90", 2 * ms, "ms", "lower"),
    )]  # fmt: skip
    shares = [Metric(f"{name}_share", share, "%") for name, share in SHARES.items()]
    first = level("rag", "poisson 4/s", load=4)
    return replace(first, metrics=(*first.metrics, *own, *shares))


def study_of(changed: Mapping[str, Any] | None = None, *more: Metric) -> StudyView:
    record, runs = clients_study(clients=(1, 2))
    made = {}
    for run_id, run in runs.items():
        ours = tuple(replace(m, metrics=(*m.metrics, *more)) for m in run.measurements)
        made[run_id] = replace(run, measurements=ours, recipe={**run.recipe, **(changed or {})})
    return view(record, made)


def words(lines: Sequence[tuple[str, str]]) -> dict[str, str]:
    return dict(lines)


class ManyPhases(unittest.TestCase):
    def test_loads_that_are_alike_are_told_once(self) -> None:
        told = [text for name, text in facts.facts(of_files()) if name == facts.LOAD]
        self.assertEqual(len(told), 2)
        self.assertIn("closed loop, 1 client, 1 worker by posix: phase-0, phase-1", told[0])
        self.assertIn("closed loop, 8 clients, 1 worker by posix: save", told[1])
        different = facts.facts(levels_record())
        self.assertNotIn(facts.LOAD, words(different))

    def test_checks_are_told_from_where_to_where(self) -> None:
        table = content.check_table(of_files())
        self.assertEqual(
            [cell.text for cell in table.headers], ["check", "held", "lowest", "highest", "limit"]
        )
        (row,) = table.rows
        self.assertEqual([cell.text for cell in row], ["duration", "3 of 6", "0.5 s", "12 s", "1 s or 10 s"])
        self.assertIs(row[1].verdict, Verdict.WARN)

    def test_what_is_not_counted_alike_has_no_lowest(self) -> None:
        record = of_files()
        odd = Check("CACHE", Verdict.VALID, "in the cache", 0.25, None, "share")
        first, second, *rest = record.measurements
        other = replace(odd, unit="samples")
        changed = (replace(first, checks=(odd,)), replace(second, checks=(other,)), *rest)
        rows = {row[0].text: row for row in content.check_table(replace(record, measurements=changed)).rows}
        self.assertEqual([cell.text for cell in rows["cache"]], ["cache", "2 of 2", "", "", ""])
        alone = content.check_table(replace(record, measurements=changed[:1]))
        self.assertEqual(alone.rows[0][1].text, "25 %")

    def test_a_terminal_holds_the_table_and_is_told_what_it_does_not_hold(self) -> None:
        more = [
            Metric(name, 1234.5678, "MiB/s")
            for name in ("data_rate", "bandwidth_per_node", "bandwidth_first_done", "ttfb_p50", "ttfb_p99")
        ]
        record = of_files()
        wide = tuple(replace(m, metrics=(*m.metrics, *more)) for m in record.measurements)
        lines = run_text(replace(record, measurements=wide)).splitlines()
        self.assertLessEqual(max(map(len, lines)), WIDTH)
        self.assertIn("not shown: p99.9; `report` has every number", lines)

    def test_bandwidth_stands_before_latencies(self) -> None:
        heads = [cell.text for cell in numbers.narrow_table(of_files()).headers]
        self.assertLess(heads.index("bandwidth"), heads.index("p50"))
        self.assertNotIn("mean", heads)

    def test_operations_that_are_items_are_told_once(self) -> None:
        self.assertNotIn("achieved", " ".join(row[0].text for row in self.rows(phase("one"))))
        differs = replace(
            phase("one"), metrics=(Metric("throughput", 4.0, "ops/s"), *phase("one").metrics[1:])
        )
        self.assertIn("achieved (ops/s)", [row[0].text for row in self.rows(differs)])

    def rows(self, measurement: Measurement) -> tuple[tuple[content.Cell, ...], ...]:
        return numbers.result_table(of_files(measurements=(measurement,))).rows


class Facts(unittest.TestCase):
    def test_of_files_nobody_is_authenticated(self) -> None:
        told = words(facts.facts(of_files()))["service"]
        self.assertEqual(told, "files at file:///scratch/me, scheduler local, ready after 236 ms")

    def test_values_have_their_units(self) -> None:
        told = words(facts.facts(of_files()))
        self.assertEqual(told["benchmark"], "duration 12 s, data 1 GiB")
        self.assertEqual(told["found: sizes"], "memory 16 GiB")
        self.assertEqual(told["found: file systems"], "host node1, remote no, link 1.16 GiB/s, free 2 GiB")

    def test_rates_and_times_are_as_long_as_they_are_known(self) -> None:
        record = of_files(
            recipe={"bench": "mixed", "rate": 100.0, "rates": [2.5, 10.0], "ingest_rate": 500.0},
            created_utc="2026-11-20T13:14:55Z",
            ended_utc="2026-11-20T13:14:55Z",
        )
        told = words(facts.facts(record))
        self.assertEqual(told["benchmark"], "rate 100/s, rates 2.5/s, 10/s, ingest rate 500/s")
        self.assertEqual(told["when"], "2026-11-20 13:14:55 to 13:14:55 UTC (under 1 s)")
        self.assertEqual(
            facts.span("2026-11-20T13:14:55Z", "2026-11-20T13:15:13Z"),
            "2026-11-20 13:14:55 to 13:15:13 UTC (18 s)",
        )

    def test_of_several_services_each_has_its_line(self) -> None:
        members = {"sql": {"service": "x", "bench": "point", "clients": 4, "scale": 1, "given": ["clients"]}}
        record = of_files(recipe={"bench": "interference", "rounds": 2, "members": members, "given": []})
        self.assertEqual(words(facts.facts(record))["benchmark: sql"], "bench point, clients 4, scale 1")
        brief = words(facts.brief_facts(record))
        self.assertEqual(brief["benchmark: sql"], "clients 4")
        self.assertIn("  benchmark: sql clients 4", run_text(record))

    def test_the_verdict_says_what_to_do(self) -> None:
        said = content.verdict_sentence(of_files())
        self.assertIn("first of all phase-0: measured for 8 s (give it more work)", said)


class Words(unittest.TestCase):
    def test_an_interval_that_tells_nothing_has_no_digits(self) -> None:
        self.assertEqual(
            content.interval_text(Metric("slowdown_p99", 0.39, "x", low=9.7e-9, high=1.5e7)), "(0, ∞)"
        )
        self.assertEqual(
            content.interval_text(Metric("slowdown_p99", 1.3, "x", low=1.2, high=1.5)), "[1.2, 1.5]"
        )

    def test_metrics_are_explained_by_the_words_of_their_rows_and_by_tools_of_their_trade(self) -> None:
        table = meanings(of_files())
        rows = {row[0].text: row for row in table.rows}
        self.assertEqual(rows["item rate"][0].note, "shown as: items")
        told = " ".join(row[-1].text for row in table.rows)
        self.assertIn("ior: bw(MiB/s)", told)
        self.assertNotIn("guidellm", told)
        self.assertEqual([names for names, _ in symbols(table)], ["te"])
        of_search = meanings(sample_record())
        self.assertEqual([cell.text for cell in of_search.headers], ["metric", "formula"])

    def test_every_number_is_on_the_page(self) -> None:
        page = Page(run_html(of_files()))
        self.assertEqual(page.open, [])
        self.assertIn("save: 10 numbers", page.text)

    def test_a_machine_that_was_busy_in_several_phases_is_told_once(self) -> None:
        record = busy_record()
        node = record.resources.nodes[0]
        spans = [replace(record.resources.phases[0], phase=name) for name in ("one", "two")]
        uses = [replace(node.phases[0], phase=name, mean={"cpu_percent": cpu}) for name, cpu in
                (("one", 97.0), ("two", 99.0))]  # fmt: skip
        nodes = (replace(node, phases=tuple(uses), memory_bytes=0.0),)
        both = replace(record, resources=replace(record.resources, phases=tuple(spans), nodes=nodes))
        (told,) = resource_findings(both)
        self.assertIn("CPU 97 to 99 % busy in phases one, two", told)


class Stages(unittest.TestCase):
    def test_a_run_says_where_its_time_goes(self) -> None:
        record = sample_record(measurements=(staged(),))
        table = stage_table(record)
        self.assertEqual([row[0].text for row in table.rows], list(SHARES))
        self.assertEqual([cell.text for cell in table.rows[2]], ["generate", "93.5", "315", "630", ""])
        for document in (run_html(record), run_markdown(record)):
            self.assertIn("Where the time goes", document)
        self.assertNotIn("Where the time goes", run_html(sample_record()))

    def test_a_study_does_point_by_point(self) -> None:
        shares = [Metric(f"{name}_share", share, "%") for name, share in SHARES.items()]
        times = [Metric(f"{name}_p50", 6.7, "ms") for name in ("retrieve", "generate")]
        table = stages_of_points(study_of(None, *shares, *times))
        self.assertEqual([cell.text for cell in table.headers], ["point", *SHARES])
        self.assertEqual((table.rows[0][2].text, table.rows[0][2].note), ("5", "p50 6.7 ms"))
        self.assertEqual(stages_of_points(study_of()).rows, ())


class Studies(unittest.TestCase):
    def test_what_was_found_anew_in_each_run_is_no_fact_of_the_study(self) -> None:
        record, runs = clients_study(clients=(1, 2))
        made = {
            run_id: replace(run, recipe={**run.recipe, "facts": {"bucket": run_id, "region": "r"}})
            for run_id, run in runs.items()
        }
        self.assertEqual(words(study_facts(view(record, made)))["found"], "region r")

    def test_values_are_those_that_were_typed(self) -> None:
        study = study_of()
        text = study.record.recipe_text + "\nbaseline: {start.fsync: on}\n"
        told = words(study_facts(replace(study, record=replace(study.record, recipe_text=text))))
        self.assertIn("baseline start.fsync=on", told["design"])

    def test_bandwidth_is_the_work_of_files(self) -> None:
        study = study_of(None, Metric("bandwidth", 900.0, "MiB/s", "higher"))
        self.assertEqual(rate_name(study), "bandwidth")
        self.assertIn("bandwidth", [cell.text for cell in result_table(study).headers])

    def test_interference_is_told_by_slowdowns(self) -> None:
        record, runs = clients_study(clients=(1, 2))
        made = {}
        for run_id, run in runs.items():
            lost = Metric("slowdown_p99", 3.0 - run.recipe["clients"], "x", "lower")
            made[run_id] = replace(
                run, measurements=tuple(replace(m, metrics=(*m.metrics, lost)) for m in run.measurements)
            )
        study = view(record, made)
        self.assertEqual(head_names(study), ["slowdown_p99"])
        worst = best_point(study)
        assert worst is not None
        self.assertEqual(worst.settings["clients"], 1)

    def test_a_number_that_only_some_runs_have_says_so(self) -> None:
        record, runs = clients_study(clients=(1, 2))
        first = next(iter(runs))
        fewer = replace(runs[first].measurements[0], metrics=tuple(
            m for m in runs[first].measurements[0].metrics if m.name != "service_p99"
        ))  # fmt: skip
        study = view(record, {**runs, first: replace(runs[first], measurements=(fewer,))})
        notes = " ".join(cell.note for row in result_table(study).rows for cell in row)
        n = len(study.points[0].used)
        self.assertIn(f"{n - 1} of {n} runs", notes)

    def test_a_point_with_a_run_that_counts_is_not_marked_invalid(self) -> None:
        record, runs = clients_study(clients=(1, 2))
        first = next(iter(runs))
        bad = Check("ERRORS", Verdict.INVALID, "2 % failed", 2.0, 0.1, "%")
        spoilt = tuple(replace(m, checks=(*m.checks, bad)) for m in runs[first].measurements)
        table = result_table(view(record, {**runs, first: replace(runs[first], measurements=spoilt)}))
        self.assertIn("1\N{NO-BREAK SPACE}INVALID", table.rows[0][1].note)
        self.assertEqual([row[1].verdict for row in table.rows], [Verdict.WARN, Verdict.VALID])

    def test_other_measurements_share_one_table(self) -> None:
        record, runs = clients_study(clients=(1, 2))
        made = {
            run_id: replace(run, measurements=(
                *run.measurements, replace(run.measurements[0], phase="later", stream="later"),
            ))
            for run_id, run in runs.items()
        }  # fmt: skip
        study = view(record, made)
        self.assertEqual([row[0].text for row in other_table(study).rows], ["later", "later"])
        self.assertEqual(study_html(study).count("<h2>Other measurements</h2>"), 1)


class Axes(unittest.TestCase):
    def test_an_axis_can_stand_at_the_values_that_were_measured(self) -> None:
        panel = Panel(logarithmic([4, 32, 32.5], 0, 800), linear([1], 100, 0), "work", "clients")
        panel.grid(x_at=[4, 32, 32.5])
        drawn = "".join(panel.parts)
        self.assertIn(">4</text>", drawn)
        self.assertIn(">32</text>", drawn)
        self.assertNotIn(">32.5</text>", drawn)  # it would lie on the one before


if __name__ == "__main__":
    unittest.main()
