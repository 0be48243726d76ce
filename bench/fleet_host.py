"""What is done in a host of ``bench.fleet``: ``python -m bench.fleet_host BASE NAME…``."""

from __future__ import annotations

import sys

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import Request


def main() -> None:
    """Make quick clones that stay off."""
    base, *names = sys.argv[1:]
    for name in names:
        LocalHost(LIBVIRT_URI).clone(Request(name=name, base_domain=base, clone_strategy="quick"))


if __name__ == "__main__":
    main()
