"""
Give a cloned guest its own identity, and verify that it is the clone.

Two clones of one base boot with one machine-id, hence one DHCP client id, hence *one address*;
with one set of ssh host keys, one host name, and, if the base had a minion, one minion key.
:func:`reset` ends that, :func:`rejoin_network` tells the DHCP server.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from uuid import UUID, uuid4

from saltext.kvmclone import errors
from saltext.kvmclone.guest import hostkeys, identity_script
from saltext.kvmclone.guest.channel import Channel, PublicKey, check, tail
from saltext.kvmclone.guest.hostkeys import HostKey

log = logging.getLogger(__name__)

#: Seconds for the reset: a few for the work, most for a cloud-init or an old minion that is
#: still busy.
RESET_TIMEOUT_S = 180.0
NETWORK_RESTART_TIMEOUT_S = 60.0
#: Most lines of the script's report that are read, and most characters of one: they may become
#: warnings of the clone.
_MOST_WORDS, _LONGEST_WORD = 100, 1000
#: Longest host name that Linux accepts; a longer one is cut to its first label.
_HOSTNAME_MOST = 64

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
#: The MAC address of the loopback interface.
_NO_CARDS = {"00:00:00:00:00:00"}


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


def what_remains(steps: Iterable[Step], whose: str) -> tuple[str, ...]:
    """
    Return what some skipped steps left in the guest, one sentence each.

    :param whose: Whose identity that is: ``base`` or ``clone``.
    """
    skipped = [step for step in steps if step.outcome == "skipped"]
    return (
        *(
            f"Part of the {whose}'s identity is still in the guest: {step.why}."
            for step in skipped
            if step.name in identity_script.REMAINS
        ),
        *(
            f"{step.why[:1].upper()}{step.why[1:]}."
            for step in skipped
            if step.name in identity_script.TOLD
        ),
    )


@dataclass(frozen=True)
class Reset:
    """
    What a reset did.

    :param steps: In the order in which they were taken.
    :param host_keys: The public halves of the host keys that the guest has now; empty if it has no
        ssh server.
    :param of_network: What the operator should know of the network, if that was restarted.
    """

    steps: tuple[Step, ...]
    host_keys: tuple[PublicKey, ...]
    of_network: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the guest still shares with its base, one sentence each."""
        return (*what_remains(self.steps, "base"), *self.of_network)


