"""Unit tests: no Slurm and no network needed. Run `python -m unittest` at the project's top."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
