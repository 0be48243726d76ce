"""
Describe what makes a guest a minion: its keys, its configuration, the files that go into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model import fingerprints
from saltext.kvmclone.model.request import Secrets

_SECRET_VARIABLE = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class KeyPair:
    """A minion's key pair, PEM. The private half exists nowhere else on the master."""

    private: str
    public: str

    def __repr__(self) -> str:
        return "KeyPair(…)"


@dataclass(frozen=True, repr=False)
class GuestFile:
    """
    A file to be written into the guest.

    :param path: Absolute path there; missing folders are made.
    :param content: Its bytes.
    :param mode: Its permissions.
    """

    path: str
    content: bytes
    mode: int = 0o644

    def __repr__(self) -> str:
        return f"GuestFile({self.path}, {len(self.content)} bytes, {self.mode:04o})"


@dataclass(frozen=True, repr=False)
class Enrolment:
    """
    Everything that goes into the guest to make it a minion.

    It holds secrets: it has no readable ``repr`` and travels sealed.

    :param minion_id: The id to give.
    :param minion_config: Minion configuration; ``id`` is set to ``minion_id``.
    :param grains: Static grains.
    :param private_key_pem: The minion's private key.
    :param public_key_pem: The public half.
    :param fingerprint: Of the public half, as the master shows it.
    :param bootstrap: ``auto | ssh | agent | keys | none``; ``keys`` runs nothing of the profile:
        no script, no commands before or after it.
    :param script_text: The deploy script, rendered; empty for none.
    :param script_named: The profile asks for a script (or ``deploy_command``), so it is
        run even where the guest has a minion.
    :param is_bootstrap_script: It is Salt's own and takes ``-c DIR``.
    :param deploy_command: Literal command; empty for ``sh DIR/deploy.sh``.
    :param script_args: Text appended to the command.
    :param script_env: Environment of the script.
    :param preflight_cmds: Commands before it; one that fails ends the enrolment.
    :param inline_script: Commands after it; one that fails becomes a warning.
    :param files: Extra files, placed before anything runs.
    :param secrets: The login; without the files of a cloud-init seed.
    :param beside: Files that the deploy script finds beside itself; paths within the folder.
    :param flags: More arguments for Salt's bootstrap script; ``{folder}`` stands for the folder.
    :param master_sign_pub: The master's signing key, PEM; empty for none.
    :param remarks: What is left to do once this is done; they become warnings.
    :param word: A random word that a fork is given over its own agent, and that its minion then has
        to answer; empty for other clones, which are known by their uuid.
    """

    minion_id: str
    minion_config: dict[str, Any] = field(default_factory=dict)
    grains: dict[str, Any] = field(default_factory=dict)
    private_key_pem: str = ""
    public_key_pem: str = ""
    fingerprint: str = ""
    bootstrap: str = "auto"
    script_text: str = ""
    script_named: bool = False
    is_bootstrap_script: bool = False
    deploy_command: str = ""
    script_args: str = ""
    script_env: dict[str, str] = field(default_factory=dict)
    preflight_cmds: tuple[str, ...] = ()
    inline_script: tuple[str, ...] = ()
    files: tuple[GuestFile, ...] = ()
    secrets: Secrets = Secrets()
    beside: tuple[GuestFile, ...] = ()
    flags: str = ""
    master_sign_pub: str = ""
    remarks: tuple[str, ...] = ()
    word: str = ""

    def __repr__(self) -> str:
        return f"Enrolment({self.minion_id}, bootstrap={self.bootstrap})"

    def way_to_accept(self) -> str:
        """
        Return what to type on another master, which may have another Salt, to accept the key.
        """
        shown = " or ".join(fingerprints.every(self.public_key_pem, self.fingerprint))
        return (
            f"There: salt-key -f {self.minion_id}   It must show {shown} (that depends on the "
            f"master's Salt). Then: salt-key -a {self.minion_id}"
        )

    def hidden(self) -> tuple[str, ...]:
        """Return every value that no message may quote."""
        login = self.secrets
        values = [self.private_key_pem, login.password, login.sudo_password, self.word]
        values += [f.content.decode() for f in self.beside if f.path.endswith(".pem")]
        values += [login.private_key, login.private_key_passphrase, *login.stored]
        # A short value is more likely to be an ordinary word.
        values += [
            str(value)
            for name, value in self.script_env.items()
            if len(str(value)) >= (4 if _SECRET_VARIABLE.search(name) else 8)
        ]
        return tuple(value for value in values if value)
