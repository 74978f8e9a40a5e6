"""What an error says: its causes once, and the nearest valid word."""

import errno
import unittest

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import BenchError, ConfigError, WorkloadError
from aifbench.options import nearest


def raised(error: BenchError, cause: Exception) -> str:
    try:
        raise error from cause
    except BenchError as caught:
        return str(caught)


class Message(unittest.TestCase):
    FULL = OSError(errno.ENOSPC, "No space left on device", "/results/record.json")

    def test_a_cause_that_the_message_tells_is_not_told_again(self) -> None:
        error = ConfigError("cannot write /results: No space left on device", hint="delete something")
        self.assertEqual(
            raised(error, self.FULL), "cannot write /results: No space left on device; delete something"
        )

    def test_a_cause_that_the_message_does_not_tell_follows_it(self) -> None:
        text = raised(WorkloadError("the run was lost"), self.FULL)
        self.assertEqual(text, "the run was lost: [Errno 28] No space left on device: '/results/record.json'")


class Nearest(unittest.TestCase):
    def test_a_misspelt_word(self) -> None:
        self.assertEqual(nearest("--tmie", ["--time", "--name"]), " (did you mean '--time'?)")

    def test_the_dashes_of_two_options_make_them_no_neighbours(self) -> None:
        self.assertEqual(nearest("--bogus", ["--qos", "--time"]), "")


if __name__ == "__main__":
    unittest.main()
