"""The reference server: vLLM's words byte for byte, exact timing, exact numbers of faults, a true account."""

import http.client
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from test import fakes  # noqa: F401 - puts src on the path
from test.fakes.waiting import eventually

from aifbench.errors import UsageError, WorkloadError
from aifbench.workloads.reference_answers import Author, End, Script
from aifbench.workloads.reference_plan import Fault, ReferencePlan, parse
from aifbench.workloads.reference_process import ReferenceServer
from aifbench.workloads.reference_requests import (
    TEMPLATE_TOKENS,
    Kind,
    Limits,
    Refusal,
    Request,
    count_tokens,
    read_request,
    split_request,
)
from aifbench.workloads.reference_truth import Ledger, quantile_ms

LIMITS = Limits("m", 100, 16)
QUICK = ReferencePlan(ttft_s=0.004, itl_s=0.001, output_tokens=8, stamps=True)

# Bodies of answers of vLLM 0.32.0 (`--served-model-name m`) to a chat of 20 prompt tokens and a completion
# of 3, with 3 and 2 tokens; the text of each token replaced by this server's.
VLLM_CHAT = (
    b'fe\r\ndata: {"id":"chatcmpl-90bfe7644005f491","object":"chat.completion.chunk","created":1795198814,'
    b'"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    b'"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n\r\n'
    b'd7\r\ndata: {"id":"chatcmpl-90bfe7644005f491","object":"chat.completion.chunk","created":1795198814,'
    b'"model":"m","choices":[{"index":0,"delta":{"content":"token "},"logprobs":null,"finish_reason":null,'
    b'"token_ids":null}]}\n\n\r\n'
    b'd7\r\ndata: {"id":"chatcmpl-90bfe7644005f491","object":"chat.completion.chunk","created":1795198814,'
    b'"model":"m","choices":[{"index":0,"delta":{"content":"token "},"logprobs":null,"finish_reason":null,'
    b'"token_ids":null}]}\n\n\r\n'
    b'ee\r\ndata: {"id":"chatcmpl-90bfe7644005f491","object":"chat.completion.chunk","created":1795198814,'
    b'"model":"m","choices":[{"index":0,"delta":{"content":"token "},"logprobs":null,'
    b'"finish_reason":"length","stop_reason":null,"token_ids":null}]}\n\n\r\n'
    b'eb\r\ndata: {"id":"chatcmpl-90bfe7644005f491","object":"chat.completion.chunk","created":1795198814,'
    b'"model":"m","choices":[],"usage":{"prompt_tokens":20,"total_tokens":23,"completion_tokens":3},'
    b'"system_fingerprint":"vllm-0.32.0-reference"}\n\n\r\n'
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)
VLLM_COMPLETION = (
    b'eb\r\ndata: {"id":"cmpl-90bfe7644005f491","object":"text_completion","created":1795198814,"model":"m",'
    b'"choices":[{"index":0,"text":"token ","logprobs":null,"finish_reason":null,"stop_reason":null,'
    b'"prompt_token_ids":null,"token_ids":null}]}\n\n\r\n'
    b'11c\r\ndata: {"id":"cmpl-90bfe7644005f491","object":"text_completion","created":1795198814,"model":"m",'
    b'"choices":[{"index":0,"text":"token ","logprobs":null,"finish_reason":"length","stop_reason":null,'
    b'"prompt_token_ids":null,"token_ids":null}],"system_fingerprint":"vllm-0.32.0-reference"}\n\n\r\n'
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)
VLLM_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: \r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"vary: Origin\r\ntransfer-encoding: chunked\r\n\r\n"
)


def body(**asked: object) -> bytes:
    return json.dumps(asked).encode()


def chat(words: int = 4, **asked: object) -> bytes:
    return body(messages=[{"role": "user", "content": "w " * words}], **asked)


def stream_of(request: Request, plan: ReferencePlan, fault: Fault | None = None) -> Script:
    return Author(plan, 1795198814).script(request, 0x90BFE7644005F491, fault, 7)


