"""
Build what cloud-init does at the only boot of a base that is being made from an image.

Its seed has a folder of packages, or the guest fetches them. One shell script installs them and
says how that ended: in a file that the guest agent reads, and on the console, which is all that is
seen of a guest whose agent could not be installed. ``KVM_CLONE_ROOT`` is a folder that takes the
place of ``/``, and ``KVM_CLONE_PATH`` one of its programs, for tests.
"""

from __future__ import annotations

import json
from typing import Any

#: The file that says how the script ended: ``done``, or ``failed`` and why.
RESULT = "/run/kvm-clone-base"

#: What every word of ours on the guest's console begins with.
CONSOLE_MARK = "kvm-clone-base:"

#: Folders of the seed: packages for all that is asked for, and Salt's packages or wheels.
PACKAGES, SALT = "packages", "salt"

_AGENT = "qemu-guest-agent"

#: Where Salt's packages are, as its installation guide says.
_KEY = "https://packages.broadcom.com/artifactory/api/security/keypair/SaltProjectKey/public"
_DEB = "https://packages.broadcom.com/artifactory/saltproject-deb"
_RPM = "https://packages.broadcom.com/artifactory/saltproject-rpm/"

_BEGIN = r"""
R=${KVM_CLONE_ROOT-}
export DEBIAN_FRONTEND=noninteractive
PATH=${KVM_CLONE_PATH-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}; export PATH
log=$R/run/kvm-clone-base.log
seed=$R/run/kvm-clone-seed
say() { printf '%s %s\n' '@MARK@' "$*" >"${KVM_CLONE_CONSOLE:-/dev/console}" 2>/dev/null || :; }
finish() {
    umount "$seed" 2>/dev/null
    printf '%s\n' "$1" >"$R/@RESULT@.new" && mv -f "$R/@RESULT@.new" "$R/@RESULT@"
    say "$1"
    exit 0
}
failed() { finish "failed: $1: $(tail -n 3 "$log" | tr -c '[:print:]' ' ' | tail -c 400)"; }
has() { command -v "$1" >/dev/null 2>&1; }
some() { set -- "$1"/*."$2"; [ -e "$1" ]; }
: >"$log"
exec >>"$log" 2>&1

# A minion that a package starts would ask the wrong master for a key, with the base's name.
unit=$R/etc/systemd/system/salt-minion.service
[ -e "$unit" ] || [ -L "$unit" ] || { mkdir -p "${unit%/*}" && ln -s /dev/null "$unit"; masked=1; }

mount_seed() {
    mkdir -p "$seed"
    [ -z "$R" ] || return 0
    mount -o ro LABEL=cidata "$seed" || mount -o ro "$(blkid -L cidata)" "$seed"
}
from_folder() {
    if some "$1" deb && has dpkg; then
        # Twice: what another package must configure first may stand behind it.
        dpkg --install "$1"/*.deb || dpkg --install "$1"/*.deb
    elif some "$1" rpm && has rpm; then
        rpm --upgrade --replacepkgs "$1"/*.rpm
    else
        echo "no package in it is for this guest"; return 1
    fi
}
from_network() {
    if has apt-get; then apt-get -q update && apt-get -q -y install --no-install-recommends "$1"
    elif has dnf; then dnf -q -y install "$1"
    elif has yum; then yum -q -y install "$1"
    elif has zypper; then zypper -q --non-interactive install "$1"
    elif has apk; then apk add -q "$1"
    elif has pacman; then pacman -Sy --noconfirm "$1"
    else echo "no package manager is known here"; return 1
    fi
}
"""

_AGENT_FROM_FOLDER = """
mount_seed || failed 'the seed cannot be mounted'
from_folder "$seed/@PACKAGES@" || failed 'the packages of the folder'
"""

_AGENT_FROM_NETWORK = """
has qemu-ga || from_network @AGENT@ || failed 'installing @AGENT@'
"""

