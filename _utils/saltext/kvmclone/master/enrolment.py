"""
Prepare and check what a new minion needs, on a master or on a KVM host by itself.

:class:`Enroller` implements :class:`.enroller.EnrollerInterface`: it makes and accepts
the key, renders the deploy script, collects the files, and verifies the answer. What it collects
leaves the master only sealed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import yaml

from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.guest import login_key
from saltext.kvmclone.master import foresight, verify
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.model.base_minion import BaseMinion, Foresight
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment, GuestFile, KeyPair
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.model.spares import GRAIN

#: Salt's own bootstrap script, which takes ``-c DIR``.
BOOTSTRAP = "bootstrap-salt"

#: What an expression in a template may raise, besides Jinja's own errors.
_SCRIPT_FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


#: Called before a clone is recorded as ``ready``: configuration, minion id, uuid.
OnReady = Callable[[Mapping[str, Any], str, str], None]


class Enroller:
    """
    The master's work for a new minion that the runner makes.

    Implements :class:`.enroller.EnrollerInterface`.

    :param opts: The master's configuration.
    :param keys: The master's minion keys.
    :param on_ready: Called with the configuration, the minion id and the domain's uuid, just
        before a clone is recorded as ``ready``.
    """

    def __init__(self, opts: Mapping[str, Any], keys: MinionKeys, on_ready: OnReady) -> None:
        self.opts = opts
        self.keys = keys
        self.on_ready = on_ready

    @property
    def is_its_master(self) -> bool:
        """Return True: a create by the runner makes a minion of this master."""
        return True

    def require_free(self, minion_id: str) -> None:
        """Refuse a minion id that has a key; see :meth:`.keys.MinionKeys.require_free`."""
        self.keys.require_free(minion_id)

    def generate(self, bits: int) -> KeyPair:
        """Return a new key pair; see :func:`.keys.generate`."""
        return generate(bits)

    def fingerprint(self, public: str) -> str:
        """Return the fingerprint of a public key; see :meth:`.keys.MinionKeys.fingerprint`."""
        return self.keys.fingerprint(public)

    def accept(self, minion_id: str, public: str, name: str, host: str) -> None:
        """Accept exactly this public key; see :meth:`.keys.MinionKeys.accept`."""
        self.keys.accept(minion_id, public, name, host)

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        """Remove the key with this fingerprint; see :meth:`.keys.MinionKeys.remove`."""
        return self.keys.remove(minion_id, fingerprint)

    def settle(self, minion_id: str) -> None:
        """Delete keys of this id that were not accepted; see :meth:`.keys.MinionKeys.settle`."""
        self.keys.settle(minion_id)

    def verify(
        self, minion_id: str, uuid: str, ask: Callable[[int], GuestMinion], word: str | None = None
    ) -> Minion:
        """
        Wait for ``test.version`` from the machine with that uuid.

        :param ask: Asks the guest, see :meth:`.interfaces.KvmHost.check_master`; it is given the
            port that this master tells its minions.
        :param word: What a fork was given over its agent; see :func:`.verify.verify`.
        :return: The minion as the record is to name it.
        """
        port = int(self.opts["publish_port"])
        verified = verify.verify(self.opts, minion_id, uuid, lambda: ask(port), word=word)
        return Minion(id=minion_id, version=verified.version, verified_by=verified.by)

    def becomes_ready(self, minion_id: str, uuid: str) -> None:
        """Call ``on_ready`` for the clone with that uuid."""
        self.on_ready(self.opts, minion_id, uuid)

    def start_action(self, minion_id: str, function: str) -> str:
        """Run a function on the minion; see :func:`.verify.run`."""
        return verify.run(self.opts, minion_id, function)

    def prepare(self, request: Request, secrets: Secrets) -> None:
        """
        Check everything that goes into the guest, before anything is made.

        :raises ConfigError: A script or file of the profile cannot be read or rendered, or the
            clone is to become a master.
        :raises LoginFailed: The login key cannot be read, or not with its passphrase.
        """
        if request.deploy.make_master:
            raise ConfigError(
                f"'{request.name}' is to become a master (make_master), whose keys salt-cloud's "
                "core makes.",
                f"There: salt-cloud -p {request.profile or 'PROFILE'} {request.name}",
            )
        prepare(self.opts, request, secrets)

    def foresee(self, request: Request, look: Callable[[], BaseMinion]) -> Foresight:
        """Return what stands against the guest's becoming a minion; see :mod:`.foresight`."""

        def script() -> foresight.Script:
            text = _script(self.opts, request, _configuration(request))
            return foresight.Script(text, BOOTSTRAP in text)

        return foresight.foresee(self.opts, request, script, look)

    def enrolment(self, request: Request, secrets: Secrets, pair: KeyPair) -> Enrolment:
        """
        Return everything that goes into the guest.

        :param pair: The minion's key pair.
        :raises ConfigError: A script or file of the profile cannot be read or rendered.
        """
        enrolment = compose(self.opts, request, secrets, pair)
        return dataclasses.replace(enrolment, remarks=_other_masters(enrolment))


