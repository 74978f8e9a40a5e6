"""Other runs that loaded the same service meanwhile, as the record of a run tells them."""

import tempfile
import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.clock import FakeClock
from test.fakes.records import bare_measurement

from aifbench.clock import utc_text
from aifbench.results.neighbours import neighbours, with_shared
from aifbench.results.record import RunRecord, RunState, Verdict
from aifbench.results.store import RunStore

CHROMA = {"kind": "chroma", "name": "chroma"}


class Neighbours(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.store = RunStore(Path(self.enterContext(tempfile.TemporaryDirectory())), self.clock)

    def begin(self, service: Mapping[str, Any] = CHROMA) -> RunRecord:
        return self.store.create(service, {"bench": "search"})

    def end(self, record: RunRecord, state: RunState = RunState.COMPLETE) -> None:
        ended = utc_text(self.clock.wall_s())
        self.store.write(replace(record, state=state, ended_utc=ended))

    def found(self, record: RunRecord) -> list[str]:
        return [one.run_id for one in neighbours(self.store, record, self.clock)]

    def test_each_of_two_names_the_other_whichever_ends_first(self) -> None:
        ours = self.begin()
        self.clock.sleep(30.0)
        other = self.begin({"members": {"a": CHROMA, "b": {"name": "vllm"}}})
        self.assertEqual(self.found(ours), [other.run_id])
        self.clock.sleep(300.0)
        self.end(other)
        self.clock.sleep(60.0)
        self.assertEqual(self.found(ours), [other.run_id])
        self.assertEqual(self.found(other), [ours.run_id])

    def test_one_that_was_killed_counts_until_its_last_sign(self) -> None:
        before, ours = self.begin(), self.begin()
        self.clock.sleep(10.0)
        self.store.heartbeat(before.run_id)
        self.store.write(replace(before, owner={}))
        self.clock.sleep(500.0)
        self.assertEqual(self.found(ours), [before.run_id])
        self.store.heartbeat(ours.run_id)
        later = self.begin()
        self.assertEqual(self.found(later), [ours.run_id])

    def test_runs_one_after_another_and_of_other_services_are_none(self) -> None:
        before = self.begin()
        self.clock.sleep(10.0)
        self.end(before)
        ours = self.begin()
        self.begin({"kind": "chroma", "name": "b"})
        self.assertEqual(self.found(ours), [])

    def test_only_what_was_measured_meanwhile_is_doubted(self) -> None:
        ours = self.begin()
        early = replace(bare_measurement(), started_utc=ours.created_utc, window_s=(0.0, 20.0), checks=())
        self.clock.sleep(60.0)
        late = replace(early, started_utc=utc_text(self.clock.wall_s()))
        other = self.begin()
        ours = replace(ours, measurements=(early, late))
        first, second = with_shared(ours, neighbours(self.store, ours, self.clock)).measurements
        self.assertEqual(first.checks, ())
        (check,) = second.checks
        self.assertEqual((check.code, check.verdict), ("SHARED", Verdict.WARN))
        self.assertIn(f"run {other.run_id} loaded the same service", check.message)
