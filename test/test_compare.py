"""Comparing runs: what a side may be called, what differs, what is said, and what is refused."""

import json
import random
import unittest
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from test.fakes.clock import FakeClock
from test.fakes.records import empty_record, ingest, levels_record, sample_record, search

from aifbench.errors import ResultError, SchemaMismatch, UnknownRun, UsageError
from aifbench.report.comparison_csv import comparison_csv
from aifbench.report.comparison_html import comparison_html, comparison_markdown
from aifbench.report.comparison_text import comparison_text
from aifbench.results.archive import save_zip
from aifbench.results.compared import Comparison, Rank, Row
from aifbench.results.comparison import compare_sides
from aifbench.results.differences import differences
from aifbench.results.record import Check, Measurement, RunRecord, RunState, Verdict
from aifbench.results.selection import Side, select_side, select_sides, split_filters
from aifbench.results.store import RunStore
from aifbench.results.tags import say
from aifbench.stats.comparison import Change

BASE, SEARCH, INGEST = sample_record(), search(), ingest()


def scaled(measurement: Measurement, slower: float) -> Measurement:
    """Every time `slower` times as long, every rate as many times lower; shares as they were."""

    def value(name: str, direction: str, old: float | None) -> float | None:
        if old is None or name.startswith("recall"):
            return old
        return old * slower if direction == "lower" else old / slower

    return replace(
        measurement,
        metrics=tuple(replace(m, value=value(m.name, m.direction, m.value)) for m in measurement.metrics),
        latency_quantiles={share: ms * slower for share, ms in measurement.latency_quantiles.items()},
    )


def run_id(number: int, kind: str = "chroma") -> str:
    return f"20261120-{13 + number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}-{kind}-{number:04x}"


def runs(
    count: int, slower: float = 1.0, *, first: int = 0, step: int = 2, **changes: Any
) -> list[RunRecord]:
    """Repeats that scatter by one percent; `first` and `step` number them, and their time."""
    source = random.Random(first)
    measured = changes.pop("measurements", None) or (SEARCH, INGEST)
    found = []
    for index in range(count):
        number = first + step * index
        factor = slower * source.gauss(1, 0.01)
        created = f"2026-11-20T13:{number // 60:02d}:{number % 60:02d}Z"
        each = tuple(scaled(m, factor) for m in measured)
        found.append(replace(BASE, run_id=run_id(number), created_utc=created, measurements=each, **changes))
    return found


def side(records: Sequence[RunRecord], label: str = "side") -> Side:
    return Side(label, tuple(records))


def compared(a: Sequence[RunRecord], b: Sequence[RunRecord], **options: Any) -> Comparison:
    return compare_sides([side(a, "old"), side(b, "new")], **options)


def row(found: Comparison, metric: str, phase: str = "search") -> Row:
    return next(r for r in found.pairs[0].rows if r.metric == metric and r.key[1] == phase)


def invalid(record: RunRecord) -> RunRecord:
    bad = Check("ERRORS", Verdict.INVALID, "3 % of all operations failed", 3.0, 1.0, "%")
    first, *rest = record.measurements
    return replace(record, measurements=(replace(first, checks=(*first.checks, bad)), *rest))


