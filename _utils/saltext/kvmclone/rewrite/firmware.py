"""Firmware: the variable store and the TPM, which hold what one machine remembers. Pure."""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.rewrite.outcome import Rewritten, remove


def firmware(root: etree._Element, path: str, out: Rewritten) -> None:
    nvram = root.find("./os/nvram")
    if nvram is not None:
        kind = nvram.get("type", "file")
        if kind != "file":
            out.conflicts.append(f"NVRAM of type '{kind}' cannot be cloned; only a file can.")
        source = nvram.find("source")
        old = ((source.get("file") if source is not None else nvram.text) or "").strip()
        if source is not None:
            source.set("file", path)
        else:
            nvram.text = path
        out.change("nvram", old or None, path)
    for tpm in root.findall("./devices/tpm"):
        backend = tpm.find("backend")
        kind = backend.get("type", "") if backend is not None else ""
        if kind != "emulator":
            out.conflicts.append(f"TPM of type '{kind}' belongs to one machine; remove it first.")
            continue
        assert backend is not None
        for source in backend.findall("source"):
            remove(source)
        out.warnings.append(
            "The emulated TPM starts empty: secrets that the base sealed in its own are not there."
        )