def dechunked(data: bytes) -> bytes:
    """The body of a chunked answer, or as much of it as there is."""
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        found, data = found + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return found


def events_of(answer: bytes) -> list[Any]:
    lines = [line for line in answer.split(b"\n\n") if line]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines if line != b"data: [DONE]"]


def texts(events: list[Any]) -> list[str]:
    return [event["choices"][0]["delta"].get("content") for event in events if event.get("choices")]


class Plan(unittest.TestCase):
    def test_a_plan_survives_its_command_line(self) -> None:
        plan = ReferencePlan(
            ttft_s=0.1, slots=3, role_first=True, key_file=Path("/k"), cut_share=0.25, model="a b"
        )
        self.assertEqual(parse(plan.argv())[0], plan)
        self.assertEqual(parse([])[0], ReferencePlan())
        self.assertEqual(ReferencePlan().argv(), [])

    def test_values_that_cannot_be_used(self) -> None:
        for wrong in (
            {"ttft_s": -1.0},
            {"ttft_s": math.nan},
            {"slots": 0},
            {"tokens_per_chunk": 0},
            {"cut_share": 1.5},
            {"jitter": -0.1},
            {"output_tokens": 0},
        ):
            with self.subTest(wrong), self.assertRaisesRegex(UsageError, "--"):
                ReferencePlan(**wrong)

    def test_a_share_hits_every_nth_request(self) -> None:
        plan = ReferencePlan(error_share=0.1)
        self.assertEqual([n for n in range(1, 31) if plan.fault_of(n)], [10, 20, 30])

    def test_equal_shares_do_not_fall_together(self) -> None:
        plan = ReferencePlan(error_share=0.1, cut_share=0.1, hang_share=0.1)
        faults = [plan.fault_of(n) for n in range(1, 201)]
        for fault in (Fault.ERROR, Fault.CUT, Fault.HANG):
            self.assertEqual(faults.count(fault), 20)


