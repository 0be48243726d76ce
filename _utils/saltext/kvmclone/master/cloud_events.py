"""
Fire ``salt/cloud/NAME/…``: the events by which salt-cloud reports one machine on the bus.

Tags, order and fields are those of Salt's own libvirt driver, for the reactors that people have,
but without what is secret: that driver put password, private keys and the rendered script on the
bus.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import salt.utils.event

from saltext.kvmclone.config.schema import KEYS
from saltext.kvmclone.config.validate import visible
from saltext.kvmclone.guest.salt_minion import SALT_CLOUD_FOLDER
from saltext.kvmclone.model import redacted_text
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.request import Request

log = logging.getLogger(__name__)

#: The fields of a machine in ``creating`` and ``created``.
_ABOUT = ("name", "profile", "provider", "driver")


class CloudEvents:
    """
    The events of one machine.

    A context manager: all events go through one connection, since the bus keeps the order of each
    connection, but not of several.

    :param opts: salt-cloud's configuration.
    :param machine: The core's ``vm_``: what it asks for.
    """

    def __init__(self, opts: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        self.opts = opts
        self.machine = machine
        self.name = str(machine.get("name", ""))
        #: Values from an ``sdb://`` store, which are hidden wherever in the machine they stand.
        self.stored: tuple[str, ...] = ()
        self._bus: Any = None

    def __enter__(self) -> CloudEvents:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bus is not None:
            self._bus.destroy()

    def creating(self) -> None:
        self._fire("creating", "starting create", self._filtered("creating", self.machine, _ABOUT))

    def requesting(self, request: Request) -> None:
        asked = {"name": request.name, "base_domain": request.base_domain}
        told = self._filtered("requesting", asked, asked)
        self._fire("requesting", "requesting instance", {"kwargs": told})

    def deploying(self, kwargs: Mapping[str, Any]) -> None:
        self._fire("deploying", "executing deploy script", {"kwargs": dict(kwargs)})

    def deploy_script(self, clone: Clone) -> None:
        where = {"name": self.name, "host": clone.address}
        self._fire("deploy_script", f"{self.name} has been deployed at {clone.address}", where)

    def created(self) -> None:
        self._fire("created", "created instance", self._filtered("created", self.machine, _ABOUT))

    def destroying(self) -> None:
        self._fire("destroying", "destroying instance", {"name": self.name})

    def destroyed(self) -> None:
        self._fire("destroyed", "destroyed instance", {"name": self.name})

    def _filtered(
        self, word: str, data: Mapping[str, Any], defaults: Iterable[str]
    ) -> dict[str, Any]:
        """
        Return the fields that ``filter_events`` of /etc/salt/cloud allows, secrets hidden.

        :param word: The last part of the event's tag.
        :param defaults: The fields that the event has without ``filter_events``.
        """
        wanted = (self.opts.get("filter_events") or {}).get(word) or {}
        keys = set(defaults) if wanted.get("use_defaults", True) else set()
        keys |= set(wanted.get("keys") or ())
        told = {key: data[key] for key in keys if key in data}
        return visible(told) | {key: data[key] for key in _ABOUT if key in told}

    def _fire(self, word: str, message: str, data: Mapping[str, Any]) -> None:
        if self._bus is None:
            self._bus = salt.utils.event.get_event("master", self.opts["sock_dir"], listen=False)
        data = {key: without(value, self.stored) for key, value in data.items()}
        tag = f"salt/cloud/{self.name}/{word}"
        if not self._bus.fire_event({**data, "event": message}, tag):
            log.warning("the event %s could not be fired; is the master running?", tag)


def without(value: Any, stored: tuple[str, ...]) -> Any:
    """
    Return a value of any depth with what came out of a store hidden.

    :param stored: See :attr:`.request.Secrets.stored`.
    """
    if isinstance(value, Mapping):
        return {key: without(content, stored) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [without(item, stored) for item in value]
    if isinstance(value, str):
        return redacted_text.without_secrets(value, stored)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return redacted_text.HIDDEN if is_number and str(value) in stored else value


def deploy_kwargs(
    opts: Mapping[str, Any], machine: Mapping[str, Any], request: Request, clone: Clone
) -> dict[str, Any]:
    """
    Return how a machine is deployed, in the fields of ``deploying`` and of ``deploy_kwargs``.

    These are the fields that salt-cloud's core has. The script is named, not quoted, and its
    environment hidden.
    """
    deploy, login = request.deploy, request.login
    return {
        "name": request.name,
        "host": clone.address,
        "salt_host": clone.address,
        "port": login.port,
        "username": login.username,
        "key_filename": login.private_key or None,
        "has_ssh_agent": login.ssh_agent,
        "sudo": login.sudo,
        "tty": login.tty,
        "script": deploy.script,
        "script_args": deploy.script_args,
        **visible({"script_env": deploy.script_env}),
        "inline_script": list(deploy.inline_script) or None,
        "preflight_cmds": list(deploy.preflight_cmds),
        "file_map": dict(deploy.file_map) or None,
        "minion_conf": {"id": request.minion_id, **deploy.minion},
        "cloud_grains": {key: machine.get(key) for key in ("driver", "provider", "profile")},
        "make_minion": True,
        "preseed_minion_keys": machine.get("preseed_minion_keys"),
        "master_sign_pub_file": None,
        "force_minion_config": True,
        "tmp_dir": SALT_CLOUD_FOLDER,
        "keep_tmp": False,
        "known_hosts_file": None,
        "maxtries": None,
        "display_ssh_output": False,
        "start_action": deploy.start_action or None,
        "parallel": bool(opts.get("parallel")),
        "sock_dir": opts.get("sock_dir"),
        "conf_file": opts.get("conf_file"),
        "vm_": {key: machine.get(key) for key in _ABOUT}
        | visible({key: value for key, value in machine.items() if key in KEYS}),
    }
