"""Benchmarks: each compares a piece of work with the least that it needs, in one run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_utils"))
