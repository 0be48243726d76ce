"""
Build the archive that carries an enrolment into the guest, and the shell text that installs it.

Everything travels as one tar archive on the input of one command: one round trip, and no secret
in a command line or an environment. The folder it is unpacked in is removed by the same shell,
however it ends. ``KVM_CLONE_ROOT`` is a folder that takes the place of ``/`` for the minion's
files, for tests.
"""

from __future__ import annotations

import io
import math
import posixpath
import shlex
import tarfile
from collections.abc import Iterable, Mapping

from saltext.kvmclone.guest import preload_script

MARK = "kvm-clone: "

#: Bytes at the end of the scripts' output that are returned.
MOST = 16384

#: The file of the archive that the shell sources which removes the folder afterwards.
RUN = ".run"

#: Our configuration if the base's own stays: a minion reads this file after all others.
DROP_IN = "zzz-kvm-clone.conf"

#: First line of an /etc/salt/grains that is ours alone.
GRAINS_MARK = "# Written by kvm_clone."

_OPEN = r"""
say() { printf 'kvm-clone: %s\n' "$*"; }
umask 077
if [ -L "$d" ]; then say "refused it is a symbolic link"; exit 1; fi
if [ -e "$d" ]; then
    owner=$(stat -c %u "$d") || exit 1
    if [ ! -d "$d" ] || { [ "$owner" != 0 ] && [ "$owner" != "${SUDO_UID:-$(id -u)}" ]; }; then
        say "refused it exists and belongs to uid $owner"; exit 1
    fi
    rm -rf -- "$d" || exit 1
fi
mkdir -m 700 "$d" || { say "refused it cannot be made"; exit 1; }
child=
# Deaf from then on, and `rm` too: systemd sends its signal twice to everything in a service
# that it stops.
trap 'trap "" HUP INT TERM; rm -rf -- "$d"' EXIT
for signal in HUP INT TERM; do
    trap 'trap "" HUP INT TERM; [ -z "$child" ] || stop; exit 143' "$signal"
done
# The stage with all that it started.
stop() { kill -- "-$child" 2>/dev/null || kill "$child" 2>/dev/null; }
# Whoever waits for us may be gone before we are done, and sshd tells nobody. What is in the
# folder shall not stay for ever because a script hangs.
self=$$ left=LIMIT
{
    while [ "$left" -gt 0 ] && kill -0 "$self"; do sleep 2; left=$((left - 2)); done
    kill "$self"
} </dev/null >/dev/null 2>&1 &
tar -xf - -C "$d" || { say "failed unpack $?"; exit 1; }
"""

_RUN_HEAD = r"""
HOME=${HOME:-/root}; export HOME
cd "$HOME" 2>/dev/null || cd /
log=$d/.output
: >"$log"
group=
if command -v setsid >/dev/null; then group=setsid; fi

# stage NAME FILE: the output goes to a file, since a daemon that is started here would
# hold the channel's stream open; in the background, so that a trap is not kept waiting.
stage() {
    $group sh "$2" >>"$log" 2>&1 </dev/null &
    child=$!
    wait "$child"
    status=$?
    if [ "$status" -gt 128 ]; then stop; fi
    child=
    if [ "$status" != 0 ]; then say "failed $1 $status"; fi
    return "$status"
}

# finish STATUS: what follows this line is the scripts' output and no word of ours.
finish() { say output; tail -n 40 "$log" | tail -c MOST; exit "$1"; }
""".replace("MOST", str(MOST))

