"""
Make a guest a minion: put id, configuration, grains and keys in place, and start it.

Either a deploy script does it, in the environment that salt-cloud's scripts expect, or the
guest has its minion already and only gets its id, keys and configuration.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from saltext.kvmclone import errors
from saltext.kvmclone.guest import salt_minion_script, salt_yaml
from saltext.kvmclone.guest.channel import Channel, Result, check, tail
from saltext.kvmclone.model import redacted_text
from saltext.kvmclone.model.enrolment import Enrolment

#: Seconds for a deploy script: one that installs from the network takes minutes.
DEPLOY_TIMEOUT_S = 1800.0
PROBE_TIMEOUT_S = 30.0

#: What salt-cloud configures for a new minion if the profile sets nothing else.
DEFAULTS = {"master": "salt", "log_level": "info", "hash_type": "sha256"}

#: salt-cloud's folder; its documentation has profiles that name it in deploy_command.
SALT_CLOUD_FOLDER = "/tmp/.saltcloud"
_NAMES_FOLDER = re.compile(re.escape(SALT_CLOUD_FOLDER) + r"(?![\w.-])")
#: Most lines of our script's report that are read, and most characters of one.
_MOST_WORDS, _LONGEST_WORD = 1000, 2000

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Report:
    """
    What an enrolment did.

    :param how: ``script``; or, if the guest's own minion was started, by what: ``systemd``,
        ``preloaded``, ``init``, ``daemon``; ``none`` if nothing was asked for.
    :param output: The last lines of the scripts, secrets struck out.
    :param warnings: What went wrong without harm.
    """

    how: str
    output: str = ""
    warnings: tuple[str, ...] = ()


def enrol(channel: Channel, enrolment: Enrolment, *, timeout: float = DEPLOY_TIMEOUT_S) -> Report:
    """
    Make the guest a minion. It is started, not waited for.

    :param timeout: Seconds for the whole; the scripts are most of it.
    :raises errors.DeployFailed: A script failed (with its last lines), or there is neither a script
        nor a minion.
    """
    if enrolment.bootstrap == "none":
        return Report("none")
    installed = None
    if enrolment.bootstrap == "keys" or not enrolment.script_named:
        installed = _probe(channel)
        if installed is None and enrolment.bootstrap == "keys":
            raise errors.DeployFailed(
                f"there is no salt-minion in the guest of '{enrolment.minion_id}' to give keys to",
                "'bootstrap: keys' installs nothing. Install Salt in the base, or use "
                "'bootstrap: auto' with a script.",
            )
        if installed is None and not enrolment.script_text:
            raise errors.DeployFailed(
                f"the guest of '{enrolment.minion_id}' has no salt-minion and there is no script "
                "to install one",
                "Install Salt in the base, or set script in the profile.",
            )
    warnings = list(enrolment.remarks)
    if enrolment.bootstrap == "keys" and (enrolment.preflight_cmds or enrolment.inline_script):
        enrolment = dataclasses.replace(enrolment, preflight_cmds=(), inline_script=())
        warnings.append(
            "bootstrap: keys runs nothing, so preflight_cmds and inline_script do not run either."
        )
    folder = _folder(enrolment)
    members = _members(enrolment, folder, installed, warnings)
    try:
        result = channel.run(
            salt_minion_script.command(folder, timeout),
            timeout=timeout,
            stdin=salt_minion_script.archive(members),
        )
    except errors.CommandFailed as exc:
        raise errors.DeployFailed(
            f"the deployment did not end within {timeout:g} s", exc.hint
        ) from exc
    return _report(result, enrolment, folder, warnings)


def _probe(channel: Channel) -> str | None:
    """Return the text of the minion's static grains; None if there is no minion."""
    result = check(
        channel.run(salt_minion_script.PROBE, timeout=PROBE_TIMEOUT_S), "looking for a salt-minion"
    )
    _, found, grains = result.output.partition(salt_minion_script.MARK + "minion")
    return grains.strip() if found else None


def _folder(enrolment: Enrolment) -> str:
    if _NAMES_FOLDER.search(enrolment.deploy_command):
        return SALT_CLOUD_FOLDER
    return f"{SALT_CLOUD_FOLDER}-{token_hex(8)}"


def _members(
    enrolment: Enrolment, folder: str, installed: str | None, warnings: list[str]
) -> dict[str, tuple[bytes, int]]:
    """
    Return the archive's content: name to content and mode.

    :param installed: The static grains of the guest's own minion; None if it has none.
    :param warnings: Gets a sentence about what could not be kept.
    """
    grains = salt_yaml.plain(enrolment.grains)
    mark = salt_minion_script.GRAINS_MARK
    all_ours = not installed or installed.startswith(mark)
    if installed and grains:
        grains = _merged(installed, grains, warnings)
    # The base's minion keeps its base's configuration; a new one has none yet.
    defaults = DEFAULTS if installed is None else {}
    config = {**defaults, **enrolment.minion_config, "id": enrolment.minion_id}
    members = {
        "minion": (salt_yaml.dump(salt_yaml.plain(config)), 0o600),
        "minion.pem": (enrolment.private_key_pem.encode(), 0o600),
        "minion.pub": (enrolment.public_key_pem.encode(), 0o644),
    }
    if grains or installed is None:
        content = salt_yaml.dump(grains)
        members["grains"] = (f"{mark}\n".encode() * all_ours + content, 0o644)
    members |= {file.path: (file.content, file.mode) for file in enrolment.beside}
    if enrolment.master_sign_pub:
        members["master_sign.pub"] = (enrolment.master_sign_pub.encode(), 0o644)
    targets = []
    for number, file in enumerate(enrolment.files):
        members[f".file-{number}"] = (file.content, 0o600)
        targets.append((f".file-{number}", file.path, file.mode))
    for stage, commands in (
        ("preflight", enrolment.preflight_cmds),
        ("inline", enrolment.inline_script),
    ):
        for number, command in enumerate(commands):
            members[f".{stage}-{number}"] = (command.encode() + b"\n", 0o600)
    counts = len(enrolment.preflight_cmds), len(enrolment.inline_script)
    if installed is None:
        members["deploy.sh"] = (enrolment.script_text.encode(), 0o755)
        members[".deploy"] = (_deploy(enrolment, folder).encode(), 0o600)
        run = salt_minion_script.run_deploy(*counts, targets)
    else:
        members["minion_id"] = (enrolment.minion_id.encode() + b"\n", 0o644)
        run = salt_minion_script.run_install(*counts, targets)
    members[salt_minion_script.RUN] = (run.encode(), 0o600)
    return members


