"""
salt-cloud's way of asking, in our words: what the driver's functions call.

salt-cloud's core makes the minion's key pair and accepts it on the master before it calls
the driver, and removes it by what the driver's ``destroy`` answers. So here the pair is
taken as given, and taken back only where the create fails.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import salt.config
import salt.utils.event

from saltext.kvmclone import ownership, pipeline
from saltext.kvmclone.enrolment import Enroller
from saltext.kvmclone.errors import KvmCloneError, NotFound
from saltext.kvmclone.keys import KeyPair, MinionKeys
from saltext.kvmclone.master import DEFAULT_URL, Master
from saltext.kvmclone.pipeline import Outcome

#: libvirt's states in the words that salt-cloud's own maps understand.
STATES = {"shutoff": "stopped", "pmsuspended": "suspended"}

DRIVER = "libvirt"


class GivenPair(Enroller):
    """
    An enroller whose key pair salt-cloud's core has made and accepted already.

    :param pair: That pair.
    """

    def __init__(self, opts: Mapping[str, Any], pair: KeyPair) -> None:
        super().__init__(opts, MinionKeys(opts))
        self.pair = pair

    def require_free(self, minion_id: str) -> None:
        """The core accepted this very key a moment ago."""

    def generate(self, bits: int) -> KeyPair:
        return self.pair


def configured_provider(opts: Mapping[str, Any], active: str) -> Any:
    """The configured provider that is active, or False: then salt-cloud leaves us out."""
    alias = active.partition(":")[0]
    for name, entry in (opts.get("providers") or {}).items():
        if DRIVER in entry and (alias in (name, DRIVER)):
            return entry[DRIVER]
    return False


def master_side(opts: Mapping[str, Any]) -> Master:
    """
    The master that salt-cloud works for. salt-cloud's own configuration will not do: it
    has another cache folder, and with it not the key that publishing a job takes.
    """
    folder = os.path.dirname(str(opts["conf_file"]))
    path = str(opts.get("master_config") or os.path.join(folder, "master"))
    return Master(salt.config.master_config(path))


def create(opts: Mapping[str, Any], machine: Mapping[str, Any]) -> Outcome:
    """
    Make the machine that salt-cloud's core asks for.

    :param machine: salt-cloud's ``vm_``: profile, provider and map merged, with the keys.
    """
    name = str(machine.get("name", ""))
    try:
        side = master_side(opts)
        request, secrets = side.catalogue.resolve_machine(machine)
        pair = KeyPair(str(machine.get("priv_key") or ""), str(machine.get("pub_key") or ""))
        enroller = GivenPair(side.opts, pair) if pair.private else side.enroller
        host = side.host(request.host, request.url)
    except KvmCloneError as error:
        return Outcome(name, "", None, error)
    about = {
        "name": request.name,
        "profile": request.profile,
        "provider": str(machine.get("provider") or ""),
        "driver": DRIVER,
    }
    _fire(opts, name, "creating", about)
    outcome = pipeline.create(host, request, secrets, enroller)
    if outcome.error is None:
        _fire(opts, name, "created", about)
    return outcome


def destroy(opts: Mapping[str, Any], name: str) -> Outcome:
    """
    Destroy one clone; its key is the core's to remove.

    A machine that is gone already counts as destroyed: where two providers name one
    daemon, salt-cloud asks for each of them.
    """
    try:
        host, _clone = master_side(opts).find(name)
        _fire(opts, name, "destroying", {"name": name})
        gone = host.destroy(name)
    except NotFound:
        return Outcome(name, ownership.DESTROYING)
    except KvmCloneError as error:
        return Outcome(name, "", None, error)
    _fire(opts, name, "destroyed", {"name": name})
    return Outcome(name, gone.stage, gone)


def list_nodes(opts: Mapping[str, Any], active: str, full: bool = False) -> dict[str, Any]:
    """
    The clones of one provider, as salt-cloud's tables want them.

    :param active: The active provider, ``ALIAS`` or ``ALIAS:libvirt``.
    :param full: With the whole CLONE as well.
    """
    side = master_side(opts)
    alias = active.partition(":")[0]
    keys = side.catalogue.providers.get(alias, {})
    host = side.host(str(keys.get("host") or ""), str(keys.get("url") or DEFAULT_URL))
    nodes = {}
    for clone in host.list_clones():
        reported = [address.address for address in clone.addresses]
        nodes[clone.name] = {
            **(clone.as_dict() if full else {}),
            "id": clone.uuid,
            "image": clone.base,
            "size": "",
            "state": STATES.get(clone.state, clone.state),
            "private_ips": [],
            "public_ips": reported,
        }
    return nodes


def _fire(opts: Mapping[str, Any], name: str, word: str, data: Mapping[str, Any]) -> None:
    with salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=False) as bus:
        bus.fire_event(dict(data), f"salt/cloud/{name}/{word}")