class Requests(unittest.TestCase):
    def test_tokens_are_words_or_ids(self) -> None:
        self.assertEqual(read_request(Kind.CHAT, chat(5), LIMITS).prompt_tokens, 5 + TEMPLATE_TOKENS)
        self.assertEqual(count_tokens(chat(5), "m"), 5 + TEMPLATE_TOKENS)
        self.assertEqual(read_request(Kind.COMPLETION, body(prompt=" a  b\nc "), LIMITS).prompt_tokens, 3)
        self.assertEqual(read_request(Kind.COMPLETION, body(prompt=[7, 8]), LIMITS).prompt_tokens, 2)
        parts = [{"type": "text", "text": "a b"}, {"type": "image_url"}]
        asked = body(messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": None}])
        self.assertEqual(read_request(Kind.CHAT, asked, LIMITS).prompt_tokens, 2 + TEMPLATE_TOKENS)
        found = read_request(Kind.EMBEDDING, body(input=["a b", "c"]), LIMITS)
        self.assertEqual((found.prompt_tokens, found.inputs), (3, 2))

    def test_output_length(self) -> None:
        for asked, expected in (
            ({}, 16),
            ({"max_tokens": 5}, 5),
            ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
            ({"max_tokens": 100}, 99),  # what the context leaves
        ):
            found = read_request(Kind.COMPLETION, body(prompt="a", **asked), LIMITS)
            self.assertEqual(found.output_tokens, expected)

    def test_refusals_are_vllms(self) -> None:
        for asked, status, kind, words in (
            (
                body(prompt="a", model="x"),
                404,
                "NotFoundError",
                "The model `x` does not exist. Valid aliases: m.",
            ),
            (body(prompt=[1] * 101), 400, "BadRequestError", "maximum context length is 100 tokens"),
            (
                body(prompt="a", max_tokens=101),
                400,
                "BadRequestError",
                "cannot be greater than max_model_len=100",
            ),
            (body(prompt="a", max_tokens=0), 400, "BadRequestError", "max_tokens must be at least 1, got 0."),
            (body(prompt=[1] * 100), 400, "BadRequestError", "max_tokens must be at least 1, got 0."),
            (
                body(prompt="a", stream_options={"include_usage": True}),
                400,
                "BadRequestError",
                "`stream=True`",
            ),
            (body(max_tokens=1), 400, "Bad Request", "Field required"),
            (b"{nojson", 400, "Bad Request", "JSON decode error"),
            (b"[]", 400, "Bad Request", "no object"),
            (body(prompt=["a", "b"]), 400, "BadRequestError", "One prompt"),
            (body(prompt={}), 400, "BadRequestError", "token ids"),
            (body(prompt="a", max_tokens="9"), 400, "BadRequestError", "must be a number"),
        ):
            with self.subTest(words), self.assertRaises(Refusal) as caught:
                read_request(Kind.COMPLETION, asked, LIMITS)
            self.assertEqual((caught.exception.status, caught.exception.kind), (status, kind))
            self.assertIn(words, caught.exception.message)

    def test_a_request_in_pieces(self) -> None:
        data = b"POST /v1/x?a=1 HTTP/1.1\r\nContent-Length: 3\r\nAuthorization: Bearer k\r\n\r\nabcGET"
        for end in range(len(data) - 3):
            self.assertIsNone(split_request(data[:end]))
        split = split_request(data)
        assert split is not None
        self.assertEqual((split[0].path, split[0].body, split[1]), (b"/v1/x", b"abc", b"GET"))
        self.assertEqual(split[0].authorization, b"Bearer k")

    def test_what_is_not_http(self) -> None:
        for data in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
            with self.assertRaises(Refusal):
                split_request(data)


class Answers(unittest.TestCase):
    plan = ReferencePlan(ttft_s=0.01, itl_s=0.002, model="m")

    def test_a_chat_is_vllms_byte_for_byte(self) -> None:
        script = stream_of(Request(Kind.CHAT, 20, 3, stream=True, usage=True), self.plan)
        self.assertEqual(re.sub(rb"date: [^\r]*", b"date: ", script.head), VLLM_STREAM_HEAD)
        self.assertEqual(b"".join(script.events), VLLM_CHAT)
        self.assertEqual(list(script.offsets_ns), [10_000_000, 12_000_000, 14_000_000])

    def test_a_completion_is_vllms_byte_for_byte(self) -> None:
        script = stream_of(Request(Kind.COMPLETION, 3, 2, stream=True), self.plan)
        self.assertEqual(b"".join(script.events), VLLM_COMPLETION)

    def test_the_role_may_come_at_once(self) -> None:
        plan = ReferencePlan(role_first=True)
        script = stream_of(Request(Kind.CHAT, 20, 3, stream=True), plan)
        self.assertIn(b'"role":"assistant"', script.head)
        self.assertNotIn(b'"role"', b"".join(script.events))

    def test_the_time_per_token_does_not_depend_on_the_tokens_in_an_event(self) -> None:
        plan = ReferencePlan(ttft_s=0.01, itl_s=0.002, tokens_per_chunk=4)
        script = stream_of(Request(Kind.CHAT, 20, 10, stream=True, usage=True), plan)
        self.assertEqual(list(script.offsets_ns), [10_000_000, 18_000_000, 22_000_000])
        words = [len(text.split()) for text in texts(events_of(dechunked(b"".join(script.events))))]
        self.assertEqual(words, [0, 4, 4, 2])
        self.assertEqual([script.tokens_after(n) for n in range(4)], [0, 4, 8, 10])

    def test_usage_in_every_event(self) -> None:
        plan = ReferencePlan(tokens_per_chunk=4, stamps=True, model="100%m")
        asked = Request(Kind.CHAT, 20, 10, stream=True, usage=True, usage_always=True)
        script = stream_of(asked, plan)
        events = events_of(dechunked(b"".join(event % 1234 for event in script.events)))
        self.assertEqual([event["usage"]["completion_tokens"] for event in events], [0, 4, 8, 10, 10])
        self.assertEqual([event["usage"]["total_tokens"] for event in events], [20, 24, 28, 30, 30])

    def test_stamps_keep_the_size_of_a_chunk(self) -> None:
        plan = ReferencePlan(stamps=True)
        script = stream_of(Request(Kind.CHAT, 20, 2, stream=True), plan)
        for sent_ns in (1, 10**18):
            events = events_of(dechunked(b"".join(event % sent_ns for event in script.events)))
            self.assertEqual([event.get("aifbench_sent_ns") for event in events], [None, sent_ns, sent_ns])
            self.assertEqual(events[1]["aifbench_received_ns"], 7)

    def test_jitter_neither_drifts_nor_touches_the_first_token(self) -> None:
        plan = ReferencePlan(ttft_s=0.01, itl_s=0.002, jitter=1.0, seed=3)
        asked = Request(Kind.CHAT, 20, 500, stream=True)
        offsets_ns = stream_of(asked, plan).offsets_ns
        self.assertEqual(offsets_ns[0], 10_000_000)
        away_ns = [offset - 10_000_000 - 2_000_000 * index for index, offset in enumerate(offsets_ns)]
        self.assertLessEqual(max(map(abs, away_ns)), 1_000_000)
        self.assertGreater(len(set(away_ns)), 400)
        self.assertEqual(list(offsets_ns), sorted(offsets_ns))
        self.assertEqual(list(offsets_ns), list(stream_of(asked, plan).offsets_ns))

    def test_empty_deltas_lose_no_text(self) -> None:
        script = stream_of(Request(Kind.CHAT, 20, 6, stream=True, usage=True), self.plan, Fault.EMPTY_DELTA)
        words = [len(text.split()) for text in texts(events_of(dechunked(b"".join(script.events))))]
        self.assertEqual(words, [0, 1, 0, 2, 0, 2, 1])

    def test_broken_streams(self) -> None:
        asked = Request(Kind.CHAT, 20, 8, stream=True, usage=True)
        for fault, end in ((Fault.CUT, End.CLOSE), (Fault.HANG, End.HANG), (Fault.EVENT_ERROR, End.KEEP)):
            script = stream_of(asked, self.plan, fault)
            self.assertEqual((script.end, script.tokens, len(script.events)), (end, 4, 4))
            answer = b"".join(script.events)
            self.assertNotIn(b'"length"', answer)
            self.assertEqual(answer.endswith(b"0\r\n\r\n"), fault is Fault.EVENT_ERROR)
            self.assertEqual(b'{"error":{' in answer, fault is Fault.EVENT_ERROR)

    def test_a_wrong_length_says_so(self) -> None:
        script = stream_of(Request(Kind.CHAT, 2, 8, stream=True, usage=True), self.plan, Fault.WRONG_LENGTH)
        events = events_of(dechunked(b"".join(script.events)))
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 4)
        self.assertEqual(events[-2]["choices"][0]["finish_reason"], "stop")

    def test_an_answer_in_one_piece_takes_as_long_as_a_stream(self) -> None:
        script = stream_of(Request(Kind.CHAT, 20, 3), self.plan)
        self.assertEqual(list(script.offsets_ns), [14_000_000])
        answer = json.loads(script.events[0].partition(b"\r\n\r\n")[2])
        self.assertEqual(answer["choices"][0]["message"]["content"].split(), ["token"] * 3)
        self.assertEqual(answer["usage"]["total_tokens"], 23)


