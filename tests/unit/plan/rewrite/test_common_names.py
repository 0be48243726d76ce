"""A name that is found everywhere proves nothing of a base."""

from __future__ import annotations

import pytest

from saltext.kvmclone.plan.rewrite.common_names import is_common


@pytest.mark.parametrize(
    "name",
    [
        "debian", "debian12", "debian-12", "ubuntu-22.04-server", "Ubuntu", "rocky9",
        "centos9stream", "centos-stream-9", "win10", "win2k19", "el9", "almalinux_9", "pfsense",
        "nixos", "fedora-coreos", "macos", "ubuntu-20.04-lts-amd64", "windows-server-2022",
        "base", "test", "vm", "VM", "template", "golden", "100", "a", "-", "",
    ],
)  # fmt: skip
def test_systems_and_words_for_any_machine_are_common(name: str) -> None:
    assert is_common(name)


@pytest.mark.parametrize(
    "name",
    [
        "mother", "web-base", "debian12-web", "base-centos7-64x", "vm1", "test2", "lbbuild",
        "netbsd-100-ufs", "k8s-worker-04", "onie-master-test", "MacinaboxHighSierra", "my-host",
        "debian-base", "golden-image", "6d18a67b-6659-4a4b-b1e2-7d8ff19e50e7",
    ],
)  # fmt: skip
def test_what_somebody_called_one_machine_is_not(name: str) -> None:
    assert not is_common(name)