class Verdicts(unittest.TestCase):
    def test_a_slower_side_has_regressed_in_rate_and_latency(self) -> None:
        found = compared(runs(5), runs(5, 1.2, first=1))
        for metric in ("throughput", "response_p99"):
            self.assertIs(row(found, metric).finding.change, Change.REGRESSED, metric)
        self.assertIs(row(found, "recall@10").finding.change, Change.NO_CHANGE)
        ratio = row(found, "response_p99").finding.ratio
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        self.assertTrue(1.1 < ratio.low < 1.2 < ratio.high < 1.3, ratio)

    def test_the_other_way_round_it_has_improved(self) -> None:
        found = compared(runs(5, 1.2, first=1), runs(5))
        self.assertIs(row(found, "response_p99").finding.change, Change.IMPROVED)

    def test_the_same_twice_has_changed_in_nothing(self) -> None:
        found = compared(runs(8), runs(8, first=1))
        self.assertLessEqual(found.changes(*Rank), {Change.NO_CHANGE, Change.UNDECIDED, Change.WITHIN_NOISE})
        self.assertIs(row(found, "throughput").finding.change, Change.NO_CHANGE)

    def test_the_headline_comes_first_and_is_a_family_of_its_own(self) -> None:
        found = compared(runs(5), runs(5, 1.2, first=1))
        primary = found.pairs[0].of_rank(Rank.PRIMARY)
        self.assertEqual([r.metric for r in primary], ["throughput", "response_p99", "recall@10"])
        p, raw = primary[0].finding.p, primary[0].finding.raw_p
        assert p is not None and raw is not None
        self.assertAlmostEqual(p, 3 * raw)  # the smallest of three

    def test_three_sides_are_each_held_against_the_first(self) -> None:
        sides = [side(runs(5, first=i), str(i)) for i in range(3)]
        found = compare_sides(sides)
        self.assertEqual([(p.base.label, p.other.label) for p in found.pairs], [("0", "1"), ("0", "2")])

    def test_points_of_two_studies_are_compared_point_by_point(self) -> None:
        def study(first: int, slow: float) -> list[RunRecord]:
            return [
                replace(
                    r,
                    recipe={
                        **r.recipe,
                        "rate": rate,
                        "study": {"id": "s", "name": "n", "label": f"rate={rate}"},
                    },
                )
                for rate, factor, offset in ((50, 1.0, 0), (100, slow, 100))
                for r in runs(5, factor, first=first + offset)
            ]

        sides = [
            Side("a", tuple(study(0, 1.0)), by_point=True),
            Side("b", tuple(study(1, 1.3)), by_point=True),
        ]
        found = compare_sides(sides)
        changes = {r.key[0]: r.finding.change for r in found.pairs[0].rows if r.metric == "response_p99"}
        self.assertEqual(changes["rate=100"], Change.REGRESSED)
        self.assertNotEqual(changes["rate=50"], Change.REGRESSED)
        self.assertEqual([d.name for d in found.differences if d.name == "rate"], [])


class Counting(unittest.TestCase):
    """Which runs count, and what is said about too few of them."""

    def test_invalid_runs_are_shown_and_do_not_count(self) -> None:
        records = runs(5)
        found = compared([*records[:4], invalid(records[4])], runs(5, first=1))
        self.assertEqual(len(found.sides[0].judged), 4)
        self.assertIn("3 % of all operations failed", comparison_text(found))
        self.assertEqual(row(found, "throughput").finding.a.n, 4)

    def test_unless_they_are_asked_for(self) -> None:
        found = compared([*map(invalid, runs(5))], runs(5, first=1), with_invalid=True)
        self.assertEqual(len(found.sides[0].judged), 5)

    def test_a_side_without_a_run_that_counts_is_refused_with_the_way_out(self) -> None:
        with self.assertRaisesRegex(ResultError, "no run of old counts.*3 % of all.*--with-invalid"):
            compared([*map(invalid, runs(2))], runs(5, first=1))
        failed = [empty_record()]
        with self.assertRaisesRegex(ResultError, "FAILED, nothing was measured") as caught:
            compared(failed, runs(5, first=1))
        self.assertNotIn("--with-invalid", str(caught.exception))

    def test_of_several_sides_one_that_does_not_count_is_told_and_left_out(self) -> None:
        sides = [
            side(runs(5), "a"),
            side([*map(invalid, runs(5, first=1))], "b"),
            side(runs(5, first=20), "c"),
        ]
        found = compare_sides(sides)
        self.assertEqual([pair.other.label for pair in found.pairs], ["c"])
        self.assertIn("no run of b counts: ", " ".join(found.notes))

    def test_large_numbers_that_differ_are_shown(self) -> None:
        def asked(vectors: int, first: int) -> list[RunRecord]:
            return [replace(r, recipe={**r.recipe, "vectors": vectors}) for r in runs(2, first=first)]

        text = comparison_text(compared(asked(20_000, 0), asked(50_001, 1)))
        self.assertRegex(text, "vectors +20,000 +50,001")

    def test_running_ones_never_count(self) -> None:
        a = [replace(runs(1)[0], state=RunState.RUNNING), *runs(4, first=2)]
        found = compared(a, runs(5, first=1), with_invalid=True)
        self.assertEqual([reason for _, reason in found.sides[0].left_out], ["still RUNNING"])

    def test_three_runs_a_side_are_told_to_be_too_few(self) -> None:
        text = comparison_text(compared(runs(3), runs(3, 1.5, first=1)))
        self.assertIn(
            "3 runs per side can never reach p < 0.05: that needs 4 per side; 5 are recommended", text
        )
        self.assertIn("undecided: ", text)
        self.assertNotIn("regressed", text)

    def test_one_run_a_side_shows_numbers_and_no_verdict(self) -> None:
        text = comparison_text(compared(runs(1), runs(1, 1.5, first=1)))
        self.assertIn("one run per side: no interval and no verdict", text)
        self.assertRegex(text, r"response p99 .* 1\.[45]\dx ")
        self.assertNotIn("[", text.partition("search")[2])

    def test_four_runs_are_too_few_for_three_metrics_together(self) -> None:
        text = comparison_text(compared(runs(4), runs(4, 1.5, first=1)))
        self.assertIn(
            "3 primary metrics judged together can find nothing in 4 runs per side: that needs 5", text
        )

    def test_runs_of_one_side_that_were_asked_differently_are_no_repeats(self) -> None:
        a = [replace(r, recipe={**r.recipe, "rate": 50.0 + i}) for i, r in enumerate(runs(5))]
        notes = " ".join(compared(a, runs(5, first=1)).notes)
        self.assertIn("no repeats of each other: they differ in rate", notes)

    def test_blocks_of_runs_are_told_and_alternating_ones_are_not(self) -> None:
        block = compared(runs(5, step=1), runs(5, first=50, step=1))
        self.assertIn("all runs of old were made before those of new", " ".join(block.notes))
        self.assertEqual(compared(runs(5), runs(5, first=1)).notes, ())


