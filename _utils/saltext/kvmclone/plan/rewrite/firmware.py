"""
Rewrite firmware: the variable store and the TPM, which hold the state of one machine. Pure.
"""

from __future__ import annotations

import os.path
import shlex

from lxml import etree

from saltext.kvmclone.model import domain_xml, redaction
from saltext.kvmclone.plan.rewrite.result import Rewritten, drop, remove

FRESH = (
    "The clone starts with fresh UEFI variables: boot entries and keys that the base keeps in its "
    "own are not there. If it needs one, make it in the clone."
)


def firmware(root: etree._Element, path: str, out: Rewritten) -> None:
    """
    Decide about the files of the firmware, and about TPMs.

    :param path: The clone's own variable store; empty where libvirt is to choose one, which
        then starts fresh.
    """
    _loader(root, out)
    _store(root, path, out)
    for element in root.findall("./devices/tpm"):
        _tpm(element, out.label(element).replace("tpm", "TPM"), out)
    for table in root.findall("./os/acpi/table"):
        out.warn(
            f"Shares the ACPI table '{_path(table)}', a licence, with its base. If that is for one "
            "machine, take it out of the base's definition."
        )


def _loader(root: etree._Element, out: Rewritten) -> None:
    loader = root.find("./os/loader")
    if loader is None or loader.get("type") != "pflash" or not (loader.text or "").strip():
        return
    if loader.get("readonly") != "yes" and loader.get("stateless") != "yes":
        out.refuse(
            loader,
            f"The base's machine writes its firmware file '{_path(loader)}' itself; "
            "clone and base would share it",
            "Set <loader readonly='yes'> and give the base an <nvram> first",
        )


def _store(root: etree._Element, path: str, out: Rewritten) -> None:
    other = root.find("./os/varstore")
    if other is not None:
        out.refuse(
            other,
            "The base keeps its UEFI variables in a <varstore>, which this version cannot clone",
            "Use firmware with an <nvram> file",
        )
        return
    store = root.find("./os/nvram")
    if store is None:
        if domain_xml.makes_a_store(root):
            if path:
                made = etree.Element("nvram")
                made.text = path
                root.findall("os")[0].append(made)
                out.change("nvram", None, path)
            else:
                out.warn(FRESH)
        return
    if reason := _store_refused(store):
        out.refuse(store, *reason)
        return
    source = store.find("source")
    old = domain_xml.store_path(store)
    if path and source is not None:
        source.set("file", path)
    elif path:
        store.text = path
    else:
        # Empty, libvirt names it after the clone and makes it from the template.
        if source is not None:
            remove(source)
        drop(store, "type")
        store.text = None
        out.warn(FRESH)
    out.change("nvram", redaction.path(old) or None, path or None)


def _store_refused(store: etree._Element) -> tuple[str, ...]:
    """Say why a variable store cannot be cloned, and what to do; empty where it can."""
    kind = store.get("type", "file")
    if kind != "file":
        return (
            f"NVRAM of type '{kind}' cannot be cloned, only a file can",
            "Keep the base's <nvram> in a file",
        )
    if store.find(".//encryption") is not None:
        return (
            "The base's <nvram> is encrypted: a clone would need its secret, and share its key for "
            "ever",
            "Keep it in a plain file",
        )
    if store.find("source") is not None and (store.text or "").strip():
        return (
            f"<nvram> names '{_path(store)}' and a <source>, of which libvirt takes one",
            "Remove the other from the base first",
        )
    old = domain_xml.store_path(store)
    real = os.path.normpath(old or "/")
    if real.startswith("/dev/") and not real.startswith("/dev/shm/"):
        # Proxmox keeps it on a volume of its own; a copy beside it would be a file in /dev.
        return (
            f"The base keeps its UEFI variables on the device '{old}', which cannot be cloned, "
            "only a file can",
            "Name one in <nvram>",
            f"Make it on that host: qemu-img convert -O raw {shlex.quote(old)} "
            "/var/lib/libvirt/qemu/nvram/BASE_VARS.fd",
        )
    return ()


def _path(element: etree._Element) -> str:
    """Return the path that an element holds, as it may be shown."""
    return redaction.path((element.text or "").strip())


def _tpm(element: etree._Element, label: str, out: Rewritten) -> None:
    backend = element.find("backend")
    kind = backend.get("type", "") if backend is not None else ""
    if backend is None or kind != "emulator":
        out.refuse(
            element,
            f"{label} of type '{kind}' belongs to one machine",
            "Make it an emulated one in the base",
        )
        return
    for source in backend.findall("source"):
        old = source.get("path") or source.get("file") or ""
        out.change(f"{label} source", redaction.path(old) or None, None)
        remove(source)
    for key in backend.findall("encryption"):
        uuid = redaction.shown(key, "backend/encryption@secret", key.get("secret", ""))
        out.warn(
            f"{label} of the clone is encrypted with the base's secret '{uuid}'. Keep that as long "
            "as the clone is there."
        )
    out.warn(
        "The emulated TPM starts empty: secrets that the base sealed in its own are not there. If "
        "a disk is unlocked by one, have another way to unlock it in the base."
    )
