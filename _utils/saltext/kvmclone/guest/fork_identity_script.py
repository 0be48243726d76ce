"""
What a fork runs in its guest besides the reset of its identity, as shell text.

A fork goes on where the memory of its base was saved: with that moment's clock, with the state of
the kernel's random number generator, and with services that hold the identity of the base. As in
:mod:`.identity_script` each step says ``kvm-clone: done NAME``, ``skipped NAME why`` or ``failed
NAME why``.
"""

from __future__ import annotations

import shlex

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


def reseed(now: float) -> str:
    """
    Return what sets the clock and then reseeds the kernel's random number generator.

    It reads the entropy from its input. Perl is tried first, which starts faster than Python.

    :param now: The time, seconds since the epoch.
    """
    return f"""
date -u -s @{round(now)} >/dev/null && echo 'kvm-clone: done clock' ||
    {{ echo 'kvm-clone: failed clock it cannot be set'; exit 1; }}
if command -v perl >/dev/null; then exec perl -e {shlex.quote(_PERL)}; fi
if command -v python3 >/dev/null; then exec python3 -I -S -c {shlex.quote(_PYTHON)}; fi
echo 'kvm-clone: failed reseed it has neither perl nor python3'
"""


#: Starts what was put to sleep when the base was warmed. Masks that only hold until a reboot are
#: links in /run; a timer that its administrator masked is one in /etc.
WAKE = r"""
R=${KVM_CLONE_ROOT-} masked=
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
