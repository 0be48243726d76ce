"""``python -m bench``: every benchmark, one after the other, also where one misses its goal."""

from __future__ import annotations

import sys

from bench import against_salt_cloud, first_answer, quick_clone

if __name__ == "__main__":
    sys.exit(max([part.main() for part in (quick_clone, first_answer, against_salt_cloud)]))