class Account(unittest.TestCase):
    def test_quantiles_are_within_a_microsecond(self) -> None:
        cells = {(ms * 1_000_000) >> 10: 1 for ms in range(1, 101)}
        self.assertAlmostEqual(quantile_ms(cells, 0.5), 50, delta=0.001)
        self.assertAlmostEqual(quantile_ms(cells, 0.99), 99, delta=0.001)
        self.assertTrue(math.isnan(quantile_ms({}, 0.5)))

    def test_a_histogram_includes_its_bounds(self) -> None:
        ledger = Ledger()
        ledger.first_sent(5_000_000)
        text = ledger.metrics('a"b', 1, 2, 3)
        self.assertIn(
            'vllm:time_to_first_token_seconds_bucket{engine="0",model_name="a\\"b",le="0.005"} 1.0', text
        )
        self.assertIn('le="0.001"} 0.0', text)


class Client:
    """A few requests to a server on one connection at a time."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port = port
        self.headers = headers

    def ask(self, method: str, path: str, sent: bytes | None = None) -> tuple[int, bytes]:
        """Status and body; raises IncompleteRead for a cut answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, sent, self.headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stream(self, tokens: int = 8, **asked: object) -> list[Any]:
        status, answer = self.ask(
            "POST", "/v1/chat/completions", chat(max_tokens=tokens, stream=True, **asked)
        )
        assert status == 200, answer
        return events_of(answer)


