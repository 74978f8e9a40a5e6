"""Signatures, against the examples that AWS publishes and against botocore's own signer."""

import datetime
import hashlib
import unittest
from typing import Any
from unittest import mock

from test import fakes  # noqa: F401 - puts src on the path
from test.fakes.s3_server import MAX_SKEW_S

from aifbench.workloads.sigv4 import (
    EMPTY_SHA256,
    FRESH_S,
    UNSIGNED_PAYLOAD,
    Credentials,
    Signer,
    amz_date,
    encode_path,
    encode_query,
)

# The user, the bucket and the moment of the examples in the Amazon S3 API reference.
USER = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"
DATE = "20130524T000000Z"
WALL_S = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()


class PublishedExamples(unittest.TestCase):
    def signature(self, method: str, path: str, query: str = "", body: bytes = b"", **more: str) -> str:
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": HOST, "x-amz-content-sha256": digest, "x-amz-date": DATE}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        authorization = Signer(USER, "us-east-1").authorization(method, path, query, headers, digest, DATE)
        return authorization.rpartition("Signature=")[2]

    def test_get_of_a_range(self) -> None:
        self.assertEqual(
            self.signature("GET", "/test.txt", range="bytes=0-9"),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        )

    def test_put_with_a_payload_hash_and_a_name_to_be_quoted(self) -> None:
        self.assertEqual(
            self.signature(
                "PUT",
                encode_path("/test$file.text"),
                body=b"Welcome to Amazon S3.",
                date="Fri, 24 May 2013 00:00:00 GMT",
                x_amz_storage_class="REDUCED_REDUNDANCY",
            ),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        )

    def test_a_parameter_without_a_value(self) -> None:
        self.assertEqual(
            self.signature("GET", "/", encode_query({"lifecycle": ""})),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        )

    def test_a_listing(self) -> None:
        self.assertEqual(
            self.signature("GET", "/", encode_query({"prefix": "J", "max-keys": "2"})),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        )


class AgainstBotocore(unittest.TestCase):
    """Whatever we may send, signed by both."""

    def botocore(self, method: str, url: str, payload_hash: str, region: str) -> str:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials as TheirCredentials

        moment = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC)
        request: Any = AWSRequest(method, url)
        request.headers["X-Amz-Content-SHA256"] = payload_hash
        signer = S3SigV4Auth(TheirCredentials(USER.access_key, USER.secret_key), "s3", region)
        with (
            mock.patch("botocore.auth.get_current_datetime", return_value=moment),
            mock.patch.object(signer, "payload", return_value=payload_hash),
        ):
            signer.add_auth(request)
        return str(request.headers["Authorization"])

    def test_paths_queries_and_payloads(self) -> None:
        cases = [
            ("GET", "/b/plain", {}, EMPTY_SHA256),
            ("PUT", "/prefix/b/with space/and+plus~tilde/é/%41", {}, UNSIGNED_PAYLOAD),
            ("PUT", "/b/k", {"partNumber": "12", "uploadId": "a/b+c=="}, UNSIGNED_PAYLOAD),
            (
                "GET",
                "/b",
                {"list-type": "2", "prefix": "x/ y", "start-after": "a&b", "max-keys": "9"},
                EMPTY_SHA256,
            ),
            ("DELETE", "/b//double//slash", {}, EMPTY_SHA256),
        ]
        for method, path, parameters, payload_hash in cases:
            for region in ("us-east-1", "eu-x"):
                encoded, query = encode_path(path), encode_query(parameters)
                url = f"http://[::1]:9000{encoded}" + (f"?{query}" if query else "")
                head = Signer(USER, region).head(
                    method, "[::1]:9000", encoded, query, payload_hash=payload_hash, date=DATE
                )
                theirs = self.botocore(method, url, payload_hash, region)
                ours = head.decode().partition("authorization: ")[2].strip()
                self.assertEqual(ours.rpartition("=")[2], theirs.rpartition("=")[2], (method, path))


class Heads(unittest.TestCase):
    def test_they_are_complete_but_for_the_blank_line(self) -> None:
        head = Signer(USER, "r").head("HEAD", "h:1", "/b/k", date=DATE)
        self.assertTrue(head.startswith(b"HEAD /b/k HTTP/1.1\r\nhost: h:1\r\n"))
        self.assertTrue(head.endswith(b"\r\n"))
        self.assertNotIn(b"\r\n\r\n", head)

    def test_the_key_follows_the_day(self) -> None:
        signer = Signer(USER, "r")
        first = signer.head("GET", "h", "/", date=DATE)
        signer.head("GET", "h", "/", date="20130525T000000Z")
        self.assertEqual(signer.head("GET", "h", "/", date=DATE), first)

    def test_the_secret_is_in_no_text(self) -> None:
        self.assertNotIn("wJalr", repr(USER))

    def test_dates(self) -> None:
        self.assertEqual(amz_date(WALL_S), DATE)
        self.assertEqual(amz_date(WALL_S + 0.999), DATE)

    def test_a_signature_is_renewed_well_before_a_server_refuses_it(self) -> None:
        self.assertLess(FRESH_S + 240, MAX_SKEW_S)


if __name__ == "__main__":
    unittest.main()
