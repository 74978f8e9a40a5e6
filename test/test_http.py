"""HTTP/1.1 on the wire: requests as bytes, and responses that arrive in any pieces."""

import unittest

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import WorkloadError
from aifbench.load.http import ProtocolError, ResponseReader, encode_request, split_response

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\n\r\n"


def read(*pieces: bytes, head_request: bool = False) -> ResponseReader:
    """The reader after exactly these pieces, which must be a complete response and no less."""
    reader = ResponseReader(head_request=head_request)
    for piece in pieces[:-1]:
        assert not reader.feed(piece), f"complete after {piece!r}"
    assert reader.feed(pieces[-1]), "not complete"
    return reader


class CompleteResponses(unittest.TestCase):
    def check(self, data: bytes, status: int, body: bytes, *, keep_alive: bool = True) -> None:
        reader = read(data)
        self.assertEqual((reader.status, reader.body, reader.keep_alive), (status, body, keep_alive))

    def test_content_length(self) -> None:
        self.check(PLAIN, 200, b"hello")

    def test_an_empty_body(self) -> None:
        self.check(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201, b"")

    def test_chunks_with_extensions(self) -> None:
        self.check(CHUNKED, 200, b"hello")

    def test_trailers_are_read_and_left_out(self) -> None:
        self.check(CHUNKED[:-2] + b"Checksum: 1\r\nOther: 2\r\n\r\n", 200, b"hello")

    def test_chunk_sizes_are_hexadecimal(self) -> None:
        body = b"x" * 0x1F
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.check(head + b"1F\r\n" + body + b"\r\n0\r\n\r\n", 200, body)

    def test_chunks_may_hold_line_breaks_and_look_like_an_end(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.check(head + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", 200, b"\r\n0\r\n\r\n")

    def test_chunked_wins_over_content_length(self) -> None:
        self.check(CHUNKED.replace(b"\r\n", b"\r\nContent-Length: 999\r\n", 1), 200, b"hello")

    def test_header_names_and_values_in_any_case_without_blanks(self) -> None:
        self.check(PLAIN.replace(b"Content-Length: ", b"CONTENT-LENGTH:"), 200, b"hello")

    def test_a_header_that_ends_like_another_is_not_that_one(self) -> None:
        self.check(PLAIN.replace(b"\r\n", b"\r\nX-Content-Length: 7\r\n", 1), 200, b"hello")

    def test_interim_responses_are_skipped(self) -> None:
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        self.check(interim + PLAIN, 200, b"hello")

    def test_a_flood_of_interim_responses_is_skipped_too(self) -> None:
        self.check(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + PLAIN, 200, b"hello")

    def test_statuses_without_a_body_end_with_the_head(self) -> None:
        for status in (204, 304):
            with self.subTest(status):
                self.check(b"HTTP/1.1 %d -\r\nContent-Length: 10\r\n\r\n" % status, status, b"")

    def test_the_answer_to_head_has_no_body(self) -> None:
        reader = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head_request=True)
        self.assertEqual(reader.body, b"")

    def test_a_binary_body(self) -> None:
        body = bytes(range(256)) * 10
        self.check(b"HTTP/1.1 200 OK\r\nContent-Length: 2560\r\n\r\n" + body, 200, body)

    def test_responses_end_at_the_same_place_however_they_are_cut(self) -> None:
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        for response in (PLAIN, CHUNKED, CHUNKED[:-2] + b"T: 1\r\n\r\n", interim + PLAIN):
            for cut in range(1, len(response)):
                with self.subTest(response=response, cut=cut):
                    self.assertEqual(read(response[:cut], response[cut:]).body, b"hello")
            self.assertEqual(read(*[bytes([byte]) for byte in response]).body, b"hello")


class ConnectionReuse(unittest.TestCase):
    def keep_alive(self, version: bytes, connection: bytes) -> bool:
        header = b"Connection: " + connection + b"\r\n" if connection else b""
        return read(b"HTTP/" + version + b" 200 OK\r\n" + header + b"Content-Length: 0\r\n\r\n").keep_alive

    def test_each_version_has_its_default(self) -> None:
        self.assertTrue(self.keep_alive(b"1.1", b""))
        self.assertFalse(self.keep_alive(b"1.0", b""))

    def test_the_connection_header_decides(self) -> None:
        self.assertFalse(self.keep_alive(b"1.1", b"Close"))
        self.assertFalse(self.keep_alive(b"1.1", b"foo, close"))
        self.assertTrue(self.keep_alive(b"1.0", b"Keep-Alive"))

    def test_a_body_without_a_length_ends_with_the_connection(self) -> None:
        reader = ResponseReader()
        self.assertFalse(reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhel"))
        self.assertFalse(reader.feed(b"lo"))
        self.assertTrue(reader.feed_eof())
        self.assertEqual((reader.body, reader.keep_alive), (b"hello", False))

    def test_the_end_of_the_connection_completes_nothing_else(self) -> None:
        for response in (PLAIN, CHUNKED):
            for cut in range(len(response)):
                reader = ResponseReader()
                reader.feed(response[:cut])
                self.assertFalse(reader.feed_eof(), response[:cut])


class BadResponses(unittest.TestCase):
    def refuse(self, data: bytes, text: str) -> None:
        with self.subTest(data[:60]), self.assertRaisesRegex(ProtocolError, text):
            ResponseReader().feed(data)

    def test_another_protocol_is_told_from_its_first_bytes(self) -> None:
        for data in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/2 200\r\n\r\n", b"-ERR unknown command\r\n", b"\0"):
            self.refuse(data, "not an HTTP/1 response")

    def test_bad_status(self) -> None:
        for status in (b"abc", b"-20", b"2_0", b"+20", b" 20", b""):
            self.refuse(b"HTTP/1.1 " + status + b" OK\r\n\r\n", "the status is")

    def test_bad_content_length(self) -> None:
        for length in (b"-1", b"5 5", b"five", b"+5", b"9" * 5000):
            self.refuse(
                b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n", "the Content-Length is"
            )

    def test_bad_chunk_size(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for size in (b"xyz", b"-6", b"0x5", b"", b"f" * 100, b"+1"):
            self.refuse(head + size + b"\r\nhello\r\n", "the chunk size is")

    def test_a_chunk_longer_than_it_says(self) -> None:
        self.refuse(CHUNKED.replace(b"3\r\nhel", b"2\r\nhel"), "a chunk of 2 bytes does not end there")

    def test_bytes_beyond_the_end(self) -> None:
        self.refuse(PLAIN + b"!", "1 bytes beyond the end")
        self.refuse(CHUNKED + PLAIN, f"{len(PLAIN)} bytes beyond the end")
        self.refuse(b"HTTP/1.1 204 No Content\r\n\r\nx", "1 bytes beyond the end")

    def test_a_head_without_end(self) -> None:
        self.refuse(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 1\r\n" * 6000, "no end of the response head")


class ByTail(unittest.TestCase):
    """The cheap way to find the end of a stream, which has to end at the same byte as the thorough one."""

    HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def ends(self, data: bytes, *, by_tail: bool) -> list[int]:
        """After how many bytes, fed one by one, it says that it is complete."""
        reader, found = ResponseReader(by_tail=by_tail), []
        for number in range(len(data)):
            if reader.feed(data[number : number + 1]):
                found.append(number + 1)
        return found

    def test_it_ends_where_the_chunks_end(self) -> None:
        event = b"data: {}\n\n"
        chunk = b"%x\r\n%s\r\n" % (len(event), event)
        for data in (
            PLAIN,
            CHUNKED,
            self.HEAD + chunk * 3 + b"0\r\n\r\n",
            self.HEAD + chunk + b"0\r\nA: b\r\nC: d\r\n\r\n",
            self.HEAD + chunk + b"000\r\n\r\n",
            self.HEAD + chunk.replace(b"\n\n", b"\r\n") + b"0\r\n\r\n",
            self.HEAD + b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
            self.HEAD + b"0\r\n\r\n",
        ):
            with self.subTest(data):
                self.assertEqual(self.ends(data, by_tail=True), [len(data)])
                self.assertEqual(self.ends(data, by_tail=False), [len(data)])

    def test_raw_is_all_that_came_and_body_what_it_means(self) -> None:
        reader = ResponseReader(by_tail=True)
        self.assertTrue(reader.feed(CHUNKED))
        self.assertEqual((reader.raw, reader.received, reader.body), (CHUNKED, len(CHUNKED), b"hello"))

    def test_a_body_whose_chunks_do_not_add_up_is_what_did(self) -> None:
        reader = ResponseReader(by_tail=True)
        self.assertTrue(reader.feed(self.HEAD + b"2\r\nhi\r\nzz\r\n0\r\n\r\n"))
        self.assertEqual(reader.body, b"hi")

    def test_interim_responses_are_no_part_of_it(self) -> None:
        reader = ResponseReader(by_tail=True)
        self.assertTrue(reader.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n" + CHUNKED))
        self.assertEqual(reader.raw, CHUNKED)


class Splitting(unittest.TestCase):
    """A response as it was kept, whole or cut short."""

    def test_pieces_say_where_the_body_was(self) -> None:
        head, body, pieces, is_complete = split_response(CHUNKED)
        self.assertEqual((body, is_complete), (b"hello", True))
        self.assertEqual(head, CHUNKED[: CHUNKED.index(b"3\r\n")])
        for (start, place), end in zip(pieces, [3, 5], strict=True):
            self.assertEqual(CHUNKED[place : place + end - start], body[start:end])

    def test_wherever_it_is_cut_the_body_is_a_beginning(self) -> None:
        for response in (PLAIN, CHUNKED, b"HTTP/1.1 200 OK\r\n\r\nhello"):
            longest = 0
            for end in range(len(response)):
                head, body, _, is_complete = split_response(response[:end])
                self.assertTrue(b"hello".startswith(body))
                self.assertGreaterEqual(len(body), longest)
                longest = len(body)
                self.assertEqual(bool(head), b"\r\n\r\n" in response[:end])
                if b"Length" in response or b"chunked" in response:
                    self.assertFalse(is_complete, response[:end])
            self.assertEqual(split_response(response)[1::2], (b"hello", True))

    def test_what_is_no_response_is_refused(self) -> None:
        for raw in (b"SSH-2.0", PLAIN + b"x", CHUNKED + b"x", CHUNKED.replace(b"3\r", b"x\r")):
            with self.subTest(raw), self.assertRaises(ProtocolError):
                split_response(raw)


class RetryAfter(unittest.TestCase):
    def test_it_is_read_where_it_means_something(self) -> None:
        for status, expected in ((429, "7"), (503, "7"), (500, "")):
            reader = read(b"HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n" % status)
            self.assertEqual(reader.retry_after, expected)


class Requests(unittest.TestCase):
    def test_a_request_without_body(self) -> None:
        self.assertEqual(
            encode_request("GET", "/a?b=c", "host:1", {"Accept": "*/*"}),
            b"GET /a?b=c HTTP/1.1\r\nHost: host:1\r\nAccept: */*\r\n\r\n",
        )

    def test_a_body_brings_its_length(self) -> None:
        self.assertEqual(
            encode_request("POST", "/", "h", body=b"hello"),
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        )

    def test_methods_that_may_have_a_body_always_say_its_length(self) -> None:
        for method, expected in (("POST", True), ("PUT", True), ("PATCH", True), ("DELETE", False)):
            with self.subTest(method):
                self.assertEqual(b"Content-Length: 0" in encode_request(method, "/", "h"), expected)

    def test_a_line_break_cannot_smuggle_in_a_header(self) -> None:
        for target, headers in (("/\r\nEvil: 1", {}), ("/", {"A": "1\nEvil: 1"}), ("/", {"A\r": "1"})):
            with self.assertRaisesRegex(WorkloadError, "line break"):
                encode_request("GET", target, "h", headers)


if __name__ == "__main__":
    unittest.main()
