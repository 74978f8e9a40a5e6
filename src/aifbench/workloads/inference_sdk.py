"""Generation through the vendor's `openai` package, as an application would do it: to show what it costs."""

import time
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.tls import client_context
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.inference import flaw, token_times, tokens_in
from aifbench.workloads.openai_dialect import DIALECTS, Reading, error_text
from aifbench.workloads.openlit_tracing import OPENAI, instrument
from aifbench.workloads.prompts import PromptSource, load_source

_NO_KEY = "none"  # the package wants one, servers without authentication do not look


class Generate:
    """One streamed answer per operation; the options are those of `inference.Generate`.

    `instrument` says where traces go; None makes none.
    """

    def __init__(
        self,
        source: str,
        model: str,
        *,
        api: str = "chat",
        salt: str = "",
        extra: Mapping[str, Any] | None = None,
        exact: bool = False,
        instrument: Mapping[str, str] | None = None,
    ) -> None:
        self._telemetry = instrument
        self._path, self._model, self._api, self._salt = Path(source), model, api, salt
        self._dialect = DIALECTS[api](model)
        self._extra = {name: value for name, value in (extra or {}).items() if value is not None}
        self._usage = {} if (extra or {}).get("stream_options", 1) is None else {"include_usage": True}
        self._exact = exact
        self._client: Any = None
        self._source: PromptSource

    def open(self, endpoint: Endpoint) -> None:
        try:
            import httpx
            import openai
        except ImportError as error:
            raise WorkloadError(
                "--via sdk needs the openai package", hint="type: pip install openai"
            ) from error
        if self._telemetry is not None:
            instrument(OPENAI, self._telemetry)
        self._source = load_source(self._path, salt=self._salt)
        context = client_context(endpoint.scheme, endpoint.ca_file)
        self._client = openai.OpenAI(
            base_url=f"{endpoint.url}/v1",
            api_key=endpoint.read_secret() or _NO_KEY,
            max_retries=0,
            timeout=None,
            http_client=httpx.Client(verify=context or True, trust_env=False, timeout=None),
        )

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def perform(self, index: int) -> Outcome:
        """What came before a failure keeps its times."""
        reading, stamps = Reading(), array("q")
        failed = self._generate(index, reading, stamps) or flaw(reading)
        outcome = failed or Outcome(OutcomeKind.OK, tokens_in(reading), self._qualities(index, reading))
        first_ns = stamps[0] if stamps else 0
        return replace(outcome, first_byte_ns=first_ns, tokens=token_times(reading, stamps))

    def _generate(self, index: int, reading: Reading, stamps: "array[int]") -> Outcome | None:
        """Receive into `reading` and `stamps`; what went wrong, if anything did."""
        import httpx
        import openai

        try:
            for chunk in self._stream(index):
                now_ns = time.perf_counter_ns()
                self._dialect.read_event(reading, chunk.model_dump())
                if len(reading.content_ends) > len(stamps):
                    stamps.append(now_ns)
        except openai.APIStatusError as error:
            text = f"HTTP {error.status_code} {error_text(error.body)}"
            return Outcome(OutcomeKind.of_status(error.status_code), 0, error=text)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            kind = OutcomeKind.CONNECT if isinstance(cause, httpx.ConnectError) else OutcomeKind.BROKEN
            return Outcome(kind, 0, error=error_text(cause or error))
        except openai.APIError as error:
            text = f"error in the stream: {error_text(error.message)}"
            return Outcome(OutcomeKind.SERVER_ERROR, 0, error=text)
        except httpx.TransportError as error:  # what ends a stream comes as it is
            return Outcome(OutcomeKind.BROKEN, 0, error=error_text(error))
        return None

    def _stream(self, index: int) -> Iterable[Any]:
        prompt = self._source.prompt(index)
        if prompt.token_ids:
            words = self._dialect.ids_prompt(prompt.token_ids)
        elif prompt.messages:
            words = self._dialect.message_prompt(prompt.messages)
        else:
            words = self._dialect.text_prompt(prompt.text)
        if prompt.output_tokens is not None:
            words["max_tokens"] = prompt.output_tokens
        if self._usage:
            words["stream_options"] = self._usage
        target = self._client.chat.completions if self._api == "chat" else self._client.completions
        stream: Iterable[Any] = target.create(
            model=self._model, stream=True, temperature=0, extra_body=self._extra, **words
        )
        return stream

    def _qualities(self, index: int, reading: Reading) -> tuple[float, ...]:
        if not self._exact or not reading.output_tokens:
            return ()
        asked = self._source.prompt(index).output_tokens
        return () if asked is None else (float(reading.output_tokens == asked),)
