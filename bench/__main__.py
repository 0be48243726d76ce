"""``python -m bench``: every benchmark, one after the other."""

from __future__ import annotations

import sys

from bench import against_salt_cloud, first_answer, quick_clone

if __name__ == "__main__":
    sys.exit(quick_clone.main() or first_answer.main() or against_salt_cloud.main())
