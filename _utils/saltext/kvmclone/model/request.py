"""
Define the request for one clone: the typed result of resolving a profile.

Pure: neither Salt nor libvirt. A :class:`Request` travels from the configuration to the
plan and, as plain data, over a Salt job to another host. It never holds a secret;
those live in :class:`Secrets`, which has no plain form and no readable ``repr``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model.placement import Placed, Placement
from saltext.kvmclone.model.spares import Claim, Stock

#: How often a secret is hashed that a digest depends on: a record is read by more people than may
#: know what is in a seed, and none is to find out by trying.
_ROUNDS = 200_000

#: The default daemon: the system daemon of this very machine.
DEFAULT_URL = "qemu:///system"


@dataclass(frozen=True)
class Wait:
    """
    The times of the wait for an address.

    :param timeout: Hard deadline, seconds (``wait_for_ip_timeout``).
    :param interval: Pause between two looks, seconds (``wait_for_ip_interval``); None
        for the default, which is short enough to notice an address within half a second.
    :param multiplier: Factor by which the pause grows (``wait_for_ip_interval_multiplier``).
    """

    timeout: float = 600.0
    interval: float | None = None
    multiplier: float = 1.0


@dataclass(frozen=True)
class Login:
    """
    The ssh login to the guest; its secrets are in :class:`Secrets`.

    The defaults are those that Salt's clouds hand to every machine.

    :param username: ``ssh_username``.
    :param port: ``ssh_port``.
    :param sudo: Run commands through sudo (default: the user is not root).
    :param tty: Ask for a terminal for sudo commands (``tty``).
    :param private_key: Path of the private key *on the master* (or on the host itself,
        where the profile is the host's own); never its contents.
    :param ssh_agent: Try the keys of the ssh agent of the machine that talks to the guest.
    """

    username: str = "root"
    port: int = 22
    sudo: bool = False
    tty: bool = True
    private_key: str = ""
    ssh_agent: bool = False


@dataclass(frozen=True)
class Deploy:
    """
    Everything that is put into the guest and run there.

    Paths are those of the machine that read the profile (the master's, for the runner).

    :param enabled: ``deploy``; False ends a create at ``addressed``.
    :param bootstrap: ``auto | ssh | agent | keys | none``.
    :param script: Name or path of the deploy script; empty where the profile names none.
    :param command: ``deploy_command``, literal; empty for ``sh DIR/deploy.sh``.
    :param script_args: Text appended to the command.
    :param script_env: Environment of the script.
    :param inline_script: Commands run after the deploy script.
    :param preflight_cmds: Commands run before it.
    :param file_map: Local path to path in the guest.
    :param minion: Minion configuration to write.
    :param grains: Static grains to write.
    :param append_domain: Domain appended to the minion id.
    :param keysize: Bits of the minion's key.
    :param start_action: Salt function called once the minion answers; empty for none.
    :param make_master: The machine becomes a master as well, with keys of salt-cloud's making.
    :param master: Its master configuration.
    """

    enabled: bool = True
    bootstrap: str = "auto"
    script: str = ""
    command: str = ""
    script_args: str = ""
    script_env: dict[str, str] = field(default_factory=dict)
    inline_script: tuple[str, ...] = ()
    preflight_cmds: tuple[str, ...] = ()
    file_map: dict[str, str] = field(default_factory=dict)
    minion: dict[str, Any] = field(default_factory=dict)
    grains: dict[str, Any] = field(default_factory=dict)
    append_domain: str = ""
    keysize: int = 4096
    start_action: str = ""
    make_master: bool = False
    master: dict[str, Any] = field(default_factory=dict)

    @property
    def enrols(self) -> bool:
        """Return whether the guest becomes a minion."""
        return self.enabled and self.bootstrap != "none"


@dataclass(frozen=True)
class DiskChanges:
    """
    The changes that the profile wants for one disk (``disks:``).

    :param size: Bytes that the guest is to see, None for the source's size.
    :param pool: Storage pool, empty for the one it would take otherwise.
    :param strategy: ``full`` or ``quick``, empty for the clone's own.
    :param action: ``clone | share | skip``, empty for what is decided without a wish.
    :param serial: Serial number that the guest sees, ``wwn`` its world wide name; empty for the
        base's.
    :param format: ``qcow2`` or ``raw``, of a disk that the base does not have; empty for qcow2.
    """

    size: int | None = None
    pool: str = ""
    strategy: str = ""
    action: str = ""
    serial: str = ""
    wwn: str = ""
    format: str = ""


@dataclass(frozen=True)
class InterfaceChanges:
    """
    The changes that the profile wants for one interface (``networks:``); empty: as it is.

    :param network: libvirt network, or empty.
    :param bridge: Bridge of the host, or empty; with neither it stays connected as it is.
    :param model: Model of the card, empty for the one that it has, otherwise ``virtio``.
    :param mac: MAC address, empty for a fresh one.
    :param portgroup: Portgroup of its network; empty for none, None for the one that it has there.
    """

    network: str = ""
    bridge: str = ""
    model: str = ""
    mac: str = ""
    portgroup: str | None = None


@dataclass(frozen=True)
class AddressPick:
    """
    The choice among a guest's addresses (``pick:``); empty fields ask for nothing.

    :param cidr: It lies in this network.
    :param interface: The interface it is on: its name in the guest, its MAC address, or the
        network or bridge that it is connected to.
    :param family: ``ipv4`` or ``ipv6``.
    """

    cidr: str = ""
    interface: str = ""
    family: str = ""


#: The value of ``instant`` with which a quick clone may take the place of a fork, and that of
#: ``warm`` with which it may where the base is only to be warmed.
PREFER, AUTO = "prefer", "auto"


@dataclass(frozen=True)
class Request:
    """
    One clone, as asked for. Sizes are bytes, times are seconds.

    :param name: Name of the clone's domain; also its minion id unless ``append_domain``.
    :param base_domain: Name of the domain to clone.
    :param profile: Name of the profile, empty where the keys came inline.
    :param provider: Name of the provider, empty likewise.
    :param url: libvirt URI of the daemon that does the work.
    :param host: Minion id of the KVM host; empty: whoever resolved this drives ``url``.
    :param clone_strategy: ``full``, ``quick`` or ``instant``.
    :param instant: ``require`` a fork, or ``prefer`` it to a quick clone.
    :param warm: ``auto`` warms the base of a fork where it is not; the first clone is a quick one.
    :param ip_source: ``auto | ip-learning | qemu-agent | arp | reserve``.
    :param address: The fixed address to assign with ``reserve``; empty for a free one.
    :param pick: Which of its addresses to report and use.
    :param validate_xml: Let libvirt check the definition against its schema.
    :param pool: Storage pool for the clone's volumes; empty: each source volume's own.
    :param cpus: Number of virtual CPUs, None for the base's.
    :param memory: Memory in bytes, None for the base's.
    :param description: Text for the domain, None for "Cloned from BASE".
    :param autostart: Start with the host; None leaves libvirt's default (no).
    :param tags: Words recorded with the clone; None leaves them as they are: none for a new one.
    :param ttl: Seconds until the clone counts as expired, None for never.
    :param disks: Wishes by target (``vda``).
    :param networks: What is changed of the base's interfaces, in order; more are added.
    :param leave_out: Devices of the base that the clone goes without: ``serial0``, or ``serial``.
    :param seed: cloud-init's seed: ``none``, ``keep`` for the base's, or ``own`` for what is in
        :class:`Secrets`.
    :param protect: Make the base's disks read-only and mark the base.
    :param reset_identity: Give the guest an identity of its own.
    :param on_failure: ``destroy | stop | keep``.
    :param placement: Which host the master is to choose; it names one by ``host`` then.
    :param placed: What the chosen host is told; None where the profile names the host.
    :param overrides: The keys that were given as arguments, as they were written; they are
        kept with the clone, so that a create can be resumed.
    :param stock: The spares that its profile wants; no part of what is asked for.
    :param spare: It is to be made as a spare: the digest that :meth:`Secrets.profile_digest_of`
        gave; empty for any other clone. No key of a profile asks for it.
    :param claim: Who has the spare from the beginning; nobody for one that goes into the stock.
    """

    name: str
    base_domain: str
    profile: str = ""
    provider: str = ""
    url: str = DEFAULT_URL
    host: str = ""
    clone_strategy: str = "full"
    instant: str = "require"
    warm: str = ""
    ip_source: str = "auto"
    address: str = ""
    pick: AddressPick = AddressPick()
    validate_xml: bool = True
    pool: str = ""
    cpus: int | None = None
    memory: int | None = None
    description: str | None = None
    autostart: bool | None = None
    tags: tuple[str, ...] | None = None
    ttl: float | None = None
    disks: dict[str, DiskChanges] = field(default_factory=dict)
    networks: tuple[InterfaceChanges, ...] = ()
    leave_out: tuple[str, ...] = ()
    seed: str = "none"
    protect: bool = False
    reset_identity: bool = True
    on_failure: str = "destroy"
    wait: Wait = Wait()
    login: Login = Login()
    deploy: Deploy = Deploy()
    placement: Placement = Placement()
    placed: Placed | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    stock: Stock = Stock()
    spare: str = ""
    claim: Claim = Claim()

    @property
    def in_stock(self) -> bool:
        """Return whether it is to be a spare that nobody has claimed."""
        return bool(self.spare) and not self.claim.at

    @property
    def expires(self) -> float:
        """Return when its ``ttl`` ends if it is made now; 0 for never, and for one in stock."""
        if not self.ttl or self.in_stock:
            return 0.0
        return (self.claim.at or time.time()) + self.ttl

    @property
    def may_be_quick(self) -> bool:
        """Return whether a quick clone may take the place of the fork that is asked for."""
        return self.instant == PREFER or self.warm == AUTO

    @property
    def minion_id(self) -> str:
        """
        Return the minion id: the name, followed by ``append_domain`` unless it ends with that.
        """
        domain = self.deploy.append_domain.strip(".")
        if not domain or self.name.endswith("." + domain):
            return self.name
        return f"{self.name}.{domain}"

    def digest(self) -> str:
        """
        Return 16 hexadecimal digits that are equal for equal requests, and for no others.

        On which host the master places a clone makes no other request of it.
        """
        text = json.dumps(self, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


#: Fields that earlier versions did not have, with what they hold where nothing is asked for: such
#: a request keeps the digest that those versions gave it.
_ADDED: dict[str, Any] = {
    "leave_out": (), "format": "", "instant": "require", "warm": "", "spare": "", "claim": Claim(),
}  # fmt: skip


def _plain(value: Any) -> Any:
    """Return a part of a request as JSON takes it."""
    if not dataclasses.is_dataclass(value):
        return str(value)
    parts = {
        key: part for key, part in vars(value).items() if key not in _ADDED or part != _ADDED[key]
    }
    if isinstance(value, Request):
        del parts["placement"], parts["stock"]
        parts["later"] = {}  # earlier versions wrote it
        if parts.pop("placed") is not None:
            parts["host"] = ""
    if isinstance(value, InterfaceChanges):  # earlier versions wrote "" for the network's own
        parts["portgroup"] = {None: "", "": None}.get(value.portgroup, value.portgroup)
    return parts


@dataclass(frozen=True, repr=False)
class Secrets:
    """
    The secrets of a request; they are in no argument, return, event, log line or process list.

    :param password: Login password.
    :param sudo_password: Password for sudo.
    :param private_key: Contents of the login key, PEM or OpenSSH.
    :param private_key_passphrase: Its passphrase; empty for none.
    :param seed: Files of the clone's own cloud-init seed, name and text; they may hold passwords.
    :param stored: Whatever else came out of an ``sdb://`` store, for the grains or a script.
    """

    password: str = ""
    sudo_password: str = ""
    private_key: str = ""
    private_key_passphrase: str = ""
    seed: tuple[tuple[str, str], ...] = ()
    stored: tuple[str, ...] = ()

    def digest_of(self, request: Request) -> str:
        """
        Return the request's digest, which the contents of a seed of the clone's own are part of:
        others make another machine of it. A login may change between two attempts.
        """
        if not self.seed:
            return request.digest()
        content, salt = json.dumps(self.seed).encode(), request.digest().encode()
        return hashlib.pbkdf2_hmac("sha256", content, salt, _ROUNDS).hex()[:16]

    def profile_digest_of(self, request: Request) -> str:
        """
        Return the digest of what a request's profile asks, whatever the clone is called, wherever
        it is placed and however long it is kept: it tells spares that the profile would make now
        from those that it made when it asked for something else.
        """
        return self.digest_of(
            dataclasses.replace(
                request, name="", host="", ttl=None, overrides={}, spare="", claim=Claim()
            )
        )

    def __repr__(self) -> str:
        held = [f.name for f in dataclasses.fields(self) if getattr(self, f.name)]
        return f"Secrets({', '.join(held)})"

    __str__ = __repr__
