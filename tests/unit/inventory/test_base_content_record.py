"""A digest counts as long as a base is what was read, under the very paths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from saltext.kvmclone.inventory import base_content
from saltext.kvmclone.model import normal_definition
from saltext.kvmclone.model.base_content import Content, to_xml
from saltext.kvmclone.model.hints import Commands

UUID = "11111111-2222-3333-4444-555555555555"


def definition(path: Path) -> str:
    return (
        f"<domain type='kvm'><name>gold</name><uuid>{UUID}</uuid><devices>"
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{path}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
    )


def test_a_disk_that_became_another_file_is_not_the_one_that_was_read(tmp_path: Path) -> None:
    read, other = tmp_path / "gold.img", tmp_path / "precious.img"
    for path in (read, other):
        path.write_bytes(b"x" * 4096)
    before = definition(read)
    host: Any = SimpleNamespace(
        local=True, folders=SimpleNamespace(stores="/nowhere"), commands=Commands()
    )
    handle: Any = SimpleNamespace(
        name="gold", uuid=UUID, state=lambda: "shutoff", definition=lambda: before,
        raw=SimpleNamespace(metadata=None),
    )  # fmt: skip
    disks = base_content.disks(host, handle, before)
    files = base_content.files_of(host, before, disks)
    content = Content(UUID, "d" * 64, normal_definition.digest(before), files)
    host.call = lambda *_words: to_xml(content)
    assert base_content.known(host, handle) == content
    handle.definition = lambda: definition(other)
    assert read.exists() and base_content.known(host, handle) is None
