"""How much a quick clone costs beyond the libvirt calls that it cannot do without.

One run, three ways, taken in turns so that other load on the machine affects all alike:

* *naive*: read the base, create the overlay, define the clone; nothing else. No record, no
  journal, no check: a crash between two of them leaves what nobody owns.
* *same effect*: the calls that a journaled clone needs, made by hand: the name and the volume are
  looked up, the definition carries its record, the overlay is made, the record is closed.
* *ours*: :meth:`LocalHost.clone`, with all its checks and the whole plan.

All three open a connection of their own, as ``LocalHost`` does. Run it with ``make bench``, or
in the checkout with ``.cache/venv/bin/python -m bench.quick_clone [ROUNDS]``. It leaves
nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import libvirt

from bench.table import Table, in_turns
from lab.common import LIBVIRT_URI
from lab.lab import Lab, connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.record_xml import NAMESPACE, PREFIX, embed, to_xml
from saltext.kvmclone.model.request import Request

GOAL = 1.15


class Bench:
    """One base in one pool, and the three ways to clone it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.base = lab.tiny_base("bench-base")
        self.source = lab.pool_path / "bench-base-0.qcow2"
        self.number = 0
        self.host = LocalHost(LIBVIRT_URI, label="bench")
        with connection() as conn:
            conn.storagePoolLookupByName(lab.pool).refresh()
            self.planned = conn.lookupByName(self.base).XMLDesc()
        self.record = Record(uuid="", base=self.base, base_uuid="", strategy="quick")

    # --- the three ways ------------------------------------------------------------------------

    def naive(self, name: str) -> None:
        with connection() as conn:
            xml = conn.lookupByName(self.base).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            pool = conn.storagePoolLookupByName(self.lab.pool)
            pool.createXML(self._volume_xml(name))
            conn.defineXMLFlags(self._definition(xml, name), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def same_effect(self, name: str) -> None:
        with connection() as conn:
            base = conn.lookupByName(self.base)
            xml = base.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
            assert not base.isActive()
            assert not base.hasManagedSaveImage()
            try:
                conn.lookupByName(name)
                raise AssertionError(name)
            except libvirt.libvirtError:
                pass
            volume = conn.storageVolLookupByPath(str(self.source))
            assert volume.XMLDesc()
            pool = volume.storagePoolLookupByVolume()
            assert pool.info()[3]
            domain = conn.defineXMLFlags(
                self._definition(xml, name, journal=True), libvirt.VIR_DOMAIN_DEFINE_VALIDATE
            )
            pool.createXML(self._volume_xml(name))
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                to_xml(self.record),
                PREFIX,
                NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_CONFIG,
            )

    def ours(self, name: str) -> None:
        self.host.clone(Request(name=name, base_domain=self.base, clone_strategy="quick"))

    # --- their parts ---------------------------------------------------------------------------

    def _definition(self, xml: str, name: str, journal: bool = False) -> str:
        root = libvirt_xml.parse(xml)
        for tag, value in (("name", name), ("uuid", str(uuid.uuid4()))):
            element = root.find(tag)
            assert element is not None
            element.text = value
        for path in ("./devices/interface/mac", "./devices/disk/serial"):
            for element in root.findall(path):
                parent = element.getparent()
                assert parent is not None
                parent.remove(element)
        source = root.find("./devices/disk/source")
        assert source is not None
        source.set("file", str(self._path(name)))
        if journal:
            embed(root, self.record)
        return libvirt_xml.serialize(root)

    def _volume_xml(self, name: str) -> str:
        return f"""<volume><name>{self._path(name).name}</name>
<capacity>{64 * 2**20}</capacity><allocation>0</allocation>
<target><format type='qcow2'/><compat>1.1</compat></target>
<backingStore><path>{self.source}</path><format type='qcow2'/></backingStore></volume>"""

    def _path(self, name: str) -> Path:
        return self.lab.pool_path / f"{name}-vda.qcow2"

    # --- measuring -----------------------------------------------------------------------------

    def once(self, way: Callable[[str], None]) -> float:
        """Make and remove one clone, and return the milliseconds that making it took.

        :param way: Makes a clone of the name that it is called with.
        """
        self.number += 1
        name = f"bench-{self.number}"
        start = time.perf_counter()
        way(name)
        elapsed = time.perf_counter() - start
        with connection() as conn:
            conn.lookupByName(name).undefine()
            conn.storageVolLookupByPath(str(self._path(name))).delete()
        return elapsed * 1000

    def rounds(self, count: int) -> list[float]:
        """Return the medians of the three ways, in milliseconds.

        :param count: Rounds to measure, after one to warm up.
        """
        ways = (self.naive, self.same_effect, self.ours)
        return in_turns([partial(self.once, way) for way in ways], count)

    def fill_pool(self, count: int) -> None:
        for number in range(count):
            (self.lab.pool_path / f"other-{number}.raw").write_bytes(b"")
        with connection() as conn:
            conn.storagePoolLookupByName(self.lab.pool).refresh()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="?", type=int, default=60)
    parser.add_argument("--volumes", type=int, default=500, help="others in the pool, second row")
    arguments = parser.parse_args()

    report = Table(
        f"Quick clone, median of {arguments.rounds} rounds in turns, ms",
        *("volumes in the pool", "naive", "same effect", "this project", "/ naive"),
        *("/ same effect", "libvirt calls"),
    )
    with Lab() as lab:
        bench = Bench(lab)
        for volumes in (1, arguments.volumes):
            if volumes > 1:
                bench.fill_pool(volumes)
            naive, same, ours = bench.rounds(arguments.rounds)
            ratios = f"{ours / naive:.2f}", f"{ours / same:.2f}"
            report.add(volumes, naive, same, ours, *ratios, bench.host.calls)
            report.goal(f"Quick clone beside {volumes} volumes / same effect", ours / same, GOAL)
    return report.show()


if __name__ == "__main__":
    sys.exit(main())
