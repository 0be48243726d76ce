"""A warmed base, made by hand."""

from __future__ import annotations

import time
from dataclasses import replace

from lxml import etree

from lab.common import LIBVIRT_URI
from lab.lab import Lab
from saltext.kvmclone.errors import ChannelError
from saltext.kvmclone.guest import fork_identity
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.record import MADE, MEMORY, Volume
from saltext.kvmclone.model.request import Request

PREPARE = """
mkdir -p /run/systemd/system
for timer in /usr/lib/systemd/system/*.timer; do
    systemctl -q is-active ${timer##*/} && ln -s /dev/null /run/systemd/system/${timer##*/}
done
systemctl stop '*.timer'; systemctl daemon-reload
rm -f /var/lib/systemd/random-seed; sync
"""


def warm(lab: Lab, host: LocalHost, base: str) -> str:
    """Return the name of a machine that was saved without a network card."""
    name = f"{base}.warm1"
    host.clone(Request(name=name, base_domain=base, clone_strategy="quick"))
    lab.own_domain(name)
    with Host(LIBVIRT_URI) as opened:
        handle = opened.domain(name)
        root = etree.fromstring(handle.definition())
        devices = root.find("devices")
        assert devices is not None
        for card in devices.findall("interface"):
            devices.remove(card)
        root.insert(2, etree.Element("genid"))
        for _ in range(2):
            devices.append(etree.fromstring("<controller type='pci' model='pcie-root-port'/>"))
        handle = opened.define(etree.tostring(root, encoding="unicode"), False)
        handle.start()
        deadline = time.monotonic() + 240
        while True:
            try:
                fork_identity.ping(handle.agent, 5)
                break
            except ChannelError:
                assert time.monotonic() < deadline
        AgentChannel(handle.agent).run(PREPARE, timeout=60)
        image = lab.pool_path / f"{name}-{MEMORY}.save"
        handle.raw.saveFlags(str(image), None, 0)
        record = handle.record()
        assert record is not None
        memory = Volume(MEMORY, str(image), "raw", "save", MADE)
        handle.save_record(replace(record, becomes="warm", volumes=(*record.volumes, memory)))
    return name