class Refusals(unittest.TestCase):
    def refused(self, a: Sequence[RunRecord], b: Sequence[RunRecord], words: str) -> None:
        with self.assertRaisesRegex(UsageError, words):
            compared(a, b)

    def test_different_benchmarks(self) -> None:
        other = [replace(r, recipe={**r.recipe, "bench": "ingest"}) for r in runs(2, first=1)]
        self.refused(runs(2), other, "different benchmarks.*old: search; new: ingest")

    def test_a_side_of_several_benchmarks_or_services(self) -> None:
        mixed = [*runs(2), replace(runs(1, first=9)[0], recipe={"bench": "ingest"})]
        self.refused(mixed, runs(2, first=1), r"old mixes different benchmarks: search \(2\), ingest \(1\)")
        mixed = [*runs(2), replace(runs(1, first=9)[0], service={"kind": "vllm"})]
        self.refused(mixed, runs(2, first=1), "old mixes different services.*service=chroma")

    def test_nothing_in_common(self) -> None:
        elsewhere = (replace(INGEST, phase="other"),)
        self.refused(runs(2), runs(2, first=1, measurements=elsewhere), "search, ingest against other ingest")

    def test_other_kinds_of_service_only_where_the_same_is_quoted(self) -> None:
        service = {**BASE.service, "kind": "milvus"}
        found = compared(runs(5), runs(5, 1.2, first=1, service=service))
        self.assertIn(("service", "kind"), [(d.group, d.name) for d in found.differences])
        without = tuple(
            replace(m, metrics=tuple(x for x in m.metrics if not x.name.startswith("recall")))
            for m in (SEARCH,)
        )
        self.refused(
            runs(5), runs(5, first=1, service=service, measurements=without), "recall@10 on one side only"
        )

    def test_what_only_one_side_measured_is_told(self) -> None:
        found = compared(runs(5), runs(5, first=1, measurements=(SEARCH,)))
        self.assertIn("only in old, so not compared: ingest", found.notes)


