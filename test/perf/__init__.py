"""Benchmarks of the program itself, one claim each: `python -m test.perf.NAME [--repeats N]`."""
