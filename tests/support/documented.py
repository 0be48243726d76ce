"""What the documentation of Salt's libvirt driver shows, pasted as it stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BASE = "base-centos7-64"
CLONE = "my-centos7-clone"

#: Where the documented profile says that the master is.
MASTER, MASTER_PORT = "192.168.16.1", 5506
PASSWORD = "my-very-secret-password"

PROVIDERS = """\
kvm-via-ssh:
  driver: libvirt
  url: qemu+ssh://user@kvm.company.com/system?socket=/var/run/libvirt/libvirt-sock
local-kvm:
  driver: libvirt
  url: qemu:///system
  validate_xml: no        # skip libvirt's schema validation when the clone is defined
"""

PROFILE = """\
centos7:
  provider: local-kvm             # required
  base_domain: base-centos7-64    # required: the domain to clone
  ip_source: ip-learning          # documented as required: ip-learning | qemu-agent (absent: auto, see part 2)
  ssh_username: root
  password: my-very-secret-password
  clone_strategy: quick           # full (default) | quick
  deploy_command: sh /tmp/.saltcloud/deploy.sh   # for guests whose /tmp is noexec
  script_args: -F                 # handed to the bootstrap script
  grains: {clones-are-awesome: true}
  minion: {master: 192.168.16.1, master_port: 5506}
"""  # noqa: E501


def call_nobody(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The documented host is a stranger's: no ssh of these tests may knock there."""
    ssh = folder / "ssh"
    ssh.write_text("#!/bin/sh\necho 'ssh: Could not resolve hostname' >&2\nexit 255\n")
    ssh.chmod(0o755)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
