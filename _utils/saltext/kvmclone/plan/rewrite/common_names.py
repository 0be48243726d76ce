"""
Tell names that say nothing: a base called like a distribution, or ``test``. Pure.

Such a word is found in the names of media, volume groups and folders that have nothing to do with
the base.
"""

from __future__ import annotations

import re

#: Systems that people install, their releases, and words that their makers add to them.
_SYSTEMS = {
    "almalinux", "alma", "alpine", "amazon", "amd", "android", "arch", "archlinux", "arm", "atomic",
    "bionic", "bookworm", "bsd", "bullseye", "buster", "centos", "cirros", "cloud", "coreos",
    "debian", "desktop", "dragonfly", "el", "fcos", "fedora", "flatcar", "focal", "freebsd",
    "freenas", "gentoo", "gnu", "haos", "hassos", "haiku", "home", "homeassistant", "assistant",
    "iot", "jammy", "kali", "leap", "linux", "live", "lts", "lunar", "macos", "mint", "minimal",
    "netbsd", "nixos", "noble", "onie", "openbsd", "openeuler", "openstack", "opensuse", "openwrt",
    "opnsense", "oracle", "ol", "os", "osx", "pfsense", "photon", "proxmox", "pve", "raspios",
    "reactos", "redhat", "rhcos", "rhel", "rocky", "scientific", "server", "silverblue", "sle",
    "slackware", "sles", "solaris", "sonic", "stretch", "stream", "suse", "talos", "trixie",
    "truenas", "trusty", "tumbleweed", "ubuntu", "unraid", "vanilla", "void", "vyos", "win",
    "windows", "wins", "workstation", "xenial", "xubuntu", "k", "x", "r", "v", "h",
}  # fmt: skip

#: Words for any machine, any image, any folder of theirs.
_ANY = {
    "app", "backup", "base", "bastion", "boot", "box", "build", "builder", "cache", "client",
    "clone", "cluster", "console", "data", "db", "default", "demo", "dev", "disk", "disks",
    "domain", "domains", "dom", "example", "gateway", "gold", "golden", "guest", "host", "image",
    "images", "img", "install", "installer", "instance", "iso", "isos", "kernel", "kvm", "lab",
    "lib", "libvirt", "local", "log", "logs", "lvm", "machine", "main", "master", "media", "mnt",
    "new", "node", "nvram", "old", "opt", "pool", "prod", "production", "qcow", "qemu", "root",
    "router", "run", "seed", "sda", "srv", "stage", "staging", "storage", "swap", "sys", "system",
    "temp", "template", "test", "tests", "testing", "tmp", "usr", "vagrant", "var", "vda", "vg",
    "virt", "virtual", "vm", "vms", "vol", "volume", "web", "work", "worker",
}  # fmt: skip


def is_common(name: str) -> bool:
    """Return whether a base's name is found anywhere by chance: ``debian-12``, ``test``, ``a``."""
    words = [word.lower() for word in re.findall("[A-Za-z]+", name)]
    if len(name) < 3 or not words:
        return True
    return all(word in _SYSTEMS for word in words) or (
        len(words) == 1 and words[0] == name.lower() and words[0] in _ANY
    )
