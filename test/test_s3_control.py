"""S3's control plane: keys, the run's own bucket, and errors in the server's words."""

import tempfile
import unittest
from pathlib import Path

from test.fakes.s3_server import FakeS3, Faults

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError
from aifbench.workloads.s3_control import (
    RunBucket,
    S3Control,
    bucket_name,
    credentials_of,
    error_line,
    parse_credentials,
)
from aifbench.workloads.sigv4 import Credentials

ERROR = '<?xml version="1.0"?>\n<Error><Code>{}</Code><Message>{}</Message><RequestId>1</RequestId></Error>'


class ErrorDocuments(unittest.TestCase):
    def test_one_line(self) -> None:
        self.assertEqual(
            error_line(ERROR.format("SlowDown", "Reduce\n your rate").encode()), "SlowDown: Reduce your rate"
        )
        self.assertEqual(error_line(ERROR.format("X", "a &lt; b &amp; c")), "X: a < b & c")
        self.assertEqual(error_line(ERROR.format("X", "")), "X")

    def test_clocks_that_differ_by_either_of_the_names_it_goes_by(self) -> None:
        for code in ("RequestTimeTooSkewed", "AccessDenied"):
            message = "The difference between the request time and the server&#39;s time is large."
            self.assertRegex(error_line(ERROR.format(code, message)), "^RequestTimeTooSkewed: the clocks")

    def test_what_is_cut_short_or_none(self) -> None:
        self.assertEqual(error_line(ERROR.format("SlowDown", "Reduce your")[:70]), "SlowDown: Reduce your")
        for text in (b"", b"<html>", b"\xff\xfe", "<Code>"):
            self.assertEqual(error_line(text), "")


