"""S3's benchmarks as phases: what is planned, verified and cleaned up; and its options and metrics."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from test.fakes.s3_server import FakeS3, Faults

from aifbench.errors import BenchError, ServiceError, UsageError
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples
from aifbench.results.belongings import Belongings, LeftStore
from aifbench.results.definitions import definition
from aifbench.results.record import Verdict
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.run import resolve_bench
from aifbench.servers.s3 import S3Server
from aifbench.servers.s3_bench import S3Benchmark
from aifbench.servers.s3_metrics import chain_metrics, host_balance, object_metrics
from aifbench.servers.s3_options import parse_mix
from aifbench.workloads.s3_control import RunBucket, S3Control
from aifbench.workloads.s3_objects import ObjectSet

TINY = {"size": "1KiB", "objects": "20", "duration": "1s", "warmup": "1s", "max_data": "10KiB"}


class Mixes(unittest.TestCase):
    def test_weights(self) -> None:
        self.assertEqual(parse_mix("get:45, put:15"), {"get": 45, "put": 15})
        bad = (
            "",
            "get",
            "fly:1",
            "get:1,get:2",
            "get:0",
            "get:-1",
            "get:x",
            "put:1,delete:2",
            "get:999,put:1",
        )
        for text in bad:
            with self.assertRaises(UsageError, msg=text) as caught:
                parse_mix(text)
            self.assertTrue(caught.exception.hint, text)


class BenchCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.s3 = FakeS3(self.dir)
        self.enterContext(self.s3)
        self.notes: list[str] = []

    def benchmark(self, bench: str = "all", **options: Any) -> S3Benchmark:
        recipe = resolve_bench(S3Server, bench, {**TINY, **options})
        progress = Silent()
        progress.note = self.notes.append  # type: ignore[method-assign]
        belongings = Belongings(LeftStore(self.dir).note("run1"))
        context = BenchmarkContext(self.s3.endpoint, self.dir / "data", "run1", progress, belongings)
        return S3Benchmark(bench, recipe, context, "us-east-1")

    def phases(self, bench: str = "all", **options: Any) -> dict[str, Phase]:
        benchmark = self.benchmark(bench, **options)
        phases = {phase.plan.name: phase for phase in benchmark.phases()}
        benchmark.close()
        return phases


class Plans(BenchCase):
    def test_each_benchmark_has_its_phases(self) -> None:
        for bench in S3Server.benches:
            found = self.phases(bench)
            measured = [name for name, phase in found.items() if phase.is_measured]
            if bench not in ("all", "multipart"):
                self.assertEqual(measured, [bench])
        self.assertEqual(
            list(self.phases()),
            [
                "load",
                "load-more",
                "get",
                "range",
                "head",
                "list",
                "put",
                "mixed",
                "multipart",
                "delete",
            ],
        )

    def test_writes_leave_no_more_than_was_allowed(self) -> None:
        (put,) = self.phases("put")["put"].plan.streams
        self.assertEqual((put.params["count"], put.limit), (10, None))

    def test_parts_of_an_upload_are_sent_by_one_client_in_order(self) -> None:
        (part,) = self.phases("multipart", clients="3", part_size="5MiB")["multipart"].plan.streams
        self.assertEqual((part.chain, part.limit), (5, 5 * len(part.params["uploads"])))
        self.assertEqual(part.arrivals["kind"], "closed")

    def test_open_loop_and_the_sdk(self) -> None:
        (get,) = self.phases("get", rate="50", via="sdk")["get"].plan.streams
        self.assertEqual((get.arrivals["kind"], get.via), ("poisson", "sdk"))
        self.assertEqual(get.workload, "aifbench.workloads.s3_sdk:Get")
        with self.assertRaisesRegex(UsageError, "--via sdk has no mixed"):
            self.benchmark("mixed", via="sdk")

    def test_no_secret_is_in_what_is_planned_or_kept(self) -> None:
        benchmark = self.benchmark("get")
        plans = [str(phase.plan.to_json()) for phase in benchmark.phases()]
        benchmark.close()
        self.assertNotIn(self.s3.user.secret_key, f"{plans}{benchmark.facts()}")

    def test_bad_options_are_told_before_anything_is_made(self) -> None:
        for option, value in (("size", "big"), ("part_size", "1MiB"), ("mix", "fly:1"), ("page", "2000")):
            with self.assertRaises(BenchError, msg=option):
                self.benchmark("all", **{option: value})
        self.assertEqual(self.s3.requests, [])


class Left(BenchCase):
    def left(self) -> list[str]:
        return LeftStore(self.dir).of("run1", ()).sentences()

    def test_a_bucket_is_noted_until_it_is_removed(self) -> None:
        benchmark, url = self.benchmark("put"), self.s3.endpoint.url
        next(benchmark.phases())
        self.assertEqual(
            self.left(),
            [
                f"run run1 may have left the bucket aifbench-run1 at {url};"
                f" `aws --endpoint-url {url} s3 rb --force s3://aifbench-run1` removes it"
            ],
        )
        benchmark.close()
        self.assertEqual(self.left(), [])

    def test_what_could_not_be_removed_stays_noted(self) -> None:
        benchmark = self.benchmark("put")
        next(benchmark.phases())
        with mock.patch.object(RunBucket, "clear", side_effect=ServiceError("it refuses")):
            benchmark.close()
        self.assertEqual(len(self.left()), 1)
        self.assertIn("left behind: it refuses", self.notes[-1])

    def test_somebody_elses_bucket_is_never_noted_for_long(self) -> None:
        self.s3.buckets["aifbench-run1"] = {}
        benchmark = self.benchmark("put")
        with self.assertRaises(ServiceError):
            next(benchmark.phases())
        benchmark.close()
        self.assertEqual(self.left(), [])
        self.assertIn("aifbench-run1", self.s3.buckets)


class Preparation(BenchCase):
    def test_what_was_refused_is_stored_again_and_told(self) -> None:
        benchmark, objects = self.benchmark("get"), ObjectSet("1KiB", 1)
        phases = benchmark.phases()
        self.assertTrue(next(phases).may_fail_in_part)
        stored = {objects.key(number): objects.body(number) for number in range(18)}
        self.s3.buckets["aifbench-run1"] = {**stored, objects.key(3): b"cut"}
        next(phases)
        self.assertEqual(
            self.s3.buckets["aifbench-run1"], {objects.key(n): objects.body(n) for n in range(20)}
        )
        self.assertEqual(self.notes, ["load: 3 of 20 objects were stored once more"])
        benchmark.close()


class OwnBucket(BenchCase):
    def test_nothing_is_left_behind_and_nothing_else_touched(self) -> None:
        self.s3.buckets["theirs"] = {"precious": b"1"}
        self.phases("multipart", part_size="5MiB")
        self.assertEqual(self.s3.buckets, {"theirs": {"precious": b"1"}})
        self.assertEqual(self.s3.uploads, {})

    def test_a_bucket_that_was_there_ends_the_run(self) -> None:
        self.s3.buckets["aifbench-run1"] = {"theirs": b""}
        with self.assertRaisesRegex(BenchError, "exists already"):
            self.phases("get")
        self.assertEqual(list(self.s3.buckets["aifbench-run1"]), ["theirs"])

    def test_what_cannot_be_removed_is_told(self) -> None:
        benchmark = self.benchmark("get")
        list(benchmark.phases())
        self.s3.faults = Faults("DELETE", code="InternalError")
        benchmark.close()
        self.assertRegex(self.notes[-1], "the bucket aifbench-run1 is left behind: .*InternalError")

    def test_a_removal_that_is_interrupted_is_told(self) -> None:
        benchmark = self.benchmark("get")
        next(benchmark.phases())
        with (
            mock.patch.object(S3Control, "listing", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            benchmark.close()
        self.assertEqual(self.notes, ["the bucket aifbench-run1 is left behind: its removal was interrupted"])


def samples_of(indices: list[int], sizes: list[int], *, gap_ms: float = 1.0) -> Samples:
    samples = Samples.empty(len(indices))
    at = (np.arange(len(indices)) * gap_ms * 1e6).astype(np.int64)
    samples.index[:], samples.bytes_in[:] = indices, sizes
    samples.intended_ns[:], samples.sent_ns[:] = at, at
    samples.first_byte_ns[:], samples.finished_ns[:] = at + 2_000_000, at + 5_000_000
    return samples


class Verdicts(BenchCase):
    def checks(
        self, bench: str, phase: str, samples: Samples, stored: dict[str, bytes], *, gone: bool = False
    ) -> dict[str, Verdict]:
        benchmark = self.benchmark(bench)
        found = next(each for each in benchmark.phases() if each.plan.name == phase)
        self.s3.buckets["aifbench-run1"] = {**({} if gone else self.s3.buckets["aifbench-run1"]), **stored}
        outcome = mock.Mock(plan=found.plan)
        outcome.samples.return_value = samples
        outcome.reports.return_value = []
        measured: Any = {phase: mock.Mock(window_s=(0.0, 1.0))}
        evidence = found.verify(outcome, measured)[phase]
        benchmark.close()
        return {check.code: check.verdict for check in evidence.checks}

    def test_what_was_put_must_be_there_with_its_content(self) -> None:
        objects = ObjectSet("1KiB", 1, "put-")
        good = {objects.key(n): objects.body(n) for n in range(5)}
        samples = samples_of([0, 1, 2, 3, 4], [0] * 5)
        self.assertEqual(set(self.checks("put", "put", samples, good).values()), {Verdict.VALID})
        lost = dict(list(good.items())[1:])
        self.assertEqual(self.checks("put", "put", samples, lost)["COUNT"], Verdict.INVALID)
        short = {**good, objects.key(2): b"short"}
        self.assertEqual(self.checks("put", "put", samples, short)["COUNT"], Verdict.INVALID)
        changed = {**good, objects.key(2): bytes(1024)}
        self.assertEqual(self.checks("put", "put", samples, changed)["CONTENT"], Verdict.INVALID)

    def test_what_only_the_listing_lacks_is_not_lost(self) -> None:
        objects = ObjectSet("1KiB", 1, "put-")
        good = {objects.key(n): objects.body(n) for n in range(5)}
        self.s3.faults = Faults("GET /aifbench-run1.*list-type", hide=2)
        found = self.checks("put", "put", samples_of([0, 1, 2, 3, 4], [0] * 5), good)
        self.assertEqual(found, {"COUNT": Verdict.WARN, "CONTENT": Verdict.VALID})

    def test_every_answer_has_the_object_s_length_also_those_that_were_not_kept(self) -> None:
        self.assertEqual(
            self.checks("get", "get", samples_of([0, 1], [1024, 1024]), {})["LENGTH"], Verdict.VALID
        )
        self.assertEqual(
            self.checks("get", "get", samples_of([0, 1], [1024, 99]), {})["LENGTH"], Verdict.INVALID
        )

    def test_what_was_deleted_is_listed_no_more(self) -> None:
        objects = ObjectSet("1KiB", 1)
        samples = samples_of(list(range(20)), [0] * 20)
        self.assertEqual(self.checks("delete", "delete", samples, {}, gone=True)["COUNT"], Verdict.VALID)
        left = {objects.key(1): b""}
        self.assertEqual(self.checks("delete", "delete", samples, left, gone=True)["COUNT"], Verdict.INVALID)


class Numbers(unittest.TestCase):
    def test_first_bytes_and_data_rate_by_kind_and_size(self) -> None:
        samples = samples_of(list(range(1000)), [0] * 1000)
        found = {
            metric.name: metric.value
            for metric in object_metrics(
                samples,
                (0.0, 1.005),
                lambda index: 4096 if index % 2 else 2**20,
                lambda index: "get" if index % 4 else "put",
                open_loop=False,
            )
        }
        self.assertEqual((found["ttfb_p50"], found["service_p50 [get]"]), (2.0, 5.0))
        self.assertAlmostEqual(found["data_rate"] or 0, 500 * (2**20 + 4096) / 2**20 / 1.005, delta=0.1)
        self.assertAlmostEqual(found["throughput [put]"] or 0, 250 / 1.005, delta=0.1)
        self.assertIn("ttfb_p99 [<=1 MiB]", found)

    def test_how_evenly_hosts_were_served(self) -> None:
        samples = samples_of(list(range(1000)), [0] * 1000)
        samples.worker[:] = [0, 1, 2, 0, 1, 2, 0, 1, 1, 1] * 100  # 300 and 500 on one host, 200 on the other
        (found,) = host_balance(samples, (0.0, 2.0), ["n1", "n1", "n2"])
        self.assertEqual((found.value, found.n), (0.5, 1000))
        self.assertEqual(found.note, "operations/s of a worker: n2 100, n1 200")
        self.assertTrue(definition(found.name))
        self.assertEqual(list(host_balance(samples, (0.0, 2.0), ["n1", "n1", ""])), [])
        self.assertEqual(list(host_balance(samples_of([], []), (0.0, 2.0), ["n1", "n2"])), [])

    def test_an_upload_takes_from_its_first_part_to_its_end(self) -> None:
        samples = samples_of(list(range(300)), [0] * 300)
        samples.outcome[5] = 5
        found = {metric.name: metric for metric in chain_metrics("upload", samples, 3)}
        self.assertEqual((found["upload_p50"].value, found["upload_p50"].n), (7.0, 99))

    def test_nothing_measured(self) -> None:
        self.assertEqual(list(chain_metrics("upload", Samples.empty(0), 3)), [])
        self.assertEqual(
            list(object_metrics(Samples.empty(0), (0, 1), lambda _: 1, lambda _: "get", open_loop=True)), []
        )


if __name__ == "__main__":
    unittest.main()
