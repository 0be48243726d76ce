#!/bin/sh
# Runs in the fresh Debian root: makes it a base machine such as an operator would keep.
#
# It carries an identity on purpose (machine-id, ssh host keys): a clone of it is a true duplicate
# until something resets that. The rest makes it boot fast, for it mostly runs under emulation.
set -eu

# --- identity ---
echo 5f3c7a1e9b2d4c6080a1b2c3d4e5f607 >/etc/machine-id
mkdir -p /var/lib/dbus
cp /etc/machine-id /var/lib/dbus/machine-id
echo debian-base >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 debian-base\n::1 localhost\n' >/etc/hosts
rm -f /etc/ssh/ssh_host_*
ssh-keygen -A >/dev/null

# --- users ---
# SHA-512 rather than Debian's yescrypt: a login must not take seconds under emulation.
useradd --create-home --shell /bin/bash lab
useradd --create-home --shell /bin/bash nopass
for user in root lab nopass; do
    usermod --password "$(openssl passwd -6 "$PASSWORD")" "$user"
done
echo 'lab ALL=(ALL:ALL) ALL' >/etc/sudoers.d/lab
echo 'nopass ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/nopass
chmod 440 /etc/sudoers.d/lab /etc/sudoers.d/nopass
cat >/etc/ssh/sshd_config.d/lab.conf <<'END'
PermitRootLogin yes
PasswordAuthentication yes
PrintMotd no
PrintLastLog no
END

# --- network ---
cat >/etc/systemd/network/80-dhcp.network <<'END'
[Match]
Name=e*

[Network]
DHCP=ipv4
IPv6AcceptRA=yes

[DHCPv4]
UseHostname=no
END
systemctl -q enable systemd-networkd.service
: >/etc/resolv.conf

# --- Salt, offline ---
python3 -m venv /opt/salt
/opt/salt/bin/pip install --quiet --no-index --find-links /wheels salt
/opt/salt/bin/pip uninstall --quiet --yes pip setuptools 2>/dev/null || true
ln -s /opt/salt/bin/salt-minion /opt/salt/bin/salt-call /usr/local/bin/
mkdir -p /etc/salt/pki/minion /etc/salt/minion.d /var/cache/salt /var/log/salt
chmod 700 /etc/salt/pki/minion
cat >/etc/systemd/system/salt-minion.service <<'END'
[Unit]
Description=The Salt Minion
After=network.target

[Service]
ExecStart=/usr/local/bin/salt-minion
KillMode=process
LimitNOFILE=8192
Restart=on-failure

[Install]
WantedBy=multi-user.target
END

# --- a quick boot ---
mkdir -p /etc/systemd/journald.conf.d /etc/systemd/system.conf.d
printf '[Journal]\nStorage=volatile\n' >/etc/systemd/journald.conf.d/lab.conf
printf '[Manager]\nDefaultTimeoutStopSec=10s\n' >/etc/systemd/system.conf.d/lab.conf
# Of all devices at each boot only those that something here waits for.
mkdir -p /etc/systemd/system/systemd-udev-trigger.service.d
cat >/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf <<'END'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=net,block \
    --subsystem-match=net --subsystem-match=block --subsystem-match=virtio-ports \
    --subsystem-match=input
END
# Of systemd's generators the one that reads /etc/fstab.
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
    case $generator in
        *-fstab-generator) ;;
        *) ln -s /dev/null "/etc/systemd/system-generators/${generator##*/}" ;;
    esac
done
systemctl -q mask \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    e2scrub_all.timer e2scrub_reap.service systemd-tmpfiles-clean.timer \
    getty@.service serial-getty@.service console-getty.service getty.target \
    systemd-networkd-wait-online.service systemd-pstore.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-random-seed.service \
    systemd-modules-load.service kmod-static-nodes.service modprobe@.service \
    systemd-journal-catalog-update.service systemd-journal-flush.service \
    systemd-ask-password-wall.path systemd-ask-password-console.path \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount 2>/dev/null

# --- small, and nothing left to compile at run time ---
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /var/log/*.log
python3 -m compileall -q -j 2 /usr/lib/python3 /usr/lib/python3.11 /opt/salt >/dev/null || true
