"""Answers as scripts get them, for the tests of what a person sees of them."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display.screen import Screen

#: 2026-11-29 07:12:00 UTC.
NOW = 1795936320.0


def screen(function: str = "", *names: str, width: int = 80, **options: Any) -> Screen:
    """A terminal of 80 columns at which a command was typed on the master."""
    return Screen(width, NOW, function, names, options)


def clone(name: str = "web1", **keys: Any) -> dict[str, Any]:
    return {
        "name": name,
        "uuid": "6c1e0b5c-9a3f-4c1e-8d4e-0c7f3a9b1d22",
        "host": "kvm01",
        "base": "debian12",
        "profile": "web",
        "strategy": "quick",
        "state": "running",
        "stage": "ready",
        "address": "192.168.122.57",
        "addresses": [
            {
                "interface": "eth0",
                "mac": "52:54:00:00:00:01",
                "address": "192.168.122.57",
                "prefix": 24,
                "family": "ipv4",
                "source": "agent",
            }
        ],
        "disks": [
            {
                "target": "vda",
                "path": f"/var/lib/libvirt/images/{name}-vda.qcow2",
                "format": "qcow2",
                "strategy": "overlay",
            }
        ],
        "minion": {"id": name, "version": "3008.3", "fingerprint": "ab:cd", "verified_by": "uuid"},
        "warnings": [],
        "drift": False,
        "timings": {"cloned": 0.41, "booted": 0.2, "addressed": 14.8, "ready": 11.8},
        **keys,
    }


def error(name: str = "web2", stage: str = "", **keys: Any) -> dict[str, Any]:
    told = {
        "type": "AddressTimeout",
        "message": f"'{name}' had no address within 600 s. It was removed.",
        "hint": "See the network: virsh net-list   Then: salt-run kvmclone.create web web2",
        **keys,
    }
    return {"name": name, "stage": stage, "error": told}
