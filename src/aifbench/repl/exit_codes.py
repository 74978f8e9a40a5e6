"""What the program's exit status says, to scripts."""

SUCCESS = 0
FAILURE = 1
USAGE = 2
INVALID_RUN = 3
INTERRUPTED = 130
