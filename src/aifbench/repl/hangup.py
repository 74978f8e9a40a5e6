"""When the terminal is gone, writing to it fails: what is still said goes nowhere instead."""

import os
import stat
from contextlib import suppress


def leave_terminal() -> None:
    """Standard streams that are a terminal, gone or not, become /dev/null; files and pipes stay."""
    for stream in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, stream)
                os.close(nothing)
