"""The address a service script announces, with the real iproute2."""

import subprocess
import unittest

from test.test_batch_scripts import SCRIPTS


def node_ip(interface: str) -> subprocess.CompletedProcess[str]:
    code = f'set -eu; lib={SCRIPTS}/lib; . "$lib/service.sh"; node_ip'
    given = {"PATH": "/usr/bin:/bin", "AIFBENCH_INTERFACE": interface}
    return subprocess.run(["bash", "-c", code], env=given, capture_output=True, text=True, check=False)


class Interfaces(unittest.TestCase):
    def test_the_interface_asked_for_decides(self) -> None:
        self.assertEqual(node_ip("lo").stdout, "127.0.0.1\n")

    def test_an_interface_that_is_not_there_is_refused(self) -> None:
        asked = node_ip("ib7")
        self.assertEqual(asked.returncode, 1)
        self.assertIn("AIFBENCH_INTERFACE=ib7", asked.stderr)


if __name__ == "__main__":
    unittest.main()
