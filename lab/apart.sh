#!/usr/bin/env bash
# lab/apart.sh COMMAND…: runs a command with a libvirtd, networks, mounts and processes of its own.
# lab/apart.sh --inside FOLDER COMMAND…: the same in namespaces that the caller has made, with its
# files in FOLDER, where the next call finds them again: a machine that was switched off and on.
# A lab in here and one outside see nothing of each other, so both may run at once. No network
# leads out of here; what has to be fetched (images, environments) must be there before.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
    # What a run left that was killed.
    for old in /var/tmp/kvmclone-apart-*; do
        [ -e "/proc/${old##*-}" ] || rm -rf --one-file-system "$old"
    done
    scratch=/var/tmp/kvmclone-apart-$$
    mkdir -m 755 "$scratch"
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    unshare --mount --net --pid --fork --kill-child "$0" --inside "$scratch" "$@"
    exit
fi
scratch=$2
shift 2

# Whatever is mounted from here on, nobody else sees.
mount --make-rprivate /
mount -t proc proc /proc

# /sys must show the networks of in here; the control groups stay those of the machine.
mkdir -p "$scratch/cgroup"
mount --rbind /sys/fs/cgroup "$scratch/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$scratch/cgroup" /sys/fs/cgroup

mount -t tmpfs -o mode=755 run /run
mkdir -p /run/libvirt
mkdir -m 1777 /run/lock

# libvirt's folders as they were installed, without anybody's machines and disks.
if [ ! -d "$scratch/etc" ]; then
    mkdir "$scratch/etc"
    cp -a /etc/libvirt/. "$scratch/etc"
    rm -rf "$scratch"/etc/{qemu/*.xml,storage,qemu/networks}
fi
mount --bind "$scratch/etc" /etc/libvirt
for name in lib log cache; do
    mkdir -p "$scratch/$name"
    find "/var/$name/libvirt" -xdev -type d -printf '%P\0' |
        tar -c -C "/var/$name/libvirt" --no-recursion --null -T - | tar -x -p -C "$scratch/$name"
    mount --bind "$scratch/$name" "/var/$name/libvirt"
done

# The lab lets QEMU's user open it, and takes that back, each for itself.
if [ -c /dev/kvm ]; then
    rm -f "$scratch/kvm"
    mknod -m "$(stat -c %a /dev/kvm)" "$scratch/kvm" c 10 232
    mount --bind "$scratch/kvm" /dev/kvm
fi

# Scratch folders last: the checkout or the cache may be in one, and stay where they are.
exec 8<"$scratch"
keep=("$PWD" "${KVMCLONE_CACHE:-$PWD}" "${KVMCLONE_KEEP:-$PWD}")
for index in "${!keep[@]}"; do
    mkdir -p "$scratch/keep$index"
    mount --rbind "${keep[$index]}" "$scratch/keep$index"
done
mkdir -p -m 1777 "$scratch/tmp" "$scratch/vartmp"
mount --bind "$scratch/tmp" /tmp
mount --bind "$scratch/vartmp" /var/tmp
for index in "${!keep[@]}"; do
    if [ ! "${keep[$index]}" -ef "/proc/self/fd/8/keep$index" ]; then
        mkdir -p "${keep[$index]}"
        mount --no-canonicalize --rbind "/proc/self/fd/8/keep$index" "${keep[$index]}"
    fi
done
exec 8<&-
cd "${keep[0]}"

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# Not exec: an init that reaps nobody's children is no init.
"$@"