class Differences(unittest.TestCase):
    def names(self, *changed: RunRecord) -> list[tuple[str, str]]:
        found = differences([[BASE], list(changed)])
        return [(d.group, d.name) for d in found]

    def test_what_differs_always_is_no_difference(self) -> None:
        base = BASE
        service = {**base.service, "job_id": "5", "name": "b", "ready_after_s": 3.0, "submitted_utc": "x"}
        endpoint = {**base.service["endpoint"], "port": 1}
        load = {"load_1min": 9.0}
        environment = {**base.provenance["environment"], "SLURM_JOB_ID": "9"}
        changed = replace(
            base,
            run_id="other",
            created_utc="2027-01-01T00:00:00Z",
            service={**service, "endpoint": endpoint},
            recipe={
                **base.recipe,
                "note": "again",
                "new_option": None,
                "study": {"id": "s", "repeat": 2},
                "facts": {
                    **base.recipe["facts"],
                    "bucket": "of-this-run",
                    "sql": {"database": "of_this_run"},
                    "storage": {"path": "/scratch/job-9"},
                },
            },
            provenance={**base.provenance, "load": load, "environment": environment},
        )
        self.assertEqual(self.names(changed), [])

    def test_options_facts_versions_and_machine_are_told_in_this_order(self) -> None:
        base = BASE
        machine = {**base.provenance["machine"], "cpu_model": "other"}
        software = {**base.provenance["software"], "packages": {"numpy": "3.0"}}
        changed = replace(
            base,
            service={**base.service, "version": "2", "options": {**base.service["options"], "nodes": 2}},
            recipe={**base.recipe, "clients": 8, "facts": {"lid": 14.4, "metric": "cosine"}},
            provenance={**base.provenance, "machine": machine, "software": software},
        )
        self.assertEqual(
            self.names(changed),
            [
                ("start options", "nodes"), ("bench options", "clients"), ("facts", "metric"),
                ("service", "version"), ("software", "packages.numpy"), ("software", "packages.cmd2"),
                ("software", "packages.chromadb"), ("machine", "cpu_model"),
            ],
        )  # fmt: skip

    def test_values_of_a_side_that_is_not_of_one_piece(self) -> None:
        changed = [
            replace(r, recipe={**r.recipe, "rate": rate})
            for r, rate in zip(runs(3), (50, 50, 100), strict=True)
        ]
        found = differences([changed, runs(3)])
        self.assertEqual([d.values for d in found], [("50 (2 runs), 100 (1 run)", "200")])
        self.assertTrue(found[0].is_mixed)


class SideCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.store = RunStore(self.dir / "results", FakeClock())

    def keep(self, records: Sequence[RunRecord], *words: str) -> list[RunRecord]:
        for record in records:
            path = self.store.path(record.run_id)
            path.mkdir(parents=True)
            self.store.write(record)
            if words:
                say([path], lambda tags: tags.with_words(words))
        return list(records)

    def ids(self, text: str) -> set[str]:
        return {record.run_id for record in select_side(self.store, text).records}


