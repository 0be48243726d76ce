"""
Turn merged keys into a typed request.

Pure. The keys were checked one by one where they were written; here they are given their
types, ``sdb://`` references are replaced, and the result is laid out as a
:class:`~saltext.kvmclone.model.request.Request`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from saltext.kvmclone.config import placement_keys, stock_keys
from saltext.kvmclone.config.schema import Key, KeySupport
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.request import (
    AddressPick,
    Deploy,
    DiskChanges,
    InterfaceChanges,
    Login,
    Request,
    Secrets,
    Wait,
)

# RSA keys below this are refused by Salt, which silently makes a longer one instead.
_SHORTEST_KEY = 2048

#: Keys whose value becomes something else than the field of the same name, in code below.
_LAID_OUT = frozenset((
    "append_domain", "base_domain", "deploy", "disks", "grains", "keysize", "minion", "networks",
    "pick", "placement", "profile", "provider", "seed",
))  # fmt: skip


def is_reference(value: Any) -> bool:
    """Return whether a value is an ``sdb://`` URI, which stands for something in a store."""
    return isinstance(value, str) and value.startswith("sdb://")


def holds_reference(value: Any) -> bool:
    """Return whether an ``sdb://`` URI stands anywhere in a value."""
    if isinstance(value, Mapping):
        return any(holds_reference(content) for content in value.values())
    if isinstance(value, (list, tuple)):
        return any(holds_reference(item) for item in value)
    return is_reference(value)


def is_private_key(value: Any) -> bool:
    """Return whether a value is a private key itself, where a path to one is meant."""
    return isinstance(value, str) and "PRIVATE KEY" in value


def no_sdb(uri: str) -> Any:
    """
    Refuse an ``sdb://`` URI where no store can be read.

    :raises ConfigError: Always.
    """
    raise ConfigError(
        f"{uri} cannot be read here: no sdb profiles are known.",
        "Configure the sdb profile on the machine that reads the profile.",
    )


def _dereferenced(value: Any, fetch: Callable[[str], Any]) -> Any:
    if is_reference(value):
        return fetch(value)
    if isinstance(value, Mapping):
        return {name: _dereferenced(content, fetch) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_dereferenced(item, fetch) for item in value]
    return value


class SecretTracker:
    """
    A reader of sdb stores that remembers what it read.

    :param fetch: Gives what an ``sdb://`` URI stands for.
    :ivar texts: Every text among it.
    """

    def __init__(self, fetch: Callable[[str], Any]) -> None:
        self._fetch = fetch
        self.texts: tuple[str, ...] = ()

    def __call__(self, uri: str) -> Any:
        value = self._fetch(uri)
        self.texts = tuple(dict.fromkeys((*self.texts, *_texts(value))))
        return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def behind(written: Any, followed: Any) -> list[str]:
    """
    Return every text that came out of an sdb store, found by comparison.

    Somebody else (salt-cloud's core) has replaced the ``sdb://`` URIs and does not say where.

    :param written: Keys as they stand in the files, with the URIs.
    :param followed: The same keys with what the URIs stand for, and perhaps more keys.
    """
    if is_reference(written):
        return [] if written == followed else _texts(followed)
    if isinstance(written, Mapping) and isinstance(followed, Mapping):
        pairs = [(value, followed[name]) for name, value in written.items() if name in followed]
    elif isinstance(written, (list, tuple)) and isinstance(followed, (list, tuple)):
        pairs = list(zip(written, followed, strict=False))
    else:
        return []
    return [text for one, other in pairs for text in behind(one, other)]


def typed(
    keys: Mapping[str, Any], known: Mapping[str, Key], fetch: Callable[[str], Any]
) -> tuple[dict[str, Any], list[tuple[str, Any, str]]]:
    """
    Return the keys that matter with typed values, and those whose value is wrong.

    :param keys: Merged keys as they were written.
    :param known: The table of keys.
    :param fetch: Gives what an ``sdb://`` URI stands for.
    :return: The typed values, and ``(key, value as written, expected)`` for each that is
        wrong: what an sdb store held, or what merging two sections made.
    """
    values: dict[str, Any] = {}
    faults = []
    for name, written in keys.items():
        key = known.get(name)
        # An empty value in YAML means "as if it were not there".
        if key is None or written is None or key.fate is not KeySupport.HONOURED:
            continue
        value = _dereferenced(written, fetch)
        try:
            values[name] = key.kind.parse(value)
        except ValueError:
            # The reference, not what it stands for: that may be a secret.
            faults.append((name, written, key.kind.expected))
    return values, faults


