"""
Carry out what salt-cloud's core asks for: what the driver's functions call.

salt-cloud's core makes the minion's key pair and accepts it on the master before it calls the
driver, and removes keys by the machine's name after it (:mod:`.cloud_keys`). It forks for every
query and every parallel create, so nothing here outlives one call: each makes its own
connections.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import salt.config

from saltext.kvmclone.config import map_files
from saltext.kvmclone.config.section_entry import DRIVER
from saltext.kvmclone.errors import (
    ConfigError,
    HostUnreachable,
    InvalidName,
    KvmCloneError,
    NotFound,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.gc import destroy
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import cloud_keys
from saltext.kvmclone.master.cloud_events import CloudEvents, deploy_kwargs, without
from saltext.kvmclone.master.cloud_keys import CloudEnroller, KeySnapshot
from saltext.kvmclone.master.cloud_providers import CloudProviders
from saltext.kvmclone.master.enrolment import OnReady
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import AT_MASTER, Commands
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import Request, Secrets

log = logging.getLogger(__name__)

#: libvirt's domain states in the words that salt-cloud's own maps understand.
STATES = {"shutoff": "stopped", "pmsuspended": "suspended"}

#: Keys that the command line sets for all machines; a profile's own value wins.
_COMMAND_LINE = ("deploy", "script_args")

#: Options of the command line that have no effect here, by the core's name for them.
_IGNORED = {
    "keep_tmp": "--keep-tmp is ignored: the folder in the guest is always removed",
    "location": "--location is ignored: one provider is one KVM host",
}


class CloudDriver:
    """
    One call of the driver by salt-cloud's core.

    :param opts: salt-cloud's configuration.
    :param on_ready: See :class:`.enrolment.Enroller`.
    :param active: The active provider, ``ALIAS:libvirt``; empty where the core names none.
    :param utils: Salt's ``__utils__``, whose ``cloud`` part keeps salt-cloud's cache.
    :param noted: The keys that were accepted when the driver was loaded.
    """

    def __init__(
        self,
        opts: Mapping[str, Any],
        on_ready: OnReady,
        active: str = "",
        utils: Mapping[str, Callable[..., Any]] | None = None,
        noted: KeySnapshot | None = None,
    ) -> None:
        self.opts = opts
        self.on_ready = on_ready
        self.alias = active.partition(":")[0]
        self.utils = utils or {}
        self.noted = noted or {}

    @functools.cached_property
    def fleet(self) -> Fleet:
        """
        Return the fleet of the master that salt-cloud works for.

        salt-cloud's own configuration has another cache folder, without the key to publish a job.
        """
        folder = os.path.dirname(str(self.opts["conf_file"]))
        path = str(self.opts.get("master_config") or os.path.join(folder, "master"))
        return Fleet(salt.config.master_config(path), self.on_ready)

    @functools.cached_property
    def providers(self) -> CloudProviders:
        """Return salt-cloud's providers, as its core and we know them."""
        return CloudProviders(self.opts, self.fleet)

    # --- making -----------------------------------------------------------------------

    def create(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """
        Make the machine that the core asks for.

        :param machine: The core's ``vm_``: profile, provider and map merged, with the keys.
        :return: CLONE, with ``deployed`` and ``deploy_kwargs`` as the core expects them.
        :raises KvmCloneError: It could not be made; nothing of it is left, no key either.
        """
        given = CloudEnroller(self.fleet.opts, self.opts, machine, self.noted, self.on_ready)
        with CloudEvents(self.opts, machine) as told:
            try:
                map_files.require_shape(self.opts, self.fleet.catalogue.profiles)
                request, secrets = self._resolved(machine)
                told.stored = secrets.stored
                given.settle_place(request)
                told.creating()
                told.requesting(request)
                clone = self._made(machine, request, secrets, given, told)
            except BaseException:
                if not given.in_use:
                    given.take_back()
                raise
            if not given.belongs_to(clone):
                given.take_back()
            told.created()
        self._cache_made(machine, clone)
        return {
            **clone.as_dict(),
            "deployed": clone.stage in ("enrolled", "ready"),
            "deploy_kwargs": without(
                deploy_kwargs(self.opts, machine, request, clone), secrets.stored
            ),
        }

    def _resolved(self, machine: Mapping[str, Any]) -> tuple[Request, Secrets]:
        words = {key: self.opts[key] for key in _COMMAND_LINE if self.opts.get(key) is not None}
        for key, word in _IGNORED.items():
            if self.opts.get(key):
                log.warning("%s", word)
        if not machine.get("profile"):
            # The core merges the provider's keys into a profile's machine only.
            words |= self.providers.keys(str(machine.get("provider") or "").partition(":")[0])
        request, secrets = self.fleet.catalogue.resolve_machine({**words, **machine}, self.opts)
        if request.placement.is_wanted:
            raise ConfigError(
                f"'{request.name}' may go to several hosts ('hosts:'), and to salt-cloud a "
                "provider is one.",
                f"Use the runner: salt-run kvmclone.create {request.profile} {request.name}",
            )
        self._refuse_ambiguous(request)
        if self.opts.get("parallel") and self.opts.get("start_action"):
            # Then the core runs the start_action itself, in the order of the map's "requires".
            deploy = dataclasses.replace(request.deploy, start_action="")
            request = dataclasses.replace(request, deploy=deploy)
        return request, secrets

    def _refuse_ambiguous(self, request: Request) -> None:
        """
        Refuse a machine that salt-cloud would mistake for something else.

        :raises InvalidName: It is called like a provider or driver; a hard map destroys
            everything that is called like the provider, its driver, or the machine.
        :raises ConfigError: Two providers name one daemon and the machine's is not its profile's:
            it could be listed, and destroyed by a hard map, under the other.
        """
        if request.name in self._words():
            raise InvalidName(
                f"'{request.name}' is also the name of a provider or driver; a hard map (-H) "
                "would mistake one for the other.",
                "Choose another name.",
            )
        own = self.providers.of_profile(request.profile)
        if own and own != request.provider and self.providers.are_one_daemon(own, request.provider):
            raise ConfigError(
                f"The profile '{request.profile}' belongs to the provider '{own}', which is the "
                f"same daemon as '{request.provider}'.",
                f"Leave 'provider: {request.provider}' out of the map, or make a profile of it.",
            )

    def _words(self) -> set[str]:
        """Return the names of providers and drivers, which a hard map takes for machines' too."""
        providers = self.opts.get("providers") or {}
        return {DRIVER, *providers, *(driver for entry in providers.values() for driver in entry)}

    def _made(
        self,
        machine: Mapping[str, Any],
        request: Request,
        secrets: Secrets,
        given: CloudEnroller,
        told: CloudEvents,
    ) -> Clone:
        enrols = request.deploy.enrols

        def watch(stage: str, _elapsed: float, clone: Clone) -> None:
            if stage == "addressed" and enrols:
                told.deploying(deploy_kwargs(self.opts, machine, request, clone))
            elif stage == "enrolled":
                told.deploy_script(clone)
            elif stage == "ready":
                given.in_use = True

        host = self.fleet.host(request.host, request.url)
        self.fleet.placing.require_open(host, request)
        outcome = provision.create(host, request, secrets, given, watch)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.clone is not None
        return outcome.clone

    # --- living -----------------------------------------------------------------------

    def destroy(self, name: str) -> dict[str, Any]:
        """
        Destroy one clone and remove its key: the one on its record, and no other.

        A machine that is gone already counts as destroyed: where two providers name one daemon,
        the core asks for each of them.

        :return: CLONE as it was. Empty where the core, which goes by names, would go on to remove
            a key that is not this machine's; the machine is gone all the same.
        :raises KvmCloneError: It is still there, or may be, and so is its key.
        """
        map_files.require_shape(self.opts, self.fleet.catalogue.profiles)
        if self.opts.get("hard"):
            self._refuse_mistaken(name)
        host, clone = self._found(name)
        if clone is None:
            self._require_gone(name)
        else:
            with CloudEvents(self.opts, {"name": name}) as told:
                told.destroying()
                try:
                    clone = destroy(host, name)
                except NotFound:
                    pass  # somebody else was faster
                self.fleet.keys.take_back(clone.minion.id or name, clone.minion.fingerprint)
                told.destroyed()
        self._forget(name)
        others = cloud_keys.touched_by_core(self.opts, name)
        # Without a key of ours on its record, the key of its name was accepted for it by hand.
        by_hand = clone is not None and not clone.minion.fingerprint and others == [name]
        if others and not by_hand:
            log.warning(
                "'%s' is gone. salt-cloud is not told so, since it would remove the key of %s, "
                "which is not that machine's",
                name,
                " or ".join(others),
            )
            return {}
        return clone.as_dict() if clone else {"name": name, "stage": "destroying"}

    def _require_gone(self, name: str) -> None:
        """
        Refuse a machine that may be on a host which cannot be asked.

        :raises KvmCloneError: Another host may have it, and cannot be asked or read.
        """
        self.fleet.everywhere.require_all_known()
        try:
            self.fleet.everywhere.find(name)
        except HostUnreachable:
            raise
        except KvmCloneError as error:
            log.debug("%s", error)

    def _refuse_mistaken(self, name: str) -> None:
        """
        Refuse a destroy by a hard map that would hit more than one machine.

        A hard map finds one machine to be too much, and has everything destroyed that is called
        like it, like its provider, or like the driver, wherever that is.

        :raises InvalidName: The name means something else as well.
        :raises ConfigError: Machines of several providers have it; or something cannot be read,
            so that the machine may be too much only because of that.
        """
        self.fleet.everywhere.require_all_known()
        if name in self._words():
            raise InvalidName(
                f"A hard map would take the machine '{name}' for the provider or driver of that "
                "name.",
                f"Destroy it by itself: salt-run kvmclone.destroy {name}",
            )
        having: dict[str, str] = {}
        for alias in sorted(self.opts.get("providers") or {}):
            try:
                if name in CloudDriver(self.opts, self.on_ready, f"{alias}:{DRIVER}").nodes():
                    minion, url = self.providers.way(alias)
                    having[alias] = Commands(url, AT_MASTER, minion).on_host("destroy", name)
            except KvmCloneError:
                continue  # the core does not list anything of it either
        if len(having) > 1:
            raise ConfigError(
                f"Several providers have a machine '{name}': {', '.join(having)}. A hard map "
                "would destroy all of them.",
                f"Destroy the one you mean on its host: {'   Or: '.join(having.values())}",
            )

    def _found(self, name: str) -> tuple[KvmHost, Clone | None]:
        """Return the active provider's host, or whichever has the clone, and the clone or None."""
        try:
            if not self.alias:
                return self.fleet.find(name)
            return self.host, self.host.show(name)
        except NotFound:
            return self.host, None

    def power(self, name: str, action: str) -> dict[str, Any]:
        """Start, stop or reboot one clone (``action``), and return its node as it is then."""
        return self._node(self.host.power(name, action), full=True)

    def show(self, name: str) -> dict[str, Any]:
        """Return the node of one clone, as it is now."""
        node = self._node(self.host.show(name), full=True)
        if "cloud.cache_node" in self.utils and self.opts.get("update_cachedir"):
            self.utils["cloud.cache_node"](node, f"{self.alias}:{DRIVER}", self.opts)
        return node

    def adopt(self, name: str, base_domain: str) -> dict[str, Any]:
        """Make a clone of Salt's own driver one of ours, and return its node."""
        return self._node(self.host.adopt(check(name), base_domain), full=True)

    # --- listing ----------------------------------------------------------------------

    @property
    def host(self) -> KvmHost:
        """Return the host of the active provider."""
        return self.fleet.host(*self.providers.way(self.alias))

    def nodes(self, full: bool = False) -> dict[str, Any]:
        """
        Return the clones of the active provider, as salt-cloud's tables want them.

        Never a base or a foreign domain: a hard map (-H) destroys whatever is listed and not in
        it.

        :param full: With the whole CLONE as well.
        """
        try:
            mine = [
                clone
                for clone in self.host.list_clones()
                if self.providers.lists(self.alias, clone)
            ]
        except KvmCloneError as error:
            # The core leaves out a provider that fails, without any message.
            log.error("The provider '%s' is not listed. %s", self.alias, error)
            raise
        listed = {clone.name: self._node(clone, full) for clone in mine}
        if full and self.opts.get("update_cachedir"):
            self.utils["cloud.cache_node_list"](listed, self.alias, self.opts)
        return listed

    def bases(self) -> list[dict[str, Any]]:
        """Return the domains of the active provider that could be cloned."""
        return self.host.bases()

    def images(self) -> dict[str, Any]:
        """Return what ``base_domain`` may name, for ``--list-images``."""
        return {base["name"]: base for base in self.bases()}

    def sizes(self) -> dict[str, Any]:
        """Return the size of each base, which its clones have by default, for ``--list-sizes``."""
        return {
            base["name"]: {key: base[key] for key in ("name", "cpus", "memory")}
            for base in self.bases()
        }

    def locations(self) -> dict[str, Any]:
        """Return the one location of the provider, its KVM host, for ``--list-locations``."""
        minion, url = self.providers.way(self.alias)
        return {minion or url: {"name": minion or url, "host": minion, "url": url}}

    def _node(self, clone: Clone, full: bool) -> dict[str, Any]:
        return {
            **(clone.as_dict() if full else {}),
            "id": clone.uuid,
            "image": clone.base,
            "size": "",
            "state": STATES.get(clone.state, clone.state),
            "private_ips": [],
            "public_ips": [address.address for address in clone.addresses],
        }

    # --- salt-cloud's cache -----------------------------------------------------------

    def _cache_made(self, machine: Mapping[str, Any], clone: Clone) -> None:
        if not self.opts.get("update_cachedir"):
            return
        provider = f"{self.alias}:{DRIVER}"
        profile = str(machine.get("profile") or "")
        self.utils["cloud.cachedir_index_add"](clone.name, profile, DRIVER, provider)
        self.utils["cloud.cache_node"](self._node(clone, full=True), provider, self.opts)

    def _forget(self, name: str) -> None:
        if self.opts.get("update_cachedir"):
            self.utils["cloud.cachedir_index_del"](name)
            self.utils["cloud.delete_minion_cachedir"](name, self.alias, self.opts)
