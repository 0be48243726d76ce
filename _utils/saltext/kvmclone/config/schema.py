"""
List every key of a provider or profile, and what becomes of it.

Pure; a table. It holds the keys that docs/configuration.md promises and every other key
that salt-cloud (3006 to 3008) reads for a machine, so that a configuration written for
salt-cloud meets no unknown key here. Read it through
:data:`saltext.kvmclone.config.catalogue.KEYS`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

from saltext.kvmclone.config import placement_keys, stock_keys, value_types
from saltext.kvmclone.config.value_types import ValueType


class KeySupport(Enum):
    """The ways to treat a key."""

    HONOURED = "honoured"
    #: Read by salt-cloud, without a use here: a warning.
    IGNORED = "ignored"
    #: Ignoring it would make something other than what was asked for: an error.
    REFUSED = "refused"


class KeyLocation(Enum):
    """The places where a key may be written."""

    PROVIDER = "a provider"
    PROFILE = "a profile"
    #: /etc/salt/cloud itself.
    GLOBAL = "the cloud file"


EVERYWHERE = frozenset(KeyLocation)
SECTIONS = frozenset({KeyLocation.PROVIDER, KeyLocation.PROFILE})
PROVIDERS = frozenset({KeyLocation.PROVIDER})
PROFILES = frozenset({KeyLocation.PROFILE})


@dataclass(frozen=True)
class Key:
    """
    One key.

    :param name: As it is written.
    :param fate: What becomes of it.
    :param kind: Which values it takes.
    :param places: Where it may be written. What a profile may hold may also be given as
        an argument.
    :param secret: The value is a secret: refused as an argument, never shown.
    :param visible: The value may be shown in messages and in lists of profiles.
    :param word: For an ignored or refused key: why, and what to do instead.
    :param harmless: Values of a refused or ignored key that ask for nothing, and that
        are therefore passed over in silence.
    """

    name: str
    fate: KeySupport
    kind: ValueType[Any]
    places: frozenset[KeyLocation] = EVERYWHERE
    secret: bool = False
    visible: bool = True
    word: str = ""
    harmless: tuple[Any, ...] = (None,)


def _honoured(name: str, kind: ValueType[Any], places: frozenset[KeyLocation] = EVERYWHERE) -> Key:
    return Key(name, KeySupport.HONOURED, kind, places)


def _secret(name: str) -> Key:
    return Key(name, KeySupport.HONOURED, value_types.TEXT, secret=True, visible=False)


def _ignored(name: str, word: str, *harmless: Any) -> Key:
    return Key(
        name, KeySupport.IGNORED, value_types.ANYTHING, word=word, harmless=(None, *harmless)
    )


def _refused(
    name: str, word: str, harmless: tuple[Any, ...] = (None, False, ""), secret: bool = False
) -> Key:
    return Key(
        name,
        KeySupport.REFUSED,
        value_types.ANYTHING,
        secret=secret,
        visible=not secret,
        word=word,
        harmless=harmless,
    )


_DISK = value_types.record(
    "{size: 20GiB}",
    size=value_types.DISK_SIZE,
    pool=value_types.WORD,
    strategy=value_types.choice("full", "quick"),
    action=value_types.choice("clone", "share", "skip"),
    serial=value_types.SERIAL,
    wwn=value_types.WWN,
    format=value_types.choice("qcow2", "raw"),
)
_PORTGROUP = dataclasses.replace(
    value_types.WORD,
    expected="text on one line, or '' for none",
    parse=lambda value: value if value == "" else value_types.WORD.parse(value),
)
_NETWORK = value_types.not_both(
    value_types.not_both(
        value_types.record(
            "{network: default}",
            network=value_types.WORD,
            portgroup=_PORTGROUP,
            bridge=value_types.WORD,
            model=value_types.WORD,
            mac=value_types.MAC,
        ),
        "network",
        "bridge",
    ),
    "portgroup",
    "bridge",
)
_DEVICES = "[filesystem0, hostdev]"
_PICK = value_types.record(
    "{cidr: 192.168.122.0/24}",
    cidr=value_types.CIDR,
    interface=value_types.WORD,
    family=value_types.choice("ipv4", "ipv6"),
)

_NO_WINDOWS = "Windows guests are not bootstrapped; take it out, and set deploy: false"
_NO_GATEWAY = "the host that made the clone talks to it; name the KVM host's minion in host:"
_NO_MASTER = "salt-cloud's core makes a master's keys (make_master); its settings stand in master:"
_SALTIFY = "belongs to the saltify driver"
_OWN_SSH = "connections are made by this project's own ssh client"
_CLOUD_CACHE = "it concerns salt-cloud's own cache; elsewhere libvirt is asked"
_FOUND = "the address is found by ip_source"
_NO_LIMIT = "a guest is waited for as wait_for_ip_timeout says, then until its ssh answers"

#: Every key, in the order in which ``describe`` shows them.
TABLE: tuple[Key, ...] = (
    # Which daemon, which base
    _honoured("driver", value_types.WORD, PROVIDERS),
    _honoured("provider", value_types.WORD, PROFILES),
    _honoured("extends", value_types.WORD, SECTIONS),
    _honoured("url", value_types.WORD, SECTIONS),
    _honoured("host", value_types.WORD, SECTIONS),
    _honoured("hosts", placement_keys.HOSTS, SECTIONS),
    _honoured("placement", placement_keys.PLACEMENT, SECTIONS),
    _honoured("validate_xml", value_types.BOOLEAN),
    _honoured("pool", value_types.WORD, SECTIONS),
    _honoured("base_domain", value_types.WORD),
    _honoured("clone_strategy", value_types.choice("full", "quick", "instant")),
    _honoured("instant", value_types.choice("require", "prefer"), SECTIONS),
    _honoured("warm", value_types.choice("auto"), SECTIONS),
    # The machine
    _honoured("cpus", value_types.integer(1, 4096, 2), SECTIONS),
    _honoured("memory", value_types.MEMORY, SECTIONS),
    _honoured("description", value_types.TEXT, SECTIONS),
    _honoured("autostart", value_types.BOOLEAN, SECTIONS),
    _honoured("tags", value_types.TEXTS, SECTIONS),
    _honoured("ttl", dataclasses.replace(value_types.DURATION, example="12h"), SECTIONS),
    _honoured("spares", stock_keys.SPARES, SECTIONS),
    _honoured("spare_names", stock_keys.SPARE_NAMES, SECTIONS),
    _honoured("disks", value_types.mapping_of("vda", _DISK), SECTIONS),
    _honoured("networks", value_types.list_of(_NETWORK), SECTIONS),
    _honoured("leave_out", dataclasses.replace(value_types.TEXTS, example=_DEVICES), SECTIONS),
    # A word, or contents: only the latter are secret, and validate.py tells them apart.
    Key("seed", KeySupport.HONOURED, value_types.SEED, SECTIONS, visible=False),
    _honoured("protect", value_types.BOOLEAN, SECTIONS),
    _honoured("on_failure", value_types.choice("destroy", "stop", "keep"), SECTIONS),
    # The address
    _honoured(
        "ip_source", value_types.choice("ip-learning", "qemu-agent", "auto", "arp", "reserve")
    ),
    _honoured("address", value_types.ADDRESS, SECTIONS),
    _honoured("pick", _PICK, SECTIONS),
    _honoured("wait_for_ip_timeout", value_types.DURATION),
    _honoured("wait_for_ip_interval", value_types.DURATION),
    _honoured("wait_for_ip_interval_multiplier", value_types.FACTOR),
    # Entering the guest
    _honoured("ssh_username", value_types.WORD),
    _honoured("ssh_port", value_types.PORT),
    _honoured("sudo", value_types.BOOLEAN),
    _honoured("tty", value_types.BOOLEAN),
    _secret("password"),
    _secret("sudo_password"),
    # A path on the master, or the key itself: only the latter is a secret, and
    # validate.py tells them apart.
    Key("private_key", KeySupport.HONOURED, value_types.TEXT, visible=False),
    _secret("private_key_passphrase"),
    _honoured("ssh_agent", value_types.BOOLEAN),
    # What is put into the guest and run there
    _honoured("deploy", value_types.BOOLEAN),
    _honoured("bootstrap", value_types.choice("auto", "ssh", "agent", "keys", "none"), SECTIONS),
    _honoured("reset_identity", value_types.BOOLEAN, SECTIONS),
    _honoured("script", value_types.TEXT),
    _honoured("script_args", value_types.TEXT),
    Key("script_env", KeySupport.HONOURED, value_types.ENVIRONMENT, visible=False),
    _honoured("deploy_command", value_types.TEXT),
    _honoured("preflight_cmds", value_types.TEXTS),
    _honoured("inline_script", value_types.TEXTS),
    _honoured("file_map", value_types.PATHS),
    _honoured("minion", value_types.MINION),
    _honoured("grains", value_types.MAPPING),
    _honoured("enable_cloud_grains", value_types.BOOLEAN),
    _honoured("master_finger", value_types.TEXT),
    _honoured("append_domain", value_types.WORD),
    _honoured("use_fqdn", value_types.BOOLEAN),
    _honoured("domain", value_types.WORD),
    _honoured("keysize", value_types.integer(1024, 16384, 4096)),
    _honoured("start_action", value_types.TEXT),
    # A new master, whose keys salt-cloud's core makes
    _honoured("make_master", value_types.BOOLEAN),
    _honoured("master", value_types.MASTER),
    # Read by salt-cloud, and not needed here
    _ignored("os", "salt-cloud itself takes script instead"),
    _ignored("key_filename", "the libvirt driver takes private_key"),
    # Salt's driver has it in its example, and never read it.
    _ignored("has_ssh_agent", "write it as ssh_agent: True", False),
    _ignored("ssh_keyfile", "the libvirt driver takes private_key"),
    _ignored("delete_sshkeys", "host keys are bound to the clone, not to its address"),
    _ignored("known_hosts_file", "host keys are always checked, in a store of our own"),
    _ignored("file_transport", _OWN_SSH, "sftp"),
    _ignored("use_sftp", _OWN_SSH, True),
    _ignored("display_ssh_output", "output of the guest goes to the log"),
    _ignored("wait_for_passwd_maxtries", "a login is tried until the guest's ssh answers"),
    # Salt's documentation has these for every driver, though few read them.
    _ignored("ssh_connect_timeout", _NO_LIMIT),
    _ignored("wait_for_passwd_timeout", _NO_LIMIT),
    _ignored("wait_for_fun_timeout", _NO_LIMIT),
    _ignored("hard_timeout", _OWN_SSH),
    _ignored(
        "tmp_dir", "kvm_clone makes a folder of its own; name /tmp/.saltcloud in deploy_command"
    ),
    _ignored("keep_tmp", "the folder in the guest is always removed", False),
    _ignored("show_deploy_args", "answers never hold what was deployed", False),
    _ignored("force_minion_config", "the minion's configuration is always written", True),
    _ignored(
        "sync_after_install",
        "salt-cloud reads it in /etc/salt/cloud only; a profile may have start_action",
    ),
    _ignored("requires", "only salt-cloud -m makes machines in an order"),
    # salt-cloud reads these for most drivers, so they get copied; libvirt's had no use for them.
    _ignored("image", "base_domain names what is cloned", ""),
    _ignored("size", "a clone has its base's; cpus and memory change it", ""),
    _ignored("location", "one provider is one KVM host", ""),
    _ignored("update_cachedir", _CLOUD_CACHE, True, False),
    _ignored("diff_cache_events", _CLOUD_CACHE, True, False),
    _ignored("cache_event_strip_fields", _CLOUD_CACHE),
    _ignored("userdata_template", "a libvirt domain has no user data"),
    _ignored("ssh_host", _FOUND),
    _ignored("salt_host", _FOUND),
    _ignored("ssh_interface", _FOUND + "; use pick"),
    _ignored("salt_interface", _FOUND + "; use pick"),
    _ignored("remove_config_on_destroy", _SALTIFY),
    _ignored("shutdown_on_destroy", _SALTIFY),
    _ignored("wake_on_lan_mac", _SALTIFY),
    _ignored("wol_sender_node", _SALTIFY),
    _ignored("wol_boot_wait", _SALTIFY),
    # Ignoring these would make something other than what was asked for
    _refused("make_minion", "set deploy: false for a machine without a minion", (None, True)),
    _refused("make_syndic", _NO_MASTER),
    _refused("master_conf", _NO_MASTER),
    _refused("master_pub", _NO_MASTER),
    _refused("master_pem", _NO_MASTER, secret=True),
    _refused("preseed_minion_keys", _NO_MASTER, secret=True),
    _refused("local_master", _NO_MASTER, (None, False, True)),
    _refused("master_sign_pub_file", "send the file with file_map"),
    _refused("minion_conf", "write it as minion:"),
    _refused("volumes", "a clone has its base's disks; disks: changes them", (None, False, "", [])),
    _refused("pub_key", "each clone gets a key pair of its own"),
    _refused("priv_key", "each clone gets a key pair of its own", secret=True),
    _refused("gateway", _NO_GATEWAY),
    _refused("ssh_gateway", _NO_GATEWAY),
    _refused("ssh_gateway_port", _NO_GATEWAY),
    _refused("ssh_gateway_user", _NO_GATEWAY),
    _refused("ssh_gateway_key", _NO_GATEWAY),
    _refused("ssh_gateway_private_key", _NO_GATEWAY),
    _refused("ssh_gateway_password", _NO_GATEWAY, secret=True),
    _refused("ssh_gateway_command", _NO_GATEWAY),
    _refused("win_installer", _NO_WINDOWS),
    _refused("win_username", _NO_WINDOWS),
    _refused("win_password", _NO_WINDOWS, secret=True),
    _refused("use_winrm", _NO_WINDOWS),
    _refused("winrm_port", _NO_WINDOWS),
    _refused("winrm_use_ssl", _NO_WINDOWS, (None, True)),
    _refused("winrm_verify_ssl", _NO_WINDOWS, (None, True)),
    _refused("win_delay_start", _NO_WINDOWS),
    _refused("win_install_dir", _NO_WINDOWS),
    _refused("smb_port", _NO_WINDOWS),
    _refused("port_timeout", _NO_WINDOWS),
)

#: Every known key by its name.
KEYS: dict[str, Key] = {key.name: key for key in TABLE}