@dataclass(frozen=True)
class Rejoin:
    """
    How the network was restarted.

    :param how: ``networkd``, ``NetworkManager``, or the service that it is: ``networking``
        (ifupdown), ``dhcpcd`` …; empty if it was not.
    :param why: Why nothing was done.
    :param unseen: Nobody can see when it happens; see :func:`restart_state`.
    """

    how: str
    why: str = ""
    unseen: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the operator should know, one sentence each."""
        if self.unseen:
            return (
                f"The guest cannot say when its network is restarted, since {RESTARTING} cannot be "
                "written there: a deployment that begins before that breaks.",
            )
        if self.how:
            return ()
        return (
            f"The guest's network was not restarted, since {self.why}: it keeps its old address "
            "until it reboots.",
        )


def reset(
    channel: Channel,
    hostname: str,
    keys: Sequence[HostKey] | None = None,
    seed: str = "none",
    taken: Collection[str] = (),
    rejoins: bool = False,
) -> Reset:
    """
    Give the guest an identity of its own. May be repeated.

    A minion that runs is stopped and none is started.

    :param hostname: Its new host name.
    :param keys: Host keys made beforehand; None to make them now.
    :param seed: What cloud-init uses from now on: ``none``, ``keep`` or ``own``.
    :param taken: Steps that this guest needs no more.
    :param rejoins: Restart the network in the same command, see :func:`rejoin_network`.
    :raises errors.CommandFailed: A step that applies to this guest did not succeed.
    """
    if len(hostname) > _HOSTNAME_MOST:
        hostname = hostname.partition(".")[0]
    keys = hostkeys.generate() if keys is None else keys
    script = identity_script.text(
        hostname, uuid4().hex, keys, token_hex(64), str(uuid4()), seed, taken
    )
    script += _REJOIN + _NOW if rejoins else ""
    result = channel.run("exec /bin/sh -s", timeout=RESET_TIMEOUT_S, stdin=script.encode())
    hidden = [key.private for key in keys]
    check(result, "resetting the identity", secrets=hidden)
    said = steps_of(result.output)
    if why := why_incomplete(said, tail(result, hidden)):
        raise errors.CommandFailed(
            f"the identity of the guest was not reset completely: {why}",
            "Is a file system of the guest read-only or full? Otherwise set reset_identity: false.",
        )
    steps = tuple(step for step in said if step.outcome not in ("end", "key") and step.name)
    for step in steps:
        why = f": {step.why}" if step.why else ""
        log.info("%s: identity: %s %s%s", hostname, step.name, step.outcome, why)
    kinds = {step.name for step in said if step.outcome == "key"}
    public = tuple(key.public for key in keys if key.kind in kinds)
    warnings = _rejoined(result.output).warnings if rejoins else ()
    return Reset(steps, public, warnings)


def why_incomplete(said: Sequence[Step], last: str) -> str:
    """
    Return why a script did not do all that it was to do; empty where it did.

    :param said: What it says of itself.
    :param last: Its last lines, for one that does not say why.
    """
    failed = [f"{step.name}: {step.why}" for step in said if step.outcome == "failed"]
    if failed:
        return "; ".join(failed)
    return "" if any(step.outcome == "end" for step in said) else last or "it stopped halfway"


def steps_of(output: str) -> list[Step]:
    """Return what a script says of itself: a step, a ``key`` that was placed, or the ``end``."""
    lines = [line for line in output.splitlines() if line.startswith(identity_script.MARK)]
    steps = []
    for line in lines[:_MOST_WORDS]:
        outcome, _, rest = line[len(identity_script.MARK) : _LONGEST_WORD].strip().partition(" ")
        name, _, why = rest.partition(" ")
        steps.append(Step(name, outcome, why))
    return steps


# Restarts the first service that is in charge. networkd and NetworkManager have a runtime
# folder only if they run.
_REJOIN = r"""
R=${KVM_CLONE_ROOT-} how=
# A service that runs has a control group; systemd itself takes far longer to answer.
active() {
    if [ -d "$R/sys/fs/cgroup/system.slice/$1.service" ]; then return 0; fi
    systemctl -q is-active "$1"
}
if [ -d "$R/run/systemd/system" ]; then
    if [ -d "$R/run/systemd/netif" ] && active systemd-networkd; then
        how=networkd; act='systemctl restart systemd-networkd'
    elif [ -d "$R/run/NetworkManager" ] && active NetworkManager; then
        how=NetworkManager
        act='systemctl restart NetworkManager; nmcli networking off; nmcli networking on'
    else
        for unit in networking dhcpcd wicked network; do
            # An ifupdown that still waits for its first lease is "activating".
            case $(systemctl is-active $unit) in
                active|activating) how=$unit; act="systemctl restart $unit"; break ;;
            esac
        done
    fi
else
    for unit in networking network dhcpcd; do
        if [ -x "$R/etc/init.d/$unit" ]; then
            how=$unit; act="$R/etc/init.d/$unit restart"; break
        fi
    done
fi
if [ -z "$how" ]; then echo 'kvm-clone: skipped'; exit 0; fi
"""

_NOW = 'sh -c "$act" </dev/null >/dev/null 2>&1 && echo "kvm-clone: $how"'

#: In the guest: exists while its network is still to be restarted, or is being; holds a word once
#: it was. In memory, since a reboot, which empties that, restarts the network as well.
RESTARTING = "/run/kvm-clone-rejoin"

#: Seconds for which a guest may show its old address after the restart: networkd drops it a
#: moment after it is up, others when they have the new one. Less than a renewal may take, so
#: that a guest whose address never changes is not delayed by it.
OLD_ADDRESS_S = 8

# Outside the session, which ends with the connection; and a moment later, so that the answer is
# sent first.
_SOON = f"""
mark="$R{RESTARTING}"
(: >"$mark" && chmod 644 "$mark") 2>/dev/null || echo 'kvm-clone: unseen'
late="sleep 0.3; if $act; then echo settling >$mark; sleep {OLD_ADDRESS_S}; rm -f $mark"
late="$late; else echo failed >$mark; fi"
if [ -d "$R/run/systemd/system" ]; then
    systemd-run --quiet --no-block /bin/sh -c "$late"
elif command -v setsid >/dev/null; then
    setsid sh -c "$late" </dev/null >/dev/null 2>&1 &
else
    echo 'there is no setsid' >&2; false
