"""
Write the shell script that makes a running guest ready to have its memory saved.

It uses the functions of :mod:`.identity_script`, and reports as that does. Whatever it leaves in
memory or on the disks is in every fork.
"""

from __future__ import annotations

import shlex

from saltext.kvmclone.guest import identity_script, preload_script

#: Says whether the guest is still booting: ``kvm-clone: settled``, or what it still does. What only
#: waits for a network is at rest: there is none before a fork has its card.
SETTLED = r"""
R=${KVM_CLONE_ROOT-}
if [ ! -d "$R/run/systemd/system" ]; then echo 'kvm-clone: settled'; exit; fi
busy= waits=
while read -r _ unit _ state; do
    case $state:$unit in
    running:*wait-online*) waits="$waits $unit" ;;
    running:*) busy="$busy $unit" ;;
    esac
done <<END
$(systemctl list-jobs --no-legend --plain)
END
case $(systemctl is-system-running) in
initializing|starting) [ -n "$busy$waits" ] || busy=' systemd' ;;
esac
if [ -z "$busy" ]; then echo 'kvm-clone: settled'; else echo "kvm-clone: busy$busy"; fi
"""

_FUNCTIONS = r"""
# Until the next boot: a fork starts them again once it is a machine of its own.
timers() {
    if ! systemd; then skip timers "the guest has no systemd"; return; fi
    found=$(systemctl list-units --type=timer --no-legend --plain --state=active |
        while read -r unit _; do printf '%s ' "$unit"; done)
    if [ -z "$found" ]; then skip timers "none is active"
    elif systemctl mask --runtime --quiet $found && systemctl stop $found; then done_ timers
    else fail timers "they cannot be stopped"; fi
}

written_out() {
    if sync; then done_ sync; else fail sync "not everything is on its disks"; fi
}

main() {
    only_this_run
    salt_identity
    preload
    timers
    random_seed
    run_is_over
    written_out
    say end
}
main </dev/null
"""


def text(entropy: str) -> str:
    """
    Return the whole script.

    :param entropy: Random text for the guest's entropy pool.
    """
    entropy = f"ENTROPY={shlex.quote(entropy)}\n"
    return entropy + identity_script.FUNCTIONS + preload_script.warming() + _FUNCTIONS
