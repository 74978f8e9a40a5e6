"""Slurm's host list expressions."""

import unittest

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.nodelist import expand
from aifbench.errors import SchedulerError


class Expand(unittest.TestCase):
    def test_expressions(self) -> None:
        cases = {
            "node1": ("node1",),
            "node[1-3]": ("node1", "node2", "node3"),
            "node[1-2,07-09,11]": ("node1", "node2", "node07", "node08", "node09", "node11"),
            "mel[2001-2002],login,gpu[5]": ("mel2001", "mel2002", "login", "gpu5"),
            "node[098-101]": ("node098", "node099", "node100", "node101"),
            "r[0-1]n[1,3]-ib": ("r0n1-ib", "r0n3-ib", "r1n1-ib", "r1n3-ib"),
            "a,b": ("a", "b"),
        }
        for expression, hosts in cases.items():
            with self.subTest(expression):
                self.assertEqual(expand(expression), hosts)

    def test_no_nodes(self) -> None:
        for text in ("", "  ", "(null)", "None assigned", "N/A"):
            with self.subTest(text):
                self.assertEqual(expand(text), ())

    def test_malformed_is_an_error_not_a_guess(self) -> None:
        for text in ("node[1-3", "node1-3]", "node[a-b]", "node[]", "node[1-]", "a,,b", "n[1[2]]"):
            with self.subTest(text), self.assertRaises(SchedulerError) as caught:
                expand(text)
            self.assertIn("cannot be read", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
