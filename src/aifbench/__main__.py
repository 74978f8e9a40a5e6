"""The program: `aifbench`, or `python -m aifbench`."""

import signal
import sys
from contextlib import suppress


def run() -> int:
    """The program's exit status. Ctrl-C ends it without a traceback while it begins and ends, too."""
    try:
        from aifbench.repl.app import main

        return main()
    except KeyboardInterrupt:
        return 130
    finally:
        # Nothing is left to do: who presses again while the interpreter shuts down wants to be out.
        with suppress(KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(run())
