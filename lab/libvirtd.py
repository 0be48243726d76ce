"""A libvirt daemon to work with: the one that runs already, or one that we start and stop.

Ours is stopped when the last running lab ends; a daemon that was there is never touched.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lab.common import (
    CACHE,
    LIBVIRT_URI,
    LabError,
    boot_id,
    process_start,
    read_json,
    run,
    say,
    wait_until,
    write_json,
)

QEMU = "/usr/bin/qemu-system-x86_64"
KVM = Path("/dev/kvm")
#: Marks the running daemon as ours, and holds what to put back when it is stopped.
MARKER = Path("/run/kvmclone-libvirtd.json")
LOCK = Path("/run/kvmclone-libvirtd.lock")
PIDFILE = Path("/run/libvirtd.pid")
LOGPIDFILE = Path("/run/virtlogd.pid")


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock on the daemon.

    Two labs that start at once must not start two daemons, nor stop each other's.
    """
    with LOCK.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def answers() -> bool:
    """Return whether a daemon answers on this machine."""
    done = subprocess.run(
        ["virsh", "-c", LIBVIRT_URI, "version", "--daemon"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def ensure() -> None:
    """Make sure that a daemon answers."""
    with _locked():
        if answers():
            if not read_json(MARKER) and _kvm_trap():
                say(f"warning: QEMU's user may not open {KVM}; libvirtd will be very slow")
            return
        _start()


def _start() -> None:
    # A daemon of ours that crashed left its marker: its note about /dev/kvm is still valid.
    put_back: dict[str, int] = read_json(MARKER).get("kvm", {})
    if _kvm_trap():
        # QEMU's user may not open a /dev/kvm that root can open. libvirt then probes QEMU anew at
        # every single call: defining a domain takes minutes. Debian's own owner and mode cure it.
        status = KVM.stat()
        put_back = {"mode": stat.S_IMODE(status.st_mode), "gid": status.st_gid}
        os.chown(KVM, -1, pwd.getpwnam("libvirt-qemu").pw_gid)
        KVM.chmod(0o660)
    pids: dict[str, int] = {}
    write_json(MARKER, {"pids": pids, "kvm": put_back})
    for daemon, pidfile in (("virtlogd", LOGPIDFILE), ("libvirtd", PIDFILE)):
        if process_start(_pid(pidfile)) is not None:
            continue
        run([daemon, "-d", "-p", pidfile])
        pid = wait_until(partial(_pid, pidfile), f"{daemon} to start", 10)
        pids[daemon] = pid
        write_json(MARKER, {"pids": pids, "kvm": put_back})
    wait_until(answers, "libvirtd to answer", 60, hint="see /var/log/libvirt/libvirtd.log")


def is_ours() -> bool:
    """Return whether a lab started the daemon that runs."""
    return bool(_ours())


def _ours() -> int:
    pid = int(read_json(MARKER).get("pids", {}).get("libvirtd", 0))
    return pid if pid and _is(pid, "libvirtd") else 0


def crash() -> None:
    """Kill our daemon and start it again, as a supervisor would.

    :raises LabError: The daemon that runs is not ours to kill.
    """
    with _locked():
        pid = _ours()
        if not pid:
            raise LabError("the libvirtd that runs here is not the lab's, so it is not killed")
        os.kill(pid, signal.SIGKILL)
        # Its last threads may still hold the pid file when the process itself counts as gone.
        wait_until(lambda: _gone(pid) and _free(PIDFILE), "libvirtd to end", 20)
        _start()


@contextmanager
def stopped() -> Iterator[None]:
    """Stop our daemon for the block; one that was started meanwhile is ours from then on.

    :raises LabError: The daemon that runs is not ours to stop.
    """
    with _locked():
        pid = _ours()
        if not pid:
            raise LabError("the libvirtd that runs here is not the lab's, so it is not stopped")
        try:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: _gone(pid) and _free(PIDFILE), "libvirtd to end", 20)
            yield
        finally:
            if not _is(_pid(PIDFILE), "libvirtd"):
                _start()
            marker = read_json(MARKER)
            marker["pids"]["libvirtd"] = _pid(PIDFILE)
            write_json(MARKER, marker)


def release(needed: Callable[[], bool]) -> None:
    """Stop the daemon if it is ours, and neither a lab nor a foreign domain needs it any more.

    :param needed: Returns whether a lab needs it.
    """
    with _locked():
        marker = read_json(MARKER)
        if not marker or needed():
            return
        if answers() and run(["virsh", "-c", LIBVIRT_URI, "list", "--name"]).strip():
            return  # somebody else's domain runs under it
        for daemon in ("libvirtd", "virtlogd"):
            pid = int(marker["pids"].get(daemon, 0))
            if pid and _is(pid, daemon):
                os.kill(pid, signal.SIGTERM)
                wait_until(partial(_gone, pid), f"{daemon} to end", 20)
        if marker["kvm"]:
            os.chown(KVM, -1, int(marker["kvm"]["gid"]))
            KVM.chmod(int(marker["kvm"]["mode"]))
        MARKER.unlink()


def _pid(pidfile: Path) -> int:
    try:
        return int(pidfile.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _gone(pid: int) -> bool:
    return process_start(pid) is None


def _free(pidfile: Path) -> bool:
    """Return whether no daemon holds its pid file any more; one that was stopped removes it."""
    try:
        with pidfile.open("r+b") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _is(pid: int, program: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == program
    except OSError:
        return False


def _kvm_trap() -> bool:
    """Return whether ``/dev/kvm`` works for root but not for the user that QEMU runs as."""
    try:
        descriptor = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return not _qemu_user_opens_kvm()


def _qemu_user_opens_kvm() -> bool:
    user = pwd.getpwnam("libvirt-qemu")
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    status = KVM.stat()
    if status.st_uid == user.pw_uid:
        need = stat.S_IRUSR | stat.S_IWUSR
    elif status.st_gid in groups:
        need = stat.S_IRGRP | stat.S_IWGRP
    else:
        need = stat.S_IROTH | stat.S_IWOTH
    return status.st_mode & need == need


def domain_type(kernel: Path, initrd: Path) -> str:
    """Return ``kvm`` if a guest really boots under it, otherwise ``qemu`` (slow, runs anywhere).

    That ``/dev/kvm`` can be opened proves little: under some hypervisors a guest never gets
    anywhere. So the tiny guest is booted once; the answer is kept until this machine boots again.
    """
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "qemu"
    memory = CACHE / "domain-type.json"
    known = read_json(memory)
    if known.get("boot_id") == boot_id():
        return str(known["type"])
    answer = "kvm" if _boots_under_kvm(kernel, initrd) else "qemu"
    write_json(memory, {"boot_id": boot_id(), "type": answer})
    return answer


def _boots_under_kvm(kernel: Path, initrd: Path) -> bool:
    command = [QEMU, "-accel", "kvm", "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-display", "none", "-serial", "stdio", "-kernel", str(kernel)]
    command += ["-initrd", str(initrd), "-append", "console=ttyS0 quiet tiny.nodhcp"]
    guest = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert guest.stdout is not None
    os.set_blocking(guest.stdout.fileno(), False)
    seen = b""
    deadline = time.monotonic() + 8
    try:
        while time.monotonic() < deadline and guest.poll() is None:
            seen += guest.stdout.read() or b""
            if b"TINY-UP" in seen:
                return True
            time.sleep(0.1)
        return False
    finally:
        guest.kill()
        guest.wait()


def require_root() -> None:
    """Refuse to go on without root, which the lab needs for networks and daemons.

    :raises LabError: This process is not root's.
    """
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes networks, starts daemons and builds images")
