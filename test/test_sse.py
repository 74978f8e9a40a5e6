"""Server-sent events: what is data, and that cuts in the stream move no event and no time."""

import itertools
import random
import unittest
from pathlib import Path

from test.fakes.streams import CHUNKED, chunk, cut

from aifbench.load.http import split_response
from aifbench.load.workload import StreamedAnswer
from aifbench.workloads.sse import events

DATA = Path(__file__).parent / "data"


def data_of(body: bytes) -> list[bytes]:
    return [data for _, data in events(body)]


class Parsing(unittest.TestCase):
    def test_each_event_ends_behind_its_blank_line(self) -> None:
        self.assertEqual(list(events(b"data: a\n\ndata: bc\n\n")), [(9, b"a"), (19, b"bc")])

    def test_lines_may_end_in_three_ways_also_mixed(self) -> None:
        for body in (
            b"data: a\r\n\r\ndata: b\r\n\r\n",
            b"data: a\r\rdata: b\r\r",
            b"data: a\n\n: ping\r\n\r\ndata: b\n\n",
            b": ping\r\n\r\ndata: a\n\ndata: b\n\n",
            b"data: a\r\n\ndata: b\n\r\n",
        ):
            with self.subTest(body):
                self.assertEqual(data_of(body), [b"a", b"b"])

    def test_what_is_no_data_is_left_out(self) -> None:
        body = b": comment\n\nevent: x\nid: 7\nretry: 3\n\nevent: y\ndata: a\n\nbut no field\n\n"
        self.assertEqual(data_of(body), [b"a"])

    def test_lines_of_data_are_joined(self) -> None:
        self.assertEqual(data_of(b'data: {"a":\ndata: 1}\n\n'), [b'{"a":\n1}'])

    def test_the_blank_after_the_colon_is_optional_and_only_one(self) -> None:
        self.assertEqual(data_of(b"data:a\n\ndata:  b\n\ndata:\n\n"), [b"a", b" b", b""])

    def test_more_blank_lines_make_no_events(self) -> None:
        self.assertEqual(data_of(b"\n\ndata: a\n\n\n\n\ndata: b\n\n"), [b"a", b"b"])

    def test_nothing_is_no_event(self) -> None:
        for body in (b"", b"\n", b"\n\n\n", b"data: a", b"dat"):
            self.assertEqual(data_of(body), [])

    def test_the_last_blank_line_may_lack_but_not_its_line_end(self) -> None:
        self.assertEqual(list(events(b"data: a\n\ndata: b\n")), [(9, b"a"), (17, b"b")])
        self.assertEqual(data_of(b"data: a\n\ndata: b"), [b"a"])
        self.assertEqual(data_of(b"data: a\r\n\r\ndata: b\r\n"), [b"a", b"b"])

    def test_of_a_cut_stream_the_whole_events_are_the_same_wherever_it_is_cut(self) -> None:
        body = b'data: {"x": 1}\n\n: c\n\ndata: [DONE]\n\n'
        whole = list(events(body))
        for end in range(len(body)):
            some = data_of(body[:end])
            self.assertEqual(some, [data for _, data in whole][: len(some)])
            self.assertGreaterEqual(len(some), sum(place <= end for place, _ in whole))

    def test_text_of_any_language_and_escapes_stay_as_they_are(self) -> None:
        text = 'data: {"a": "\\n\\n \u4f60\u597d \U0001f600"}\n\n'.encode()
        self.assertEqual(data_of(text), [text[6:-2]])


class Arrival(unittest.TestCase):
    """An event has arrived with the read that brought its last byte, however the bytes were cut."""

    def check(self, pieces: list[bytes], head: bytes, parts: list[bytes], tail: bytes) -> None:
        raw = head + b"".join(parts) + tail
        ends, place = [], 0
        for piece in pieces:
            place += len(piece)
            ends.append(place)
        stamps = [1000 * number for number in range(len(ends))]
        found_head, body, places, is_complete = split_response(raw)
        self.assertTrue(is_complete)
        self.assertEqual(found_head, head)
        answer = StreamedAnswer(body, found_head, places, ends, stamps)
        arrived = answer.arrived_ns([end for end, _ in events(body)])
        # Independently: where each marker's event ends in the raw bytes, and which read covers that place.
        expected = []
        for number in range(len(arrived)):
            end = raw.index(b"data: <%d>" % number)
            end += len(b"data: <%d>" % number)
            end = self.skip_framing(raw, end, b"\n\n")
            expected.append(stamps[next(i for i, covered in enumerate(ends) if covered >= end)])
        self.assertEqual(arrived, expected)
        self.assertEqual(data_of(body), [b"<%d>" % number for number in range(len(arrived))])

    def skip_framing(self, raw: bytes, place: int, rest: bytes) -> int:
        """Where `rest` has been passed after `place`, chunk borders left out."""
        for byte in rest:
            if raw[place : place + 2] == b"\r\n":
                place = raw.index(b"\r\n", place + 2) + 2
            self.assertEqual(raw[place], byte)
            place += 1
        return place

    def test_random_cuts_of_random_chunks(self) -> None:
        for seed in range(60):
            chance = random.Random(seed)
            body = b"".join(b"data: <%d>\n\n" % number for number in range(12))
            parts = [chunk(part) for part in self.never_inside_markers(body, chance)]
            raw = CHUNKED + b"".join(parts) + b"0\r\n\r\n"
            with self.subTest(seed=seed):
                self.check(cut(raw, chance, chance.randrange(1, 40)), CHUNKED, parts, b"0\r\n\r\n")

    def never_inside_markers(self, body: bytes, chance: random.Random) -> list[bytes]:
        """Chunks that end anywhere but inside `data: <n>`, so that it can be found in the raw bytes."""
        places = [place for place in range(1, len(body)) if body[place - 1 : place] in (b">", b"\n")]
        ends = [0, *sorted(chance.sample(places, 8)), len(body)]
        return [body[a:b] for a, b in itertools.pairwise(ends)]

    def test_byte_by_byte(self) -> None:
        parts = [chunk(b"data: <0>\n"), chunk(b"\ndata: <1>\n\n")]
        raw = CHUNKED + b"".join(parts) + b"0\r\n\r\n"
        self.check([bytes([byte]) for byte in raw], CHUNKED, parts, b"0\r\n\r\n")

    def test_all_in_one_read(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n"
        self.check([head + b"data: <0>\n\ndata: <1>\n\n"], head, [b"data: <0>\n\ndata: <1>\n\n"], b"")


class RealStreams(unittest.TestCase):
    def test_vllm(self) -> None:
        for name, count in (("completions", 10), ("without_text", 7), ("continuous", 11)):
            raw = (DATA / f"vllm_stream_0.32_{name}.http").read_bytes()
            _, body, _, is_complete = split_response(raw)
            found = data_of(body)
            self.assertTrue(is_complete)
            self.assertEqual((len(found), found[-1]), (count, b"[DONE]"), name)
            self.assertTrue(all(data.startswith(b'{"id":') for data in found[:-1]))


if __name__ == "__main__":
    unittest.main()
