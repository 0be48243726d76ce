"""
Describe the operations of a KVM host, as both ends of the wire read them.

There is one for each method of :class:`.interfaces.KvmHost`: what it takes and returns is taken
from that method's type hints, so that :mod:`.remote_server` on the host and
:class:`.master.remote.RemoteHost` on the master cannot differ. Plain data travels, see
:mod:`.plain`; secrets travel sealed for the host.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from saltext.kvmclone.hosts.interfaces import SEALED, KvmHost
from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.request import Deploy, Request
from saltext.kvmclone.system import sealing

#: Number of the form in which master and host speak. Another number is another form, or another
#: meaning of it: a new operation or parameter, a new field of what travels. The first had none.
VERSION = 7

#: What is asked for where one job carries several calls, each with its own version.
SEVERAL = f"several@{VERSION}"


class Operation:
    """
    One operation: its name, its parameters, and what it returns.

    :param method: The method of :class:`.interfaces.KvmHost`.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self.name = method.__name__
        self.signature = inspect.signature(method)
        self.parameters = get_type_hints(method, include_extras=True)
        self.returns = self.parameters.pop("return")

    @property
    def wire_name(self) -> str:
        """Return the name with the version, which no host of the first version knows."""
        return f"{self.name}@{VERSION}"

    def to_wire(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], seal: Callable[[bytes, bytes], str]
    ) -> dict[str, Any]:
        """
        Return the arguments of a call as plain data.

        :param args: Arguments by position, ``kwargs`` those by name.
        :param seal: Seals some bytes for the host and binds them to others.
        """
        call = self.signature.bind(None, *args, **kwargs)
        call.apply_defaults()
        plain: dict[str, Any] = {}
        for name, kind in self.parameters.items():
            value = call.arguments[name]
            if SEALED not in get_args(kind):
                plain[name] = to_plain(_for_host(value) if kind is Request else value)
            elif value:
                purpose = _purpose(name, call.arguments["request"])
                plain[name] = seal(json.dumps(to_plain(value)).encode(), purpose)
        return plain

    def from_wire(self, plain: Any, unseal: Callable[[str, bytes], bytes]) -> dict[str, Any]:
        """
        Return the arguments that :meth:`to_wire` made plain, by name.

        :param unseal: Opens what ``seal`` sealed.
        :raises ValueError: One is unknown or of another type, or one is missing.
        """
        plain = from_plain(dict[str, Any], plain)
        if unknown := set(plain) - set(self.parameters):
            raise ValueError(f"{self.name} does not take {min(unknown)!r:.60}")
        found: dict[str, Any] = {}
        for name, kind in self.parameters.items():
            if name in plain:
                value = plain[name]
                if SEALED in get_args(kind):
                    value = json.loads(unseal(value, _purpose(name, found["request"])))
                found[name] = from_plain(kind, value)
            elif self.signature.parameters[name].default is inspect.Parameter.empty:
                raise ValueError(f"{self.name} lacks '{name}'")
        return found


OPERATIONS = {
    name: Operation(method)
    for name, method in vars(KvmHost).items()
    if inspect.isfunction(method) and not name.startswith("_")
}


def _purpose(parameter: str, request: Request | BaseRequest) -> bytes:
    """Return what a sealed argument is bound to: it serves for that one machine alone."""
    return sealing.purpose(request.name, f"{parameter} {request.minion_id}")


def _for_host(request: Request) -> Request:
    """
    Return the request as the host needs it.

    It lacks what is put into the guest (that travels sealed), so that nothing of it is kept in
    the job cache.
    """
    deploy = Deploy(
        enabled=request.deploy.enabled,
        bootstrap=request.deploy.bootstrap,
        append_domain=request.deploy.append_domain,
    )
    login = dataclasses.replace(request.login, private_key="")
    return dataclasses.replace(request, deploy=deploy, login=login)