def on_this_host(
    opts: Mapping[str, Any],
    catalogue: Catalogue,
    clone: Clone,
    profile: str = "",
    keys: Mapping[str, Any] | None = None,
) -> tuple[Request, Enrolment]:
    """
    Return what ``kvm_clone.bootstrap`` on a KVM host puts into a clone, by its own profile.

    The key pair is made here, so that its fingerprint can be told to whoever accepts it; the
    private half is kept nowhere but in the guest.

    :param opts: This minion's configuration.
    :param catalogue: The host's providers and profiles, from its cloud files and its pillar.
    :param clone: The clone, as it is.
    :param profile: Name of the profile; empty for the one it was made from, if that is known
        here.
    :param keys: Profile keys given as arguments.
    :raises ConfigError: They do not name the master, or a script cannot be read.
    :raises LoginFailed: The login key cannot be read.
    """
    given = dict(keys or {})
    if not profile and clone.profile:
        catalogue.problems.require_profile(clone.profile)
        profile = clone.profile if clone.profile in catalogue.profiles else ""
    if profile:
        given["profile"] = profile
    request, secrets = catalogue.resolve_inline(clone.name, {"base_domain": clone.base, **given})
    if not request.deploy.minion.get("master"):
        raise ConfigError(
            f"No master is configured for '{clone.name}'.",
            "Write it into the profile, on this host or in its pillar: minion: {master: ADDRESS}",
        )
    prepare(opts, request, secrets)
    return request, compose(opts, request, secrets, generate(request.deploy.keysize))


def prepare(opts: Mapping[str, Any], request: Request, secrets: Secrets) -> None:
    """Check everything that goes into the guest; see :meth:`Enroller.prepare`."""
    if secrets.private_key:
        login_key.read(secrets.private_key, secrets.private_key_passphrase)
    _script(opts, request, _configuration(request))
    _files(request)


def compose(
    opts: Mapping[str, Any], request: Request, secrets: Secrets, pair: KeyPair
) -> Enrolment:
    """
    Return everything that goes into the guest.

    :param opts: Configuration of the machine that read the profile; scripts see it.
    :param pair: The minion's key pair.
    :raises ConfigError: A script or file of the profile cannot be read or rendered.
    """
    deploy = request.deploy
    config = _configuration(request)
    script = _script(opts, request, config)
    return Enrolment(
        minion_id=request.minion_id,
        minion_config=config,
        grains=dict(deploy.grains) | ({GRAIN: request.profile} if request.in_stock else {}),
        private_key_pem=pair.private,
        public_key_pem=pair.public,
        fingerprint=MinionKeys(opts).fingerprint(pair.public),
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
        secrets=dataclasses.replace(secrets, seed=()),
    )


def _other_masters(enrolment: Enrolment) -> tuple[str, ...]:
    """Return what is left to do for a minion with several masters: only this one has its key."""
    masters = enrolment.minion_config.get("master")
    if not isinstance(masters, (list, tuple)) or len(masters) < 2:
        return ()
    return (
        f"This master accepted the key of '{enrolment.minion_id}'; of its masters "
        f"({', '.join(map(str, masters))}) the others have yet to. {enrolment.way_to_accept()}",
    )


def _configuration(request: Request) -> dict[str, Any]:
    return {**request.deploy.minion, "id": request.minion_id}


def _script(opts: Mapping[str, Any], request: Request, config: Mapping[str, Any]) -> str:
    """
    Return the rendered deploy script; empty where none is needed, or the default is not there.

    Salt's own :func:`salt.utils.cloud.os_script` renders a misspelt variable as nothing, and runs a
    script as it was written where rendering fails with an AttributeError.

    :raises ConfigError: The named script was not found, or one cannot be rendered.
    """
    if request.deploy.bootstrap == "keys":
        return ""
    name = request.deploy.script or BOOTSTRAP
    folders = _search_path(opts)
    path = _find_script(name, folders)
    if not path:
        if request.deploy.script:
            raise ConfigError(
                f"The deploy script '{name}' was not found in {', '.join(folders)}.",
                "Put it into cloud.deploy.d beside the configuration, or give its full path as "
                "'script:'.",
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
        return template.render(vm=machine, opts=opts, minion=yaml.safe_dump(dict(config)))
    except (OSError, jinja2.TemplateError, *_SCRIPT_FAULTS) as error:
        raise ConfigError(
            f"The deploy script '{path}' cannot be rendered: {error}",
            "In a script, 'vm', 'opts' and 'minion' are in reach; {% raw %} keeps braces.",
        ) from error


def _search_path(opts: Mapping[str, Any]) -> list[str]:
    folder = os.path.dirname(str(opts.get("conf_file") or "/etc/salt/master"))
    configured = opts.get("deploy_scripts_search_path") or ["cloud.deploy.d"]
    if isinstance(configured, str):
        configured = [configured]
    import salt.cloud  # noqa: PLC0415 - only its folder is wanted, and only here

    own = os.path.join(os.path.dirname(os.path.abspath(salt.cloud.__file__)), "deploy")
    return [*(os.path.join(folder, entry) for entry in configured), own]


def _find_script(name: str, folders: list[str]) -> str:
    # os.path.join leaves a full path as it is.
    paths = [os.path.join(folder, name) + end for folder in folders for end in ("", ".sh")]
    return next(filter(os.path.isfile, paths), "")


def _files(request: Request) -> list[GuestFile]:
    """Return the files of ``file_map``; a folder is taken with everything in it."""
    return [
        _file(source, destination)
        for local, target in request.deploy.file_map.items()
        for source, destination in _paths(local, target)
    ]


def _paths(local: str, target: str) -> list[tuple[str, str]]:
    """Return every file that an entry of ``file_map`` means, with its path in the guest."""
    if not os.path.isdir(local):
        return [(local, target)]
    sources = [
        os.path.join(folder, file) for folder, _folders, files in os.walk(local) for file in files
    ]
    return [(source, os.path.join(target, os.path.relpath(source, local))) for source in sources]


def _file(source: str, destination: str) -> GuestFile:
    try:
        with open(source, "rb") as handle:
            content = handle.read()
    except OSError as error:
        raise ConfigError(
            f"file_map: '{source}' cannot be read: {error.strerror}.",
            "The left side of file_map is a path on the master.",
        ) from error
    return GuestFile(destination, content, os.stat(source).st_mode & 0o777)
