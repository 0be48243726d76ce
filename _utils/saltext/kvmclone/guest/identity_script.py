"""
Write the shell script that gives a guest an identity of its own.

One script and one round trip, since under emulation every process costs 20 ms and every command
of a channel more; hence builtins wherever they suffice. It runs on dash, bash and busybox. Each
step prints ``kvm-clone: done NAME``, ``skipped NAME why`` or ``failed NAME why``, and the
script ends with ``kvm-clone: end``.

Files that exist are written in place, so that owner, mode and SELinux label stay.
``KVM_CLONE_ROOT`` is a folder that takes the place of ``/``, for tests.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable

from saltext.kvmclone.guest import identity_cloud_init_script, identity_network_script
from saltext.kvmclone.guest.hostkeys import HostKey

MARK = "kvm-clone: "

#: Steps that leave something of the base in place if they are skipped.
REMAINS = ("ssh_other_keys", "salt_other_identity", "network_other_cards", "dhcp_same_client") + (
    "cloud_init_attached",
    "cloud_init_cmdline",
)

#: Steps whose reason for being skipped is a warning as it is.
TOLD = ("cloud_init_seed", "cloud_init_unused")

#: What the steps are made of, for :mod:`.base_cleaning_script` too.
FUNCTIONS = r"""
set -u
umask 022
R=${KVM_CLONE_ROOT-}
say() { printf 'kvm-clone: %s\n' "$*"; }
done_() { say "done $*"; }
skip() { say "skipped $*"; }
fail() { say "failed $*"; }

# put FILE TEXT
put() {
    if [ -e "$1" ]; then printf '%s\n' "$2" >"$1"; return; fi
    printf '%s\n' "$2" >"$1" || return
    if command -v restorecon >/dev/null; then restorecon "$1"; fi
}

# any PATH…: whether one of them is there
any() {
    for path; do
        if [ -e "$path" ] || [ -L "$path" ]; then return 0; fi
    done
    return 1
}

# drop PATH…: no process where there is nothing to remove
drop() { if any "$@"; then rm -rf -- "$@"; fi; }

# clear STEP WHY-NOT PATH…
clear() {
    step=$1 why=$2
    shift 2
    if ! any "$@"; then skip "$step" "$why"
    elif rm -rf -- "$@"; then done_ "$step"
    else fail "$step" "the files cannot be removed"; fi
}

systemd() { [ -d "$R/run/systemd/system" ]; }

machine_id() {
    own=$R/etc/machine-id dbus=$R/var/lib/dbus/machine-id
    if [ ! -e "$own" ]; then skip machine_id "the guest has no /etc/machine-id"
    elif put "$own" "$MACHINE_ID"; then done_ machine_id
    else fail machine_id "/etc/machine-id cannot be written"; fi
    # systemd-machine-id-setup would copy an old one back over the new.
    if [ -L "$dbus" ]; then skip dbus_machine_id "it is a link"
    elif [ ! -e "$dbus" ]; then skip dbus_machine_id "the guest has none"
    elif put "$dbus" "$MACHINE_ID"; then done_ dbus_machine_id
    else fail dbus_machine_id "/var/lib/dbus/machine-id cannot be written"; fi
}

# Before either file is touched; and /etc/hosts comes first, so that a reset that was
# interrupted in between still finds the old name.
old_name() {
    OLD=
    if [ -e "$R/etc/hostname" ]; then read -r OLD <"$R/etc/hostname" || :; fi
    if [ -z "$OLD" ]; then read -r OLD <"$R/proc/sys/kernel/hostname" || :; fi
}

host_name() {
    if put "$R/etc/hostname" "$NAME" && printf '%s' "$NAME" >"$R/proc/sys/kernel/hostname"
    then done_ hostname
    else fail hostname "it cannot be set"; fi
}

machine_info() {
    file=$R/etc/machine-info
    if [ ! -e "$file" ] || ! grep -q '^PRETTY_HOSTNAME=' "$file"; then
        skip machine_info "no /etc/machine-info names the base"
    elif sed -i '/^PRETTY_HOSTNAME=/d' "$file"; then done_ machine_info
    else fail machine_info "/etc/machine-info cannot be written"; fi
}

