"""Endpoint: addresses as people type them, stored and found again, and secrets that stay where they are."""

import os
import tempfile
import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, UsageError


class Addresses(unittest.TestCase):
    def test_what_people_type(self) -> None:
        for text, url, authority in (
            ("http://node7:8000", "http://node7:8000", "node7:8000"),
            ("http://node7:8000/", "http://node7:8000", "node7:8000"),
            ("HTTP://Node7", "http://node7", "node7"),
            ("https://host/some/prefix/", "https://host/some/prefix", "host"),
            ("https://host:8443/a%20b/~c", "https://host:8443/a%20b/~c", "host:8443"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "[::1]:8000"),
            ("http://h:443", "http://h:443", "h:443"),
            ("http://my_service.ns:80", "http://my_service.ns", "my_service.ns"),
        ):
            endpoint = Endpoint.from_url(text)
            self.assertEqual((endpoint.url, endpoint.authority), (url, authority), text)

    def test_what_is_no_address_is_refused(self) -> None:
        for text in (
            "", "node7", "node7:8000", "/v1", "ftp://h", "http://", "http:///v1", "http://h:0", "http://h:x",
            "http://h:70000", "http://h/v1?key=1", "http://h#x", "http://h/a b", "http://h/a\r\nX: y",
            "http://h/\u00e9", "http://-h", "http://[::1", "http://h//v1", "http://h e",
        ):  # fmt: skip
            with self.assertRaises(UsageError, msg=text) as caught:
                Endpoint.from_url(text)
            self.assertIn("http", caught.exception.hint, text)

    def test_a_key_in_an_address_is_refused_and_not_repeated(self) -> None:
        with self.assertRaises(UsageError) as caught:
            Endpoint.from_url("https://me:sk-12345@host/v1")
        self.assertNotIn("sk-12345", str(caught.exception))


class Storage(unittest.TestCase):
    def test_everything_is_found_again(self) -> None:
        endpoint = Endpoint("h", 443, "https", {"grpc": 1}, Path("/k"), "/a/b", Path("/ca.pem"))
        self.assertEqual(Endpoint.from_json(endpoint.to_json()), endpoint)

    def test_files_of_earlier_versions_have_neither_prefix_nor_certificates(self) -> None:
        stored = {"host": "h", "port": 8000, "scheme": "http", "ports": {}, "secret_file": None}
        self.assertEqual(Endpoint.from_json(stored), Endpoint("h", 8000))


class Secrets(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "key"

    def read(self, content: bytes) -> str | None:
        self.path.write_bytes(content)
        return Endpoint("h", 1, secret_file=self.path).read_secret()

    def test_one_word_with_or_without_a_newline(self) -> None:
        self.assertEqual(self.read(b"sk-1\n"), "sk-1")
        self.assertEqual(self.read(b" sk-1"), "sk-1")
        self.assertIsNone(self.read(b"\n"))
        self.assertIsNone(Endpoint("h", 1).read_secret())

    def test_what_no_header_can_carry_is_refused_and_not_repeated(self) -> None:
        for content in (b"sk-1\r\nX: y", b"sk-1 sk-2", b"sk-1\x00", b"sk-1\xff"):
            with self.assertRaises(ServiceError, msg=content) as caught:
                self.read(content)
            self.assertNotIn("sk-1", str(caught.exception))
            self.assertIn(str(self.path), str(caught.exception))

    def test_a_file_that_is_gone_is_named(self) -> None:
        with self.assertRaisesRegex(ServiceError, f"{self.path}: {os.strerror(2)}"):
            Endpoint("h", 1, secret_file=self.path).read_secret()


if __name__ == "__main__":
    unittest.main()