def request_and_secrets(
    name: str,
    values: Mapping[str, Any],
    profile: str,
    provider: str,
    read_file: Callable[[str], str],
) -> tuple[Request, Secrets]:
    """
    Return the request and the secrets that typed values make.

    :param name: Checked name of the clone.
    :param values: As :func:`typed` gives them; ``base_domain`` is among them.
    :param profile: Name of the profile, or empty.
    :param provider: Name of the provider, or empty.
    :param read_file: Gives the text of the login key's file.
    :raises OSError: The login key cannot be read.
    :raises ConfigError: A secret that is typed at a prompt has several lines.
    """
    request = Request(
        name=name,
        base_domain=values["base_domain"],
        profile=profile,
        provider=provider,
        pick=AddressPick(**values.get("pick", {})),
        wait=_wait(values),
        login=_login(values),
        deploy=_deploy(values, profile, provider),
        disks={target: DiskChanges(**wish) for target, wish in values.get("disks", {}).items()},
        seed=_seed_word(values),
        networks=tuple(InterfaceChanges(**wish) for wish in values.get("networks", ())),
        placement=placement_keys.placement(values),
        stock=stock_keys.stock(values),
        **_same_named(Request, values),
    )
    private_key = values.get("private_key", "")
    if private_key and not is_private_key(private_key):
        private_key = read_file(private_key)
    secrets = Secrets(
        _line(values, "password"),
        _line(values, "sudo_password"),
        private_key,
        _line(values, "private_key_passphrase"),
        _seed_files(values),
    )
    return request, secrets


def _same_named(made: type[Request | Deploy], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the keys that are fields of the same name, as they are."""
    names = {field.name for field in dataclasses.fields(made)} - _LAID_OUT
    return {name: values[name] for name in names if name in values}


def _seed_word(values: Mapping[str, Any]) -> str:
    seed = values.get("seed", Request.seed)
    return seed if isinstance(seed, str) else "own"


def _seed_files(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the files of the clone's own seed; what stands there as YAML is written as JSON."""
    seed = values.get("seed")
    if not isinstance(seed, Mapping):
        return ()

    def text(name: str, content: Any) -> str:
        if isinstance(content, str):
            return content
        head = "#cloud-config\n" if name == "user_data" else ""
        return head + json.dumps(content, indent=1, default=str) + "\n"

    return tuple((name.replace("_", "-"), text(name, seed[name])) for name in sorted(seed))


def _line(values: Mapping[str, Any], key: str) -> str:
    """
    Return what is typed at a prompt, without a newline at the end.

    Stores that are files end with one, which nobody means.

    :raises ConfigError: There are more lines, and the others would go to whoever reads next.
    """
    text = str(values.get(key, "")).removesuffix("\n").removesuffix("\r")
    if "\n" in text or "\r" in text or "\0" in text:
        raise ConfigError(
            f"{key} has more than one line, so it cannot be typed at a prompt.",
            f"Check the value of {key} in the profile, or in the store behind it.",
        )
    return text


def _wait(values: Mapping[str, Any]) -> Wait:
    return Wait(
        timeout=values.get("wait_for_ip_timeout", Wait.timeout),
        interval=values.get("wait_for_ip_interval", Wait.interval),
        multiplier=values.get("wait_for_ip_interval_multiplier", Wait.multiplier),
    )


def _login(values: Mapping[str, Any]) -> Login:
    username = values.get("ssh_username", Login.username)
    private_key = values.get("private_key", "")
    return Login(
        username=username,
        port=values.get("ssh_port", Login.port),
        sudo=values.get("sudo", username != "root"),
        tty=values.get("tty", Login.tty),
        private_key="" if is_private_key(private_key) else private_key,
        ssh_agent=values.get("ssh_agent", Login.ssh_agent),
    )


def _deploy(values: Mapping[str, Any], profile: str, provider: str) -> Deploy:
    minion = dict(values.get("minion", {}))
    minion.pop("id", None)
    grains = dict(minion.pop("grains", None) or {})
    grains.update(values.get("grains", {}))
    if "master_finger" in values:
        minion.setdefault("master_finger", values["master_finger"])
    if profile and values.get("enable_cloud_grains", True):
        # As salt-cloud does: targets such as -G salt-cloud:profile:NAME go on working.
        origin = {"driver": "libvirt", "provider": f"{provider}:libvirt", "profile": profile}
        minion["grains"] = {"salt-cloud": origin}
    domain = values.get("append_domain") or minion.get("append_domain") or ""
    if not domain and values.get("use_fqdn"):
        domain = values.get("domain", "")
    return Deploy(
        enabled=values.get("deploy", Deploy.enabled),
        command=values.get("deploy_command", Deploy.command),
        minion=minion,
        grains=grains,
        append_domain=str(domain),
        keysize=max(values.get("keysize", Deploy.keysize), _SHORTEST_KEY),
        **_same_named(Deploy, values),
    )