hosts() {
    file=$R/etc/hosts text= known= was=${OLD%%.*}
    if [ ! -e "$file" ]; then skip hosts "the guest has no /etc/hosts"; return; fi
    case $was in localhost|'') was=' ' ;; esac
    set -f
    while IFS= read -r line || [ -n "$line" ]; do
        changed= words=
        case $line in
        '#'*) ;;
        *)
            for word in $line; do
                case $word in
                "$was")
                    word=$SHORT changed=1
                    # The first name of a line is the full one, for `hostname -f`.
                    case " $words " in
                    *" $NAME "*) ;;
                    *) if [ "$SHORT" != "$NAME" ]; then word="$NAME $SHORT"; fi ;;
                    esac ;;
                "$was".*)
                    case $NAME in *.*) word=$NAME ;; *) word=$NAME.${word#*.} ;; esac
                    changed=1 ;;
                esac
                case "$word " in "$NAME "*) known=1 ;; esac
                words="$words${words:+ }$word"
            done ;;
        esac
        if [ -n "$changed" ]; then line=$words; fi
        text="$text$line
"
    done <"$file"
    set +f
    if [ -z "$known" ]; then
        text="${text}127.0.1.1 $NAME"
        if [ "$SHORT" != "$NAME" ]; then text="$text $SHORT"; fi
        text="$text
"
    fi
    if printf '%s' "$text" >"$file"; then done_ hosts
    else fail hosts "/etc/hosts cannot be written"; fi
}

# host_key KIND FILE
host_key() {
    eval "private=\$PRIVATE_$1 public=\$PUBLIC_$1"
    umask 077
    put "$2" "$private"; bad=$?
    umask 022
    if [ "$bad" = 0 ] && put "$2.pub" "$public"; then say "key $1"; return; fi
    fail ssh_host_keys "$2 cannot be written"; return 1
}

