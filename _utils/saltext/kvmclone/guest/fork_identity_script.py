"""
Write what a fork runs in its guest besides the reset of its identity, as shell text.

A fork goes on where the memory of its base was saved: with that moment's clock, with the state of
the kernel's random number generator, and with services that hold the identity of the base. As in
:mod:`.identity_script` each step says ``kvm-clone: done NAME``, ``skipped NAME why`` or ``failed
NAME why``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from saltext.kvmclone.guest import preload_script

#: ``RNDADDENTROPY`` and ``RNDRESEEDCRNG`` of Linux, as most architectures number them; where they
#: are other numbers the kernel refuses them, and the fork is not served.
ADD_ENTROPY, RESEED = 0x40085203, 0x5207

# Both take the entropy as input, since a command line can be read by everybody in the guest, and
# speak only after the kernel has taken both requests. Writing to the device alone would mix the
# entropy in at some later time.
_PERL = f"""
binmode STDIN; undef $/; $seed = <STDIN>; length $seed or die "no entropy came";
open POOL, ">", "/dev/urandom" or die "/dev/urandom: $!";
$pool = pack "iia*", 8 * length $seed, length $seed, $seed;
ioctl POOL, {ADD_ENTROPY}, $pool or die "RNDADDENTROPY: $!";
ioctl POOL, {RESEED}, 0 or die "RNDRESEEDCRNG: $!";
print "kvm-clone: done reseed\\n";
"""
_PYTHON = f"""
import fcntl, os, struct, sys
seed = sys.stdin.buffer.read()
assert seed, "no entropy came"
pool = os.open("/dev/urandom", os.O_WRONLY)
size = len(seed)
fcntl.ioctl(pool, {ADD_ENTROPY}, struct.pack("ii", 8 * size, size) + seed)
fcntl.ioctl(pool, {RESEED})
print("kvm-clone: done reseed")
"""


def clock(now: float) -> str:
    """
    Return what sets the clock.

    :param now: The time, seconds since the epoch.
    """
    return f"date -u -s @{round(now)} >/dev/null"


def reseed(now: float) -> str:
    """
    Return what sets the clock and then reseeds the kernel's random number generator.

    It reads the entropy from its input. Perl is tried first, which starts faster than Python.

    :param now: The time, seconds since the epoch.
    """
    return f"""
{clock(now)} && echo 'kvm-clone: done clock' ||
    {{ echo 'kvm-clone: failed clock it cannot be set'; exit 1; }}
if command -v perl >/dev/null; then exec perl -e {shlex.quote(_PERL)}; fi
if command -v python3 >/dev/null; then exec python3 -I -S -c {shlex.quote(_PYTHON)}; fi
echo 'kvm-clone: failed reseed it has neither perl nor python3'
"""


#: In the guest: what its minion has to answer. In memory, so that a reboot, after which the uuid
#: proves which machine it is, ends it.
WORD = "/run/kvm-clone-word"

#: Removes it, and fails where it stays.
FORGET_WORD = f'p=${{KVM_CLONE_ROOT-}}{WORD}; rm -f "$p" && [ ! -e "$p" ]'

# The kernel has read the tables of its firmware before it was saved, and shows the uuid of the
# warmed machine until it boots again. All that looks there (Salt's grain, our own check over ssh)
# finds the fork's in a file that is mounted over it, which the next boot does away with as well.
_UUID = r"""
shown=$R/sys/class/dmi/id/product_uuid own=$R/run/kvm-clone-uuid
if [ ! -e "$shown" ]; then echo 'kvm-clone: done uuid'
elif (umask 0377; echo "$UUID" >"$own") && mount --bind "$own" "$shown"; then
    echo 'kvm-clone: done uuid'
else echo 'kvm-clone: skipped uuid'; fi
"""

# journald files its lines under the machine-id that it found when it started. Nobody outside sees
# that, and it takes long to start, so that it is not waited for.
_JOURNAL = r"""
if [ -d "$R/run/systemd/system" ]; then
    systemctl --no-block restart systemd-journald.service </dev/null >/dev/null 2>&1 &
fi
"""

# Starts the timers that were masked when the base was warmed. Masks that only hold until a reboot
# are links in /run; a timer that its administrator masked is one in /etc.
_TIMERS = r"""
masked=
for link in "$R"/run/systemd/system/*.timer; do
    if [ -L "$link" ] && [ "$(readlink "$link")" = /dev/null ]; then
        rm -f "$link" && masked="$masked ${link##*/}"
    fi
done
if [ -z "$masked" ]; then echo 'kvm-clone: skipped timers none is masked'
elif systemctl daemon-reload && systemctl --no-block start timers.target $masked; then
    echo 'kvm-clone: done timers'
else echo 'kvm-clone: failed timers systemd does not start them'; fi
echo 'kvm-clone: end'
"""


# An address that is known need not be waited for; the guest's own DHCP client is given the same one
# later, and takes over. The card was only just plugged in. Whoever knows the address by another
# MAC address learns the new one from the ARP request before the packet to the gateway.
_ADDRESS = r"""
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    card=
    for path in "$R"/sys/class/net/*; do
        if read -r mac <"$path/address" && [ "$mac" = "$MAC" ]; then card=${path##*/}; fi
    done
    if [ -n "$card" ]; then break; fi
    sleep 0.2
done
if [ -z "$card" ]; then echo 'kvm-clone: skipped address its card did not appear'
elif ip link set dev "$card" up && ip address add "$ADDRESS" dev "$card" &&
    { [ -z "$ROUTED" ] || ip route add default via "$GATEWAY" dev "$card"; }
then
    if command -v perl >/dev/null; then
        perl -MSocket -e 'socket S, PF_INET, SOCK_DGRAM, 0;
            send S, "", 0, sockaddr_in(9, inet_aton($ARGV[0]))' "$GATEWAY"
    else
        python3 -I -S -c 'import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (sys.argv[1], 9))' "$GATEWAY"
    fi
    echo 'kvm-clone: done address'
else echo 'kvm-clone: skipped address its card has one already'; fi
"""


@dataclass(frozen=True)
class FixedAddress:
    """
    An address that a fork's card is given over the agent.

    :param mac: MAC address of the card, lower case.
    :param address: With its prefix length: ``192.168.122.5/24``.
    :param gateway: The host's own address there, without one.
    :param routed: Packets to elsewhere go through it.
    """

    mac: str
    address: str
    gateway: str
    routed: bool


def settle(uuid: str, addresses: Iterable[FixedAddress] = (), enrols: bool = True) -> str:
    """
    Return what gives the guest its known addresses and its own uuid, and starts what had to wait.

    :param uuid: The domain's.
    :param enrols: It is to become a minion; otherwise one that was preloaded is stopped.
    """
    script = f"UUID={shlex.quote(uuid)}\nR=${{KVM_CLONE_ROOT-}}\n"
    for one in addresses:
        script += (
            f"MAC={shlex.quote(one.mac)} ADDRESS={shlex.quote(one.address)} "
            f"GATEWAY={shlex.quote(one.gateway)} ROUTED={'1' * one.routed}\n{_ADDRESS}"
        )
    unload = "" if enrols else f"{preload_script.FUNCTIONS}\nunload\n"
    return f"{script}{_UUID}{unload}{_TIMERS}{_JOURNAL}"
