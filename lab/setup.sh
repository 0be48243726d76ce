#!/bin/sh
# Bring a bare Debian 12 (root) to where the lab runs.
#
#   lab/setup.sh               system packages and the main environment (Salt 3008, tests, linters)
#   lab/setup.sh 3006 3007     also environments for these Salt lines
#   lab/setup.sh all           also every other line there is a requirements file for, and what
#                              the tests install by themselves where no network is
#
# Whatever is there already is left alone: a second run needs no network and takes well under a
# second. Everything lands in .cache/ (or $KVMCLONE_CACHE); details of a failure in setup.log there.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=${KVMCLONE_CACHE:-$here/.cache}
log=$cache/setup.log
python=/usr/bin/python3
mkdir -p "$cache"

# What a libvirt host needs (first line: the daemon; second: its networks; third: building guests;
# and guests that one logs into; rsync to push a base; netcat for libvirt's qemu+ssh with socket=;
# then file systems that share blocks, virt-xml-validate's checker, and what writes tables and
# seeds, and a boot loader; last Python, and libvirt-python, which is a source package and needs a compiler). ovmf
# serves the UEFI tests. Names, not files, are looked up: a machine set up by hand is respected.
packages="libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils ovmf
    dnsmasq-base iptables nftables iproute2 virtinst swtpm swtpm-tools
    busybox-static cpio kmod debootstrap e2fsprogs openssh-client openssh-server
    rsync netcat-openbsd sudo openssl
    xfsprogs btrfs-progs libxml2-utils fdisk xorriso extlinux
    python3 python3-dev python3-venv libvirt-dev pkg-config gcc libc6-dev git"

say() { printf '%s\n' "setup: $*"; }

# A stage that talks only when it fails: its output goes to the log.
quietly() {
    what=$1
    shift
    if ! "$@" >>"$log" 2>&1; then
        say "FAILED: $what; the last lines of $log:" >&2
        grep -v '^WARNING: Location' "$log" | tail -n 25 >&2
        exit 1
    fi
}

# Where nothing keeps /dev in step with the kernel (a container), a free loop device may lack its node.
make_loop_devices() {
    [ "$(id -u)" = 0 ] && [ -e /dev/loop-control ] || return 0
    for number in 0 1 2 3 4 5 6 7; do
        [ -e "/dev/loop$number" ] || mknod -m 660 "/dev/loop$number" b 7 "$number"
    done
}

missing_packages() {
    for package in $packages; do
        status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

install_packages() {
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "root is needed to install: $missing" >&2
        exit 1
    fi
    say "installing system packages: $missing"
    quietly 'apt-get update' apt-get update
    # No daemon is started behind our back: the lab starts libvirtd itself, and stops it again.
    policy=/usr/sbin/policy-rc.d
    placed=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        placed=yes
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    fi
    # shellcheck disable=SC2086  # a list of names
    quietly 'apt-get install' env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends $missing
    if [ -n "$placed" ]; then
        rm -f "$policy"
        trap - EXIT INT TERM
    fi
}

# make_venv FOLDER REQUIREMENTS. The stamp holds a hash of what was asked for, so an edited
# requirements file (or a new system Python) rebuilds the environment, and nothing else does.
make_venv() {
    venv=$1
    requirements=$2
    want=$({ cat "$requirements"; "$python" --version; } | sha256sum | cut -d' ' -f1)
    [ "$(cat "$venv/.stamp" 2>/dev/null || true)" != "$want" ] || return 0
    say "building $venv from $(basename "$requirements") (about 40 s)"
    rm -rf "$venv"
    quietly "the environment $venv" "$python" -m venv "$venv"
    quietly "pip install -r $requirements" "$venv/bin/python" -m pip install \
        --disable-pip-version-check --no-input -r "$requirements"
    printf '%s\n' "$want" >"$venv/.stamp"
}

# What the tests install into environments of their own, as wheels.
fetch_wheels() {
    requirements=$here/requirements/beside.txt
    want=$(sha256sum <"$requirements")
    [ "$(cat "$cache/wheels/.stamp" 2>/dev/null || true)" != "$want" ] || return 0
    rm -rf "$cache/wheels"
    quietly "pip download -r $requirements" "$cache/venv/bin/python" -m pip download --no-deps \
        --disable-pip-version-check --no-input --dest "$cache/wheels" -r "$requirements"
    printf '%s\n' "$want" >"$cache/wheels/.stamp"
}

# Two makes side by side would build one environment over the other.
if [ -z "${KVMCLONE_SETUP_LOCKED:-}" ]; then
    exec env KVMCLONE_SETUP_LOCKED=1 flock "$cache/setup.lock" "$0" "$@"
fi

# A browser for the page of "report", where all tests are to run.
[ "${1:-}" != all ] || packages="$packages chromium-headless-shell fonts-dejavu-core"

: >"$log"
install_packages
make_loop_devices
make_venv "$cache/venv" "$here/requirements/test.txt"
if [ "${1:-}" = all ]; then
    fetch_wheels
    # shellcheck disable=SC2046  # a list of numbers
    set -- $(ls "$here/requirements" | sed -n 's/^salt-\([0-9]*\)\.txt$/\1/p')
fi
for line in "$@"; do
    make_venv "$cache/venv-$line" "$here/requirements/salt-$line.txt"
done
