"""How many cases of ``make test`` hold the other promises of the page. They are only counted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import is_hypothesis_test

from lab.common import CHECKOUT
from tests.functional.hosts import test_concurrent_creates
from tests.unit.plan.rewrite import test_properties

UNIT, FUNCTIONAL = "tests/unit", "tests/functional"

#: A promise, and the files that try it.
PROMISES = {
    "every device of a definition has a decided fate": (f"{UNIT}/plan/rewrite/test_corpus",),
    "every disk has a decided fate": (
        f"{UNIT}/plan/test_disk_definitions",
        f"{FUNCTIONAL}/lifecycle/test_create_disks",
        f"{FUNCTIONAL}/lifecycle/test_create_from_images",
        f"{FUNCTIONAL}/lifecycle/test_create_over_remote_url",
        f"{FUNCTIONAL}/hypervisor/test_busy_volumes",
    ),
    "what cannot work is refused before anything is written": (f"{FUNCTIONAL}/plan/test_refusals",),
    "a create that fails at any step leaves nothing": (
        f"{FUNCTIONAL}/lifecycle/test_create_rollback",
    ),
    "a disk that runs full is left as it was": (f"{FUNCTIONAL}/lifecycle/test_full_pool",),
    "one name, one clone: waiting, taking over, keeping off": (
        f"{FUNCTIONAL}/hosts/test_takeover",
        f"{FUNCTIONAL}/hosts/test_left_by_workers",
    ),
    "many at once, and races of create, destroy and a base that starts": (
        f"{FUNCTIONAL}/hosts/test_concurrent_creates",
    ),
    "a destroy deletes what is ours and nothing else": (
        f"{FUNCTIONAL}/lifecycle/test_destroy",
        f"{FUNCTIONAL}/inventory/test_deletion_plan",
        f"{FUNCTIONAL}/inventory/test_image_chains",
        f"{FUNCTIONAL}/inventory/test_open_files",
        f"{FUNCTIONAL}/lifecycle/test_destroy_foreign",
        f"{FUNCTIONAL}/lifecycle/test_destroy_over_remote_url",
        f"{FUNCTIONAL}/lifecycle/test_renamed_clones",
    ),
    "gc lists what it removes": (f"{FUNCTIONAL}/hosts/test_gc",),
    "a base is protected, and what changed in it is said": (
        f"{FUNCTIONAL}/lifecycle/test_protect",
        f"{FUNCTIONAL}/inventory/test_base_changes",
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
    properties = [one for one in vars(test_properties).values() if is_hypothesis_test(one)]
    examples = len(properties) * test_properties.SETTINGS.max_examples
    many = test_concurrent_creates.PROCESSES * test_concurrent_creates.EACH
    return "\n".join(
        [
            "| promise | cases in `make test` |",
            "| --- | --- |",
            *rows,
            "",
            f"Generated definitions, refused or cloned without a trace of their base: {examples}. "
            f"Creates at once from {test_concurrent_creates.PROCESSES} processes: {many}.",
        ]
    )
