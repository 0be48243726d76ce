"""
Have cloud-init forget what the base was configured with: a part of the reset script.

Shell functions for :mod:`.identity_script`, whose helpers (``skip``, ``put``, ``drop`` …) they
use. ``SEED`` is what the profile sets: ``none``, ``keep`` or ``own``.

Forgetting the instance alone would make the next boot a first one, with all that the seed asks
for. So without a seed cloud-init is told that an empty one is its own, and what it did once for
the base counts as done; what it does at each boot (growing the disk) it goes on doing. The
label of a seed is still looked for, so that one which is attached to a clone of this clone
works. Where the host names the address of a seed instead (``ds=nocloud;s=…``), that is the clone's
source as it was its base's.
"""

from __future__ import annotations

FUNCTIONS = r"""
cloud_init() {
    lib=$R/var/lib/cloud etc=$R/etc/cloud run=$R/run/cloud-init
    if [ ! -d "$lib" ]; then skip cloud_init "the guest has none"; return; fi
    cloud_init_settled
    case $SEED in
        keep) cloud_init_again ;;
        own) cloud_init_with_its_own ;;
        *) if told_where; then cloud_init_from_there; else cloud_init_without_seed; fi ;;
    esac
}

# While it runs it would undo us: wait for its result, a minute at most.
cloud_init_settled() {
    tries=0
    while [ -d "$run" ] && [ ! -e "$run/result.json" ] && [ ! -e "$run/disabled" ] &&
        [ ! -e "$etc/cloud-init.disabled" ] && [ "$tries" -lt 120 ]; do
        tries=$((tries + 1)); sleep 0.5
    done
}

# cloud_config FILE TEXT: over host keys and name that we give it here, it would write others.
cloud_config() {
    if [ ! -d "$etc/cloud.cfg.d" ]; then return; fi
    put "$etc/cloud.cfg.d/$1" "preserve_hostname: true
ssh_deletekeys: false$2"
}

# told_where: command line or SMBIOS name an address that cloud-init asks for a seed at each boot,
# or the instance that this machine is.
told_where() {
    for each in "$R/proc/cmdline" "$R/sys/class/dmi/id/product_serial"; do
        tr ' ' '\n' 2>/dev/null <"$each"
    done | tr -d \"\' | grep -Eq '^ds=nocloud.*;(s|seedfrom|i|instance-id)='
}

# It was asked for this machine already, or will be: what it told is not done once more.
cloud_init_from_there() {
    if ! any "$lib"/instance "$lib"/instances/*; then
        skip cloud_init "it has no instance"; return
    fi
    cloud_config 99-kvm-clone.cfg ""
    drop "$etc/cloud.cfg.d/zz-kvm-clone.cfg" "$lib"/seed/*
    forget_other_instances
    done_ cloud_init
}

# The seed of its base is there to be used: the next boot is the first of a new instance.
cloud_init_again() {
    cloud_config 99-kvm-clone.cfg ""
    drop "$etc/cloud.cfg.d/zz-kvm-clone.cfg"
    clear cloud_init "it has no instance" "$lib"/instance "$lib"/instances/* "$lib"/data/* \
        "$lib"/sem/*
}

# A seed of the clone's own has been used at this boot: what is left of the base goes.
cloud_init_with_its_own() {
    cloud_config 99-kvm-clone.cfg ""
    if [ ! -e "$run/instance_id" ] && [ ! -e "$run/result.json" ]; then
        skip cloud_init_unused "cloud-init did not run in the guest, so its seed did nothing"
        return
    fi
    forget_other_instances
    if grep -qs NoCloud "$lib/instance/datasource"; then done_ cloud_init
    else skip cloud_init_unused "cloud-init took another source than its seed"; fi
}

forget_other_instances() {
    present=$(readlink "$lib/instance") || present=
    drop_user_scripts "${present##*/}"
    for each in "$lib"/instances/*; do
        if [ "${each##*/}" != "${present##*/}" ]; then drop "$each"; fi
    done
}

cloud_init_without_seed() {
    if ! any "$lib"/instance "$lib"/instances/* "$lib"/seed/*; then
        skip cloud_init "it has no instance"; return
    fi
    if any "$lib"/seed/*/* "$R"/config-drive/openstack; then
        skip cloud_init_seed "a cloud-init seed lay in the base's image (/var/lib/cloud/seed); it" \
            "may have been used at the first boot, and is removed"
    fi
    had=; if any "$lib"/instance "$lib"/instances/*; then had=1; fi
    drop_user_scripts
    # What was done once for the base counts as done.
    drop "$lib/kvm-clone"
    mkdir -p "$lib/kvm-clone/sem" || { fail cloud_init "$lib cannot be written"; return; }
    for each in "$lib"/instances/*/sem "$lib"/instance/sem; do
        if [ -d "$each" ]; then cp -pR "$each/." "$lib/kvm-clone/sem/"; fi
    done
    for each in "$lib"/data/*; do
        case $each in */upgraded-network) ;; *) drop "$each" ;; esac
    done
    drop "$lib"/instance "$lib"/instances/* "$lib"/seed/* "$R"/config-drive/openstack \
        "$etc"/cloud.cfg.d/91_kernel_cmdline_url.cfg "$run"/cloud.cfg "$run"/instance_id \
        "$run"/instance-data*.json "$run"/combined-cloud-config.json "$run"/sem/apply_network* ||
        { fail cloud_init "the files cannot be removed"; return; }
    if [ -z "$had" ]; then rm -rf "$lib/kvm-clone"; done_ cloud_init; return; fi
    mkdir -p "$lib/instances" && mv "$lib/kvm-clone" "$lib/instances/nocloud" ||
        { fail cloud_init "$lib cannot be written"; return; }
    label=
    if any "$R"/dev/disk/by-label/cidata "$R"/dev/disk/by-label/CIDATA; then
        label="
    fs_label: null"
        skip cloud_init_attached "a cloud-init seed (label cidata) is attached; it is not used" \
            "any more"
    fi
    cloud_config zz-kvm-clone.cfg "
datasource_list: [NoCloud, None]
datasource:
  NoCloud:
    meta-data: {}
    user-data: ''
    vendor-data: ''
    seedfrom: null$label
    network-config:$(cloud_network)" && drop "$etc/cloud.cfg.d/99-kvm-clone.cfg" ||
        { fail cloud_init "$etc/cloud.cfg.d cannot be written"; return; }
    seed=$(tr ' ' '\n' 2>/dev/null <"$R/proc/cmdline" |
        grep -E '^(cloud-config-url=|cc:)')
    if [ -n "$seed" ]; then
        skip cloud_init_cmdline "its kernel's command line names a cloud-init seed, which is used" \
            "at every boot"
    fi
    done_ cloud_init
    cloud_init_now
}

# drop_user_scripts [INSTANCE]: scripts for every boot that came as parts of user-data, but for
# those of this instance.
drop_user_scripts() {
    for each in "$lib"/scripts/per-boot/* "$lib"/scripts/per-instance/* "$lib"/scripts/per-once/*
    do
        part="filename=\"${each##*/}\""
        if [ -n "${1-}" ] && grep -qsF "$part" "$lib/instances/$1"/*-data*.txt.i; then continue; fi
        if grep -qsF "$part" "$lib"/instances/*/*-data*.txt.i; then drop "$each"; fi
    done
}

# Every card by its name, which a clone of this clone has as well. cloud-init wants a text here.
cloud_network() {
    cards= more=
    for card in "$R"/sys/class/net/*; do
        if [ -e "$card/device" ]; then
            cards="$cards${cards:+, }${card##*/}: {dhcp4: true$more}" more=', optional: true'
        fi
    done
    if [ -n "$cards" ]; then printf " '{version: 2, ethernets: {%s}}'" "$cards"
    else printf ' null'; fi
}

# At this boot it had nothing to go by: the network of this machine's cards, and the room on a
# disk that was made larger, are seen to now.
cloud_init_now() {
    if [ -n "$R" ] || [ -e "$etc/cloud-init.disabled" ] || ! command -v cloud-init >/dev/null; then
        return
    fi
    ran=; if [ -e "$run/result.json" ]; then ran=1; fi
    cloud-init init --local >/dev/null 2>&1
    if [ ! -e "$lib/instance" ]; then
        skip cloud_init_now "cloud-init could not be run; it sees to the network at the next boot"
        return
    fi
    if [ -n "$ran" ] || ! grep -qs growpart "$etc/cloud.cfg"; then return; fi
    for each in growpart resizefs; do
        cloud-init single --name "$each" --frequency always
    done >/dev/null 2>&1
}
"""
