"""S3's benchmarks as phases: put, get, range, head, list, delete, multipart, mixed; in a bucket per run."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from aifbench.errors import BenchError, UsageError
from aifbench.load.arrivals import AnyArrivals, Closed, to_json
from aifbench.load.engine import load_workload
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.samples import Samples
from aifbench.load.workload import OutcomeKind
from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.servers.benchmark import BenchmarkContext, Evidence, Phase
from aifbench.servers.load_options import arrivals_of, timing_of
from aifbench.servers.s3_metrics import chain_metrics, host_balance, object_metrics
from aifbench.servers.s3_options import parse_mix
from aifbench.workloads.s3_control import RunBucket, S3Control
from aifbench.workloads.s3_objects import ObjectSet, Sizes, default_count, parse_sizes

_PHASES = {
    "all": ("load", "get", "range", "head", "list", "put", "mixed", "multipart", "delete"),
    "put": ("put",),
    "get": ("load", "get"),
    "range": ("load", "range"),
    "head": ("load", "head"),
    "list": ("load", "list"),
    "delete": ("load", "delete"),
    "multipart": ("multipart",),
    "mixed": ("load", "mixed"),
}
_CLASSES = {"get": "Get", "range": "RangeGet", "head": "Head", "list": "List"}
_CLEAN_UP_TIMEOUT_S = 30.0
_DATA_SET_BYTES = 2**30
_LIST_OBJECTS = 2500
_DOOMED = 1000
# What is read back of what was written: so many objects, of at most so many bytes together.
_READ_BACK = 10
_READ_BACK_BYTES = 256 * 2**20
_SMALLEST_UPLOAD_PARTS = 4
# S3 allows no more parts in one upload.
_MOST_PARTS = 10_000


class S3Benchmark:
    """One run against one endpoint, in a bucket that it makes and that `close` removes."""

    def __init__(
        self, bench: str, options: Mapping[str, Any], context: BenchmarkContext, region: str
    ) -> None:
        self._names = _PHASES[bench]
        self._options = options
        self._context = context
        self._region = region
        self._arrivals: AnyArrivals = arrivals_of(options)
        self._sizes = parse_sizes(options["size"])
        self._objects = ObjectSet(options["size"], options["seed"])
        self._count = int(options["objects"] or self._default_count())
        self._most = self._objects, self._count
        self._control = S3Control(context.endpoint, region)
        self._bucket = RunBucket(self._control, context.run_tag)
        self._facts: dict[str, Any] = {}
        if options["via"] == "sdk" and not set(self._names) <= {"load", *_CLASSES, "put", "delete"}:
            raise UsageError(
                f"--via sdk has no {' or '.join(n for n in self._names if n in ('multipart', 'mixed'))}",
                hint="give put, get, range, head, list or delete",
            )

    @property
    def workers(self) -> int:
        return int(self._options["workers"])

    def phases(self) -> Iterator[Phase]:
        self._context.progress.phase("bucket", self._bucket.name)
        url = self._context.endpoint.url
        self._context.belongings.add(
            self._belonging, f"`aws --endpoint-url {url} s3 rb --force s3://{self._bucket.name}` removes it"
        )
        self._bucket.create()
        self._facts = {
            "bucket": self._bucket.name,
            "region": self._region,
            "server": self._control.heartbeat(),
            "sizes": self._sizes.text,
            "mean_size_bytes": round(self._sizes.mean_bytes),
        }
        for name in self._names:
            yield from self._phase(name)

    def facts(self) -> dict[str, Any]:
        return self._facts

    def close(self) -> None:
        self._control.close()
        # The service may be dead or hang, which is known by now.
        try:
            control = S3Control(self._context.endpoint, self._region, timeout_s=_CLEAN_UP_TIMEOUT_S)
            with closing(control):
                self._bucket.clear(control)
            self._context.belongings.strike(self._belonging)
        except BenchError as error:
            self._left_behind(str(error))
        except KeyboardInterrupt:
            self._left_behind("its removal was interrupted")
            raise

    @property
    def _belonging(self) -> str:
        return f"the bucket {self._bucket.name} at {self._context.endpoint.url}"

    def _left_behind(self, why: str) -> None:
        self._context.progress.note(f"the bucket {self._bucket.name} is left behind: {why}")

    def _phase(self, name: str) -> Iterator[Phase]:
        if name == "load":
            yield from self._load()
        elif name == "put":
            count = self._new_objects(self._sizes)
            yield self._timed("put", "Put", count, self._verify_stored, objects=self._objects_of("put-"))
        elif name == "delete":
            yield self._delete()
        elif name == "mixed":
            yield self._mixed()
        elif name == "multipart":
            yield self._multipart()
        else:
            more = {
                "range": {"range_bytes": self._options["range_size"]},
                "list": {"page": self._options["page"]},
            }
            yield self._timed(name, _CLASSES[name], self._count, self._verify_read, **more.get(name, {}))

    def _default_count(self) -> int:
        least = _LIST_OBJECTS if self._names == _PHASES["list"] else 1000
        return default_count(self._sizes, _DATA_SET_BYTES, (16, least))

    def _new_objects(self, sizes: Sizes) -> int:
        """How many objects writes may leave behind."""
        return max(1, int(self._options["max_data"] / max(1.0, sizes.mean_bytes)))

    def _objects_of(self, prefix: str) -> ObjectSet:
        return ObjectSet(self._options["size"], self._options["seed"], prefix)

    def _load(self) -> Iterator[Phase]:
        """Stores what is read later; for `mixed` also what is deleted."""
        self._facts |= {"objects": self._count, "data_bytes": self._objects.total_bytes(self._count)}
        yield from self._store("load", self._objects, self._count)
        if "mixed" in self._names and parse_mix(self._options["mix"]).get("delete"):
            yield from self._store("load-more", self._objects_of("doomed-"), self._doomed)

    def _store(self, name: str, objects: ObjectSet, count: int) -> Iterator[Phase]:
        """Not measured. What a busy server refused is stored again: its clients are expected to do that."""
        yield self._fixed(name, "Put", objects, count, is_measured=False)
        sizes = self._stored_sizes(objects)
        missing = [number for number in range(count) if sizes.get(number) != objects.size(number)]
        for number in missing:
            self._control.write(self._bucket.name, objects.key(number), objects.body(number))
        if missing:
            self._context.progress.note(
                f"{name}: {len(missing):,} of {count:,} objects were stored once more"
            )
            self._facts[f"{name.replace('-', '_')}_stored_again"] = len(missing)

    @property
    def _doomed(self) -> int:
        return min(_DOOMED, self._count)

    def _stream(
        self, name: str, workload: str, objects: ObjectSet, params: Mapping[str, Any], **more: Any
    ) -> StreamPlan:
        plain = "s3_mixed" if workload == "Mixed" else "s3_http"
        module = "s3_sdk" if self._options["via"] == "sdk" else plain
        given = {"bucket": self._bucket.name, "objects": objects.to_json(), "region": self._region, **params}
        return StreamPlan(
            name=name,
            workload=f"aifbench.workloads.{module}:{workload}",
            params=given,
            workers=self._options["workers"],
            via=self._options["via"],
            **more,
        )

    def _timed(
        self,
        name: str,
        workload: str,
        count: int,
        verify: Any,
        *,
        objects: ObjectSet | None = None,
        **params: Any,
    ) -> Phase:
        if workload in ("Put", "Mixed"):
            params["payload"] = self._options["payload"]
        stream = self._stream(
            name,
            workload,
            objects or self._objects,
            {"count": count, **params},
            arrivals=to_json(self._arrivals),
            items="keys" if name == "list" else "",
            is_stationary=name not in ("put", "mixed"),
        )
        plan = PhasePlan(
            name, (stream,), self._context.endpoint, seed=self._options["seed"], **timing_of(self._options)
        )
        return Phase(plan, self._parameters(count), verify)

    def _fixed(
        self,
        name: str,
        workload: str,
        objects: ObjectSet,
        count: int,
        *,
        is_measured: bool = True,
        verify: Any = None,
    ) -> Phase:
        """All of `count` objects once, in closed loop."""
        payload = {"payload": self._options["payload"]} if workload == "Put" else {}
        stream = self._stream(
            name,
            workload,
            objects,
            {"count": count, **payload},
            arrivals=to_json(Closed(self._options["clients"])),
            limit=count,
            is_stationary=False,
        )
        plan = self._untimed(name, stream)
        return Phase(
            plan,
            self._parameters(count),
            verify or (lambda *_: {}),
            is_measured=is_measured,
            may_fail_in_part=not is_measured,
        )

    def _untimed(self, name: str, stream: StreamPlan) -> PhasePlan:
        return PhasePlan(
            name,
            (stream,),
            self._context.endpoint,
            drain_s=self._options["drain"],
            timeout_s=self._options["timeout"],
            seed=self._options["seed"],
        )

    def _parameters(self, count: int) -> dict[str, Any]:
        keys = ("size", "payload", "via", "seed")
        return {**{key: self._options[key] for key in keys}, "objects": count}

    def _delete(self) -> Phase:
        """What was stored to be read, or what was written since, if that is more: so it takes longer."""
        return self._fixed("delete", "Delete", *self._most, verify=self._verify_deleted)

    def _mixed(self) -> Phase:
        mix = parse_mix(self._options["mix"])
        phase = self._timed(
            "mixed",
            "Mixed",
            self._count,
            self._verify_read,
            weights=mix,
            most_new=self._new_objects(self._sizes),
            doomed=self._doomed if mix.get("delete") else 0,
            range_bytes=self._options["range_size"],
        )
        return Phase(phase.plan, {**phase.parameters, "mix": self._options["mix"]}, phase.verify)

    def _multipart(self) -> Phase:
        """Uploads are begun before; sending their parts and making objects of them is the phase."""
        part_bytes = self._options["part_size"]
        size_bytes = max(round(self._sizes.mean_bytes), _SMALLEST_UPLOAD_PARTS * part_bytes)
        parts = math.ceil(size_bytes / part_bytes)
        if parts > _MOST_PARTS:
            raise UsageError(f"{parts:,} parts are more than S3 allows", hint="give a larger --part-size")
        # No folders: some gateways leave those of uploads that were given up, and then the bucket.
        objects = ObjectSet(str(size_bytes), self._options["seed"], "multipart-", is_flat=True)
        most, usual = self._new_objects(objects.sizes), default_count(objects.sizes, _DATA_SET_BYTES)
        count = max(self._options["clients"], min(most, usual))
        uploads = [self._control.begin_upload(self._bucket.name, objects.key(n)) for n in range(count)]
        stream = self._stream(
            "multipart",
            "Upload",
            objects,
            {"uploads": uploads, "parts": parts, "part_bytes": part_bytes},
            arrivals=to_json(Closed(self._options["clients"])),
            limit=count * (parts + 1),
            chain=parts + 1,
            is_stationary=False,
        )
        parameters = {**self._parameters(count), "size": size_bytes, "part_size": part_bytes, "parts": parts}
        return Phase(self._untimed("multipart", stream), parameters, self._verify_uploaded)

    def _verify_read(self, outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> dict[str, Evidence]:
        (stream,) = outcome.plan.streams
        checks = tuple(_answer_checks(outcome.samples(stream), load_workload(stream)))
        return {stream.name: Evidence(checks, self._metrics(outcome, stream, measured))}

    def _verify_stored(
        self, outcome: PhaseOutcome, measured: Mapping[str, Measurement]
    ) -> dict[str, Evidence]:
        (stream,) = outcome.plan.streams
        samples = outcome.samples(stream)
        count = int(stream.params["count"])
        certain = {int(index) % count for index in samples.index[samples.ok]}
        possible = {int(index) % count for index in samples.index}
        objects = ObjectSet.from_json(stream.params["objects"])
        checks = self._stored_checks(objects, certain, possible)
        if len(possible) > self._most[1]:
            self._most = objects, max(possible) + 1
        return {stream.name: Evidence(checks, self._metrics(outcome, stream, measured))}

    def _verify_uploaded(
        self, outcome: PhaseOutcome, measured: Mapping[str, Measurement]
    ) -> dict[str, Evidence]:
        (stream,) = outcome.plan.streams
        samples = outcome.samples(stream)
        uploads, steps = samples.index // stream.chain, samples.index % stream.chain
        last = steps == stream.chain - 1
        certain = {int(upload) for upload in uploads[samples.ok & last]}
        possible = {int(upload) for upload in uploads[last]}
        checks = self._stored_checks(ObjectSet.from_json(stream.params["objects"]), certain, possible)
        metrics = (*self._metrics(outcome, stream, measured), *chain_metrics("upload", samples, stream.chain))
        return {stream.name: Evidence(checks, metrics)}

    def _verify_deleted(
        self, outcome: PhaseOutcome, measured: Mapping[str, Measurement]
    ) -> dict[str, Evidence]:
        (stream,) = outcome.plan.streams
        samples = outcome.samples(stream)
        objects = ObjectSet.from_json(stream.params["objects"])
        gone = {int(index) for index in samples.index[samples.ok]}
        left = self._stored_sizes(objects).keys()
        check = _check("COUNT", len(gone & left), f"{len(gone & left):,} deleted objects are still listed")
        return {stream.name: Evidence((check,), self._metrics(outcome, stream, measured))}

    def _metrics(
        self, outcome: PhaseOutcome, stream: StreamPlan, measured: Mapping[str, Measurement]
    ) -> tuple[Metric, ...]:
        workload, samples = load_workload(stream), outcome.samples(stream)
        window_s = measured[stream.name].window_s
        found = object_metrics(
            samples,
            window_s,
            workload.size,
            lambda index: str(workload.operation(index)[0]),
            open_loop=stream.arrivals["kind"] != "closed",
        )
        hosts = [report.host for report in outcome.reports(stream)]
        return (*found, *host_balance(samples, window_s, hosts))

    def _stored_sizes(self, objects: ObjectSet) -> dict[int, int]:
        """By the object's number, as the server lists them."""
        listed = self._control.listing(self._bucket.name, objects.prefix)
        return {objects.number(stored.key): stored.size_bytes for stored in listed}

    def _stored_checks(self, objects: ObjectSet, certain: set[int], possible: set[int]) -> tuple[Check, ...]:
        """Is all there that was confirmed, nothing that was not sent, of the right size and content?"""
        sizes = self._stored_sizes(objects)
        missing = sorted(certain - set(sizes))
        lost, invented = len(missing), len(set(sizes) - possible)
        wrong = sum(size != objects.size(number) for number, size in sizes.items())
        text = (
            f"{len(sizes):,} objects stored, {len(certain):,} expected: {lost:,} are missing, "
            f"{invented:,} were never sent, {wrong:,} have another size"
        )
        count = _check("COUNT", lost + invented + wrong, text)
        if lost and not invented and not wrong and self._are_there(objects, missing):
            late = (
                f"the listing lacks {lost:,} of {len(certain):,} objects, which can be read: it lags behind"
            )
            advice = "programs that list what they stored will miss some of it"
            count = replace(count, verdict=Verdict.WARN, message=late, advice=advice)
        return (count, self._content_check(objects, sorted(certain & set(sizes))))

    def _are_there(self, objects: ObjectSet, numbers: list[int]) -> bool:
        """A few of them, evenly spread."""
        return all(self._control.has(self._bucket.name, objects.key(number)) for number in _spread(numbers))

    def _content_check(self, objects: ObjectSet, numbers: list[int]) -> Check:
        """Reads a few objects, evenly spread, and compares them."""
        read, differing, read_bytes = 0, 0, 0
        for number in _spread(numbers):
            if read and read_bytes + objects.size(number) > _READ_BACK_BYTES:
                break
            read, read_bytes = read + 1, read_bytes + objects.size(number)
            differing += self._control.read(self._bucket.name, objects.key(number)) != objects.body(number)
        return _check(
            "CONTENT", differing, f"{differing:,} of {read:,} objects read back differ from what was sent"
        )


