"""How many cases of ``make test`` hold the other promises of the page. They are only counted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import is_hypothesis_test

from lab.common import CHECKOUT
from tests.functional import test_concurrency
from tests.unit import test_rewrite_properties

UNIT, FUNCTIONAL = "tests/unit/test_", "tests/functional/test_"

#: A promise, and the files that try it.
PROMISES = {
    "every device of a definition has a decided fate": (f"{UNIT}rewrite_corpus",),
    "every disk has a decided fate": (
        f"{UNIT}disk_definitions",
        f"{FUNCTIONAL}disks",
        f"{FUNCTIONAL}disk_images",
        f"{FUNCTIONAL}far_disks",
        f"{FUNCTIONAL}busy_volumes",
    ),
    "what cannot work is refused before anything is written": (f"{FUNCTIONAL}refusals",),
    "a create that fails at any step leaves nothing": (f"{FUNCTIONAL}rollback",),
    "a disk that runs full is left as it was": (f"{FUNCTIONAL}full_disk",),
    "one name, one clone: waiting, taking over, keeping off": (f"{FUNCTIONAL}takeover",),
    "many at once, and races of create, destroy and a base that starts": (
        f"{FUNCTIONAL}concurrency",
    ),
    "a destroy deletes what is ours and nothing else": (
        f"{FUNCTIONAL}destroy",
        f"{FUNCTIONAL}not_ours",
        f"{FUNCTIONAL}storeys",
        f"{FUNCTIONAL}in_use",
        f"{FUNCTIONAL}foreign",
        f"{FUNCTIONAL}far_destroy",
        f"{FUNCTIONAL}rename",
    ),
    "gc lists what it removes": (f"{FUNCTIONAL}gc",),
    "a base is protected, and what changed in it is said": (
        f"{FUNCTIONAL}protect",
        f"{FUNCTIONAL}drift",
    ),
}


def table() -> str:
    """The promises, and how many cases try each."""
    files = [f"{name}.py" for names in PROMISES.values() for name in names]
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    told = subprocess.run(
        [*words, *files], cwd=CHECKOUT, check=True, capture_output=True, text=True
    )
    found = Counter(line.partition(".py::")[0] for line in told.stdout.splitlines())
    rows = [
        f"| {promise} | {sum(found[name] for name in names)} |"
        for promise, names in PROMISES.items()
    ]
    properties = [one for one in vars(test_rewrite_properties).values() if is_hypothesis_test(one)]
    examples = len(properties) * test_rewrite_properties.SETTINGS.max_examples
    many = test_concurrency.PROCESSES * test_concurrency.EACH
    return "\n".join(
        [
            "| promise | cases in `make test` |",
            "| --- | --- |",
            *rows,
            "",
            f"Generated definitions, refused or cloned without a trace of their base: {examples}. "
            f"Creates at once from {test_concurrency.PROCESSES} processes: {many}.",
        ]
    )
