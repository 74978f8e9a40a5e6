"""OpenAIControl: one clear line for every way in which an endpoint is not what somebody thought it was."""

import contextlib
import os
import socket
import tempfile
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from test.fakes.openai_server import CHAT, COMPLETIONS, EMBEDDINGS, GENERATING, FakeOpenAI
from test.fakes.tls import CA_FILE

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError
from aifbench.workloads.openai_control import Model, OpenAIControl

HTML = "<html><body><h1>It works!</h1></body></html>"


@contextlib.contextmanager
def asking(endpoint: Endpoint, timeout_s: float = 5.0) -> Iterator[OpenAIControl]:
    with contextlib.closing(OpenAIControl(endpoint, timeout_s=timeout_s)) as control:
        yield control


class ControlCase(unittest.TestCase):
    def fails(
        self,
        fake: FakeOpenAI,
        ask: Callable[[OpenAIControl], object],
        *words: str,
        ca_file: Path | None = None,
    ) -> ServiceError:
        """The error of `ask`, which has each of `words` in its one line."""
        with asking(fake.endpoint(ca_file=ca_file)) as control, self.assertRaises(ServiceError) as caught:
            ask(control)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        return caught.exception

    def key_file(self, content: str) -> Path:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "key"
        path.write_text(content)
        return path


class Answers(ControlCase):
    def test_what_a_server_tells_of_itself(self) -> None:
        with FakeOpenAI(paths=GENERATING | {EMBEDDINGS}) as fake, asking(fake.endpoint()) as control:
            self.assertEqual(control.models(), [Model("tiny", 2048, "vllm")])
            self.assertTrue(control.health())
            self.assertEqual(control.version(), "0.32.0")
            self.assertIn("vllm:x", control.metrics_text())
            self.assertEqual(len(control.tokenize("a b c", "tiny")), 3)
            self.assertEqual(len(control.tokenize([{"role": "user", "content": "hi"}], "tiny")), 5)
            self.assertEqual(control.embeddings_once("tiny"), 3)
            generation = control.generate_once("tiny")
            self.assertEqual(
                (generation.api, generation.text, generation.output_tokens), ("completions", "one", 1)
            )

    def test_what_is_not_there_is_no_error(self) -> None:
        bare = FakeOpenAI(paths=frozenset({"/v1/models"}), server_header="llama-box/1")
        with bare as fake, asking(fake.endpoint()) as control:
            self.assertEqual((control.health(), control.metrics_text()), (False, ""))
            self.assertEqual(control.version(), "llama-box/1")
        with (
            FakeOpenAI(paths=frozenset(), server_header="nginx/1.27") as fake,
            asking(fake.endpoint()) as control,
        ):
            self.assertEqual(control.version(), "", "of the web server before it")

    def test_a_server_with_chat_alone_generates_by_chat(self) -> None:
        with FakeOpenAI(paths=GENERATING - {COMPLETIONS}) as fake, asking(fake.endpoint()) as control:
            self.assertEqual(control.generate_once("tiny").api, "chat")

    def test_a_path_before_the_api_and_a_key(self) -> None:
        file = self.key_file("sk-1\n")
        with FakeOpenAI(prefix="/some/prefix", key="sk-1") as fake:
            with asking(fake.endpoint(secret_file=file)) as control:
                self.assertEqual(control.models()[0].id, "tiny")
                self.assertTrue(control.health())
            self.assertEqual(fake.asked[0][1], "/some/prefix/v1/models")

    def test_a_private_ca(self) -> None:
        with FakeOpenAI(uses_tls=True) as fake, asking(fake.endpoint(ca_file=CA_FILE)) as control:
            self.assertEqual(control.models()[0].id, "tiny")

    def test_no_proxy_sees_a_request(self) -> None:
        proxy = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "no_proxy": ""}
        with FakeOpenAI() as fake, mock.patch.dict(os.environ, proxy), asking(fake.endpoint()) as control:
            self.assertTrue(control.health())


