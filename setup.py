"""
Find the packages; everything else about this distribution stands in setup.cfg.

The checkout is laid out as Salt wants it for syncing. The wheel puts each folder of doors inside
the library, where the entry point names it to Salt's loader.
"""

from setuptools import find_namespace_packages, setup

LIBRARY = find_namespace_packages("_utils", include=["saltext.*"])
DOORS = {
    f"saltext.kvmclone.{kind}": f"_{kind}"
    for kind in ("modules", "runners", "states", "clouds", "beacons", "output")
}

setup(packages=[*LIBRARY, *DOORS], package_dir={"": "_utils", **DOORS})
