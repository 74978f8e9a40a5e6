"""RAG as a benchmark: a library in the store, then questions at a rate through all the services."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, UsageError
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import PhasePlan, Quality, StreamPlan
from aifbench.results.record import Measurement
from aifbench.servers.benchmark import BenchmarkContext, Evidence, Phase
from aifbench.servers.inference_options import slo_of
from aifbench.servers.inference_phases import limited_by
from aifbench.servers.inference_setup import Setup
from aifbench.servers.load_options import arrivals_of, timing_of
from aifbench.units import parse_count
from aifbench.workloads.chroma_control import COLLECTIONS_PATH, ChromaControl, ChromaNamespace, Collection
from aifbench.workloads.datasets import Dataset, DatasetSpec, load_dataset
from aifbench.workloads.openai_control import OpenAIControl
from aifbench.workloads.preparation import prepare_dataset
from aifbench.workloads.rag import Library
from aifbench.workloads.rag_store import embed_texts, store_documents, write_vectors
from aifbench.workloads.rag_texts import document, prompt, question

STREAM = "rag"
_DOCUMENTS, _QUESTIONS = 2000, 200
_CLEAN_UP_TIMEOUT_S = 5.0
_EMBED_TIMEOUT_S = 120.0
_WARM_REQUESTS = 4
_INDEX_OPTIONS = ("ef_search", "ef_construction", "max_neighbors")


class RagBenchmark:
    """One run; `options` holds the recipes of llm, store and perhaps embed by role."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], options: Mapping[str, Any], context: BenchmarkContext
    ) -> None:
        members = options["members"]
        self._endpoints = endpoints
        self._options = options
        self._context = context
        self._llm_options, self._store_options = members["llm"], members["store"]
        self._embed_options = members.get("embed")
        self._arrivals = arrivals_of({**options, "trace": ""})
        self._output_tokens = _output_tokens(self._llm_options["output_tokens"])
        self._library = Library(
            options["seed"], options["document_words"], self._store_options["vectors"] or _DOCUMENTS
        )
        self._folder = context.data_dir / f"rag-{context.run_tag}"
        self._control = ChromaControl(endpoints["store"])
        self._namespace = ChromaNamespace(self._control, context.run_tag)
        self._facts: dict[str, Any] = {}

    @property
    def workers(self) -> int:
        return int(self._options["workers"])

    def phases(self) -> Iterator[Phase]:
        llm = Setup(self._llm_options, self._context_of("llm"))
        if not llm.api:
            raise UsageError(f"{llm.model} generates nothing, it embeds", hint="give another service as llm")
        embed = self._embed_setup()
        self._check_length(llm)
        url = f"{self._endpoints['store'].url}{COLLECTIONS_PATH}"
        self._context.belongings.add(self._belonging, f"`curl -X DELETE {url}/NAME` removes one of them")
        dataset = self._dataset(embed)
        collection = self._store(dataset)
        self._facts = {
            "llm": llm.facts(),
            **(
                {"embed": embed.facts()}
                if embed
                else {"embed": "none: the questions' vectors were made before"}
            ),
            "library": asdict(self._library),
            "dataset": dataset.describe(),
            "index": dict(collection.index),
        }
        stream = self._stream(llm, embed, dataset, collection)
        yield self._warm(stream)
        yield self._load(stream, llm)

    def facts(self) -> dict[str, Any]:
        return self._facts

    def close(self) -> None:
        self._control.close()
        # The store may be dead or hang, which is known by now.
        control = ChromaControl(self._endpoints["store"], timeout_s=_CLEAN_UP_TIMEOUT_S)
        with closing(control), suppress(BenchError):
            ChromaNamespace(control, self._context.run_tag).clear()
            self._context.belongings.strike(self._belonging)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _belonging(self) -> str:
        return f"the collections {self._namespace.prefix}_* at {self._endpoints['store'].url}"

    def _context_of(self, role: str) -> BenchmarkContext:
        return replace(self._context, endpoint=self._endpoints[role])

    def _embed_setup(self) -> Setup | None:
        if self._embed_options is None:
            return None
        setup = Setup(self._embed_options, self._context_of("embed"))
        if not setup.capabilities.embeddings:
            raise UsageError(f"{setup.model} embeds nothing", hint="serve an embedding model as embed")
        return setup

    def _check_length(self, llm: Setup) -> None:
        """Told before anything is stored; where the server does not count tokens, by its answers."""
        limit = llm.capabilities.max_model_len
        if limit is None or not llm.capabilities.tokenize:
            return
        seed, words = self._library.seed, self._library.words
        documents = [document(seed, number, words) for number in range(self._store_options["k"])]
        text = prompt(self._context.run_tag, documents, question(seed, 0, words, self._library.documents))
        with closing(OpenAIControl(self._endpoints["llm"])) as control:
            tokens = len(control.tokenize([{"role": "user", "content": text}], llm.model))
        if tokens + self._output_tokens > limit:
            raise UsageError(
                f"{self._store_options['k']} documents of {words} words are {tokens:,} tokens; with"
                f" {self._output_tokens:,} of an answer that is more than the {limit:,} of {llm.model}",
                hint="lower document-words, k of the store or output-tokens of the llm",
            )

    def _dataset(self, embed: Setup | None) -> Dataset:
        """Vectors, queries and exact answers: of the texts themselves, or synthetic ones in their place."""
        store, library = self._store_options, self._library
        self._context.progress.phase("data", "documents, questions and exact answers")
        queries = store["queries"] or _QUESTIONS
        spec = DatasetSpec(
            vectors=library.documents,
            queries=queries,
            k=store["k"],
            metric=store["metric"],
            seed=library.seed,
        )
        if embed is None:
            path = prepare_dataset(replace(spec, dim=store["dim"]), self._context.data_dir)
            return load_dataset(path)
        if store["dim"]:
            raise UsageError("dim of store: the embedding model decides", hint="leave dim out")
        texts = [document(library.seed, n, library.words) for n in range(library.documents)]
        asked = [question(library.seed, n, library.words, library.documents) for n in range(queries)]
        with closing(OpenAIControl(self._endpoints["embed"], timeout_s=_EMBED_TIMEOUT_S)) as control:
            vectors, wanted = (embed_texts(control, embed.model, part) for part in (texts, asked))
        write_vectors(self._folder / "embedded", vectors, wanted)
        spec = replace(spec, folder=str(self._folder / "embedded"), metric=store["metric"] or "cosine")
        return load_dataset(prepare_dataset(spec, self._folder))

    def _store(self, dataset: Dataset) -> Collection:
        store = self._store_options
        index = {key: store[key] for key in _INDEX_OPTIONS if store[key] is not None}
        collection = self._namespace.create("library", dataset.metric, index=index)
        self._context.progress.phase("store", f"{self._library.documents:,} documents")
        store_documents(
            self._control,
            collection,
            dataset,
            seed=self._library.seed,
            words=self._library.words,
            batch=store["batch"],
        )
        return collection

    def _stream(
        self, llm: Setup, embed: Setup | None, dataset: Dataset, collection: Collection
    ) -> StreamPlan:
        store, k = self._store_options, self._store_options["k"]
        recall = Quality(
            f"recall@{k}", warn_below=store["recall_target"], invalid_below=store["recall_target"] / 2
        )
        params = {
            "dataset": str(dataset.path),
            "collection": collection.name,
            "store": self._endpoints["store"].to_json(),
            "model": llm.model,
            "library": asdict(self._library),
            "k": k,
            "api": llm.api,
            "extra": llm.extra,
            "exact": llm.is_exact,
            "output_tokens": self._output_tokens,
            "embed": self._endpoints["embed"].to_json() if embed else None,
            "embed_model": embed.model if embed else "",
            "timeout_s": self._options["timeout"],
        }
        return StreamPlan(
            STREAM,
            "aifbench.workloads.rag:Rag",
            params,
            to_json(self._arrivals),
            workers=self._options["workers"],
            qualities=(recall, *((Quality("exact length", warn_below=0.99),) if llm.is_exact else ())),
        )

    def _warm(self, stream: StreamPlan) -> Phase:
        """First requests are slow for reasons of their own."""
        stream = replace(
            _salted(stream, f"{self._context.run_tag}-warm"),
            arrivals=to_json(Closed(2)),
            limit=_WARM_REQUESTS,
            workers=1,
        )
        plan = PhasePlan(
            "warm-up",
            (stream,),
            self._endpoints["llm"],
            drain_s=self._options["drain"],
            timeout_s=self._options["timeout"],
        )
        return Phase(plan, is_measured=False, may_fail_in_part=True)

    def _load(self, stream: StreamPlan, llm: Setup) -> Phase:
        plan = PhasePlan(
            "rag",
            (_salted(stream, self._context.run_tag),),
            self._endpoints["llm"],
            seed=self._options["seed"],
            **timing_of(self._options),
        )
        slo = slo_of(self._options)
        parameters = {
            "model": llm.model,
            "api": llm.api,
            "k": self._store_options["k"],
            "documents": self._library.documents,
            "document_words": self._library.words,
            "output_tokens": self._output_tokens,
            "embedded": "in the run" if self._embed_options else "beforehand",
            "seed": self._options["seed"],
            **({"slo": str(slo)} if slo else {}),
        }
        return Phase(plan, parameters, _verify, slo=slo)


def _verify(_: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
    limit = limited_by(measured[STREAM])
    return {STREAM: Evidence((limit,) if limit else ())}


def _salted(stream: StreamPlan, salt: str) -> StreamPlan:
    return replace(stream, params={**stream.params, "salt": salt})


def _output_tokens(text: str) -> int:
    try:
        return parse_count(str(text), "output_tokens of llm", maximum=10**6)
    except UsageError as error:
        raise UsageError(error.message, hint="rag wants one length, such as 128") from error