def _deploy(enrolment: Enrolment, folder: str) -> str:
    """
    Return the shell text that runs the deploy script, in its environment.

    :raises errors.DeployFailed: ``script_env`` names what cannot be a variable.
    """
    lines = []
    for name, value in enrolment.script_env.items():
        if not _VARIABLE.fullmatch(name):
            raise errors.DeployFailed(
                f"script_env: '{name}' cannot be the name of a variable",
                "Use letters, digits and _ only.",
            )
        lines.append(f"export {name}={shlex.quote(str(value))}")
    command = enrolment.deploy_command or f"sh {folder}/deploy.sh"
    if enrolment.is_bootstrap_script:
        command += f" -c {folder}" + enrolment.flags.replace("{folder}", folder)
    if enrolment.script_args:
        command += f" {enrolment.script_args}"
    return "\n".join([*lines, command]) + "\n"


def _merged(text: str, grains: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the base's static grains, overridden by ours."""
    own = salt_yaml.load(text)
    if own is None:
        warnings.append("The base's /etc/salt/grains could not be read and was replaced.")
    return {**(own or {}), **grains}


def _report(result: Result, enrolment: Enrolment, folder: str, warnings: list[str]) -> Report:
    """
    Return the report of an enrolment: our shell's own lines, and the rest as output.

    :raises errors.DeployFailed: They report a failure, or are missing.
    """
    hidden = enrolment.hidden()
    ours, _, output = result.output.partition(salt_minion_script.MARK + "output\n")
    if len(output.encode()) >= salt_minion_script.MOST:
        # It begins in the middle of a line, and half a secret cannot be recognised.
        output = output.partition("\n")[2]
    words = [
        line[len(salt_minion_script.MARK) : _LONGEST_WORD].strip().split(" ", 2)
        for line in ours.splitlines()
        if line.startswith(salt_minion_script.MARK)
    ]
    said = Result(result.status, output, result.error)
    try:
        how = _heard(words, enrolment, folder, tail(said, hidden), warnings)
    except (LookupError, ValueError) as exc:
        raise errors.DeployFailed(
            f"the guest of '{enrolment.minion_id}' gave an answer that our scripts never give",
            "Log in to the guest and see what its /bin/sh is.",
        ) from exc
    if ["end"] not in words:
        raise errors.DeployFailed(
            f"the deployment ended early with exit status {result.status}: {tail(said, hidden)}",
            "Is there a 'tar' in the guest, and room in its /tmp?",
        )
    return Report(how, tail(said, hidden, lines=40), tuple(warnings))


def _heard(
    words: list[list[str]], enrolment: Enrolment, folder: str, said: str, warnings: list[str]
) -> str:
    """
    Read the lines of our shell's report, and return :attr:`Report.how`.

    :param words: The words of each line.
    :param said: The last lines of the scripts' output.
    :param warnings: Gets a sentence for each ``inline_script`` command that failed.
    :raises errors.DeployFailed: They report a failure.
    :raises ValueError: The report is not our shell's.
    :raises LookupError: The same.
    """
    how = "script"
    for word in words[:_MOST_WORDS]:
        if word[0] == "refused":
            raise errors.DeployFailed(
                f"the folder {folder} in the guest is not ours: {' '.join(word[1:])}",
                "Someone put it there, in the base or later. Look at it and remove it.",
            )
        if word[0] == "failed" and not word[1].startswith("inline-"):
            raise _failure(word, enrolment, said)
        if word[0] == "failed":
            number = int(word[1].partition("-")[2])
            shown = redacted_text.without_secrets(
                enrolment.inline_script[number], enrolment.hidden()
            )
            warnings.append(f"inline_script: '{shown}' ended with exit status {int(word[2])}.")
        if word[0] == "started":
            how = word[1]
    return how


def _failure(word: list[str], enrolment: Enrolment, said: str) -> errors.DeployFailed:
    kind, _, number = word[1].partition("-")
    status = word[2] if len(word) > 2 else "?"
    ending = f" failed with exit status {status}" + (f":\n{said}" if said else "")
    if kind == "preflight":
        command = redacted_text.without_secrets(
            enrolment.preflight_cmds[int(number)], enrolment.hidden()
        )
        return errors.DeployFailed(
            f"the preflight command '{command}'{ending}", "Correct preflight_cmds in the profile."
        )
    if kind == "deploy":
        return errors.DeployFailed(
            f"the deploy script of '{enrolment.minion_id}'{ending}",
            "Run it by hand in a clone made with deploy: false.",
        )
    if kind == "file":
        return errors.DeployFailed(
            f"file_map: {status} cannot be written in the guest: {said}",
            "Is the right side of file_map a path in a writable folder?",
        )
    what = {
        "unpack": "unpacking the files in the guest",
        "install": "writing the minion's files under /etc/salt",
        "start": "starting the salt-minion",
    }[kind]
    return errors.DeployFailed(what + ending, "In the guest: journalctl -u salt-minion")
