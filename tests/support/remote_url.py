"""A libvirt that is far away: this machine's own, over ssh, so that its files are out of reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saltext.kvmclone.hypervisor.connection import is_local
from tests.support.sshd import Sshd


@contextmanager
def libvirt_over_ssh(folder: Path) -> Iterator[str]:
    """The url of this machine's libvirt behind an sshd of our own."""
    key = folder / "login"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]
    subprocess.run(words, check=True)
    # Nothing of this may end in the known hosts of whoever runs the tests.
    ssh = folder / "ssh"
    ssh.write_text(
        f"#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile={folder}/known_hosts "
        '-o StrictHostKeyChecking=accept-new "$@"\n'
    )
    ssh.chmod(0o755)
    sshd = Sshd(folder, options={"PasswordAuthentication": "no"})
    sshd.authorize(key.with_suffix(".pub").read_text())
    sshd.start()
    try:
        sshd.wait()
        url = f"qemu+ssh://root@127.0.0.1:{sshd.port}/system?keyfile={key}&command={ssh}&no_tty=1"
        assert not is_local(url)
        yield url
    finally:
        sshd.stop()
