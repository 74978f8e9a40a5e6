"""The program: `aifbench`, or `python -m aifbench`."""

import sys

from aifbench.repl.app import main

if __name__ == "__main__":
    sys.exit(main())
