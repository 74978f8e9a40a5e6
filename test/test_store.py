import json
import multiprocessing
import os
import random
import re
import resource
import tempfile
import unittest
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
from test.fakes.clock import FakeClock
from test.fakes.records import (
    bare_measurement,
    empty_record,
    ingest,
    interrupted_record,
    sample_record,
    search,
)

from aifbench.clock import SystemClock
from aifbench.errors import BenchError, ResultError, SchemaMismatch, UnknownRun, UsageError
from aifbench.results import record as record_module
from aifbench.results.headline import headline_text
from aifbench.results.ownership import current_owner, is_owner_alive, parse_start_ticks
from aifbench.results.record import Check, Measurement, Metric, RunRecord, RunState, Verdict
from aifbench.results.resources import NodeUse, Resources
from aifbench.results.store import RunStore

CHROMA = {"kind": "chroma", "name": "chroma"}
DAY_S = 86400.0


class StoreTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.results = self.root / "results"
        self.clock = FakeClock(wall_s=1_795_180_495.0)  # 2026-11-20T13:14:55Z
        self.store = RunStore(self.results, self.clock)

    def add(self, record: RunRecord | None = None, **changes: Any) -> RunRecord:
        """A finished run as `create` and `write` leave it."""
        created = self.store.create(CHROMA, {"bench": "search"})
        base = record or sample_record()
        finished = replace(base, run_id=created.run_id, created_utc=created.created_utc, **changes)
        self.store.write(finished)
        return finished

    def record_file(self, run_id: str) -> Path:
        return self.results / run_id / "record.json"


