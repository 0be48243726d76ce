"""
What a master prepares and checks for a new minion.

:class:`Enroller` is the :class:`.pipeline.MasterSide`: it makes and accepts the key,
renders the deploy script, collects the files, and verifies the answer. What it collects
leaves the master only sealed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jinja2
import yaml

from saltext.kvmclone import keys as keys_module
from saltext.kvmclone import minions
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.guest.minion import Enrolment, GuestFile
from saltext.kvmclone.keys import KeyPair, MinionKeys
from saltext.kvmclone.ownership import Minion
from saltext.kvmclone.request import Request, Secrets

#: Salt's own bootstrap script, which takes ``-c DIR``.
BOOTSTRAP = "bootstrap-salt"


class Enroller:
    """
    :param opts: The master's configuration.
    :param keys: The master's minion keys.
    """

    def __init__(self, opts: Mapping[str, Any], keys: MinionKeys) -> None:
        self.opts = opts
        self.keys = keys

    def require_free(self, minion_id: str) -> None:
        """See :meth:`.keys.MinionKeys.require_free`."""
        self.keys.require_free(minion_id)

    def generate(self, bits: int) -> KeyPair:
        """See :func:`.keys.generate`."""
        return keys_module.generate(bits)

    def fingerprint(self, public: str) -> str:
        """See :meth:`.keys.MinionKeys.fingerprint`."""
        return self.keys.fingerprint(public)

    def accept(self, minion_id: str, public: str) -> None:
        """See :meth:`.keys.MinionKeys.accept`."""
        self.keys.accept(minion_id, public)

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        """See :meth:`.keys.MinionKeys.remove`."""
        return self.keys.remove(minion_id, fingerprint)

    def verify(self, minion_id: str, uuid: str) -> Minion:
        """Wait for ``test.version`` from the machine with that uuid."""
        verified = minions.verify(self.opts, minion_id, uuid)
        return Minion(id=minion_id, version=verified.version, verified_by=verified.by)

    def start_action(self, minion_id: str, function: str) -> str:
        """See :func:`.minions.run`."""
        return minions.run(self.opts, minion_id, function)

    def enrolment(self, request: Request, secrets: Secrets, pair: Any) -> Enrolment:
        """
        Everything that goes into the guest.

        :raises ConfigError: A script or file of the profile cannot be read or rendered.
        """
        deploy = request.deploy
        config = {**deploy.minion, "id": request.minion_id}
        script = self._script(request, config)
        return Enrolment(
            minion_id=request.minion_id,
            minion_config=config,
            grains=dict(deploy.grains),
            private_key_pem=pair.private,
            public_key_pem=pair.public,
            fingerprint=self.keys.fingerprint(pair.public),
            bootstrap=deploy.bootstrap,
            script_text=script,
            script_named=bool(deploy.script or deploy.command),
            is_bootstrap_script=BOOTSTRAP in script,
            deploy_command=deploy.command,
            script_args=deploy.script_args,
            script_env=dict(deploy.script_env),
            preflight_cmds=deploy.preflight_cmds,
            inline_script=deploy.inline_script,
            files=tuple(_files(request)),
            secrets=secrets,
        )

    def _script(self, request: Request, config: Mapping[str, Any]) -> str:
        """The rendered deploy script; empty where none is found and none was named."""
        name = request.deploy.script or BOOTSTRAP
        path = _find_script(name, self._search_path())
        if not path:
            if request.deploy.script:
                raise ConfigError(
                    f"The deploy script '{name}' was not found in "
                    f"{', '.join(self._search_path())}.",
                    "Put it into cloud.deploy.d beside the master's configuration, or give its "
                    "full path as 'script:'.",
                )
            return ""
        machine = {
            "name": request.name,
            "profile": request.profile,
            "provider": request.provider,
            "driver": "libvirt",
        }
        try:
            with open(path, encoding="utf-8") as source:
                template = jinja2.Environment(  # noqa: S701 - a shell script, not HTML
                    undefined=jinja2.StrictUndefined, keep_trailing_newline=True
                ).from_string(source.read())
            return template.render(vm=machine, opts=self.opts, minion=yaml.safe_dump(dict(config)))
        except (OSError, UnicodeError, jinja2.TemplateError) as error:
            raise ConfigError(
                f"The deploy script '{path}' cannot be rendered: {error}",
                "In a script, 'vm', 'opts' and 'minion' are in reach; {% raw %} keeps braces.",
            ) from error

    def _search_path(self) -> list[str]:
        folder = os.path.dirname(str(self.opts.get("conf_file") or "/etc/salt/master"))
        configured = self.opts.get("deploy_scripts_search_path") or ["cloud.deploy.d"]
        if isinstance(configured, str):
            configured = [configured]
        import salt.cloud  # noqa: PLC0415 - only its folder is wanted, and only here

        own = os.path.join(os.path.dirname(os.path.abspath(salt.cloud.__file__)), "deploy")
        return [*(os.path.join(folder, entry) for entry in configured), own]


def _find_script(name: str, folders: list[str]) -> str:
    candidates = [
        os.path.join(folder, name) for folder in ([""] if os.path.isabs(name) else folders)
    ]
    for candidate in candidates:
        for path in (candidate, candidate + ".sh"):
            if os.path.isfile(path):
                return path
    return ""


def _files(request: Request) -> list[GuestFile]:
    """The files of ``file_map``; a folder is taken with everything in it."""
    found: list[GuestFile] = []
    for local, target in request.deploy.file_map.items():
        paths = [(local, target)]
        if os.path.isdir(local):
            paths = [
                (
                    os.path.join(folder, file),
                    os.path.join(target, os.path.relpath(os.path.join(folder, file), local)),
                )
                for folder, _folders, files in os.walk(local)
                for file in files
            ]
        for source, destination in paths:
            try:
                with open(source, "rb") as handle:
                    content = handle.read()
            except OSError as error:
                raise ConfigError(
                    f"file_map: '{source}' cannot be read: {error.strerror}.",
                    "The left side of file_map is a path on the master.",
                ) from error
            found.append(GuestFile(destination, content, os.stat(source).st_mode & 0o777))
    return found
