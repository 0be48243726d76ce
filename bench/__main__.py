"""``python -m bench [SUBJECT [ARGUMENTS]]``: one subject, or all of them.

Every subject is run, also after one that failed or missed its goal.
"""

from __future__ import annotations

import sys

from bench import (
    against_salt_cloud,
    at_once,
    first_answer,
    fleet,
    forks,
    full_clone,
    growth,
    quick_clone,
    spares,
    table,
)
from lab.common import LabError

SUBJECTS = {
    "quick_clone": quick_clone.main,
    "full_clone": full_clone.main,
    "growth": growth.main,
    "first_answer": first_answer.main,
    "against_salt_cloud": against_salt_cloud.main,
    "at_once": at_once.main,
    "spares": spares.main,
    "forks": forks.main,
    "fleet": fleet.main,
}


def main() -> int:
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(f"{__doc__}\nsubjects: {' '.join(SUBJECTS)}")
        return 0
    chosen, arguments = sys.argv[1:2] or list(SUBJECTS), sys.argv[2:]
    if unknown := [name for name in chosen if name not in SUBJECTS]:
        print(f"no such subject: {unknown[0]}; there are: {' '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    print(table.surroundings(), flush=True)
    codes = []
    for name in chosen:
        sys.argv[:] = [f"bench {name}", *arguments]
        try:
            codes.append(SUBJECTS[name]())
        except LabError as error:
            print(f"{name}: {error}", file=sys.stderr)
            codes.append(1)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