class Selection(SideCase):
    def test_runs_tags_and_filters(self) -> None:
        old, new = self.keep(runs(2), "old"), self.keep(runs(2, first=1), "new", "keep")
        self.assertEqual(self.ids("last"), {new[1].run_id})
        self.assertEqual(self.ids(old[0].run_id), {old[0].run_id})
        self.assertEqual(self.ids("tag=old"), {r.run_id for r in old})
        self.assertEqual(self.ids("tag=NEW,service=chroma,verdict=VALID,WARN"), {r.run_id for r in new})
        self.assertEqual(len(self.ids("2026-11-20..2026-11-20,bench=search")), 4)

    def test_filters_are_split_at_commas_that_end_one(self) -> None:
        self.assertEqual(
            split_filters("service=a,verdict=VALID,WARN,2d..1d"),
            ["service=a", "verdict=VALID,WARN", "2d..1d"],
        )

    def test_studies_and_their_points(self) -> None:
        for point, rate in enumerate((50, 100)):
            settings = {
                "id": "20261120-130000-rates-ab12",
                "name": "rates",
                "point": point,
                "label": f"rate={rate} k=1",
            }
            records = runs(2, first=100 * point)
            self.keep([replace(r, recipe={**r.recipe, "study": settings}) for r in records])
        self.assertEqual(len(self.ids("rates")), 4)
        for text in ("rates:rate=100", "rates:2", "rates:k=1,rate=100", "ab12:2"):
            self.assertEqual(self.ids(text), {run_id(100), run_id(102)}, text)
        labels = [s.label for s in select_sides(self.store, ["rates"])]
        self.assertEqual(labels, ["rate=50 k=1", "rate=100 k=1"])
        for text, words in (
            ("rates:rate=70", "no point matches.*1: rate=50 k=1; 2: rate=100 k=1"),
            ("rates:k=1", "2 points match"),
            ("rates:3", "no point"),
        ):
            with self.assertRaisesRegex(UsageError, words):
                self.ids(text)
        with self.assertRaisesRegex(UsageError, "rates has several points.*rates:rate=50"):
            select_sides(self.store, ["rates", run_id(0)])

    def test_what_is_refused(self) -> None:
        self.keep(runs(2))
        for texts, kind, words in (
            ([], UsageError, "nothing to compare"),
            (["last"], UsageError, "only one side"),
            (["last", "last"], UsageError, "is on both sides"),
            (["tag=nothing", "last"], UnknownRun, "no run matches 'tag=nothing'"),
            (["what=x", "last"], UsageError, "cannot filter by 'what'"),
            (["2026-13-01..", "last"], UsageError, "is no day"),
            (["nobody", "last"], UnknownRun, "nobody"),
            (["nobody:2", "last"], UnknownRun, "nobody"),
            (["./missing.zip", "last"], ResultError, "cannot read missing.zip: No such file"),
            (["", "last"], UsageError, "a side without a name"),
            (["~/no/such", "last"], ResultError, "no/such"),
        ):
            with self.subTest(texts), self.assertRaisesRegex(kind, words):
                select_sides(self.store, texts)


class Evidence(SideCase):
    def saved(self) -> Path:
        record = self.keep(runs(1, files={}))[0]
        samples = self.store.path(record.run_id) / "phases" / "samples.npz"
        samples.parent.mkdir()
        samples.write_bytes(b"numbers")
        return save_zip(self.store.path(record.run_id), self.dir)

    def rewritten(self, path: Path, name: str, content: bytes | None) -> Path:
        """A copy of a zip with one member changed, or left out."""
        target = path.with_name("altered.zip")
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
            for member in source.namelist():
                if not member.endswith(name):
                    copy.writestr(member, source.read(member))
                elif content is not None:
                    copy.writestr(member, content)
        return target

    def test_a_zip_its_directory_and_its_record_are_the_same_run(self) -> None:
        path = self.saved()
        with zipfile.ZipFile(path) as archive:
            archive.extractall(self.dir / "elsewhere")
        unpacked = self.dir / "elsewhere" / run_id(0)
        for source in (path, unpacked, unpacked / "record.json", self.store.path(run_id(0))):
            found = select_side(self.store, str(source))
            self.assertEqual([r.run_id for r in found.records], [run_id(0)], source)
            self.assertEqual(found.problems, (), source)

    def test_a_changed_record_is_refused_with_the_checksum(self) -> None:
        path = self.saved()
        with zipfile.ZipFile(path) as archive:
            record = archive.read(f"{run_id(0)}/record.json").replace(b"ms", b"s")
        with self.assertRaisesRegex(ResultError, "record.json was changed: its sha256 is"):
            select_side(self.store, str(self.rewritten(path, "record.json", record)))

    def test_changed_and_missing_samples_are_told(self) -> None:
        path = self.saved()
        altered = select_side(self.store, str(self.rewritten(path, "samples.npz", b"better numbers")))
        self.assertRegex(altered.problems[0], r"samples.npz was changed \(sha256 .* instead of")
        missing = select_side(self.store, str(self.rewritten(path, "samples.npz", None)))
        self.assertIn("phases/samples.npz is missing", missing.problems[0])
        self.assertEqual(len(missing.records), 1)

    def test_stored_runs_are_verified_on_request(self) -> None:
        record = replace(runs(1)[0], files={"phases/x.npz": "0" * 64})
        self.keep([record])
        self.assertEqual(select_side(self.store, "last").problems, ())
        self.assertIn("phases/x.npz is missing", select_side(self.store, "last", verified=True).problems[0])

    def test_a_record_from_the_future_and_things_that_are_no_record(self) -> None:
        path = self.dir / "x.json"
        for content, kind, words in (
            (
                json.dumps({**BASE.to_json(), "schema": "aifbench.run/9"}),
                SchemaMismatch,
                "aifbench.run/9",
            ),
            ("{", SchemaMismatch, "not complete JSON"),
            ("[" * 100000, SchemaMismatch, "not complete JSON"),
            ("[]", SchemaMismatch, "record schema is None"),
        ):
            path.write_text(content)
            with self.assertRaisesRegex(kind, words):
                select_side(self.store, str(path))
        broken = self.dir / "broken.zip"
        broken.write_bytes(b"PK\x03\x04 cut")
        with self.assertRaisesRegex(ResultError, "is no zip, or was cut"):
            select_side(self.store, str(broken))
        with self.assertRaisesRegex(ResultError, "holds no record.json"):
            select_side(self.store, f"{self.dir}/")

    def test_a_damaged_zip_is_explained_wherever_the_damage_is(self) -> None:
        path = self.saved()
        content = path.read_bytes()
        for start in range(0, len(content), 97):
            path.write_bytes(content[:start] + b"\xa5" * 8 + content[start + 8 :])
            with suppress(ResultError):
                select_side(self.store, str(path))

    def test_two_files_of_one_name_keep_apart(self) -> None:
        for folder, first in (("a", 0), ("b", 1)):
            (self.dir / folder).mkdir()
            (self.dir / folder / "record.json").write_text(json.dumps(runs(1, first=first)[0].to_json()))
        sides = select_sides(self.store, [f"{self.dir}/a/record.json", f"{self.dir}/b/record.json"])
        self.assertEqual([s.label for s in sides], ["record.json", "record.json (2)"])


