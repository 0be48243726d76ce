"""The guests' images, built once and kept in the cache: kernel, initramfs, Debian disk.

Guests boot a kernel given to them directly, so no boot loader and no partition table is needed,
and neither mounting nor loop devices: ``mke2fs -d`` fills the file system from a folder.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.common import CACHE, PASSWORD, LabError, run, step, write

RECIPES = Path(__file__).resolve().parent / "guest"
SUITE = "bookworm"
SALT = "salt>=3008,<3009"
DISK_SIZE = "3G"

#: Drivers that the guests' initramfs loads; other file systems and packet sockets are built in.
MODULES = (
    ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon")
    + ("virtio_scsi", "sd_mod", "sr_mod", "isofs", "autofs4", "qemu_fw_cfg")
    + ("button", "evdev")
)
DEBIAN_PACKAGES = (
    "systemd-sysv",
    "openssh-server",
    "qemu-guest-agent",
    "python3-minimal",
    "python3-venv",
) + ("iproute2", "dbus", "udev", "ca-certificates", "sudo", "procps")
CLOUD_PACKAGES = ("cloud-init", "cloud-guest-utils", "netplan.io")


@dataclass(frozen=True)
class Boot:
    """What a domain needs for a direct kernel boot."""

    kernel: Path
    initrd: Path


def boot_files() -> Boot:
    """Return Debian's cloud kernel, and the initramfs with the tiny system in it."""
    folder = cached("boot", ["init", "udhcpc.script"], repr(MODULES), _build_boot)
    return Boot(folder / "vmlinuz", folder / "initrd")


def debian(fmt: str = "qcow2") -> Path:
    """Return a Debian disk with sshd, the guest agent and an installed, idle Salt minion.

    :param fmt: ``qcow2`` or ``raw``.
    """
    folder = cached(
        "debian",
        ["customize.sh"],
        repr((SUITE, SALT, DISK_SIZE, PASSWORD, DEBIAN_PACKAGES)),
        _build_debian,
    )
    return folder / f"disk.{fmt}"


def cloud() -> Path:
    """Return the Debian disk with cloud-init, which configures its network, and netplan."""
    plain = debian("raw")
    folder = cached(
        "cloudinit",
        ["cloud.sh"],
        repr((plain.parent.name, CLOUD_PACKAGES)),
        lambda result: _build_cloud(plain, result),
    )
    return folder / "disk.qcow2"


def equipped(*packages: str) -> Path:
    """Return the raw Debian disk with more packages of Debian; nothing of them is started."""
    plain = debian("raw")
    folder = cached(
        f"with-{packages[0]}",
        [],
        repr((plain.parent.name, packages)),
        lambda result: changed(
            plain, result / "disk.raw", "raw", lambda root: install(root, *packages)
        ),
    )
    return folder / "disk.raw"


def cached(name: str, files: list[str], extra: str, build: Callable[[Path], None]) -> Path:
    """Return the folder that ``build`` filled by exactly this recipe, built now if it is not there.

    Folders of the same name from older recipes are removed then.

    :param name: What is built.
    :param files: Files of the recipe.
    :param extra: What else the recipe depends on.
    :param build: Fills the folder that it is called with; its source is part of the recipe.
    """
    digest = hashlib.sha256((extra + inspect.getsource(build)).encode())
    for file in files:
        digest.update((RECIPES / file).read_bytes())
    images = CACHE / "images"
    folder = images / f"{name}-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    images.mkdir(parents=True, exist_ok=True)
    # Built elsewhere and renamed when complete, so that no folder is ever incomplete.
    with (
        tempfile.TemporaryDirectory(prefix=f".{name}-", dir=images) as scratch,
        step(f"building the guest image '{name}' (kept in {images})"),
    ):
        result = Path(scratch) / "result"
        result.mkdir()
        build(result)
        for old in images.glob(f"{name}-*"):
            shutil.rmtree(old)
        result.rename(folder)
    return folder


# --- kernel and initramfs -----------------------------------------------------------------------


def _build_boot(result: Path) -> None:
    work = result.parent
    with step("  fetching and unpacking Debian's cloud kernel"):
        package = _fetch_kernel(work)
        run(["dpkg-deb", "-x", package, work / "kernel"])
    shutil.copy(next((work / "kernel/boot").glob("vmlinuz-*")), result / "vmlinuz")
    modules = next((work / "kernel/lib/modules").iterdir())
    root = work / "initrd"
    busybox = Path("/bin/busybox")
    _install(busybox, root / "bin/busybox", 0o755)
    _install(RECIPES / "init", root / "init", 0o755)
    _install(RECIPES / "udhcpc.script", root / "etc/udhcpc.script", 0o755)
    write(root / "etc/modules", "\n".join(MODULES) + "\n")
    _install_modules(modules, root / "lib/modules" / modules.name)
    # Not compressed: under emulation unpacking costs more than reading.
    names = "\0".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--null", "--create", "--format=newc", "--quiet", "--owner=0:0"],
        input=names.encode(),
        stdout=subprocess.PIPE,
        cwd=root,
        check=True,
    ).stdout
    (result / "initrd").write_bytes(archive)


def _fetch_kernel(work: Path) -> Path:
    download = work / "deb"
    download.mkdir()

    def fetch() -> None:
        depends = run(["apt-cache", "depends", "--important", "linux-image-cloud-amd64"])
        image = next(
            line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line
        )
        run(["apt-get", "download", image], cwd=download)

    try:
        fetch()
    except (LabError, StopIteration):  # no package lists, or outdated ones
        run(["apt-get", "update"])
        fetch()
    return next(download.glob("*.deb"))