_SALT_FROM_REPOSITORY = r"""
fetch() { if has curl; then curl -fsSL "$1"; else wget -qO- "$1"; fi; }
if has apt-get; then
    has curl || has wget || from_network wget || failed 'installing wget'
    mkdir -p "$R/etc/apt/keyrings" "$R/etc/apt/sources.list.d"
    fetch @KEY@ >"$R/etc/apt/keyrings/salt-archive-keyring.pgp" || failed "Salt's key"
    cat >"$R/etc/apt/sources.list.d/salt.sources" <<'END'
X-Repolib-Name: Salt Project
Description: The Salt Project repository
Enabled: yes
Types: deb
URIs: @DEB@
Suites: stable
Components: main
Signed-By: /etc/apt/keyrings/salt-archive-keyring.pgp
END
elif has dnf || has yum; then
    mkdir -p "$R/etc/yum.repos.d"
    cat >"$R/etc/yum.repos.d/salt.repo" <<'END'
[salt-repo]
name=The Salt Project repository
baseurl=@RPM@
skip_if_unavailable=True
enabled=1
gpgcheck=1
gpgkey=@KEY@
END
else
    echo "Salt's repository has packages for apt and dnf alone"; failed 'installing Salt'
fi
from_network salt-minion || failed 'installing Salt'
"""

_SALT_FROM_FOLDER = r"""
mountpoint -q "$seed" || mount_seed || failed 'the seed cannot be mounted'
if some "$seed/@SALT@" whl; then
    python3 -m venv "$R/opt/salt" || failed 'a Python environment for Salt (python3-venv)'
    "$R/opt/salt/bin/pip" install -q --no-index --find-links "$seed/@SALT@" salt ||
        failed "Salt's wheels"
    mkdir -p "$R/usr/local/bin"
    ln -sf /opt/salt/bin/salt-minion /opt/salt/bin/salt-call "$R/usr/local/bin/"
    [ -z "${masked-}" ] || { rm -f "$unit"; masked=; }
    cat >"$unit" <<'END'
[Unit]
Description=The Salt Minion
After=network.target

[Service]
ExecStart=/usr/local/bin/salt-minion
KillMode=process
LimitNOFILE=100000
Restart=on-failure

[Install]
WantedBy=multi-user.target
END
else
    from_folder "$seed/@SALT@" || failed "Salt's packages"
fi
has salt-minion || [ -x "$R/usr/local/bin/salt-minion" ] || failed 'there is no salt-minion'
"""

_END = r"""
# The family of Red Hat forbids what a clone's identity is reset with.
for file in "$R/etc/sysconfig/qemu-ga"; do
    [ ! -e "$file" ] || sed -i -E 's/^(BLACKLIST_RPC|FILTER_RPC_ARGS)=/#&/' "$file"
done
[ -z "${masked-}" ] || rm -f "$unit"
rm -rf "$R/etc/salt/pki/minion" "$R/etc/salt/minion_id"
if has systemctl; then
    systemctl daemon-reload
    systemctl --quiet disable --now salt-minion.service 2>/dev/null
    systemctl --quiet enable @AGENT@.service 2>/dev/null
    systemctl restart @AGENT@.service || failed 'starting @AGENT@'
elif has rc-update; then
    rc-update add @AGENT@ default
    rc-service @AGENT@ restart || failed 'starting @AGENT@'
else
    service @AGENT@ restart || failed 'starting @AGENT@'
fi
finish done
"""


def script(packages: bool, salt: str) -> str:
    """
    Return the shell script that installs what a base needs.

    :param packages: The seed has a folder :data:`PACKAGES`; otherwise the guest's network serves.
    :param salt: ``none``, ``repository``, or ``folder`` for :data:`SALT` of the seed.
    """
    parts = [_BEGIN, _AGENT_FROM_FOLDER if packages else _AGENT_FROM_NETWORK]
    if salt == "repository":
        parts.append(_SALT_FROM_REPOSITORY)
    elif salt == "folder":
        parts.append(_SALT_FROM_FOLDER)
    parts.append(_END)
    words = {
        "MARK": CONSOLE_MARK,
        "RESULT": RESULT.lstrip("/"),
        "PACKAGES": PACKAGES,
        "SALT": SALT,
        "AGENT": _AGENT,
        "KEY": _KEY,
        "DEB": _DEB,
        "RPM": _RPM,
    }
    text = "".join(parts)
    for word, meaning in words.items():
        text = text.replace(f"@{word}@", meaning)
    return text


def user_data(packages: bool, salt: str) -> str:
    """Return the ``user-data`` of the seed; see :func:`script`."""
    config: dict[str, Any] = {"runcmd": [["sh", "-c", script(packages, salt)]]}
    if not packages:  # cloud-init knows the guest's mirrors; the script does it where this failed
        config = {"package_update": True, "packages": [_AGENT], **config}
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"
