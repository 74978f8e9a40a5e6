"""What a job's log must hold to be believed, and what must not be."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.cluster.announce import Announcement, parse_announcement, read_announcement


def block(**changes: str | None) -> str:
    """A complete block; `changes` replaces lines by their key, None leaves one out."""
    lines: dict[str, str | None] = {
        "SLURM_JOB_ID": "12",
        "SLURM_RESTART_COUNT": "0",
        "NODE": "mel2001",
        "IP ADDRESS": "10.3.0.7",
        "PORT": "23817",
        "SERVICE VERSION": "1.5.9",
        "AUTH": "token",
        "ANNOUNCED": "chroma",
    }
    changed = lines | changes
    return "".join(f"{key}: {value}\n" for key, value in changed.items() if value is not None)


class ParseAnnouncement(unittest.TestCase):
    def test_reads_every_field(self) -> None:
        text = "banner\n" + block().replace("SERVICE", "PORT metrics: 9001\nPORT grpc-web: 9002\nSERVICE")
        expected = Announcement(
            job_id="12",
            restarts=0,
            host="10.3.0.7",
            port=23817,
            service="chroma",
            node="mel2001",
            ports={"metrics": 9001, "grpc-web": 9002},
            version="1.5.9",
            auth="token",
        )
        self.assertEqual(parse_announcement(text, "12"), expected)

    def test_needs_only_id_address_and_port(self) -> None:
        text = "SLURM_JOB_ID: 12\nIP ADDRESS: fd00::7\nPORT: 1\nANNOUNCED: x\n"
        announcement = parse_announcement(text, "12")
        assert announcement is not None
        self.assertEqual((announcement.host, announcement.port, announcement.restarts), ("fd00::7", 1, 0))
        self.assertEqual((announcement.node, announcement.auth), ("", "none"))

    def test_windows_line_ends_do_not_matter(self) -> None:
        self.assertIsNotNone(parse_announcement(block().replace("\n", "\r\n"), "12"))

    def test_half_written_blocks_are_not_believed(self) -> None:
        whole = block()
        for length in range(len(whole)):
            self.assertIsNone(parse_announcement(whole[:length], "12"), whole[:length])

    def test_another_jobs_block_is_not_believed(self) -> None:
        self.assertIsNone(parse_announcement(block(), "1"))
        self.assertIsNone(parse_announcement(block(), "122"))
        both = block(SLURM_JOB_ID="11", PORT="1111") + block(PORT="2222")
        announcement = parse_announcement(both, "12")
        assert announcement is not None
        self.assertEqual(announcement.port, 2222)

    def test_lines_forged_later_are_not_believed(self) -> None:
        log = (
            block()
            + "IP ADDRESS: 6.6.6.6\nPORT: 666\nANNOUNCED: chroma\n"
            + block(**{"IP ADDRESS": "6.6.6.6"})
        )
        announcement = parse_announcement(log, "12")
        assert announcement is not None
        self.assertEqual((announcement.host, announcement.port), ("10.3.0.7", 23817))

    def test_the_highest_restart_wins_and_there_the_first_block(self) -> None:
        log = (
            block()
            + block(SLURM_RESTART_COUNT="10", PORT="1010")
            + block(SLURM_RESTART_COUNT="9", PORT="909")
            + block(SLURM_RESTART_COUNT="10", PORT="666")
        )
        announcement = parse_announcement(log, "12")
        assert announcement is not None
        self.assertEqual((announcement.restarts, announcement.port), (10, 1010))

    def test_a_foreign_line_inside_voids_the_block(self) -> None:
        for foreign in ("hello\n", "\n", "IP ADDRESS: 6.6.6.6\n", " PORT: 1\n", "PORT:2\n"):
            self.assertIsNone(parse_announcement(block().replace("AUTH", f"{foreign}AUTH"), "12"), foreign)

    def test_a_block_may_start_anew(self) -> None:
        torn = "SLURM_JOB_ID: 12\nIP ADDRESS: 6.6.6.6\n" + block()
        announcement = parse_announcement(torn, "12")
        assert announcement is not None
        self.assertEqual(announcement.host, "10.3.0.7")

    def test_only_a_line_feed_ends_a_line(self) -> None:
        smuggled = "GET /\x0bSLURM_JOB_ID: 12\x85IP ADDRESS: 6.6.6.6\u2028PORT: 1\x0cANNOUNCED: x\n"
        self.assertIsNone(parse_announcement(smuggled, "12"))

    def test_impossible_values_are_no_announcement(self) -> None:
        cases: list[dict[str, Any]] = [
            {"IP ADDRESS": None},
            {"PORT": None},
            {"ANNOUNCED": None},
            *(
                {"IP ADDRESS": bad}
                for bad in ("localhost", "0.0.0.0", "::", "10.0.0", "10.0.0.256", "224.0.0.1")
            ),
            *({"IP ADDRESS": bad} for bad in ("fe80::1%ib0", "10.0.0.1:80", "10.0.0.1 x")),
            *({"PORT": bad} for bad in ("0", "65536", "-1", "8e3", "٨٠", "80 81", "9" * 5000)),
            {"SLURM_RESTART_COUNT": "-1"},
            {"SLURM_RESTART_COUNT": "two"},
            {"AUTH": "maybe"},
        ]
        for case in cases:
            self.assertIsNone(parse_announcement(block(**case), "12"), case)


class ReadAnnouncement(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name) / "12.log"

    def test_a_missing_log_is_no_announcement(self) -> None:
        self.assertIsNone(read_announcement(self.log, "12"))
        self.assertIsNone(read_announcement(self.log.parent, "12"))

    def test_bytes_that_are_no_text_do_not_hurt(self) -> None:
        self.log.write_bytes(b"\xff\xfe\x00\xc3(\n" + block().encode() + b"\x80\x80\n")
        self.assertIsNotNone(read_announcement(self.log, "12"))

    def test_finds_the_first_and_the_last_block_of_a_huge_log(self) -> None:
        noise = b"x" * 99 + b"\n"
        first, requeued = block().encode(), block(SLURM_RESTART_COUNT="1", PORT="1111").encode()
        self.log.write_bytes(first + noise * 40_000)
        announcement = read_announcement(self.log, "12")
        assert announcement is not None
        self.assertEqual(announcement.port, 23817)
        self.log.write_bytes(first + noise * 40_000 + requeued + noise * 100)
        announcement = read_announcement(self.log, "12")
        assert announcement is not None
        self.assertEqual(announcement.port, 1111)

    def test_a_block_across_the_end_of_the_first_window_is_whole(self) -> None:
        self.log.write_bytes(b"x" * ((1 << 20) - 30) + b"\n" + block().encode() + b"y" * 1000)
        self.assertIsNotNone(read_announcement(self.log, "12"))


if __name__ == "__main__":
    unittest.main()