ssh_host_keys() {
    folder=$R/etc/ssh
    if any "$R"/etc/dropbear/dropbear_*_host_key; then
        skip ssh_other_keys "the host keys of its dropbear"
    fi
    if [ ! -d "$folder" ] || ! any "$folder"/ssh_host_*_key "$R"/usr/*bin/sshd \
        "$R"/usr/local/*bin/sshd; then
        skip ssh_host_keys "the guest has no ssh server"; return
    fi
    for kind in ed25519 ecdsa rsa; do
        file=$folder/ssh_host_${kind}_key
        if [ ! -e "$file" ] && [ "$kind" != ed25519 ]; then continue; fi
        host_key "$kind" "$file" || return
    done
    # Nobody makes DSA keys any more, and certificates vouch for the keys of the base.
    drop "$folder"/ssh_host_dsa_key "$folder"/ssh_host_dsa_key.pub "$folder"/ssh_host_*-cert.pub
    # Keys that sshd is told to take from elsewhere.
    for file in $(grep -hisE '^[[:space:]]*HostKey[[:space:]]' "$folder/sshd_config" \
        "$folder"/sshd_config.d/*.conf); do
        case $file in
        [Hh][Oo][Ss][Tt][Kk][Ee][Yy] | /etc/ssh/ssh_host_*_key) continue ;;
        esac
        if [ ! -e "$R$file" ]; then continue; fi
        type=
        if [ -r "$R$file.pub" ]; then read -r type _ <"$R$file.pub"; fi
        case $type in
        ssh-ed25519) host_key ed25519 "$R$file" || return ;;
        ecdsa-*) host_key ecdsa "$R$file" || return ;;
        ssh-rsa) host_key rsa "$R$file" || return ;;
        *) skip ssh_other_keys "the host key $file, whose kind no .pub file beside it tells" ;;
        esac
    done
    done_ ssh_host_keys
    sshd_reload
}

sshd_reload() {
    for file in "$R/run/sshd.pid" "$R/var/run/sshd.pid"; do
        pid= comm=
        if [ -r "$file" ]; then read -r pid <"$file"; fi
        if [ -n "$pid" ] && [ -r "$R/proc/$pid/comm" ]; then read -r comm <"$R/proc/$pid/comm"; fi
        if [ "$comm" = sshd ] && kill -HUP "$pid"; then done_ sshd_reload; return; fi
    done
    if ! systemd; then skip sshd_reload "sshd does not run"; return; fi
    # An sshd that is just starting may have read the old keys: the reload waits for it.
    for unit in ssh sshd; do
        for folder in etc lib usr/lib; do
            if [ -e "$R/$folder/systemd/system/$unit.service" ]; then
                systemctl --no-block try-reload-or-restart "$unit.service"
                done_ sshd_reload; return
            fi
        done
    done
    skip sshd_reload "sshd does not run"
}

salt_identity() {
    unit=
    for folder in etc lib usr/lib; do
        if [ -e "$R/$folder/systemd/system/salt-minion.service" ]; then unit=1; fi
    done
    if [ -z "$unit" ] && [ ! -e "$R/etc/salt" ] && [ ! -e "$R/etc/init.d/salt-minion" ]; then
        skip salt_identity "the guest has no Salt"; return
    fi
    # Also cancels a start that is still queued in a booting guest, whose systemd is slow
    # to answer: so it is asked only where the minion runs or will.
    if [ -n "$unit" ] && systemd; then
        if any "$R"/etc/systemd/system/*.wants/salt-minion.service \
            "$R"/usr/lib/systemd/system/*.wants/salt-minion.service \
            "$R"/lib/systemd/system/*.wants/salt-minion.service \
            "$R"/sys/fs/cgroup/system.slice/salt-minion.service \
            "$R"/sys/fs/cgroup/systemd/system.slice/salt-minion.service; then
            systemctl stop salt-minion.service
        fi
    elif [ -x "$R/etc/init.d/salt-minion" ]; then "$R/etc/init.d/salt-minion" stop
    fi >/dev/null 2>&1
    pki=$(setting pki_dir) cache=$(setting cachedir)
    set -- "$R"/etc/salt/minion_id "$R"/var/cache/salt/minion/*
    for file in "$R"/etc/salt/pki/minion/* "$R${pki:-/nowhere}"/*; do
        # A master's signing key is configuration: it does not say who the minion is.
        case $file in *sign.pub) ;; *) set -- "$@" "$file" ;; esac
    done
    if [ -n "$cache" ]; then  # a folder of the operator's: only what is surely the minion's
        set -- "$@" "$R$cache"/grains.cache.p "$R$cache"/proc "$R$cache"/minion_jobs
    fi
    drop "$@" || { fail salt_identity "the files cannot be removed"; return; }
    for file in $(grep -ls '^id:' "$R"/etc/salt/minion "$R"/etc/salt/minion.d/*.conf); do
        sed -i 's/^id:/# kvm_clone: id:/' "$file" ||
            { fail salt_identity "$file cannot be written"; return; }
    done
    done_ salt_identity
    if any "$R"/etc/salt/pki/master/master.pem; then
        skip salt_other_identity "the keys of a Salt master in /etc/salt/pki/master"
    fi
}

# setting NAME: what the minion's configuration sets it to; the last file wins.
setting() {
    sed -n "s/^$1:[[:space:]]*//p" "$R"/etc/salt/minion "$R"/etc/salt/minion.d/*.conf 2>/dev/null |
        tail -n 1 | tr -d "\"'" | sed -n 's,^\(/[^[:space:]#]*\).*,\1,p'
}

# Names by which a storage server knows its clients: two machines of one name spoil a disk.
storage_names() {
    iscsi=$R/etc/iscsi/initiatorname.iscsi nvme=$R/etc/nvme/hostnqn found= bad=
    if [ -e "$iscsi" ] && grep -q '^InitiatorName=.*:' "$iscsi"; then
        found=1
        sed -i "s/^\(InitiatorName=.*:\).*/\1${UUID##*-}/" "$iscsi" || bad=$iscsi
    fi
    if [ -e "$nvme" ]; then
        found=1
        put "$nvme" "nqn.2014-08.org.nvmexpress:uuid:$UUID" || bad=$nvme
        put "$R/etc/nvme/hostid" "$UUID" || bad=$R/etc/nvme/hostid
    fi
    if [ -z "$found" ]; then skip storage_names "it has no iSCSI or NVMe name"
    elif [ -n "$bad" ]; then fail storage_names "$bad cannot be written"
    else done_ storage_names; fi
}