_INSTALL = r"""
umask 022
R=${KVM_CLONE_ROOT-}
c=$R/etc/salt p=$R/etc/salt/pki/minion
mkdir -p "$c/minion.d" "$p" && chmod 700 "$p" || { say "failed install $?"; finish 1; }
umask 077
rm -f "$p/minion.pem" "$p/minion.pub" "$p/minion_master.pub"
{
    cat "$d/minion.pem" >"$p/minion.pem" && chmod 400 "$p/minion.pem" &&
    cat "$d/minion" >"$c/minion.d/DROP_IN" && chmod 640 "$c/minion.d/DROP_IN" &&
    # The base may have had its minion look for its keys elsewhere.
    if grep -qs '^pki_dir:' "$c/minion" "$c/minion.d/"*.conf; then
        printf 'pki_dir: %s\n' "$p" >>"$c/minion.d/DROP_IN"
    fi &&
    umask 022 &&
    cat "$d/minion.pub" >"$p/minion.pub" &&
    cat "$d/minion_id" >"$c/minion_id" &&
    { [ ! -e "$d/grains" ] || cat "$d/grains" >"$c/grains"; } &&
    { [ ! -e "$d/master_sign.pub" ] || cat "$d/master_sign.pub" >"$p/master_sign.pub"; }
} 2>>"$log" || { say "failed install $?"; finish 1; }

unit=
for folder in etc lib usr/lib; do
    if [ -e "$R/$folder/systemd/system/salt-minion.service" ]; then unit=1; fi
done
wanted=$R/etc/systemd/system/multi-user.target.wants/salt-minion.service
if [ -n "$unit" ] && [ -d "$R/run/systemd/system" ]; then
    [ -e "$wanted" ] || systemctl --quiet --no-reload enable salt-minion.service >>"$log" 2>&1
    # Not waited for: the minion takes seconds to come up, and its answer is what counts.
    if [ -n "$untouched" ] && release "$p/minion.pem" 2>>"$log"; then say "started preloaded"
    else systemctl --no-block restart salt-minion.service >>"$log" 2>&1 && say "started systemd"
    fi
elif [ -x "$R/etc/init.d/salt-minion" ]; then
    "$R/etc/init.d/salt-minion" restart >>"$log" 2>&1 </dev/null && say "started init"
else
    salt-minion -d >>"$log" 2>&1 </dev/null && say "started daemon"
fi || { say "failed start $?"; finish 1; }
"""

#: Prints whether the guest has a minion, and the content of /etc/salt/grains.
PROBE = r"""
R=${KVM_CLONE_ROOT-} found=
for folder in etc lib usr/lib; do
    if [ -e "$R/$folder/systemd/system/salt-minion.service" ]; then found=1; fi
done
if [ -x "$R/etc/init.d/salt-minion" ] || command -v salt-minion >/dev/null; then found=1; fi
[ -n "$found" ] || exit 0
echo 'kvm-clone: minion'
if [ -s "$R/etc/salt/grains" ]; then cat "$R/etc/salt/grains"; fi
"""


def command(folder: str, timeout: float) -> str:
    """
    Return the command that unpacks its input into the folder and sources :data:`RUN`.

    :param timeout: Seconds after which it ends itself.
    """
    limited = _OPEN.replace("LIMIT", str(math.ceil(timeout)))
    return f'd={shlex.quote(folder)}\n{limited}. "$d/{RUN}"\n'


def run_deploy(preflight: int, inline: int, targets: Iterable[tuple[str, str, int]]) -> str:
    """
    Return the content of :data:`RUN` if a deploy script does the work.

    :param preflight: Number of commands before it (``.preflight-0`` …).
    :param inline: Number of commands after it; these may fail.
    :param targets: Extra files: name in the archive, path in the guest, mode.
    """
    lines = [_RUN_HEAD, preload_script.FUNCTIONS, 'unload >>"$log" 2>&1', *_placing(targets)]
    lines += [f'stage preflight-{i} "$d/.preflight-{i}" || finish 1' for i in range(preflight)]
    lines.append('stage deploy "$d/.deploy" || finish 1')
    lines += _ending(inline)
    return "\n".join(lines)


def run_install(preflight: int, inline: int, targets: Iterable[tuple[str, str, int]]) -> str:
    """
    Return the content of :data:`RUN` if the guest has a minion; see :func:`run_deploy`.

    A preloaded minion goes on as it is only where nothing was changed in the guest before.
    """
    targets = list(targets)
    untouched = "1" if not preflight and not targets else ""
    lines = [_RUN_HEAD, preload_script.FUNCTIONS, f"untouched={untouched}", *_placing(targets)]
    lines += [f'stage preflight-{i} "$d/.preflight-{i}" || finish 1' for i in range(preflight)]
    lines.append(_INSTALL.replace("DROP_IN", DROP_IN))
    lines += _ending(inline)
    return "\n".join(lines)


def _placing(targets: Iterable[tuple[str, str, int]]) -> list[str]:
    lines = []
    for source, path, mode in targets:
        q = shlex.quote(path)
        parent = shlex.quote(posixpath.dirname(path) or "/")
        lines.append(
            f'{{ ( umask 022; mkdir -p {parent} ) && cat "$d/{source}" >{q} && '
            f'chmod {mode:04o} {q}; }} 2>>"$log" || {{ say failed file {q}; finish 1; }}'
        )
    return lines


def _ending(inline: int) -> list[str]:
    return [
        *(f'stage inline-{i} "$d/.inline-{i}"' for i in range(inline)),
        "say end",
        "finish 0",
    ]


def archive(members: Mapping[str, tuple[bytes, int]]) -> bytes:
    """
    Return a tar archive that every tar unpacks without a warning.

    :param members: Name to content and mode.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = mode
            # In the past even if the guest's clock is wrong, but not implausibly old.
            info.mtime = 1_000_000_000
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