fi && echo "kvm-clone: $how" || {{ status=$?; rm -f "$mark"; exit $status; }}
"""

# Exit statuses that no shell uses for a command that is missing, or was killed.
_PROGRESS = f"""
mark=${{KVM_CLONE_ROOT-}}{RESTARTING}
case $(cat "$mark" 2>/dev/null) in settling) exit 5 ;; failed) exit 4 ;; esac
if [ -e "$mark" ]; then exit 3; fi
"""
_STATES = {0: "over", 3: "pending", 4: "failed", 5: "settling"}


def rejoin_network(channel: Channel) -> Rejoin:
    """
    Restart the guest's network, so that its DHCP client asks with the new identity.

    Over ssh the restart is left behind in the guest and this returns before it: the address, and
    with it the connection, may be gone a moment later.

    :raises errors.CommandFailed: The network did not come back, or nothing can be left behind.
    """
    detached = channel.name == "ssh"
    result = channel.run(_REJOIN + (_SOON if detached else _NOW), timeout=NETWORK_RESTART_TIMEOUT_S)
    check(result, "restarting the network")
    return _rejoined(result.output)


def _rejoined(output: str) -> Rejoin:
    """Return what the script says of the restart, which it says last."""
    words = [
        line[len(identity_script.MARK) :].strip()
        for line in output.splitlines()
        if line.startswith(identity_script.MARK)
    ]
    if words and words[-1] != "skipped":
        return Rejoin(words[-1], unseen="unseen" in words)
    return Rejoin("", why="no known service manages it")


def restart_state(channel: Channel) -> str:
    """
    Return the state of a network restart that was left behind in the guest.

    :return: ``pending``, ``failed``, ``settling`` for :data:`OLD_ADDRESS_S` seconds after it, or
        ``over``; the last also if there was none.
    :raises errors.ChannelError: The restart ended this very connection.
    :raises errors.CommandFailed: The command failed or did not end, as a restart can make it.
    """
    result = channel.run(_PROGRESS, timeout=5.0, as_root=False)
    if result.status not in _STATES:
        check(result, "asking for the restart of its network")
    return _STATES[result.status]


# Only root can read the uuid; everybody can read the MAC addresses.
_WHO = r"""
cat /sys/class/net/*/address 2>/dev/null
f=/sys/class/dmi/id/product_uuid
if [ -e $f ]; then echo "uuid $(cat $f 2>/dev/null)"; else echo 'no uuid'; fi
"""


def verify_guest(channel: Channel, uuid: str, macs: Collection[str] = ()) -> str:
    """
    Make sure that the machine at the other end is the clone.

    Call this before anything secret beyond the login is sent. If only root may read the uuid and
    that takes sudo, the machine must show one of the clone's MAC addresses before sudo's password
    is sent.

    :param uuid: The domain's uuid.
    :param macs: The domain's MAC addresses, lower case.
    :return: ``dmi`` if the guest's firmware shows that uuid; ``mac`` if it has no firmware table
        and only its MAC address matches; ``unverifiable``.
    :raises errors.WrongGuest: It is another machine.
    """
    known = ""
    for as_root in (False, True):
        result = channel.run(_WHO, timeout=30.0, as_root=as_root)
        check(result, "reading the machine's uuid")
        lines = result.output.lower().split("\n")
        shown = next((line[5:].strip() for line in lines if line.startswith("uuid ")), "")
        same = same_machine(shown, uuid) if shown else None
        if same:
            return "dmi"
        if same is False:
            raise _wrong(f"has the uuid {shown[:60]}, the clone has {uuid}")
        cards = {line.strip() for line in lines if _MAC.fullmatch(line.strip())} - _NO_CARDS
        if macs and cards and not as_root:
            if cards.isdisjoint(macs):
                raise _wrong(
                    f"has the MAC addresses {', '.join(sorted(cards)[:8])}, none the clone's"
                )
            known = "mac"
        if "no uuid" in lines:
            break
    return known or "unverifiable"


def _wrong(what: str) -> errors.WrongGuest:
    return errors.WrongGuest(
        f"the machine that answered {what}",
        "Clones that share a machine-id share an address, and another one answered. Make them one "
        "after the other, or install qemu-guest-agent in the base.",
    )


def same_machine(shown: str, uuid: str) -> bool | None:
    """
    Return whether the uuid that a guest shows is a domain's; None if it is not a uuid.

    Older kernels and SMBIOS tables show the first three fields with swapped bytes.

    :param shown: What the guest shows.
    :param uuid: The domain's uuid.
    """
    expected = UUID(uuid)
    try:
        return UUID(shown) in (expected, UUID(bytes_le=expected.bytes))
    except ValueError:
        return None
