"""
Ask a guest which ports of its master it reaches, and which id and key its minion has.

Its minion's own files say all of it, since that is what the minion goes by: a deploy script may
have written others than the profile's, or left those of the base.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from saltext.kvmclone.guest import salt_yaml
from saltext.kvmclone.guest.channel import Channel
from saltext.kvmclone.model.guest_minion import GuestMinion, is_public_key
from saltext.kvmclone.model.master_ports import CONNECT_TIMEOUT_S, FAULTS, PortCheck
from saltext.kvmclone.model.names import is_minion_id

#: Seconds for one command in the guest, besides the attempts to connect.
COMMAND_TIMEOUT_S = 5.0

#: Most masters of one minion that are tried.
MOST_MASTERS = 3

#: What Salt takes where a minion's configuration does not say it.
DEFAULT_MASTER, DEFAULT_MASTER_PORT, DEFAULT_PKI = "salt", 4506, "/etc/salt/pki/minion"

_MARK = "kvm-clone: "

#: Prints the id that the minion remembers, its public key where that is by default, and its
#: configuration, file by file, in the order in which it reads them. One command, since a guest that
#: is busy takes seconds for each.
READ_CONFIG = r"""
R=${KVM_CLONE_ROOT-}
if [ -f "$R/etc/salt/minion_id" ]; then head -n 1 "$R/etc/salt/minion_id" | head -c 256; echo; fi
echo 'kvm-clone: key'
if [ -f "$R/etc/salt/pki/minion/minion.pub" ]; then
    head -c 8192 "$R/etc/salt/pki/minion/minion.pub"; echo
fi
for file in "$R/etc/salt/minion" "$R/etc/salt/minion.d/"*.conf; do
    if [ -f "$file" ]; then echo 'kvm-clone: file'; head -c 65536 "$file"; echo; fi
