"""
Handle the key that salt-cloud's core makes, and accepts *before* it calls the driver.

By then it may have overwritten the key of a minion that lives. So the driver notes the accepted
keys when it is loaded, which is before the core makes its first; a create for an id that had a
key is refused, and that key is restored.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import salt.config
import yaml

from saltext.kvmclone.errors import KeyConflict
from saltext.kvmclone.master import enrolment
from saltext.kvmclone.master.enrolment import Enroller, OnReady
from saltext.kvmclone.master.keys import ACCEPTED, MinionKeys
from saltext.kvmclone.model import fingerprints
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment, GuestFile, KeyPair
from saltext.kvmclone.model.request import Request, Secrets

log = logging.getLogger(__name__)

#: Accepted public keys by minion id.
KeySnapshot = Mapping[str, str]

#: The folder in which the bootstrap script finds the keys that a new master is to accept.
_PRESEED = "preseed-minion-keys"

_ITSELF = ("127.0.0.1", "localhost", "::1")

#: What salt-cloud was started for, where it certainly makes no machine. ``action`` is not among
#: these: ``salt.cloud.CloudClient`` leaves that word in its settings, and may make a machine next.
_MAKES_NOTHING = ("destroy", "function", "list_images", "list_locations", "list_sizes")


def note(opts: Mapping[str, Any]) -> KeySnapshot:
    """
    Return the keys that are accepted now.

    All of them: of a map, and of a library's call, the names are not known this early. The core
    writes one file per key; where the master keeps its keys in another store, the core overwrites
    nothing.

    :param opts: salt-cloud's configuration.
    """
    folder = os.path.join(str(opts.get("pki_dir") or ""), ACCEPTED)
    if any(opts.get(word) for word in _MAKES_NOTHING) or not os.path.isdir(folder):
        return {}
    return {name: key for name in os.listdir(folder) if (key := _read(os.path.join(folder, name)))}


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as source:
            return source.read()
    except OSError:  # gone by now, or not a file
        return ""


class CloudEnroller(Enroller):
    """
    An enroller whose key pair salt-cloud's core has made and accepted already.

    :param opts: The master's configuration.
    :param cloud_opts: salt-cloud's configuration.
    :param machine: The core's ``vm_``; holds the pair, or none where it deploys nothing.
    :param noted: The keys that were accepted before.
    :param on_ready: See :class:`.enrolment.Enroller`.
    """

    def __init__(
        self,
        opts: Mapping[str, Any],
        cloud_opts: Mapping[str, Any],
        machine: Mapping[str, Any],
        noted: KeySnapshot,
        on_ready: OnReady,
    ) -> None:
        super().__init__(opts, MinionKeys(opts), on_ready)
        self.pair = KeyPair(str(machine.get("priv_key") or ""), str(machine.get("pub_key") or ""))
        self.noted = noted
        #: The id under which the core accepted it: it ignores ``append_domain`` outside
        #: ``minion:``.
        self.core_id = _core_id(cloud_opts, machine)
        self._path = os.path.join(str(opts["pki_dir"]), ACCEPTED, self.core_id)
        self.machine = machine
        #: The machine is complete and answers with the key, so the key stays whatever happens.
        self.in_use = False
        #: False in a map with a new master, where the core does not accept the minions' keys here.
        self.accepted_here = _read(self._path).strip() == self.pair.public.strip()

    @property
    def given(self) -> bool:
        """Return True if the core made a pair."""
        return bool(self.pair.private)

    @property
    def is_its_master(self) -> bool:
        """
        Return True if the minion will answer to this master.

        False for the minions of another master, or of one that a map makes, and for that one
        itself.
        """
        master = (self.machine.get("minion") or {}).get("master")
        alone = self.machine.get("make_master") is True and (not master or master in _ITSELF)
        return not self.given or (self.accepted_here and not alone)

    def prepare(self, request: Request, secrets: Secrets) -> None:
        enrolment.prepare(self.opts, request, secrets)

    def enrolment(self, request: Request, secrets: Secrets, pair: KeyPair) -> Enrolment:
        made = super().enrolment(request, secrets, pair)
        if not self.is_its_master:
            made = dataclasses.replace(made, remarks=(*made.remarks, _elsewhere(request)))
        return _with_master(made, self.machine, request) if request.deploy.make_master else made

    def generate(self, bits: int) -> KeyPair:
        return self.pair if self.given else super().generate(bits)

    def require_free(self, minion_id: str) -> None:
        """
        Refuse a minion id that has, or had, another key than the core's.

        :raises KeyConflict: Another key than the core's is or was there for that id.
        """
        if not self.given:
            super().require_free(minion_id)
            return
        if not self.is_its_master and not self.accepted_here:
            return  # another master decides about the id
        held = {
            state
            for state, keys in self.keys.known(minion_id).items()
            if any(key.strip() != self.pair.public.strip() for key in keys)
        }
        if self._was_there(minion_id):
            held.add(ACCEPTED)
        if held:
            raise KeyConflict(
                f"The master already has a key for '{minion_id}' ({', '.join(sorted(held))}); "
                "nothing was cloned, and that key is as it was.",
                f"If that minion is gone: salt-key -d {minion_id}   Otherwise choose another name.",
            )

    def _was_there(self, minion_id: str) -> str:
        key = self.noted.get(minion_id, "")
        return "" if key.strip() == self.pair.public.strip() else key

    def belongs_to(self, clone: Clone) -> bool:
        """
        Return True if the clone comes to this master with the pair, not with ``bootstrap: none``.
        """
        if not self.given or not self.is_its_master:
            return False
        return fingerprints.is_of(clone.minion.fingerprint, self.pair.public)

    def settle_place(self, request: Request) -> None:
        """
        Remove the core's key from an id that this minion will not have.

        :raises KeyConflict: As :meth:`require_free`.
        """
        self.require_free(request.minion_id)
        if self.given and self.core_id != request.minion_id:
            self.take_back()

    def take_back(self) -> None:
        """Undo what the core did to the accepted keys: remove its own, restore what was there."""
        if not self.given or _read(self._path).strip() != self.pair.public.strip():
            return
        before = self._was_there(self.core_id)
        if before:
            # Replaced, not removed and added: the minion that has it may connect at any moment.
            self.keys.replace(self.core_id, before)
            log.warning("salt-cloud had overwritten the key of '%s'; it is back", self.core_id)
        else:
            self.keys.remove(self.core_id, self.fingerprint(self.pair.public))
        if not before and _read(self._path).strip() == self.pair.public.strip():
            os.unlink(self._path)  # the master keeps its keys elsewhere: the file is still there


def _elsewhere(request: Request) -> str:
    return (
        f"'{request.minion_id}' is not a minion of this master: whether it answers to its own "
        "was not asked."
    )


def _with_master(made: Enrolment, machine: Mapping[str, Any], request: Request) -> Enrolment:
    """
    Return the enrolment with what a new master needs.

    That is its keys, its configuration, and the keys that it is to accept.
    """
    config = {"log_level": "info", "hash_type": "sha256", **request.deploy.master}
    preseed = machine.get("preseed_minion_keys") or {}
    beside = [
        GuestFile("master.pem", str(machine.get("master_pem") or "").encode(), 0o600),
        GuestFile("master.pub", str(machine.get("master_pub") or "").encode()),
        GuestFile("master", yaml.safe_dump(config).encode()),
        *(GuestFile(f"{_PRESEED}/{name}", str(key).encode()) for name, key in preseed.items()),
    ]
    flags = " -S" if config.get("syndic_master") else ""
    flags += " -M" + (f" -k {{folder}}/{_PRESEED}" if preseed else "")
    # Named, so that the script always runs: otherwise a minion that the base has would only be
    # started, without the new master.
    return dataclasses.replace(made, beside=tuple(beside), flags=flags, script_named=True)


def _core_id(opts: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Return the id under which the core accepts the key (``salt.cloud.Cloud.create``)."""
    minion = salt.config.get_cloud_config_value("minion", machine, opts, default={}) or {}
    name = str(minion.get("id", machine.get("name", "")))
    domain = machine.get("domain")
    if not (machine.get("use_fqdn") and domain):
        domain = minion.get("append_domain")
    return f"{name}.{domain}" if domain else name


def touched_by_core(opts: Mapping[str, Any], name: str) -> list[str]:
    """
    Return the ids whose key the core would remove, or ask about, for a machine that is gone.

    Once the driver says that a machine is gone, the core goes by its name alone: it takes that id
    and every one that begins with the name and a dot.
    """
    folder = os.path.join(str(opts["pki_dir"]), ACCEPTED)
    if not os.path.isdir(folder):
        return []
    return sorted(one for one in os.listdir(folder) if one == name or one.startswith(f"{name}."))