class Refusals(ControlCase):
    def test_no_openai_server(self) -> None:
        for status in ((200, HTML), (404, HTML), (200, "ok")):
            with FakeOpenAI(status={"/v1/models": status}) as fake:
                self.fails(fake, lambda c: c.models(), "is no OpenAI-compatible server", "before /v1/models")
        with FakeOpenAI(paths=frozenset()) as fake:
            self.fails(fake, lambda c: c.models(), "404 with application/json to GET /v1/models")

    def test_a_wrong_key_and_a_missing_one(self) -> None:
        file = self.key_file("sk-wrong")
        with FakeOpenAI(key="sk-right") as fake:
            self.fails(fake, lambda c: c.models(), "wants an API key (401", "--key-file FILE")
            refusal = self.assertRaisesRegex(ServiceError, rf"refuses the key in {file} \(401")
            with asking(fake.endpoint(secret_file=file)) as control, refusal as caught:
                control.models()
        self.assertNotIn("sk-", str(caught.exception))

    def test_an_unknown_model_is_told_with_those_that_are_served(self) -> None:
        with FakeOpenAI(models=("tiny", "small")) as fake:
            self.fails(fake, lambda c: c.generate_once("tyny"), "no model 'tyny' (did you mean 'tiny'?)")
            self.fails(fake, lambda c: c.resolve_model("big"), "no model 'big'", "it serves: tiny, small")

    def test_more_tokens_than_the_model_takes(self) -> None:
        with FakeOpenAI() as fake:
            self.fails(
                fake,
                lambda c: c.generate_once("tiny", max_tokens=4000),
                "more tokens than the model takes: max_tokens=4000 cannot be greater than",
            )

    def test_tls_that_does_not_fit(self) -> None:
        with FakeOpenAI(uses_tls=True) as fake:
            self.fails(fake, lambda c: c.models(), "certificate of 127.0.0.1 is not trusted", "--ca-file")
            plain = Endpoint("127.0.0.1", fake.server.server_port)
            with asking(plain) as control, self.assertRaisesRegex(NotReady, "cannot reach"):
                control.models()
        with FakeOpenAI() as fake:
            secure = Endpoint("127.0.0.1", fake.server.server_port, "https")
            with asking(secure) as control, self.assertRaisesRegex(ServiceError, "http instead of https"):
                control.models()

    def test_nobody_listens_and_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            late = self.assertRaisesRegex(NotReady, f"no answer from http://127.0.0.1:{port} in 0.05 s")
            with asking(Endpoint("127.0.0.1", port), 0.05) as control, late:
                control.models()
        refused = self.assertRaisesRegex(
            NotReady, f"cannot reach http://127.0.0.1:{port}: Connection refused"
        )
        with asking(Endpoint("127.0.0.1", port)) as control, refused:
            control.models()

    def test_a_server_that_loads_or_is_overloaded_may_be_asked_again(self) -> None:
        for status in (503, 429):
            with FakeOpenAI(status={COMPLETIONS: (status, "Loading model")}) as fake:
                error = self.fails(fake, lambda c: c.generate_once("tiny"), f"({status}): Loading model")
                self.assertIsInstance(error, NotReady)

    def test_an_engine_that_died_behind_its_front_end(self) -> None:
        said = '{"error": {"message": "EngineCore encountered an issue.", "code": 500}}'
        with FakeOpenAI(status={COMPLETIONS: (500, said)}) as fake:
            self.fails(fake, lambda c: c.generate_once("tiny"), "500 to POST /v1/completions: EngineCore")

    def test_an_error_in_a_good_answer_is_an_error(self) -> None:
        with FakeOpenAI(status={COMPLETIONS: (200, '{"error": {"message": "quota"}}')}) as fake:
            self.fails(fake, lambda c: c.generate_once("tiny"), "quota")
        with FakeOpenAI(status={COMPLETIONS: (200, '{"choices": []}'), CHAT: (200, "x")}) as fake:
            self.fails(fake, lambda c: c.generate_once("tiny"), "generated nothing")

    def test_redirects_are_told_and_not_followed(self) -> None:
        with FakeOpenAI(status={"/v1/models": (301, "")}, location="https://elsewhere/v1/models") as fake:
            self.fails(fake, lambda c: c.models(), "redirects GET /v1/models to https://elsewhere/v1/models")
            self.assertEqual(len(fake.asked), 1)

    def test_garbage(self) -> None:
        odd = FakeOpenAI(status={"/v1/models": (200, '{"data": [1, {}, {"id": "a"}]}')})
        with odd as fake, asking(fake.endpoint()) as control:
            self.assertEqual(control.models(), [Model("a")])
        for text in ("{}", '{"tokens": "x"}', '{"tokens": [1.5]}', "[1]"):
            with FakeOpenAI(status={"/tokenize": (200, text)}) as fake:
                self.fails(fake, lambda c: c.tokenize("x", "tiny"))


class Models(ControlCase):
    def test_the_first_is_taken_when_none_is_asked_for(self) -> None:
        with FakeOpenAI(models=("a", "b")) as fake, asking(fake.endpoint()) as control:
            self.assertEqual(control.resolve_model()[0].id, "a")
            self.assertEqual(control.resolve_model("b"), (Model("b", 2048, "vllm"), ("a", "b")))

    def test_a_server_that_lists_none_is_believed_to_serve_what_is_asked_for(self) -> None:
        for status in ((500, "Internal Server Error"), (200, '{"data": []}')):
            silent = FakeOpenAI(status={"/v1/models": status})
            with silent as fake, asking(fake.endpoint()) as control:
                self.assertEqual(control.resolve_model("/models/a"), (Model("/models/a"), ()))
        with FakeOpenAI(status={"/v1/models": (200, '{"data": []}')}) as fake:
            self.fails(fake, lambda c: c.resolve_model(), "lists no models", "--model")


if __name__ == "__main__":
    unittest.main()