def _answer_checks(samples: Samples, workload: Any) -> Iterator[Check]:
    """Is every answer as long as it should be, kept or not? Are those that were compared what was stored?"""
    answered = samples.select(samples.ok)
    lengths = [
        (int(got), workload.size(int(index)))
        for index, got in zip(answered.index, answered.bytes_in, strict=True)
        if workload.operation(int(index))[0] in ("get", "range")
    ]
    if lengths:
        wrong = sum(got != size for got, size in lengths)
        yield _check(
            "LENGTH", wrong, f"{wrong:,} of {len(lengths):,} answers have another length than what was stored"
        )
    differing = samples.index[samples.outcome == OutcomeKind.WRONG]
    compared = len(differing) + sum(workload.keeps(int(index)) for index in answered.index)
    yield _check(
        "CONTENT",
        len(differing),
        f"{len(differing):,} of {compared:,} compared answers are not what was stored",
    )


def _spread(numbers: list[int]) -> list[int]:
    return numbers[:: max(1, len(numbers) // _READ_BACK)][:_READ_BACK]


def _check(code: str, wrong: int, message: str) -> Check:
    advice = "the service lost or changed data: do not use these numbers" if wrong else ""
    verdict = Verdict.INVALID if wrong else Verdict.VALID
    return Check(code, verdict, message, value=float(wrong), limit=0.0, unit="objects", advice=advice)