random_seed() {
    if [ -w "$R/dev/urandom" ]; then printf '%s' "$ENTROPY" >"$R/dev/urandom"; fi
    clear random_seed "the guest keeps none" \
        "$R"/var/lib/systemd/random-seed "$R"/var/lib/urandom/random-seed \
        "$R"/var/lib/random-seed "$R"/var/lib/seedrng/* "$R"/boot/loader/random-seed \
        "$R"/boot/efi/loader/random-seed "$R"/efi/loader/random-seed
}

# journald files its lines under the machine-id that it found when it started, and
# journalctl shows those of the present one.
journal() {
    if ! systemd || ! any "$R"/run/log/journal/* "$R"/var/log/journal/*; then
        skip journal "systemd keeps none"
    elif systemctl --no-block restart systemd-journald.service; then done_ journal
    else skip journal "systemd-journald cannot be restarted"; fi
}

# A run that its caller lost (libvirtd died) goes on, with keys that nobody has on record.
only_this_run() {
    last=$R/run/kvm-clone-reset
    if read -r pid 2>/dev/null <"$last" && read -r word 2>/dev/null <"$R/proc/$pid/comm"; then
        case $word in sh|dash|bash|busybox|ash) kill -9 "$pid" 2>/dev/null ;; esac
    fi
    if [ -d "$R/run" ]; then echo $$ >"$last"; fi
}

run_is_over() { drop "$R/run/kvm-clone-reset"; }
"""

#: The steps that the forks of a warmed base leave out: the first two were taken when it was warmed,
#: and the last waits until they have their network. These take the longest of all.
NOT_IN_A_FORK = ("salt_identity", "random_seed", "journal")

MAIN = r"""
main() {
    only_this_run
    cloud_init
    machine_id
    old_name
    hosts
    host_name
    machine_info
    ssh_host_keys
    salt_identity
    dhcp_state
    network_cards
    storage_names
    random_seed
    journal
    run_is_over
    say end
}
main </dev/null
"""


def text(
    hostname: str,
    machine_id: str,
    keys: Iterable[HostKey],
    entropy: str,
    uuid: str,
    seed: str = "none",
    taken: Collection[str] = (),
) -> str:
    """
    Return the whole script.

    It holds private keys, so it must travel as input, never in a command line.

    :param hostname: The name to give.
    :param machine_id: 32 hexadecimal digits.
    :param keys: Host keys; those of kinds that the guest has are put in place.
    :param entropy: Random text for the guest's entropy pool, which would otherwise start alike in
        every clone of a base.
    :param uuid: A random uuid, for names by which storage servers know the guest.
    :param seed: What cloud-init uses from now on: ``none``, ``keep`` or ``own``.
    :param taken: Steps that this guest needs no more.
    """
    main = MAIN
    for step in taken:
        main = main.replace(f"    {step}\n", "")
    values = {
        "MACHINE_ID": machine_id,
        "NAME": hostname,
        "SHORT": hostname.partition(".")[0],
        "ENTROPY": entropy,
        "UUID": uuid,
        "SEED": seed,
    }
    values |= key_values(keys, hostname)
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return (
        settings
        + identity_cloud_init_script.FUNCTIONS
        + identity_network_script.FUNCTIONS
        + FUNCTIONS
        + main
    )


def key_values(keys: Iterable[HostKey], hostname: str) -> dict[str, str]:
    """
    Return the variables by which the step ``ssh_host_keys`` knows the new keys.

    :param hostname: What the comments of the public halves name.
    """
    values = {}
    for key in keys:
        values[f"PRIVATE_{key.kind}"] = key.private.rstrip("\n")
        values[f"PUBLIC_{key.kind}"] = f"{key.public.line} root@{hostname}"
    return values
