"""Generation through the vendor's `openai` package, as an application would do it: to show what it costs."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.tls import client_context
from aifbench.load.workload import Outcome, OutcomeKind, TokenCount, TokenTimes
from aifbench.workloads.inference import first_tokens
from aifbench.workloads.openai_dialect import DIALECTS, Reading, error_text
from aifbench.workloads.prompts import PromptSource, load_source

_NO_KEY = "none"  # the package wants one, servers without authentication do not look


class Generate:
    """One streamed answer per operation; the options are those of `inference.Generate`."""

    def __init__(
        self,
        source: str,
        model: str,
        *,
        api: str = "chat",
        salt: str = "",
        extra: Mapping[str, Any] | None = None,
        exact: bool = False,
    ) -> None:
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
        import openai

        try:
            return self._generate(index)
        except openai.APIStatusError as error:
            return Outcome(
                _kind(error.status_code), 0, error=f"HTTP {error.status_code} {error_text(error.body)}"
            )
        except openai.APIConnectionError as error:
            return Outcome(OutcomeKind.CONNECT, 0, error=error_text(error.__cause__ or error))
        except openai.APIError as error:
            return Outcome(
                OutcomeKind.SERVER_ERROR, 0, error=f"error in the stream: {error_text(error.message)}"
            )

    def _generate(self, index: int) -> Outcome:
        prompt = self._source.prompt(index)
        if prompt.token_ids:
            words = self._dialect.ids_prompt(prompt.token_ids)
        elif prompt.messages:
            words = self._dialect.message_prompt(prompt.messages)
        else:
            words = self._dialect.text_prompt(prompt.text)
        target = self._client.chat.completions if self._api == "chat" else self._client.completions
        stream = target.create(
            model=self._model,
            stream=True,
            temperature=0,
            max_tokens=prompt.output_tokens,
            extra_body=self._extra,
            **({"stream_options": self._usage} if self._usage else {}),
            **words,
        )
        reading, stamps = Reading(), []
        for chunk in stream:
            now_ns = time.perf_counter_ns()
            before = len(reading.content_ends)
            self._dialect.read_event(reading, chunk.model_dump())
            if len(reading.content_ends) > before:
                stamps.append(now_ns)
        return self._outcome(reading, stamps, prompt.output_tokens)

    def _outcome(self, reading: Reading, stamps: list[int], asked: int | None) -> Outcome:
        tokens = reading.output_tokens if reading.output_tokens is not None else len(stamps)
        if not stamps:
            return Outcome(OutcomeKind.WRONG, 0, error="an answer without content")
        known = self._exact and asked is not None and reading.output_tokens is not None
        return Outcome(
            OutcomeKind.OK,
            tokens,
            (float(reading.output_tokens == asked),) if known else (),
            first_byte_ns=stamps[0],
            tokens=TokenTimes(
                content_ns=stamps,
                answer_ns=stamps[reading.answer_at or 0],
                first_tokens=first_tokens(reading, len(stamps), tokens),
                prompt_tokens=reading.prompt_tokens or 0,
                output_tokens=tokens,
                counted=TokenCount.CHUNKS if reading.output_tokens is None else TokenCount.USAGE,
                finish=reading.finish,
            ),
        )


def _kind(status: int) -> OutcomeKind:
    if status in (429, 503):
        return OutcomeKind.THROTTLED
    return OutcomeKind.CLIENT_ERROR if status < 500 else OutcomeKind.SERVER_ERROR
