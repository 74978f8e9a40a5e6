"""The real command runner, on real processes."""

import sys
import threading
import time
import unittest

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.command import CommandResult, run_command


class RealCommands(unittest.TestCase):
    def run_python(self, code: str, timeout_s: float = 20.0, stdin: str = "") -> CommandResult:
        argv = [sys.executable, "-S", "-c", code]
        return run_command(argv, timeout_s=timeout_s, environment={"ONLY": "this"}, stdin=stdin)

    def test_status_output_and_input(self) -> None:
        code = "import sys; print(sys.stdin.read().upper()); sys.stderr.write('no'); sys.exit(3)"
        self.assertEqual(self.run_python(code, stdin="hé"), CommandResult(3, "HÉ\n", "no"))

    def test_the_environment_is_exactly_the_one_given(self) -> None:
        result = self.run_python("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))")
        self.assertEqual(result.stdout, "['ONLY']\n")

    def test_undecodable_bytes_are_replaced(self) -> None:
        code = r"import os; os.write(1, b'caf\xe9|'); os.write(2, b'\xff')"
        self.assertEqual(self.run_python(code), CommandResult(0, "caf\ufffd|", "\ufffd"))

    def test_a_missing_program_is_a_status(self) -> None:
        result = run_command(["/nonexistent/sbatch"], timeout_s=5, environment={})
        self.assertEqual(result.status, 127)
        self.assertIn("No such file", result.stderr)

    def test_a_timeout_ends_helpers_that_hold_the_pipes(self) -> None:
        code = (
            "import subprocess, sys, time; print('begun', flush=True);"
            "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)']); time.sleep(60)"
        )
        begun_s = time.monotonic()
        result = self.run_python(code, timeout_s=0.7)
        self.assertTrue(result.timed_out)
        self.assertFalse(result.ok)
        self.assertLess(time.monotonic() - begun_s, 30)

    def test_threads_may_share_it(self) -> None:
        results: list[CommandResult] = []
        threads = [
            threading.Thread(target=lambda n=n: results.append(self.run_python(f"print({n})")))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(result.stdout for result in results), ["0\n", "1\n", "2\n", "3\n"])


if __name__ == "__main__":
    unittest.main()