done
"""

# Exact, and all at once.
_PYTHON = r"""
import errno, os, socket, sys, threading, time
found = {}
def look(word):
    host, port = word.rsplit("/", 1)
    try:
        ways = socket.getaddrinfo(host, int(port), 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    found[word] = "ETIMEDOUT"
    for family, kind, protocol, _name, to in ways:
        with socket.socket(family, kind, protocol) as one:
            one.settimeout(LIMIT)
            code = one.connect_ex(to)
        found[word] = errno.errorcode.get(code, "unknown") if code else "reached"
        if not code:
            return
for word in sys.argv[1:]:
    found[word] = "EAI"
    threading.Thread(target=look, args=(word,), daemon=True).start()
end = time.monotonic() + LIMIT + 0.5
while threading.active_count() > 1 and time.monotonic() < end:
    time.sleep(0.05)
for word, said in found.items():
    print("kvm-clone: port", word, said, flush=True)
os._exit(0)
"""

#: Tries each HOST/PORT among its arguments, with what the guest has. What it cannot tell for
#: certain it does not say.
_TRY = r"""
limit=LIMIT
for python in python3 /opt/saltstack/salt/bin/python3; do
    if command -v "$python" >/dev/null && "$python" -I -S -c "$python_program" "$@"; then exit 0; fi
done
limited() { if timeout 1 true 2>/dev/null; then timeout "$limit" "$@"; else "$@"; fi; }
say() {
    case $2 in
        0:*) said=reached ;;
        124:* | 143:* | *'imed out'*) said=ETIMEDOUT ;;
        *refused*) said=ECONNREFUSED ;;
        *'o route'* | *nreachable*) said=EHOSTUNREACH ;;
        *'not known'* | *'ailure in name'* | *'bad address'* | *'Could not resolve'*) said=EAI ;;
        *) return 1 ;;
    esac
    echo "kvm-clone: port $1 $said"
}
by_bash() {
    command -v bash >/dev/null || return 1
    told=$(limited bash -c 'exec 3<>"/dev/tcp/$0"' "$1" 2>&1)
    say "$1" "$?:$told"
}
by_nc() {
    command -v nc >/dev/null || return 1
    told=$(limited nc -z -v -w "$limit" "${1%/*}" "${1##*/}" 2>&1)
    say "$1" "$?:$told"
}
LC_ALL=C
export LC_ALL
for word; do { by_bash "$word" || by_nc "$word"; } & done
wait
"""


def ask(channel: Channel, publish_port: int) -> GuestMinion:
    """
    Ask a guest which ports of its master it reaches, and which id and key its minion has.

    :param publish_port: The port that a minion is told by its master, if it has none of its own.
    :return: What the guest can tell.
    :raises errors.KvmCloneError: The guest cannot be asked.
    """
    told = channel.run(READ_CONFIG, timeout=COMMAND_TIMEOUT_S)
    # Not by `check`, which quotes what may hold secrets.
    minion_id, key, config = ("", "", None) if told.status else configuration(told.output)
    if config is None or config.get("master_type") in ("disable", "func"):
        return GuestMinion()
    folder = config.get("pki_dir") or DEFAULT_PKI
    if folder != DEFAULT_PKI:
        key = _public_key(channel, folder)
    found = []
    if wanted := ports(config, publish_port):
        tried = channel.run(
            attempt([(one.master, one.port) for one in wanted]),
            timeout=COMMAND_TIMEOUT_S + CONNECT_TIMEOUT_S,
        )
        found = heard(tried.output, wanted)
    return GuestMinion(minion_id, key, tuple(found))


def configuration(text: str) -> tuple[str, str, dict[str, Any] | None]:
    """
    Return the id that a minion goes by, its public key where that is by default, and its
    configuration.

    :param text: What :data:`READ_CONFIG` printed.
    :return: Empty texts where they are not known; None where no configuration is.
    """
    head, *files = text.split(f"{_MARK}file\n")
    remembered, _, key = head.partition(f"{_MARK}key\n")
    if not files:
        return "", "", None
    config: dict[str, Any] = {}
    for file in files:
        config |= salt_yaml.load(file) or {}
    name = "" if config.get("id_function") else remembered.strip()
    name, domain = str(config.get("id") or name), str(config.get("append_domain") or "")
    if name and domain and not name.endswith(f".{domain}"):
        name = f"{name}.{domain}"
    return (name if is_minion_id(name) else ""), _key(key), config


def _public_key(channel: Channel, folder: Any) -> str:
    """Return the public key in a folder; empty where there is none."""
    if not isinstance(folder, str) or not folder.startswith("/"):
        return ""
    path = shlex.quote(f"{folder}/minion.pub")
    told = channel.run(f'head -c 8192 "${{KVM_CLONE_ROOT-}}"{path}', timeout=COMMAND_TIMEOUT_S)
    return "" if told.status else _key(told.output)


def _key(text: str) -> str:
    key = "\n".join(text.strip().splitlines())
    return key if is_public_key(key) else ""


def ports(config: dict[str, Any], publish_port: int) -> list[PortCheck]:
    """
    Return what a minion connects to.

    :param config: Its configuration.
    :param publish_port: See :func:`ask`.
    """
    named = config.get("master") or DEFAULT_MASTER
    found = []
    for one in (named if isinstance(named, list) else [named])[:MOST_MASTERS]:
        master, port = _parted(str(one), config.get("master_port"))
        for key, number in ("master_port", port), ("publish_port", config.get("publish_port")):
            chosen = number or (publish_port if key == "publish_port" else DEFAULT_MASTER_PORT)
            if master and re.fullmatch(r"[0-9]{1,5}", str(chosen)) and 0 < int(chosen) < 65536:
                found.append(PortCheck(master, key, int(chosen), ""))
    return found


def _parted(written: str, port: Any) -> tuple[str, Any]:
    """Return host and port of a master, which may be written as one; no host if it is none."""
    parts = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", written)
    host, given = (parts[1].strip("[]"), parts[2]) if parts else (written, None)
    return (host if re.fullmatch(r"[A-Za-z0-9_.:%-]{1,253}", host) else ""), given or port


def attempt(targets: list[tuple[str, int]]) -> str:
    """Return the command that tries to connect to each host and port."""
    words = shlex.join(f"{host}/{port}" for host, port in targets)
    program = f"python_program={shlex.quote(_PYTHON)}\nset -- {words}\n{_TRY}"
    return program.replace("LIMIT", str(CONNECT_TIMEOUT_S))


def heard(output: str, wanted: list[PortCheck]) -> list[PortCheck]:
    """
    Return what the guest said of each port; what it does not say so is left out.

    :param output: What the command of :func:`attempt` printed.
    """
    said = {}
    for line in output.splitlines():
        words = line.split()
        if line.startswith(f"{_MARK}port ") and len(words) == 4:
            said[words[2]] = "" if words[3] == "reached" else words[3]
    found = []
    for one in wanted:
        fault = said.get(f"{one.master}/{one.port}")
        fault = "ETIMEDOUT" if fault in ("EAGAIN", "EWOULDBLOCK") else fault
        if fault == "" or fault in FAULTS:
            found.append(PortCheck(one.master, one.key, one.port, fault))
    return found
