"""Inference as load: generated answers, conversations, constrained answers, embeddings.

Requests are prepared before the load as far as memory allows; answers are read after it.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.http import encode_request
from aifbench.load.workload import (
    NOT_SEEN,
    Finish,
    Outcome,
    OutcomeKind,
    StreamedAnswer,
    TokenCount,
    TokenTimes,
)
from aifbench.workloads.openai_dialect import DIALECTS, OpenAIDialect, Reading, error_text, read_embeddings
from aifbench.workloads.prompts import ConversationSource, Prompt, PromptSource, load_source
from aifbench.workloads.sse import events
from aifbench.workloads.structured import Constraint
from aifbench.workloads.structured_judges import Validity

# What a worker prepares ahead, so that the start is soon; further requests are made on the way.
_PREPARED = 4096
_PREPARED_BYTES = 64 * 2**20
_PREPARE_S = 2.0


class _Requests:
    """Complete HTTP requests by index: kept when made ahead, else made when asked for."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._kept: dict[int, bytes] = {}

    def prepare(self, indices: Iterable[int]) -> None:
        size, deadline_s = 0, time.monotonic() + _PREPARE_S
        for index in islice(indices, _PREPARED):
            self._kept[index] = data = self._make(index)
            size += len(data)
            if size > _PREPARED_BYTES or time.monotonic() > deadline_s:
                break

    def get(self, index: int) -> bytes:
        data = self._kept.pop(index, None)
        made: bytes = self._make(index) if data is None else data
        return made


def http_request(endpoint: Endpoint, path: str, body: bytes, accept: str = "text/event-stream") -> bytes:
    """A complete POST with the endpoint's key, if it has one."""
    headers = {"Content-Type": "application/json", "Accept": accept}
    if secret := endpoint.read_secret():
        headers["Authorization"] = f"Bearer {secret}"
    return encode_request("POST", endpoint.prefix + path, endpoint.authority, headers, body)


class Generate:
    """One streamed answer per operation, to prompts of a source.

    `api` is chat or completions. Items are output tokens. The first quality says whether the answer has as
    many tokens as were asked for, where `exact` says that the server was told to ignore an earlier end.
    """

    is_stream: ClassVar[bool] = True

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
        self._path = Path(source)
        self._salt = salt
        self._dialect: OpenAIDialect = DIALECTS[api](model, extra)
        self._exact = exact
        self._requests = _Requests(self._make)
        self._endpoint: Endpoint
        self._head = b""
        self._source: PromptSource

    def open(self, endpoint: Endpoint) -> None:
        self._source = load_source(self._path, salt=self._salt)
        self._endpoint = endpoint
        # The head but for its length is the same for all requests, and holds the secret: read it once.
        empty = http_request(endpoint, self._dialect.path, b"")
        self._head = empty.removesuffix(b"0\r\n\r\n")

    def prepare(self, indices: Iterable[int]) -> None:
        self._requests.prepare(indices)

    def close(self) -> None:
        pass

    def request(self, index: int) -> bytes:
        return self._requests.get(index)

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        raise NotImplementedError("answers are streamed")

    def interpret_stream(self, index: int, status: int, answer: StreamedAnswer) -> tuple[Outcome, TokenTimes]:
        del status
        reading = self._dialect.read_stream(events(answer.body))
        return self.judge(index, reading), token_times(reading, answer.arrived_ns(reading.content_ends))

    def judge(self, index: int, reading: Reading) -> Outcome:
        """OK only for an answer that came to its end and has content."""
        return flaw(reading) or Outcome(OutcomeKind.OK, tokens_in(reading), self.qualities(index, reading))

    def qualities(self, index: int, reading: Reading) -> tuple[float, ...]:
        if not self._exact or not reading.output_tokens:
            return ()
        asked = self.asked_tokens(index)
        return () if asked is None else (float(reading.output_tokens == asked),)

    def asked_tokens(self, index: int) -> int | None:
        return self._source.prompt(index).output_tokens

    def _make(self, index: int) -> bytes:
        prompt = self._source.prompt(index)
        return self._complete(self._dialect.body(self._words(prompt), prompt.output_tokens, {}))

    def _complete(self, body: bytes) -> bytes:
        return self._head + b"%d\r\n\r\n" % len(body) + body

    def _words(self, prompt: Prompt) -> dict[str, Any]:
        if prompt.token_ids:
            return self._dialect.ids_prompt(prompt.token_ids)
        if prompt.messages:
            return self._dialect.message_prompt(prompt.messages)
        return self._dialect.text_prompt(prompt.text)


class Constrained(Generate):
    """Answers to prompts of `cases`, with their constraint or, for comparison, without it.

    The first quality says whether the answer is what the constraint allows; an answer that was cut by the
    limit of tokens is not judged.
    """

    def __init__(
        self,
        cases: str,
        model: str,
        *,
        output_tokens: int,
        constrained: bool = True,
        style: str = "structured_outputs",
        api: str = "chat",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cases, model, api=api, extra=extra)
        self._tokens = output_tokens
        self._constrained = constrained
        self._style = style
        self._cases: list[tuple[str, Constraint]] = []

    def open(self, endpoint: Endpoint) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise WorkloadError(f"cannot read {self._path}") from error
        stored = [json.loads(line) for line in lines]
        self._cases = [(case["prompt"], Constraint.from_json(case["constraint"])) for case in stored]
        empty = http_request(endpoint, self._dialect.path, b"")
        self._head = empty.removesuffix(b"0\r\n\r\n")

    def _case(self, index: int) -> tuple[str, Constraint]:
        return self._cases[index % len(self._cases)]

    def _make(self, index: int) -> bytes:
        text, constraint = self._case(index)
        more = constraint.fields(self._style) if self._constrained else {}
        return self._complete(self._dialect.body(self._dialect.text_prompt(text), self._tokens, more))

    def qualities(self, index: int, reading: Reading) -> tuple[float, ...]:
        verdict = self._case(index)[1].judge(reading.text, reading.finish is Finish.LENGTH)
        if verdict.validity in (Validity.CUT, Validity.UNCHECKED):
            return ()
        return (float(verdict.validity is Validity.VALID),)


