"""OpenLIT on request: refused where it makes no sense, told in the record, silent but for its receiver."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from test.fakes.chroma import FakeChroma

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.plan import StreamPlan
from aifbench.results.record import Verdict
from aifbench.servers.chroma import ChromaServer
from aifbench.servers.instrumented import instrument_params, traced_checks, via_of
from aifbench.servers.run import resolve_bench
from aifbench.workloads.chroma_control import ChromaControl, ChromaNamespace
from aifbench.workloads.datasets import DatasetSpec
from aifbench.workloads.preparation import prepare_dataset

SOURCE = Path(__file__).resolve().parents[1] / "src"
SEARCH = """
import json, sys
from aifbench.cluster.endpoint import Endpoint
from aifbench.workloads.chroma_sdk import Ingest, Search
given = json.loads(sys.argv[1])
data, telemetry = (given["dataset"], given["collection"]), given["telemetry"]
outcomes = []
for workload in (Ingest(*data, batch=50, instrument=telemetry), Search(*data, 5, telemetry)):
    workload.open(Endpoint.from_json(given["endpoint"]))
    outcomes.append(workload.perform(0).kind.name)
    workload.close()
print(json.dumps(outcomes))
"""


def stream(**params: Any) -> StreamPlan:
    return StreamPlan("s", "module:Class", params, to_json(Closed(1)))


class Choice(unittest.TestCase):
    def test_it_is_off_unless_asked_for(self) -> None:
        recipe = resolve_bench(ChromaServer, "search", {"via": "sdk"})
        self.assertEqual((instrument_params(recipe), via_of(recipe)), ({}, "sdk"))
        self.assertEqual(traced_checks(stream()), ())

    def test_only_the_vendors_client_can_be_instrumented(self) -> None:
        recipe = resolve_bench(ChromaServer, "search", {"instrument": True})
        with self.assertRaisesRegex(UsageError, "--instrument is about the vendor's client") as refused:
            instrument_params(recipe)
        self.assertIn("--via sdk", refused.exception.hint)

    def test_whoever_asks_gets_a_warning_with_every_number(self) -> None:
        recipe = resolve_bench(ChromaServer, "search", {"via": "sdk", "instrument": True})
        telemetry = {"url": "http://127.0.0.1:4318"}
        params = instrument_params({**recipe, "telemetry": telemetry})
        self.assertEqual((params, via_of(recipe)), ({"instrument": telemetry}, "sdk, instrumented"))
        (check,) = traced_checks(stream(**params))
        self.assertEqual((check.code, check.verdict), ("TRACED", Verdict.WARN))
        self.assertIn("went to http://127.0.0.1:4318", check.message)
        (check,) = traced_checks(stream(instrument={}))
        self.assertIn("nobody received", check.message)


class Receiver:
    """Keeps what an OTLP/HTTP exporter sends: (path, authorization, body)."""

    def __enter__(self) -> "Receiver":
        received: list[tuple[str, str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.path, self.headers.get("Authorization", ""), body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class RealOpenLIT(unittest.TestCase):
    """In a process of its own each time: a process that was instrumented stays so."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.chroma = self.enterContext(FakeChroma())
        dataset = prepare_dataset(DatasetSpec(vectors=50, dim=8, queries=5, k=5), self.folder)
        control = ChromaControl(self.chroma.endpoint)
        self.addCleanup(control.close)
        collection = ChromaNamespace(control, "r1").create("data", "l2").name
        self.given = {"dataset": str(dataset), "collection": collection}

    def search(self, telemetry: Mapping[str, str] | None) -> None:
        """Adds and searches; must print nothing, and ask nobody but Chroma and the receiver."""
        endpoint: Endpoint = self.chroma.endpoint
        given = {**self.given, "endpoint": endpoint.to_json(), "telemetry": telemetry}
        # A proxy that does not exist catches whatever would leave this machine.
        nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", SEARCH, json.dumps(given)],
            env={**os.environ, "PYTHONPATH": str(SOURCE), **nowhere},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout, '["OK", "OK"]\n')

    def test_the_receiver_gets_spans_with_the_token_and_the_real_address(self) -> None:
        token = self.folder / "token"
        token.write_text("s3cret\n")
        with Receiver() as receiver:
            self.search({"url": receiver.url, "token_file": str(token)})
        kinds = {path for path, _, _ in receiver.received}
        self.assertEqual(kinds, {"/v1/traces", "/v1/metrics"})
        self.assertEqual({word for _, word, _ in receiver.received}, {"Bearer s3cret"})
        spans = b"".join(body for path, _, body in receiver.received if path == "/v1/traces")
        self.assertIn(b"server.address\x12\x0b\n\t127.0.0.1", spans)
        self.assertNotIn(b"localhost", spans)

    def test_without_a_receiver_nothing_is_printed(self) -> None:
        self.search({})


if __name__ == "__main__":
    unittest.main()
