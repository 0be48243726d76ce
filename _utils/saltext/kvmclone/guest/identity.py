"""
Making a cloned guest its own machine, and making sure it is the one we mean.

Two clones of one base boot with one machine-id, hence one DHCP client id, hence *one
address*; with one set of ssh host keys, one host name, and, where the base had a minion,
one minion key. :func:`reset` ends that, :func:`rejoin_network` tells the DHCP server.
"""

from __future__ import annotations

import secrets as random_words
import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass

from saltext.kvmclone import errors
from saltext.kvmclone.guest import hostkeys, reset_script
from saltext.kvmclone.guest.channel import Channel, PublicKey, check, tail
from saltext.kvmclone.guest.hostkeys import HostKey

#: Seconds for the reset: some for the work, most for a cloud-init or an old minion that
#: is still busy.
RESET_TIMEOUT = 180.0
NETWORK_TIMEOUT = 60.0
#: Longest name that Linux takes; a longer one is cut to its first label.
_HOSTNAME_MOST = 64


@dataclass(frozen=True)
class Step:
    """
    One part of the reset.

    :param name: For example ``machine_id``.
    :param outcome: ``done`` or ``skipped``.
    :param why: Why it was skipped.
    """

    name: str
    outcome: str
    why: str = ""


@dataclass(frozen=True)
class Reset:
    """
    What a reset did.

    :param steps: In the order in which they were taken.
    :param host_keys: The public halves of the host keys that the guest has now; empty
        where it has no ssh server.
    :param machine_id: The guest's new machine-id.
    """

    steps: tuple[Step, ...]
    host_keys: tuple[PublicKey, ...]
    machine_id: str


@dataclass(frozen=True)
class Rejoin:
    """
    How the network was restarted.

    :param how: ``networkd``, ``NetworkManager`` or ``networking`` (ifupdown); empty where
        it was not.
    :param detached: It happens after a moment, when nobody listens any more.
    :param why: Why nothing was done.
    """

    how: str
    detached: bool = False
    why: str = ""


def reset(
    channel: Channel,
    hostname: str,
    machine_id: str | None = None,
    keys: Sequence[HostKey] | None = None,
) -> Reset:
    """
    Give the guest an identity of its own. May be repeated.

    A minion that runs is stopped and none is started.

    :param hostname: Its new host name.
    :param machine_id: 32 hexadecimal digits; None for random ones.
    :param keys: Host keys made beforehand; None to make them now.
    :raises errors.CommandFailed: A step that applies to this guest did not succeed.
    """
    if len(hostname) > _HOSTNAME_MOST:
        hostname = hostname.partition(".")[0]
    machine_id = machine_id or uuids.uuid4().hex
    keys = hostkeys.generate() if keys is None else keys
    script = reset_script.text(hostname, machine_id, keys, random_words.token_hex(64))
    result = channel.run("exec /bin/sh -s", timeout=RESET_TIMEOUT, stdin=script.encode())
    hidden = [key.private for key in keys]
    check(result, "resetting the identity", secrets=hidden)
    steps: list[Step] = []
    failed: list[str] = []
    kinds: set[str] = set()
    complete = False
    for line in result.output.splitlines():
        if not line.startswith(reset_script.MARK):
            continue
        outcome, _, rest = line[len(reset_script.MARK) :].strip().partition(" ")
        name, _, why = rest.partition(" ")
        if outcome == "end":
            complete = True
        elif outcome == "key":
            kinds.add(name)
        elif outcome == "failed":
            failed.append(f"{name}: {why}")
        else:
            steps.append(Step(name, outcome, why))
    if failed or not complete:
        raise errors.CommandFailed(
            "the identity of the guest was not reset completely: "
            + ("; ".join(failed) or tail(result, hidden)),
            "Is a file system of the guest read-only or full? Else reset_identity: false.",
        )
    public = tuple(key.public for key in keys if key.kind in kinds)
    return Reset(tuple(steps), public, machine_id)


# The first that is in charge is restarted. `networkd` and NetworkManager keep a unit
# folder or runtime folder only where they run.
_REJOIN = r"""
how=
if [ -d /run/systemd/system ]; then
    if [ -d /run/systemd/netif ] && systemctl -q is-active systemd-networkd; then
        how=networkd; act='systemctl restart systemd-networkd'
    elif [ -d /run/NetworkManager ] && systemctl -q is-active NetworkManager; then
        how=NetworkManager
        act='systemctl restart NetworkManager; nmcli networking off; nmcli networking on'
    elif systemctl -q is-active networking; then
        how=networking; act='systemctl restart networking'
    fi
elif [ -x /etc/init.d/networking ]; then
    how=networking; act='/etc/init.d/networking restart'
fi
if [ -z "$how" ]; then echo 'kvm-clone: skipped'; exit 0; fi
"""

_NOW = 'sh -c "$act" </dev/null >/dev/null 2>&1 && echo "kvm-clone: $how"'

# Out of the session, which dies with the connection; a moment later, so that the answer
# is on its way first.
_SOON = """
late="sleep 0.3; $act"
if [ -d /run/systemd/system ]; then
    systemd-run --quiet --no-block /bin/sh -c "$late"
else
    setsid sh -c "$late" </dev/null >/dev/null 2>&1 &
fi && echo "kvm-clone: $how"
"""


def rejoin_network(channel: Channel) -> Rejoin:
    """
    Restart the guest's network, so that its DHCP client asks with the new identity.

    Over ssh the restart is left behind in the guest and this returns before it: the
    address, and with it the connection, may be gone a moment later.

    :raises errors.CommandFailed: The network did not come back.
    """
    detached = channel.name == "ssh"
    result = channel.run(_REJOIN + (_SOON if detached else _NOW), timeout=NETWORK_TIMEOUT)
    check(result, "restarting the network")
    words = [
        line[len(reset_script.MARK) :].strip()
        for line in result.output.splitlines()
        if line.startswith(reset_script.MARK)
    ]
    if words and words[-1] != "skipped":
        return Rejoin(words[-1], detached)
    return Rejoin("", why="neither networkd, NetworkManager nor ifupdown is in charge")


def verify_guest(channel: Channel, uuid: str) -> str:
    """
    Make sure that the machine at the other end is the clone. Call this before anything
    secret beyond the login is sent.

    :param uuid: The domain's uuid.
    :returns: ``dmi`` where the guest's firmware shows that uuid; ``unverifiable`` where
        the guest has no firmware table to show.
    :raises errors.WrongGuest: It shows another.
    """
    result = channel.run(
        "f=/sys/class/dmi/id/product_uuid; [ -e $f ] || exit 0; cat $f", timeout=30.0
    )
    check(result, "reading the machine's uuid")
    shown = result.output.strip()
    if not shown:
        return "unverifiable"
    same = same_machine(shown, uuid)
    if same is None:
        return "unverifiable"
    if same:
        return "dmi"
    raise errors.WrongGuest(
        f"the machine that answered has the uuid {shown}, the clone has {uuid}",
        "Clones that share a machine-id share an address, and another one answered. Make them one "
        "after the other, or install qemu-guest-agent in the base.",
    )


def same_machine(shown: str, uuid: str) -> bool | None:
    """
    Whether the uuid that a guest shows is that of a domain; None where it is no uuid.

    Older kernels and SMBIOS tables show the first three fields with swapped bytes.
    """
    expected = uuids.UUID(uuid)
    try:
        return uuids.UUID(shown) in (expected, uuids.UUID(bytes_le=expected.bytes))
    except ValueError:
        return None