class Converse(Generate):
    """Conversations: operation `c * turns + t` is turn t of conversation c, after the answers before it.

    A client does the turns of its conversation one after another (StreamPlan.chain), and `learn` is told what
    was answered: that reading is done while the load runs, some 3 microseconds a token.
    """

    def __init__(self, source: str, model: str, *, turns: int, **options: Any) -> None:
        super().__init__(source, model, **options)
        self._turns = turns
        self._answers: dict[int, list[str]] = {}
        self._conversations: ConversationSource

    def open(self, endpoint: Endpoint) -> None:
        super().open(endpoint)
        self._conversations = cast(ConversationSource, self._source)

    def prepare(self, indices: Iterable[int]) -> None:
        """Nothing can be made ahead."""

    def learn(self, index: int, body: bytes) -> bool:
        """Keep an answer for the turns after it; False when it is none, and the conversation is over."""
        reading = self._dialect.read_stream(events(body))
        number = index // self._turns
        if flaw(reading) is not None:
            self._answers.pop(number, None)
            return False
        self._answers.setdefault(number, []).append(reading.text)
        return True

    def _make(self, index: int) -> bytes:
        number, turn = divmod(index, self._turns)
        answers = self._answers.pop(number, []) if turn else []
        prompt = self._conversations.conversation(number).request(answers)
        if 0 < turn < self._turns - 1:
            self._answers[number] = answers
        return self._complete(self._dialect.body(self._words(prompt), prompt.output_tokens, {}))

    def asked_tokens(self, index: int) -> int | None:
        number, turn = divmod(index, self._turns)
        return self._conversations.conversation(number).turns[turn].output_tokens


class Embed:
    """A batch of texts per operation, as one request to `/v1/embeddings`; items are texts."""

    def __init__(self, source: str, model: str, *, batch: int = 1, salt: str = "") -> None:
        self._path = Path(source)
        self._model = model
        self._batch = batch
        self._salt = salt
        self._requests = _Requests(self._make)
        self._endpoint: Endpoint
        self._source: PromptSource

    def open(self, endpoint: Endpoint) -> None:
        self._source = load_source(self._path, salt=self._salt)
        self._endpoint = endpoint

    def prepare(self, indices: Iterable[int]) -> None:
        self._requests.prepare(indices)

    def close(self) -> None:
        pass

    def request(self, index: int) -> bytes:
        return self._requests.get(index)

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        del index, status
        try:
            vectors, _ = read_embeddings(body)
        except ValueError as error:
            return Outcome(OutcomeKind.WRONG, 0, error=error_text(str(error)))
        if vectors != self._batch:
            return Outcome(OutcomeKind.WRONG, vectors, error=f"{vectors} embeddings for {self._batch} texts")
        return Outcome(OutcomeKind.OK, vectors)

    def _make(self, index: int) -> bytes:
        prompts = [self._source.prompt(index * self._batch + number) for number in range(self._batch)]
        inputs: list[Any] = [list(prompt.token_ids) or prompt.text for prompt in prompts]
        body = json.dumps({"model": self._model, "input": inputs}, separators=(",", ":")).encode()
        return http_request(self._endpoint, "/v1/embeddings", body, accept="application/json")


def flaw(reading: Reading) -> Outcome | None:
    """What is wrong with an answer, whatever was asked for; None for one that came to its end."""
    tokens = tokens_in(reading)
    if reading.fault:
        return Outcome(OutcomeKind.PROTOCOL, tokens, error=reading.fault)
    if reading.error:
        return Outcome(OutcomeKind.SERVER_ERROR, tokens, error=f"error in the stream: {reading.error}")
    if reading.finish is Finish.NONE and not reading.is_done:
        return Outcome(OutcomeKind.BROKEN, tokens, error="the stream ended without a finish reason")
    if not reading.content_ends:
        return Outcome(OutcomeKind.WRONG, 0, error="an answer without content")
    return None


def tokens_in(reading: Reading) -> int:
    """Tokens of the answer: as the server says, else one for each piece with content.

    Some count none whatever they send, so 0 is no word to be taken.
    """
    return reading.output_tokens or len(reading.content_ends)


def token_times(reading: Reading, content_ns: Sequence[int]) -> TokenTimes:
    """When what was read had arrived, and how many tokens it was by the best count there is."""
    output_tokens = tokens_in(reading)
    return TokenTimes(
        content_ns=content_ns,
        answer_ns=content_ns[reading.answer_at] if reading.answer_at is not None else NOT_SEEN,
        first_tokens=_first_tokens(reading, len(content_ns), output_tokens),
        prompt_tokens=reading.prompt_tokens or 0,
        cached_tokens=reading.cached_tokens or 0,
        output_tokens=output_tokens,
        counted=TokenCount.USAGE if reading.output_tokens else TokenCount.CHUNKS,
        finish=reading.finish,
    )


def _first_tokens(reading: Reading, chunks: int, output_tokens: int) -> int:
    """Tokens in the first piece: as told, else as many as in a piece on average."""
    if reading.first_tokens is not None:
        return reading.first_tokens
    return max(1, round(output_tokens / chunks)) if chunks else 0