class Keys(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "key"

    def test_forms_of_a_file(self) -> None:
        for text in ("AK:SK", "AK:SK\n", "AK\nSK\n", "AK\r\nSK"):
            self.assertEqual(parse_credentials(text), Credentials("AK", "SK"))
        self.assertEqual(parse_credentials("AK:S:K"), Credentials("AK", "S:K"))
        for text in ("", "AK", ":SK", "AK:", "a\nb\nc", "AK\nSKé"):
            self.assertIsNone(parse_credentials(text), text)

    def test_a_job_s_secret_belongs_to_the_fixed_name(self) -> None:
        self.file.write_text("token\n")
        self.assertEqual(
            credentials_of(Endpoint("h", 1, secret_file=self.file)), Credentials("aifbench", "token")
        )

    def test_files_that_hold_none_never_show_what_they_hold(self) -> None:
        for text in ("a b c", "a:", "\xff"):
            self.file.write_text(text, encoding="latin-1")
            with self.assertRaises(ServiceError) as caught:
                credentials_of(Endpoint("h", 1, secret_file=self.file))
            self.assertNotIn("a b", str(caught.exception))
        for endpoint in (Endpoint("h", 1), Endpoint("h", 1, secret_file=self.file / "no")):
            self.assertRaises(ServiceError, credentials_of, endpoint)


class ControlCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.s3 = FakeS3(Path(folder.name))
        self.enterContext(self.s3)
        self.control = S3Control(self.s3.endpoint)
        self.addCleanup(self.control.close)


class Asking(ControlCase):
    def refusal(self) -> ServiceError:
        with self.assertRaises(ServiceError) as caught:
            self.control.heartbeat()
        return caught.exception

    def test_a_server_that_knows_us(self) -> None:
        self.assertIn("BaseHTTP", self.control.heartbeat())

    def test_a_wrong_secret_an_unknown_key_and_a_wrong_clock_are_told_apart(self) -> None:
        self.s3.user = Credentials("aifbench", "other")
        self.assertIn("the secret key is wrong", str(self.refusal()))
        self.s3.user = Credentials("somebody", "other")
        self.assertIn("does not know this access key", str(self.refusal()))
        self.s3.user = Credentials("aifbench", "opensesame")
        self.s3.clock_ahead_s = -1000
        self.assertIn("set the clock of the one that is wrong", str(self.refusal()))

    def test_nobody_there(self) -> None:
        control = S3Control(Endpoint("127.0.0.1", 1, secret_file=self.s3.secret_file), timeout_s=1)
        with self.assertRaisesRegex(NotReady, r"^cannot reach http://127.0.0.1:1: Failed to .*refused$"):
            control.heartbeat()
        control.close()

    def test_listings_go_on_over_pages(self) -> None:
        self.s3.buckets["b"] = {f"k/{n:05d}": b"x" * (n % 3) for n in range(2500)}
        found = list(self.control.listing("b", "k/"))
        self.assertEqual([stored.key for stored in found], sorted(self.s3.buckets["b"]))
        self.assertEqual([stored.size_bytes for stored in found[:4]], [0, 1, 2, 0])

    def test_no_bucket(self) -> None:
        with self.assertRaisesRegex(ServiceError, "cannot list gone: NoSuchBucket"):
            list(self.control.listing("gone"))


class OwnBucket(ControlCase):
    def test_it_is_made_and_removed_with_all_in_it(self) -> None:
        bucket = RunBucket(self.control, "20260101-s3_X")
        bucket.create()
        self.assertEqual(list(self.s3.buckets), ["aifbench-20260101-s3-x"])
        self.s3.buckets[bucket.name] |= {f"k{n}": b"" for n in range(1200)}
        self.control.begin_upload(bucket.name, "half")
        self.assertEqual(bucket.clear(), 1200)
        self.assertEqual((self.s3.buckets, self.s3.uploads), ({}, {}))
        self.assertEqual(bucket.clear(), 0)

    def test_one_that_was_there_is_refused_and_never_emptied(self) -> None:
        bucket = RunBucket(self.control, "run")
        self.s3.buckets[bucket.name] = {"theirs": b"precious"}
        with self.assertRaisesRegex(ServiceError, "exists already, and this run did not make it"):
            bucket.create()
        self.assertEqual(bucket.clear(), 0)
        self.assertEqual(self.s3.buckets[bucket.name], {"theirs": b"precious"})

    def test_one_that_belongs_to_somebody_else_is_refused(self) -> None:
        self.s3.faults = Faults("HEAD /aifbench-", code="AccessDenied")
        with self.assertRaisesRegex(ServiceError, "exists already"):
            RunBucket(self.control, "run").create()
        self.assertFalse([request for request in self.s3.requests if request.startswith(("PUT", "DELETE"))])

    def test_a_server_that_cannot_list_uploads_is_cleaned_all_the_same(self) -> None:
        bucket = RunBucket(self.control, "run")
        bucket.create()
        self.s3.faults = Faults(r"GET .*\?uploads", code="NoSuchUpload")
        bucket.clear()
        self.assertEqual(self.s3.buckets, {})

    def test_a_listing_that_lags_behind_hides_nothing_for_long(self) -> None:
        pauses: list[float] = []

        def catch_up(pause_s: float) -> None:
            pauses.append(pause_s)
            self.s3.faults = Faults()

        bucket = RunBucket(self.control, "run", sleep=catch_up)
        bucket.create()
        self.s3.buckets[bucket.name] |= {f"k{n}": b"" for n in range(5)}
        self.s3.faults = Faults("GET /aifbench-run.*list", hide=5)
        self.assertEqual((bucket.clear(), self.s3.buckets, len(pauses)), (5, {}, 1))

    def test_what_a_listing_never_shows_keeps_the_bucket(self) -> None:
        bucket = RunBucket(self.control, "run", sleep=lambda _: None)
        bucket.create()
        self.s3.buckets[bucket.name]["k"] = b""
        self.s3.faults = Faults("GET /aifbench-run.*list", hide=1)
        with self.assertRaisesRegex(ServiceError, "cannot remove the bucket.*BucketNotEmpty"):
            bucket.clear()

    def test_one_object_is_asked_for_itself(self) -> None:
        self.s3.buckets["b"] = {"k": b"x"}
        self.assertEqual([self.control.has("b", key) for key in ("k", "other")], [True, False])
        self.s3.faults = Faults("HEAD /b", code="InternalError")
        with self.assertRaisesRegex(ServiceError, "cannot look for k"):
            self.control.has("b", "k")

    def test_names_are_valid(self) -> None:
        self.assertEqual(bucket_name("A_b.C"), "aifbench-a-b-c")
        self.assertLessEqual(len(bucket_name("x" * 100)), 63)


if __name__ == "__main__":
    unittest.main()