class Shown(unittest.TestCase):
    HOSTILE = '<script>alert("1")</script>'

    def hostile(self) -> Comparison:
        a = runs(5, service={**BASE.service, "version": self.HOSTILE})
        b = [replace(r, recipe={**r.recipe, "trace": self.HOSTILE}) for r in runs(5, 1.2, first=1)]
        bad = replace(invalid(runs(1, first=33)[0]), error=self.HOSTILE)
        return compare_sides([side(a, self.HOSTILE), side([*b, bad], "b"), side(runs(5, first=200), "c")])

    def test_the_page_stands_alone_and_escapes_everything(self) -> None:
        page = comparison_html(self.hostile())
        self.assertNotIn("<script", page)
        self.assertIn("&lt;script&gt;", page)
        self.assertNotRegex(page, r"(src|href)=")
        self.assertEqual(page.count("<svg"), page.count("<desc>"))
        self.assertGreaterEqual(page.count("<svg"), 4)  # two forests, two distributions
        self.assertIn("ratio B / A", page)

    def test_markdown_escapes_too(self) -> None:
        text = comparison_markdown(self.hostile())
        self.assertNotIn("<script>", text)
        self.assertIn("What differs", text)

    def test_text_has_absolute_values_ratio_interval_verdict_and_direction(self) -> None:
        text = comparison_text(compared(runs(5), runs(5, 1.2, first=1)))
        line = next(line for line in text.splitlines() if line.strip().startswith("response p99"))
        self.assertRegex(
            line, r"\d ms +[\d.]+ ms +1\.\d\dx \[1\.\d\d, 1\.\d\d\] +regressed \(p = .*lower is better"
        )
        self.assertIn("no difference in configuration or provenance", text)
        self.assertIn("--all compares every other metric", text)
        self.assertIn("service p50", comparison_text(compared(runs(5), runs(5, first=1)), everything=True))

    def test_csv_has_every_metric_of_every_pair(self) -> None:
        found = self.hostile()
        lines = comparison_csv(found).splitlines()
        self.assertEqual(len(lines), 1 + sum(len(pair.rows) for pair in found.pairs))

    def test_levels_of_a_sweep(self) -> None:
        a = [levels_record(run_id=run_id(i)) for i in range(5)]
        b = [levels_record(run_id=run_id(50 + i)) for i in range(5)]
        text = comparison_text(compared(a, b))
        self.assertNotIn("calibration", text)
        self.assertIn("req/s", text)


if __name__ == "__main__":
    unittest.main()