def _install_modules(source: Path, target: Path) -> None:
    """Copy the modules that we load and all that they need, then index them for modprobe."""
    version, base = source.name, source.parents[2]
    run(["depmod", "-b", base, version])  # the package contains no index
    for module in MODULES:
        shown = run(
            ["modprobe", "--dirname", base, "--set-version", version]
            + ["--show-depends", "--ignore-install", module]
        )
        for line in shown.splitlines():
            if line.startswith("insmod "):
                file = Path(line.split()[1])
                _install(file, target / file.relative_to(source), 0o644)
    for index in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        _install(source / index, target / index, 0o644)
    run(["depmod", "-b", target.parents[2], version])


def _install(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(mode)


# --- the Debian disk ----------------------------------------------------------------------------


def _build_debian(result: Path) -> None:
    work = result.parent
    root = work / "root"
    wheels = work / "wheels"
    with step("  debootstrap, and Salt's wheels beside it"):
        building = subprocess.Popen(
            [str(CACHE / "venv/bin/python"), "-m", "pip", "wheel", "--quiet", "--no-input"]
            + ["--wheel-dir", str(wheels), SALT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            include = ",".join(DEBIAN_PACKAGES)
            run(
                ["debootstrap", "--variant=minbase", f"--include={include}", SUITE, root]
                + _mirror()
            )
        except BaseException:
            building.kill()
            building.wait()
            raise
        _, errors = building.communicate()
        if building.returncode:
            raise LabError("pip wheel failed:\n" + "\n".join(errors.splitlines()[-25:]))
    with step("  installing Salt into it and trimming its boot"):
        shutil.move(wheels, root / "wheels")
        _install(RECIPES / "customize.sh", root / "customize.sh", 0o755)
        run(
            ["chroot", root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
            + ["HOME=/root", "LC_ALL=C.UTF-8", f"PASSWORD={PASSWORD}", "/customize.sh"]
        )
        shutil.rmtree(root / "wheels")
        (root / "customize.sh").unlink()
    with step("  making the disks"):
        raw = result / "disk.raw"
        # Everything is laid out now: a lazily made file system would be finished by each clone
        # at its first boot, at the cost of its overlay.
        run(
            ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
            + ["-L", "root", "-d", root, raw, DISK_SIZE]
        )
        run(["qemu-img", "convert", "-O", "qcow2", raw, result / "disk.qcow2"])


def _build_cloud(plain: Path, result: Path) -> None:
    def change(root: Path) -> None:
        install(root, *CLOUD_PACKAGES)
        _install(RECIPES / "cloud.sh", root / "cloud.sh", 0o755)
        run(
            ["chroot", root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
            + ["/cloud.sh"]
        )
        (root / "cloud.sh").unlink()

    changed(plain, result / "disk.qcow2", "qcow2", change)


def _mirror() -> list[str]:
    """Return the mirror of this machine's apt; empty (debootstrap's own) if it names none."""
    shown = run(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI) $(CREATED_BY)"])
    for line in shown.splitlines():
        codename, uri, kind = line.split()
        if codename == SUITE and kind == "Packages":
            return [uri]
    return []


# --- copies for a lab ---------------------------------------------------------------------------


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file; the copy takes no more space than its source, shared if possible."""
    run(["cp", "--reflink=auto", "--sparse=always", source, target])


def changed(source: Path, target: Path, fmt: str, change: Callable[[Path], None]) -> None:
    """Copy a raw disk and change the copy.

    :param fmt: The copy's format.
    :param change: Called with the folder at which the copy's file system is mounted.
    """
    raw = target.with_name(f".{target.name}.raw")
    root = target.with_name(f".{target.name}.root")
    copy_sparse(source, raw)
    root.mkdir()
    try:
        run(["mount", "-o", "loop", raw, root])
        try:
            change(root)
            # A QEMU that is started at this moment inherits a copy of this mount and keeps it when
            # ours is gone; the file must be complete all the same.
            run(["sync", "--file-system", root])
        finally:
            run(["umount", root])
        run(["qemu-img", "convert", "-f", "raw", "-O", fmt, raw, target])
    finally:
        root.rmdir()
        raw.unlink()


def install(root: Path, *packages: str) -> None:
    """Install packages of Debian into a root that :func:`changed` has mounted.

    This machine's apt chooses and fetches them, since it knows a mirror; the root's dpkg unpacks.
    """
    archives = root / "var/cache/apt/archives"
    command: list[object] = ["apt-get", "install", "--quiet", "--yes", "--download-only"]
    command += ["--no-install-recommends", "-o", f"Dir::Cache::archives={archives}"]
    command += ["-o", f"Dir::State::status={root}/var/lib/dpkg/status", *packages]
    try:
        run(command)
    except LabError:  # no package lists, or outdated ones
        run(["apt-get", "update"])
        run(command)
    run(
        ["chroot", root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        + ["HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        + ["sh", "-c", "dpkg --install /var/cache/apt/archives/*.deb"]
    )
    for archive in archives.glob("*.deb"):
        archive.unlink()


def make_disk(path: Path, fmt: str, size: str, backing: Path | None = None) -> None:
    """Make an empty disk, or an overlay over ``backing`` (a qcow2).

    :param size: For qemu-img, such as ``64M``; an overlay has that of its backing file.
    """
    command: list[object] = ["qemu-img", "create", "-q", "-f", fmt]
    if backing is not None:
        command += ["-b", backing, "-F", "qcow2", path]
    else:
        command += [path, size]
    run(command)