class CreateAndWrite(StoreTest):
    def test_a_new_run_is_running_and_named_after_time_and_service(self) -> None:
        run = self.store.create({"kind": "My Service_2"}, {"bench": "null"}, {"project": {}})
        self.assertRegex(run.run_id, r"^20261120-131455-my-service-2-[0-9a-f]{4}$")
        self.assertEqual(run.created_utc, "2026-11-20T13:14:55Z")
        self.assertEqual(self.store.load(run.run_id), run)
        self.assertIs(run.state, RunState.RUNNING)

    def test_many_runs_of_one_second_get_different_directories(self) -> None:
        ids = {self.store.create(CHROMA, {}).run_id for _ in range(50)}
        self.assertEqual(len(ids), 50)

    def test_what_was_written_is_read_back_equal(self) -> None:
        run = self.add()
        self.assertEqual(self.store.load(run.run_id).to_json(), run.to_json())

    def test_numbers_json_has_no_word_for_do_not_lose_the_run(self) -> None:
        odd = Metric("throughput", float("nan"), "ops/s", "higher", high=float("inf"))
        run = self.add(measurements=(replace(search(), metrics=(odd,)),))
        stored = self.store.load(run.run_id).measurements[0].metrics[0]
        self.assertEqual((stored.value, stored.high), (None, None))
        json.loads(self.record_file(run.run_id).read_text(), parse_constant=self.fail)

    def test_array_scalars_and_paths_are_stored_as_plain_json(self) -> None:
        import numpy as np

        run = self.add(recipe={"bench": "search", "k": np.int64(10), "dataset": Path("/data")})
        self.assertEqual(self.store.load(run.run_id).recipe, {"bench": "search", "k": 10, "dataset": "/data"})

    def test_a_failing_write_keeps_the_old_record_and_leaves_nothing_behind(self) -> None:
        run = self.add()
        before = self.record_file(run.run_id).read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # what a full disk looks like from here
        try:
            with self.assertRaises(ResultError) as caught:
                self.store.write(replace(run, notes=("more",)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertIn("AIFBENCH_RESULTS", str(caught.exception))
        self.assertEqual(self.record_file(run.run_id).read_bytes(), before)
        self.assertEqual(
            {p.name for p in self.store.path(run.run_id).iterdir()}, {"record.json", "heartbeat"}
        )

    def test_a_results_directory_that_cannot_be_made_is_explained(self) -> None:
        (self.root / "file").write_text("")
        store = RunStore(self.root / "file" / "results", self.clock)
        with self.assertRaisesRegex(ResultError, "Not a directory.*AIFBENCH_RESULTS"):
            store.create(CHROMA, {})

    def test_a_reader_never_sees_half_a_record(self) -> None:
        run = self.add()
        writer = multiprocessing.get_context("fork").Process(target=_rewrite, args=(self.store, run, 150))
        writer.start()
        seen = set()
        while writer.is_alive():
            seen.add(len(self.store.load(run.run_id).notes))
        writer.join()
        self.assertEqual(writer.exitcode, 0)
        self.assertLessEqual(seen, {0, 1, 2000})
        self.assertTrue(seen & {1, 2000})


def _rewrite(store: RunStore, run: RunRecord, times: int) -> None:
    for turn in range(times):
        store.write(replace(run, notes=("note",) * (2000 if turn % 2 else 1)))


class Resolve(StoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.ids = []
        for name in ("20261118-090000-chroma-aa01", "20261119-090000-chroma-bb02", "20261119-100000-s3-cc02"):
            (self.results / name).mkdir(parents=True)
            self.ids.append(name)

    def test_full_id_beginning_ending_and_last(self) -> None:
        for ref, index in (
            ("20261118", 0),
            ("aa01", 0),
            (self.ids[1], 1),
            ("bb02", 1),
            ("last", 2),
            ("-cc02", 2),
        ):
            self.assertEqual(self.store.resolve(ref), self.ids[index], ref)

    def test_an_ambiguous_reference_names_the_candidates(self) -> None:
        with self.assertRaises(UnknownRun) as caught:
            self.store.resolve("20261119")
        self.assertIn("matches 2 runs", str(caught.exception))
        self.assertIn(self.ids[1], str(caught.exception))

    def test_an_unknown_reference_names_the_nearest(self) -> None:
        with self.assertRaisesRegex(UnknownRun, "did you mean 'aa01'"):
            self.store.resolve("aa11")
        for ref in ("", "../..", "/etc", "*"):
            with self.assertRaises(UnknownRun, msg=ref):
                self.store.resolve(ref)

    def test_without_any_run(self) -> None:
        with self.assertRaisesRegex(UnknownRun, "nothing has been measured yet"):
            RunStore(self.root / "none", self.clock).resolve("last")

    def test_other_directories_are_no_runs(self) -> None:
        for name in ("services", "scratch", "datasets", "20261118-090000-chroma-aa01.bak"):
            (self.results / name).mkdir()
        (self.results / "20261120-100000-s3-dd02").write_text("a file")
        self.assertEqual(self.store.run_ids(), sorted(self.ids, reverse=True))


class Interrupted(StoreTest):
    def running(self, **owner: object) -> str:
        run = self.store.create(CHROMA, {"bench": "search"})
        self.store.write(replace(run, measurements=(search(),), owner={**run.owner, **owner}))
        return run.run_id

    def test_a_run_of_a_living_process_stays_running(self) -> None:
        self.assertIs(self.store.load(self.running()).state, RunState.RUNNING)
        self.assertIsNone(self.store.list()[0].verdict)

    def test_a_killed_owner_leaves_an_interrupted_run_with_its_measurements(self) -> None:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=self.running)
        child.start()
        child.join()
        run = self.store.load("last")
        self.assertIs(run.state, RunState.INTERRUPTED)
        self.assertIs(run.verdict, Verdict.INVALID)
        self.assertEqual(len(run.measurements), 1)
        self.assertIn(f"process {child.pid}", run.error)
        self.assertIs(self.store.list(["state=interrupted"])[0].verdict, Verdict.INVALID)

    def test_a_recycled_process_number_is_another_process(self) -> None:
        ticks = current_owner()["start_ticks"]
        self.assertIs(self.store.load(self.running(start_ticks=ticks - 1)).state, RunState.INTERRUPTED)

    def test_another_boot_is_another_process(self) -> None:
        self.assertIs(self.store.load(self.running(boot_id="before")).state, RunState.INTERRUPTED)

    def test_the_heartbeat_decides_for_other_hosts_and_namespaces(self) -> None:
        for elsewhere in ({"host": "mel9999"}, {"pid_namespace": "pid:[1]"}):
            run_id = self.running(**elsewhere)
            self.clock.elapsed_s += 59
            self.assertIs(self.store.load(run_id).state, RunState.RUNNING)
            self.clock.elapsed_s += 2
            self.assertIs(self.store.load(run_id).state, RunState.INTERRUPTED)
            self.store.heartbeat(run_id)
            self.assertIs(self.store.load(run_id).state, RunState.RUNNING)

    def test_a_lost_heartbeat_means_a_lost_owner(self) -> None:
        run_id = self.running(host="mel9999")
        (self.store.path(run_id) / "heartbeat").unlink()
        self.assertIs(self.store.load(run_id).state, RunState.INTERRUPTED)

    def test_nobody_is_not_alive(self) -> None:
        self.assertFalse(is_owner_alive({}, 0.0))
        self.assertFalse(is_owner_alive({**current_owner(), "pid": "../1"}, 0.0))

    def test_a_system_without_proc_falls_back_on_the_heartbeat(self) -> None:
        owner = current_owner(proc=self.root)
        self.assertEqual((owner["start_ticks"], owner["boot_id"]), (None, ""))
        self.assertTrue(is_owner_alive(owner, 3.0, proc=self.root))
        self.assertFalse(is_owner_alive(owner, 61.0, proc=self.root))

    def test_start_ticks_survive_any_command_name_and_zombies_have_none(self) -> None:
        rest = " ".join(str(number) for number in range(4, 30))
        self.assertEqual(parse_start_ticks(f"12 (a) b) c) S {rest}\n"), 22)
        self.assertIsNone(parse_start_ticks(f"12 (python) Z {rest}\n"))
        self.assertIsNone(parse_start_ticks(""))
        self.assertEqual(current_owner()["pid"], os.getpid())


class Listing(StoreTest):
    def setUp(self) -> None:
        super().setUp()
        self.old = self.add(replace(sample_record(), measurements=(replace(search(), checks=()),)))
        self.clock.elapsed_s += DAY_S
        self.failed = self.add(empty_record(), service={"kind": "s3", "name": "minio"})
        self.clock.elapsed_s += DAY_S
        self.warned = self.add()

    def ids(self, *filters: str, **options: Any) -> list[str]:
        return [summary.run_id for summary in self.store.list(filters, **options)]

    def test_newest_first_with_everything_a_list_shows(self) -> None:
        newest, failed, old = self.store.list()
        self.assertEqual((newest.run_id, old.run_id), (self.warned.run_id, self.old.run_id))
        self.assertEqual((newest.service, newest.name, newest.bench), ("chroma", "chroma", "search"))
        self.assertEqual((newest.state, newest.verdict), (RunState.COMPLETE, Verdict.WARN))
        self.assertEqual(newest.headline, "search: 200 ops/s, response p99 22.5 ms, recall@10 0.9868")
        self.assertGreater(newest.size_bytes, 10_000)
        self.assertEqual(
            (failed.state, failed.verdict, failed.headline), (RunState.FAILED, Verdict.INVALID, "")
        )

    def test_filters(self) -> None:
        for filters, expected in {
            ("service=chroma",): [self.warned, self.old],
            ("service=minio",): [self.failed],
            ("verdict=valid",): [self.old],
            ("verdict=VALID,WARN", "bench=search"): [self.warned, self.old],
            ("state=FAILED",): [self.failed],
            ("since=36h",): [self.warned, self.failed],
            ("since=2026-11-22",): [self.warned],
            ("recall@10", "warn"): [self.warned],
            ("service=chroma", "state=FAILED"): [],
        }.items():
            self.assertEqual(self.ids(*filters), [run.run_id for run in expected], filters)

    def test_sorting_keeps_the_newest_first_among_equals(self) -> None:
        self.assertEqual(self.ids(sort="service"), [self.warned.run_id, self.old.run_id, self.failed.run_id])
        self.assertEqual(self.ids(sort="verdict"), [self.old.run_id, self.warned.run_id, self.failed.run_id])
        self.assertEqual(self.ids(sort="size")[0], self.warned.run_id)
        self.assertEqual(self.ids(sort="size", limit=1), [self.warned.run_id])
        self.assertEqual(self.ids(limit=2), [self.warned.run_id, self.failed.run_id])

    def test_bad_filters_and_keys_name_what_is_valid(self) -> None:
        for filters, expected in {
            ("verdit=VALID",): "did you mean 'verdict'",
            ("verdict=GOOD",): "VALID, WARN, INVALID",
            ("since=soon",): "90s or 1.5h",
        }.items():
            with self.assertRaisesRegex(UsageError, expected):
                self.store.list(filters)
        with self.assertRaisesRegex(UsageError, "did you mean 'size'"):
            self.store.list(sort="sizes")


class Unreadable(StoreTest):
    def test_every_kind_of_bad_record_is_listed_with_its_problem(self) -> None:
        good = json.dumps(sample_record().to_json())
        cases = {
            "": "^record.json is not complete JSON$",
            good[: len(good) // 2]: "not complete JSON",
            "\x00\xff": "not complete JSON",
            "[" * 100_000: "not complete JSON",
            "[]": "schema is None",
            good.replace("aifbench.run/1", "aifbench.run/9"): "^record schema is 'aifbench.run/9'",
            good.replace('"metrics"', '"metrix"'): "measurements\\[0\\] has the unknown field 'metrix'",
            good.replace(
                '"WARN", "message"', '"FINE", "message"'
            ): "verdict is 'FINE', not one of VALID, WARN, INVALID",
            re.sub(r'"value": [\d.]+', '"value": NaN', good, count=1): "nan, which nobody can have measured",
            re.sub(
                r'"value": [\d.]+', '"value": 1e400', good, count=1
            ): "inf, which nobody can have measured",
            good: "record of another run",
        }
        for text, problem in cases.items():
            run_id = self.add().run_id
            self.record_file(run_id).write_text(text, encoding="latin-1")
            summary = next(s for s in self.store.list() if s.run_id == run_id)
            self.assertRegex(summary.problem, problem)
            self.assertEqual(
                (summary.service, summary.verdict, summary.created_utc[:10]), ("chroma", None, "2026-11-20")
            )
            with self.assertRaises(SchemaMismatch):
                self.store.load(run_id)

    def test_what_is_no_file_holds_up_nobody(self) -> None:
        for make in (os.mkfifo, os.mkdir):
            run_id = self.add().run_id
            self.record_file(run_id).unlink()
            make(self.record_file(run_id))
            self.assertTrue(self.store.summary(run_id).problem)

    def test_a_run_without_a_record_is_listed(self) -> None:
        (self.results / "20261120-131455-chroma-0000").mkdir(parents=True)
        self.assertIn("No such file", self.store.list()[0].problem)

    def test_whatever_one_value_turns_into_is_an_expected_error(self) -> None:
        source = random.Random(5)
        run = self.add()
        for _ in range(300):
            data = json.loads(json.dumps(run.to_json()))
            _spoil(data, source)
            self.record_file(run.run_id).write_text(json.dumps(data))
            self.assertEqual(len(self.store.list()), 1)
            try:
                headline_text(self.store.load(run.run_id))
            except BenchError as error:
                self.assertNotIn("Traceback", str(error))


def _spoil(data: object, source: random.Random) -> None:
    """Replace or remove one value at a random depth."""
    while True:
        assert isinstance(data, dict | list)
        key = source.choice(list(data) if isinstance(data, dict) else range(len(data)))
        if isinstance(data[key], dict | list) and data[key] and source.random() < 0.8:
            data = data[key]
            continue
        if isinstance(data, dict) and source.random() < 0.3:
            del data[key]
        else:
            data[key] = source.choice([None, True, -1, 1e99, 1e300, 10**400, "x", [], {}, [None], {"a": "b"}])
        return


class PublishedSchema(unittest.TestCase):
    def setUp(self) -> None:
        path = Path(record_module.__file__).with_name("record.schema.json")
        self.schema = json.loads(path.read_text(encoding="utf-8"))
        self.validator = jsonschema.Draft202012Validator(self.schema)

    def test_real_records_follow_it(self) -> None:
        jsonschema.Draft202012Validator.check_schema(self.schema)
        bare = sample_record(measurements=(bare_measurement(), ingest()), notes=("a note",))
        for run in (sample_record(), empty_record(), interrupted_record(), bare):
            self.validator.validate(json.loads(json.dumps(run.to_json())))

    def test_it_names_exactly_the_fields_of_the_record(self) -> None:
        definitions = self.schema["$defs"]
        for kind, schema, extra in (
            (RunRecord, self.schema, {"schema", "verdict"}),
            (Measurement, definitions["measurement"], {"verdict"}),
            (Resources, definitions["resources"], set()),
            (NodeUse, definitions["node_use"], set()),
            (Metric, definitions["metric"], set()),
            (Check, definitions["check"], set()),
        ):
            self.assertEqual(set(schema["properties"]), {f.name for f in fields(kind)} | extra, kind)
            self.assertIs(schema["additionalProperties"], False)

    def test_schema_and_reader_agree_on_what_is_wrong(self) -> None:
        source = random.Random(6)
        good = json.dumps(sample_record(measurements=(search(10, 8),)).to_json())
        refused = 0
        for _ in range(400):
            data = json.loads(good)
            _spoil(data, source)
            try:
                RunRecord.from_json(data)
            except SchemaMismatch:
                refused += 1
                self.assertFalse(self.validator.is_valid(data), data)
        self.assertGreater(refused, 100)


class Speed(unittest.TestCase):
    def test_a_thousand_runs_are_listed_by_reading_only_what_is_shown(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = RunStore(Path(directory), SystemClock())
            run = store.create(CHROMA, {})
            store.write(sample_record(run_id=run.run_id))
            text = (store.path(run.run_id) / "record.json").read_text()
            for number in range(1000):
                run_id = f"20250101-{number:06d}-chroma-{number:04x}"
                store.path(run_id).mkdir()
                (store.path(run_id) / "record.json").write_text(text.replace(run.run_id, run_id))
            opened = _opened_records(store, limit=20)
            self.assertEqual((opened, len(store.list(limit=20))), (20, 20))
            self.assertEqual(len(store.list(sort="verdict")), 1001)


def _opened_records(store: RunStore, limit: int) -> int:
    """How many records a listing opens, told by Python's own audit trail."""
    import sys

    opened: set[str] = set()  # Python tells of some twice
    listening = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event == "open" and str(arguments[0]).endswith("record.json"):
            opened.add(str(arguments[0]))

    sys.addaudithook(hook)
    store.list(limit=limit)
    listening = False
    return len(opened)


if __name__ == "__main__":
    unittest.main()
