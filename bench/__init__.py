"""Benchmarks: each measures itself against the least that its work needs, in one run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_utils"))
