"""What the program has imported when it shows its prompt: every module here is waited for at every start."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

PROJECT = Path(__file__).resolve().parents[1]
HEAVY = {
    "chromadb",
    "numpy",
    "openai",
    "boto3",
    "openlit",
    "faiss",
    "psycopg",
    "opentelemetry",
    "h5py",
    "pyarrow",
}

SHELL = """
import io, json, sys
from aifbench.repl.app import main
lines = ("help", "help start chroma", "help bench chroma", "status", "results", "quit")
code = main([], stdin=io.StringIO("\\n".join(lines)))
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
HELP = """
import json, sys
from aifbench.repl.app import main
try:
    main(["--help"])
except SystemExit as done:
    print(json.dumps([done.code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


class ImportCost(unittest.TestCase):
    def modules_after(self, program: str) -> set[str]:
        with tempfile.TemporaryDirectory() as results:
            environ = {
                **os.environ,
                "PYTHONPATH": str(PROJECT / "src"),
                "AIFBENCH_RESULTS": results,
                "AIFBENCH_SCHEDULER": "local",
            }
            done = subprocess.run(
                [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
            )
        self.assertEqual(done.stderr, "")
        code, modules = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(code, 0)
        return set(modules)

    def test_the_shell_and_its_help_load_nothing_heavy(self) -> None:
        modules = self.modules_after(SHELL)
        self.assertIn("cmd2", modules)
        self.assertEqual(modules & HEAVY, set())

    def test_the_programs_own_help_does_not_even_load_the_shell(self) -> None:
        self.assertEqual(self.modules_after(HELP) & (HEAVY | {"cmd2", "prompt_toolkit", "rich"}), set())


if __name__ == "__main__":
    unittest.main()
