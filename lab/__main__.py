"""``python -m lab COMMAND``: what the Makefile calls."""

from __future__ import annotations

import argparse
import os
import sys

from lab import fleet, image, libvirtd
from lab.bootable import bootable
from lab.common import LabError, say
from lab.demo import Demo
from lab.demo_fleet import FleetDemo
from lab.lab import clean


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("images", help="build the guests' images, if they are not there yet")
    demos = {"demo": Demo, "demo-fleet": FleetDemo}
    for name, what in (
        ("demo", "clone a machine, make it a minion, destroy it"),
        ("demo-fleet", "six minions on three hosts, of which one dies"),
    ):
        demo = commands.add_parser(name, help=what)
        demo.add_argument("--keep", action="store_true", help="leave it running")
    removing = commands.add_parser("clean", help="remove what dead labs left")
    removing.add_argument("--all", action="store_true", help="and labs that were kept")
    arguments = parser.parse_args()
    try:
        libvirtd.require_root()
        if demonstration := demos.get(arguments.command):
            keep = arguments.keep or os.environ.get("KEEP", "") not in ("", "0")
            return demonstration(keep).play()
        if arguments.command == "clean":
            gone = clean(everything=arguments.all) + fleet.clean()
            say(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
            return 0
        image.boot_files()
        print(image.debian().parent)
        print(image.cloud().parent)
        print(bootable().disk.parent)
    except LabError as error:
        say(f"!! {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