def sent_ns(events: list[Any]) -> list[int]:
    return [event["aifbench_sent_ns"] for event in events if "aifbench_sent_ns" in event]


def received_ns(events: list[Any]) -> int:
    return next(int(event["aifbench_received_ns"]) for event in events if "aifbench_received_ns" in event)


def send_chat(sock: socket.socket, headers: str = "", **asked: object) -> None:
    sent = chat(stream=True, **asked)
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{headers}Content-Length: {len(sent)}\r\n\r\n"
    sock.sendall(head.encode() + sent)


class Serving(unittest.TestCase):
    def test_nothing_is_sent_before_its_time_and_the_account_is_true(self) -> None:
        with ReferenceServer(QUICK) as server, ThreadPoolExecutor(8) as pool:
            client = Client(server.port)
            answers = list(pool.map(lambda _: client.stream(), range(24)))
            metrics = client.ask("GET", "/metrics")[1].decode()
            truth = server.stop()
        for events in answers:
            times_ns = sent_ns(events)
            self.assertEqual(len(times_ns), 8)
            for index, time_ns in enumerate(times_ns):
                self.assertGreaterEqual(time_ns - received_ns(events), 4_000_000 + index * 1_000_000)
        after_ns = sorted(sent_ns(events)[0] - received_ns(events) for events in answers)
        self.assertAlmostEqual(truth.ttft_p50_ms, after_ns[11] / 1e6, delta=0.001)
        self.assertEqual((truth.requests, truth.tokens, truth.kinds), (24, 192, {"whole": 24}))
        self.assertGreater(truth.cpu_s, 0)
        self.assertIn("vllm:time_to_first_token_seconds_count", metrics)
        self.assertRegex(metrics, r"vllm:generation_tokens_total\{.*\} 192\.0")
        self.assertRegex(metrics, r"vllm:num_requests_running\{.*\} 0\.0")

    def test_slots_are_given_in_order_and_without_loss(self) -> None:
        plan = ReferencePlan(ttft_s=0.01, itl_s=0.001, stamps=True, slots=1)
        with ReferenceServer(plan) as server, ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: Client(server.port).stream(11), range(4)))
        answers.sort(key=received_ns)
        first_ns = received_ns(answers[0])
        for index, events in enumerate(answers):  # each holds the slot for 10 + 10 x 1 ms
            self.assertGreaterEqual(sent_ns(events)[0] - first_ns, 10_000_000 + index * 20_000_000)
        for one, next_one in pairwise(answers):
            self.assertLess(sent_ns(one)[-1], sent_ns(next_one)[0])

    def test_faults_come_in_exact_numbers(self) -> None:
        share = 0.125
        plan = ReferencePlan(
            ttft_s=0,
            itl_s=0,
            throttle_share=share,
            error_share=share,
            cut_share=share,
            event_error_share=share,
            hang_share=share,
            empty_delta_share=share,
            wrong_length_share=share,
        )
        with ReferenceServer(plan) as server:
            seen = [
                self.outcome(server.port, hangs=plan.fault_of(number) is Fault.HANG)
                for number in range(1, 17)
            ]
            truth = server.stop()
        expected = {fault.value: 2 for fault in Fault} | {"whole": 2}
        self.assertEqual(truth.kinds, expected)
        self.assertEqual(sorted(seen), sorted([*expected, *expected]))
        self.assertEqual(truth.tokens, 2 * (3 * 4 + 4 + 8 + 8))

    def outcome(self, port: int, *, hangs: bool) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            send_chat(sock, max_tokens=8, stream_options={"include_usage": True})
            return self.kind_of(sock, hangs=hangs)

    def kind_of(self, sock: socket.socket, *, hangs: bool) -> str:
        answer = b""
        while not answer.endswith(b"0\r\n\r\n") and b"content-length" not in answer:
            if hangs and answer.count(b'"token ') == 4:
                sock.settimeout(0.1)
                with self.assertRaises(TimeoutError):
                    sock.recv(1)
                return "hang"
            if not (data := sock.recv(65536)):
                return "cut"
            answer += data
        return self.kind_of_answer(answer)

    def kind_of_answer(self, answer: bytes) -> str:
        if b" 429 " in answer and b"\r\nretry-after: 1\r\n" in answer:
            return "throttle"
        if b" 500 " in answer:
            return "error"
        if b'{"error":{' in answer:
            return "event_error"
        if b'"completion_tokens":4' in answer:
            return "wrong_length"
        empty = answer.count(b'{"content":""}')
        return "empty_delta" if empty else "whole"

    def test_the_other_endpoints(self) -> None:
        with (
            tempfile.NamedTemporaryFile("w") as key,
            ReferenceServer(
                ReferencePlan(
                    ttft_s=0, itl_s=0, model="m", key_file=self.with_text(key.name, "s3cret\n"), dimensions=2
                )
            ) as server,
        ):
            stranger, client = Client(server.port), Client(server.port, Authorization="Bearer s3cret")
            self.assertEqual(stranger.ask("GET", "/health"), (200, b""))
            self.assertEqual(stranger.ask("GET", "/v1/models"), (401, b'{"error":"Unauthorized"}'))
            self.assertEqual(json.loads(client.ask("GET", "/v1/models")[1])["data"][0]["id"], "m")
            self.assertEqual(client.ask("GET", "/version"), (200, b'{"version":"0.32.0"}'))
            self.assertEqual(client.ask("GET", "/nope"), (404, b'{"detail":"Not Found"}'))
            self.assertEqual(client.ask("GET", "/v1/completions")[0], 405)
            self.assertEqual(client.ask("POST", "/v1/completions", body(model="x", prompt="a"))[0], 404)
            self.assertEqual(json.loads(client.ask("POST", "/tokenize", body(prompt="a b"))[1])["count"], 2)
            status, answer = client.ask("POST", "/v1/embeddings", body(input=["a b", "c"]))
            self.assertEqual((status, len(json.loads(answer)["data"])), (200, 2))
            status, answer = client.ask("POST", "/v1/completions", body(prompt="a", max_tokens=3))
            self.assertEqual(json.loads(answer)["choices"][0]["text"], "token token token")
            self.assertNotIn("s3cret", " ".join(self.command_lines()))

    def with_text(self, name: str, text: str) -> Path:
        Path(name).write_text(text)
        return Path(name)

    def command_lines(self) -> list[str]:
        children = subprocess.run(
            ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
        )
        self.assertIn("reference_server", children.stdout)
        return children.stdout.splitlines()

    def test_a_client_that_does_not_read_loses_nothing(self) -> None:
        plan = ReferencePlan(ttft_s=0, itl_s=0)
        with ReferenceServer(plan) as server, socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            send_chat(sock, "Connection: close\r\n", max_tokens=40_000)
            eventually(lambda: self.tokens_so_far(server) == 40_000, "all is made")
            with sock.makefile("rb") as answer:
                read = answer.read()  # until the server closes, as asked
            truth = server.stop()
        self.assertEqual(read.count(b'"token "'), 40_000)
        self.assertTrue(read.endswith(b"0\r\n\r\n"))
        self.assertGreater(truth.blocked, 0)

    def metrics(self, server: ReferenceServer) -> bytes:
        return Client(server.port).ask("GET", "/metrics")[1]

    def test_a_client_that_leaves_frees_its_slot(self) -> None:
        plan = ReferencePlan(ttft_s=0, itl_s=60, slots=1, stamps=True)
        with ReferenceServer(plan) as server:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
                send_chat(sock, max_tokens=2)
                sock.recv(10)
            self.assertEqual(len(sent_ns(Client(server.port).stream(1))), 1)
            truth = server.stop()
        self.assertEqual(truth.kinds, {"aborted": 1, "whole": 1})

    def test_a_client_that_leaves_with_its_window_full_is_counted_once(self) -> None:
        with ReferenceServer(ReferencePlan(ttft_s=0, itl_s=0.00002, slots=1)) as server:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", server.port))
                send_chat(sock, max_tokens=100_000)
                # A socket takes 4 MB at most, and an event is a few hundred bytes long.
                eventually(lambda: self.tokens_so_far(server) > 25_000, "more than a window is made")
            self.assertEqual(len(Client(server.port).stream(1)), 2)  # the slot is free again
            truth = server.stop()
        self.assertEqual(truth.kinds, {"aborted": 1, "whole": 1})
        self.assertEqual(truth.blocked, 1)
        self.assertGreater(truth.tokens, 25_000)

    def test_what_the_end_of_the_server_cuts_is_counted(self) -> None:
        with ReferenceServer(ReferencePlan(ttft_s=0, itl_s=60, slots=1)) as server, socket.socket() as sock:
            sock.connect(("127.0.0.1", server.port))
            send_chat(sock, max_tokens=2)
            eventually(lambda: self.tokens_so_far(server) == 1, "one token is sent")
            truth = server.stop()
        self.assertEqual((truth.kinds, truth.tokens), ({"unfinished": 1}, 1))

    def tokens_so_far(self, server: ReferenceServer) -> float:
        found = re.search(rb"vllm:generation_tokens_total\{.*\} (\S+)", self.metrics(server))
        assert found is not None
        return float(found[1])

    def test_a_server_that_cannot_start_says_why(self) -> None:
        with (
            self.assertRaisesRegex(WorkloadError, "No such file"),
            ReferenceServer(ReferencePlan(key_file=Path("/nonexistent/key"))),
        ):
            pass

    def test_it_ends_with_its_parent_and_leaves_nothing(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        code = (
            "import sys, time; sys.path.insert(0, sys.argv[1])\n"
            "from aifbench.workloads.reference_process import ReferenceServer\n"
            "from aifbench.workloads.reference_plan import ReferencePlan\n"
            "with ReferenceServer(ReferencePlan()) as server:\n"
            "    print(server.port, flush=True); time.sleep(60)\n"
        )
        source = str(Path(__file__).resolve().parents[1] / "src")
        environ = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(
            [sys.executable, "-c", code, source], stdout=subprocess.PIPE, env=environ
        ) as parent:
            assert parent.stdout is not None
            port = int(parent.stdout.readline())
            self.assertEqual(Client(port).ask("GET", "/health")[0], 200)
            parent.send_signal(signal.SIGKILL)
        eventually(lambda: not listens(port), "the server ends")
        self.assertEqual(list(Path(folder).iterdir()), [])


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    unittest.main()
