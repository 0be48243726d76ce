"""
Write the shell script that makes a guest ready to be a base.

It uses the functions of :mod:`.identity_script`, and reports as that does: what stands there of
``failed NAME why`` holds here, too. What a clone's reset put in place is taken out again, so that
the next boot is as the first boot of an image.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from saltext.kvmclone.guest import (
    identity_cloud_init_script,
    identity_network_script,
    identity_script,
    salt_minion_script,
)
from saltext.kvmclone.guest.hostkeys import HostKey

#: The name of a guest that has none of its own.
NO_NAME = "localhost"

_FUNCTIONS = r"""
# cloud-init would write its state anew: what has not begun by now is not needed any more.
cloud_init_over() {
    if [ ! -d "$run" ] || any "$run/result.json" "$run/disabled" "$etc/cloud-init.disabled"
    then return 0; fi
    if systemd; then
        for unit in cloud-init.target cloud-final.service cloud-config.service \
            cloud-init.service cloud-init-network.service cloud-init-main.service \
            cloud-init-local.service; do
            systemctl stop "$unit" >/dev/null 2>&1
        done
        return 0
    fi
    cloud_init_settled
    any "$run/result.json"
}

cloud_init_first_boot() {
    lib=$R/var/lib/cloud etc=$R/etc/cloud run=$R/run/cloud-init
    if [ ! -d "$lib" ]; then skip cloud_init "the guest has none"; return; fi
    cloud_init_over || { fail cloud_init "cloud-init is still at work"; return; }
    drop_user_scripts
    # cloud-init would otherwise keep the name and the ssh host keys, as the clone's reset told it.
    drop "$etc"/cloud.cfg.d/99-kvm-clone.cfg "$etc"/cloud.cfg.d/zz-kvm-clone.cfg \
        "$etc"/cloud.cfg.d/91_kernel_cmdline_url.cfg "$lib"/instance "$lib"/instances/* \
        "$lib"/data/* "$lib"/sem/* "$lib"/seed/* "$lib"/kvm-clone "$R"/config-drive/openstack \
        "$R"/var/log/cloud-init*.log ||
        { fail cloud_init "the files cannot be removed"; return; }
    done_ cloud_init
}

# Empty, not removed: where the root file system is read-only at first, systemd needs the file to
# put its own over. "uninitialized" is a word that an old systemd does not know.
blank_machine_id() {
    own=$R/etc/machine-id dbus=$R/var/lib/dbus/machine-id
    if [ ! -e "$own" ]; then skip machine_id "the guest has no /etc/machine-id"
    elif printf '' >"$own"; then done_ machine_id
    else fail machine_id "/etc/machine-id cannot be written"; fi
    if [ -L "$dbus" ]; then skip dbus_machine_id "it is a link"
    else clear dbus_machine_id "the guest has none" "$dbus"; fi
}

# A name that is the clone's own goes; one that its base had stays.
no_name() {
    for was in $NAMES; do
        if [ "${OLD%%.*}" != "${was%%.*}" ]; then continue; fi
        hosts
        host_name
        if [ -e "$R/etc/hosts" ]; then
            sed -i -E "/^127\.0\.1\.1([[:space:]]+$NAME[^[:space:]]*)+[[:space:]]*\$/d" \
                "$R/etc/hosts" || fail hosts "/etc/hosts cannot be written"
        fi
        machine_info
        return
    done
    skip hostname "it is not the clone's"
}

# What our enrolment put there besides the minion's identity.
salt_enrolment() {
    grains=$R/etc/salt/grains first=
    set -- "$R/etc/salt/minion.d/DROP_IN" "$R"/var/log/salt/minion*
    if [ -r "$grains" ]; then read -r first <"$grains" || :; fi
    if [ "$first" = "GRAINS_MARK" ]; then set -- "$grains" "$@"
    elif any "$1" && any "$grains"; then
        skip salt_grains "/etc/salt/grains stays, since it was not written by kvm_clone alone"
    fi
    for file in $(grep -ls '^# kvm_clone: id:' "$R"/etc/salt/minion "$R"/etc/salt/minion.d/*.conf)
    do
        sed -i '/^# kvm_clone: id:/d' "$file" ||
            { fail salt_enrolment "$file cannot be written"; return; }
    done
    clear salt_enrolment "it has left nothing" "$@"
}

# systemd saves a seed when it shuts down, which every clone would begin with: so it does that now,
# and no more.
no_random_seed() {
    if systemd; then systemctl stop systemd-random-seed.service >/dev/null 2>&1; fi
    random_seed
}

written_out() {
    if sync; then done_ sync; else fail sync "not everything is on its disks"; fi
}

main() {
    only_this_run
    cloud_init_first_boot
    blank_machine_id
    old_name
    no_name
    # New ones, not none: an sshd without host keys does not start, and where cloud-init finds no
    # source for a clone, it does not run and makes none. Every clone is given its own.
    ssh_host_keys
    salt_identity
    salt_enrolment
    dhcp_state
    network_cards
    storage_names
    no_random_seed
    run_is_over
    written_out
    say end
}
main </dev/null
"""


def text(names: Iterable[str], keys: Iterable[HostKey], entropy: str, uuid: str) -> str:
    """
    Return the whole script.

    It holds private keys, so it must travel as input, never in a command line.

    :param names: Host names that are the clone's; a guest that is called so loses its name.
    :param keys: Fresh host keys; those of kinds that the guest has are put in place.
    :param entropy: Random text for the guest's entropy pool.
    :param uuid: A random uuid, for names by which storage servers know the guest.
    """
    values = {"NAME": NO_NAME, "SHORT": NO_NAME, "NAMES": " ".join(names)}
    values |= {"ENTROPY": entropy, "UUID": uuid} | identity_script.key_values(keys, NO_NAME)
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    own = _FUNCTIONS.replace("DROP_IN", salt_minion_script.DROP_IN)
    return (
        settings
        + identity_cloud_init_script.FUNCTIONS
        + identity_network_script.FUNCTIONS
        + identity_script.FUNCTIONS
        + own.replace("GRAINS_MARK", salt_minion_script.GRAINS_MARK)
    )
