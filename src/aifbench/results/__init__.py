"""Keeping what was measured: records, provenance, verdicts, and the directory of runs."""
