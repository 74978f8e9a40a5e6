"""Chroma's benchmarks as phases: ingest, search, search while ingesting, create, delete."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aifbench.errors import BenchError, UsageError
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import PhasePlan, Quality, StreamPlan
from aifbench.results.record import Check
from aifbench.servers.benchmark import BenchmarkContext, Evidence, Phase
from aifbench.servers.counting import count_check
from aifbench.servers.instrumented import instrument_params, via_of
from aifbench.servers.load_options import arrivals_of, timing_of
from aifbench.workloads.chroma_control import COLLECTIONS_PATH, ChromaControl, ChromaNamespace, Collection
from aifbench.workloads.datasets import Dataset, DatasetSpec, load_dataset, parse_filter
from aifbench.workloads.preparation import prepare_dataset

_PHASES = {
    "all": ("ingest", "search", "mixed"),
    "ingest": ("ingest",),
    "search": ("load", "search"),
    "mixed": ("load", "mixed"),
    "create": ("create",),
    "delete": ("load", "delete"),
}
_CLEAN_UP_TIMEOUT_S = 5.0
_INDEX_OPTIONS = ("ef_search", "ef_construction", "max_neighbors")


class ChromaBenchmark:
    """One run against one server, in collections of its own, which `close` removes."""

    def __init__(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> None:
        self._names = _PHASES[bench]
        self._options = options
        self._context = context
        self._arrivals: AnyArrivals = arrivals_of(options)
        self._filter = parse_filter(options["filter"])
        self._instrument = instrument_params(options)
        self._control = ChromaControl(context.endpoint)
        self._namespace = ChromaNamespace(self._control, context.run_tag)
        self._dataset: Dataset
        self._collection: Collection | None = None
        self._facts: dict[str, Any] = {}

    @property
    def workers(self) -> int:
        return int(self._options["workers"]) + ("mixed" in self._names)

    def phases(self) -> Iterator[Phase]:
        url = f"{self._context.endpoint.url}{COLLECTIONS_PATH}"
        self._context.belongings.add(self._belonging, f"`curl -X DELETE {url}/NAME` removes one of them")
        if "create" in self._names:
            yield self._create()
            return
        self._prepare()
        for name in self._names:
            if name in ("ingest", "load"):
                yield self._ingest(is_measured=name == "ingest")
            elif name == "search":
                yield self._timed("search", (self._search_stream(),))
            elif name == "mixed":
                search = replace(self._search_stream(), is_stationary=False)
                yield self._timed("mixed", (search, self._trickle_stream()), self._verify_mixed)
            else:
                yield self._delete()

    def facts(self) -> dict[str, Any]:
        return self._facts

    def close(self) -> None:
        self._control.close()
        # The service may be dead or hang, which is known by now; its collections end with its job.
        control = ChromaControl(self._context.endpoint, timeout_s=_CLEAN_UP_TIMEOUT_S)
        with suppress(BenchError):
            ChromaNamespace(control, self._context.run_tag).clear()
            self._context.belongings.strike(self._belonging)
        control.close()

    @property
    def _belonging(self) -> str:
        return f"the collections {self._namespace.prefix}_* at {self._context.endpoint.url}"

    def _prepare(self) -> None:
        options = self._options
        spec = DatasetSpec(
            vectors=self._total_vectors(),
            dim=options["dim"],
            queries=options["queries"],
            k=options["k"],
            metric=options["metric"],
            seed=options["seed"],
            base=options["vectors"] or (None if options["dataset"] else 20_000),
            folder=options["dataset"],
            filter=self._filter,
        )
        self._context.progress.phase("data", "vectors, queries and exact answers")
        path = prepare_dataset(spec, self._context.data_dir)
        self._dataset = load_dataset(path)
        if "mixed" in self._names:
            self._require_trickle_vectors()
        index = {key: options[key] for key in _INDEX_OPTIONS if options[key] is not None}
        self._collection = self._namespace.create("data", self._dataset.metric, index=index)
        self._facts = {
            "dataset": self._dataset.describe(),
            "index": dict(self._collection.index),
            "server_version": self._control.version(),
        }

    def _total_vectors(self) -> int | None:
        """The stored ones and those that the mixed phase inserts; None leaves it to the data set's files."""
        base = self._options["vectors"]
        if base is None and self._options["dataset"]:
            return None
        extra = self._trickle_vectors() if "mixed" in self._names else 0
        return int(base or 20_000) + extra

    def _trickle_vectors(self) -> int:
        duration_s = self._options["warmup"] + self._options["duration"]
        inserted: int = math.ceil(self._options["ingest_rate"] * duration_s) + self._options["batch"]
        return inserted

    def _params(self, **more: Any) -> dict[str, Any]:
        assert self._collection is not None
        return {"dataset": str(self._dataset.path), "collection": self._collection.name, **more}

    def _workload(self, name: str) -> str:
        module = "chroma_sdk" if self._options["via"] == "sdk" else "chroma_http"
        return f"aifbench.workloads.{module}:{name}"

    def _parameters(self) -> dict[str, Any]:
        keys = ("k", "batch", "via", "seed")
        facts = self._dataset.describe()
        return {
            **{key: self._options[key] for key in keys},
            "vectors": self._dataset.base,
            "dim": self._dataset.dim,
            "metric": self._dataset.metric,
            "filter": facts["filter"],
            "lid": facts["lid"],
        }

    def _ingest(self, *, is_measured: bool) -> Phase:
        batch = self._options["batch"]
        stream = StreamPlan(
            name="ingest",
            workload=self._workload("Ingest"),
            params=self._params(
                batch=batch,
                last=self._dataset.base,
                attributes=self._filter is not None,
                **self._instrument,
            ),
            arrivals=to_json(Closed(self._options["ingest_clients"])),
            workers=min(self._options["workers"], self._options["ingest_clients"]),
            limit=math.ceil(self._dataset.base / batch),
            items="vectors",
            via=via_of(self._options),
        )
        plan = self._fixed_work("ingest" if is_measured else "load", stream)
        return Phase(plan, self._parameters(), self._verify_ingest, is_measured=is_measured)

    def _search_stream(self) -> StreamPlan:
        target, k = self._options["recall_target"], self._options["k"]
        return StreamPlan(
            name="search",
            workload=self._workload("Search"),
            params=self._params(k=k, **self._instrument),
            arrivals=to_json(self._arrivals),
            workers=self._options["workers"],
            qualities=(
                Quality(f"recall@{k}", warn_below=target, invalid_below=target / 2),
                Quality(f"recall@{k} tie-aware"),
            ),
            via=via_of(self._options),
        )

    def _trickle_stream(self) -> StreamPlan:
        """Vectors beyond the base, inserted at a constant rate while searches run."""
        base, batch = self._dataset.base, self._options["batch"]
        return StreamPlan(
            name="ingest",
            workload=self._workload("Ingest"),
            params=self._params(
                batch=batch, first=base, attributes=self._filter is not None, **self._instrument
            ),
            arrivals=to_json(Constant(self._options["ingest_rate"] / batch)),
            limit=(len(self._dataset.vectors) - base) // batch,
            items="vectors",
            via=via_of(self._options),
            is_stationary=False,
        )

    def _require_trickle_vectors(self) -> None:
        """Told before anything is measured."""
        base, batch = self._dataset.base, self._options["batch"]
        if len(self._dataset.vectors) - base < batch:
            raise UsageError(
                f"--dataset has no {batch} vectors to insert beyond the first {base:,}",
                hint="lower --vectors",
            )

    def _timed(self, name: str, streams: tuple[StreamPlan, ...], verify: Any = lambda *_: {}) -> Phase:
        plan = PhasePlan(
            name,
            streams,
            self._context.endpoint,
            seed=self._options["seed"],
            **timing_of(self._options),
        )
        return Phase(plan, self._parameters(), verify)

    def _fixed_work(self, name: str, stream: StreamPlan) -> PhasePlan:
        return PhasePlan(
            name,
            (stream,),
            self._context.endpoint,
            drain_s=self._options["drain"],
            timeout_s=self._options["timeout"],
            seed=self._options["seed"],
        )

    def _create(self) -> Phase:
        stream = StreamPlan(
            name="create",
            workload="aifbench.workloads.chroma_http:Create",
            params={"prefix": self._namespace.name("made"), "metric": self._options["metric"] or "l2"},
            arrivals=to_json(Closed(self._options["ingest_clients"])),
            limit=self._options["collections"],
            items="collections",
        )
        self._facts = {"server_version": self._control.version()}
        return Phase(self._fixed_work("create", stream), {"collections": stream.limit}, self._verify_create)

    def _delete(self) -> Phase:
        batch = self._options["batch"]
        stream = StreamPlan(
            name="delete",
            workload="aifbench.workloads.chroma_http:Delete",
            params=self._params(batch=batch, last=self._dataset.base),
            arrivals=to_json(Closed(self._options["ingest_clients"])),
            limit=math.ceil(self._dataset.base / batch),
            items="vectors",
        )
        return Phase(self._fixed_work("delete", stream), self._parameters(), self._verify_delete)

    def _verify_ingest(self, outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        return {"ingest": Evidence((self._count_check(outcome, "ingest", before=0, sign=1),))}

    def _verify_mixed(self, outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        return {
            "ingest": Evidence((self._count_check(outcome, "ingest", before=self._dataset.base, sign=1),))
        }

    def _verify_delete(self, outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        return {
            "delete": Evidence((self._count_check(outcome, "delete", before=self._dataset.base, sign=-1),))
        }

    def _verify_create(self, outcome: PhaseOutcome, _: object) -> Mapping[str, Evidence]:
        made = len(self._namespace.names())
        return {"create": Evidence((count_check(made, *_items(outcome, "create", 0, 1), "collections"),))}

    def _count_check(self, outcome: PhaseOutcome, stream: str, *, before: int, sign: int) -> Check:
        assert self._collection is not None
        stored = self._control.count(self._collection)
        return count_check(stored, *_items(outcome, stream, before, sign), "vectors")


def _items(outcome: PhaseOutcome, name: str, before: int, sign: int) -> tuple[int, int]:
    """How many the service should hold now: (if no failed operation took effect, if all of them did)."""
    stream = next(stream for stream in outcome.plan.streams if stream.name == name)
    samples = outcome.samples(stream)
    done = int(samples.items[samples.ok].sum())
    batch = int(stream.params.get("batch", 1))
    doubtful = int((~samples.ok).sum()) * batch
    return before + sign * done, before + sign * (done + doubtful)
